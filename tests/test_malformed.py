"""Our own files, where somebody has written something else into them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeclip.bundle import read_bundle
from edgeclip.config import ClipConfig, load_toml
from edgeclip.distill.cache import read_index
from edgeclip.distill.metrics import _lines
from edgeclip.errors import EdgeclipError
from edgeclip.hf_json import read_json
from edgeclip.results import read_results
from edgeclip.runtime.graph_cache import SEAL, _is_sealed

DEEP = [b"[" * 200_000, b'{"a":' * 200_000]
BROKEN = [b"\xff\xfe", b"", b"3", b"[]"]
READERS: dict[str, Callable[[Path], object]] = {
    "results.json": read_results,
    "config.json": read_json,
    "edgeclip.json": lambda path: read_bundle(path.parent),
    "index.json": lambda path: read_index(path.parent),
    "recipe.toml": lambda path: load_toml(path, ClipConfig),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("start", [b"", b'{"unknown": ', b'{"environment": {"a": '], ids=["whole", "unknown", "any"])
@pytest.mark.parametrize("content", [*DEEP, *BROKEN], ids=lambda content: str(content[:4]))
def test_broken_and_endless_json_is_one_typed_line(tmp_path: Path, name: str, start: bytes, content: bytes):
    (tmp_path / name).write_bytes(start + content)
    with pytest.raises(EdgeclipError):
        READERS[name](tmp_path / name)


@pytest.mark.parametrize("content", [*DEEP, *BROKEN, b'{"unknown": ' + DEEP[0]], ids=lambda content: str(content[:14]))
def test_what_can_be_made_anew_is(tmp_path: Path, content: bytes):
    (tmp_path / SEAL).write_bytes(content)
    assert not _is_sealed(tmp_path)
    assert _lines(tmp_path / SEAL, 1) == []
