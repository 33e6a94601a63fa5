"""Nothing reports home: the switches of dependencies that otherwise would, set before any of them is imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SWITCHES = {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0"}
"""ONNX Runtime (from 1.29 on it keeps a device id and sends events), the hub's client with its transfer library, and
`datasets`, which counts each use of its reader of parquet files, local ones too, at a server."""


def switch_off() -> None:
    """Set each switch that is not set, for this process and those that it starts."""
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)


@contextmanager
def without_openvinos() -> Iterator[None]:
    """Within, OpenVINO is imported without its telemetry, which has no switch.

    Its import keeps an id and a count in the user's home and sends an event, unless the package that does so is absent.
    """
    absent = {"openvino_telemetry": None} if "openvino_telemetry" not in sys.modules else {}
    sys.modules.update(absent)  # type: ignore[arg-type]  # None is how Python is told that there is no such module
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
