from __future__ import annotations

from pathlib import Path

import pytest

import edgeclip
from edgeclip.runtime import ClipRuntime


@pytest.fixture
def clip(bundles: dict[str, Path]) -> ClipRuntime:
    return edgeclip.load(bundles["fp32"], threads=1)
