"""Opened graphs are kept on disk; whatever becomes of what is kept, embeddings are those of the bundle."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

import edgeclip
from edgeclip.errors import BundleError
from edgeclip.runtime import graph_cache
from edgeclip.runtime.graph_cache import SEAL
from edgeclip.runtime.session import KEPT_GRAPH, KEPT_WEIGHTS
from tests.e2e.step_by_step import untraced

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def small_graphs_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_cache, "MIN_BYTES", 0)


@pytest.fixture
def bundle(bundles: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundles["int8"], tmp_path / "bundle"))


def embedded(bundle: Path, cache: Path | None) -> np.ndarray:
    clip = edgeclip.load(bundle, threads=1, cache=cache)
    return np.concatenate([clip.encode_image(PICTURE), clip.encode_text("a red ball")])


def kept(cache: Path) -> list[Path]:
    return sorted((cache / "graphs").iterdir())


def test_the_second_opening_does_not_read_the_bundle_s_graphs(bundle: Path, tmp_path: Path):
    cache = tmp_path / "cache"
    expected = embedded(bundle, None)
    np.testing.assert_array_equal(embedded(bundle, cache), expected)
    assert [sorted(path.name for path in place.iterdir()) for place in kept(cache)] == [
        [KEPT_GRAPH, SEAL, KEPT_WEIGHTS]
    ] * 2
    states = {
        file: file.stat().st_mtime_ns for place in kept(cache) for file in (place / KEPT_GRAPH, place / KEPT_WEIGHTS)
    }
    for graph in bundle.rglob("*.onnx"):
        graph.write_bytes(bytes(graph.stat().st_size))  # of the same size, and no graph
    (cache / "prompts.sqlite").unlink(missing_ok=True)
    for file in cache.glob("prompts*"):
        file.unlink()
    np.testing.assert_array_equal(embedded(bundle, cache), expected)
    assert {file: file.stat().st_mtime_ns for file in states} == states


def _flip(path: Path) -> None:
    state, data = path.stat(), bytearray(path.read_bytes())
    for at in range(0, len(data), 997):
        data[at] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # as who hides it would


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _other(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"other")


def _link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


DAMAGE: dict[str, Callable[[Path], None]] = {
    "flipped": _flip,
    "cut": _cut,
    "gone": Path.unlink,
    "another": _other,
    "link": _link,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", [KEPT_GRAPH, KEPT_WEIGHTS, SEAL])
def test_what_was_tampered_with_is_made_anew(bundle: Path, tmp_path: Path, damage: str, name: str):
    cache = tmp_path / "cache"
    expected = embedded(bundle, cache)
    for place in kept(cache):
        DAMAGE[damage](place / name)
    shutil.rmtree(cache / "prompts", ignore_errors=True)
    for file in cache.glob("prompts*"):
        file.unlink()
    np.testing.assert_array_equal(embedded(bundle, cache), expected)
    assert all(graph_cache._is_sealed(place) for place in kept(cache))
    assert len(kept(cache)) == 2


def test_a_graph_that_was_changed_is_not_kept_for_the_one_that_it_should_be(bundle: Path, tmp_path: Path):
    """Its place in the cache is that of the manifest's hash, which an intact copy of the bundle has too."""
    intact = Path(shutil.copytree(bundle, tmp_path / "intact"))
    for graph in bundle.rglob("vision*.onnx"):
        data = bytearray(graph.read_bytes())
        data[len(data) // 2] ^= 1
        graph.write_bytes(data)
    with contextlib.suppress(BundleError):
        embedded(bundle, tmp_path / "cache")
    left = (tmp_path / "cache" / "graphs").glob(".*")
    assert list(left) == []
    np.testing.assert_array_equal(embedded(intact, tmp_path / "cache"), embedded(intact, None))


@pytest.mark.parametrize("what", ["cpu_flags", "version", "format"])
def test_another_machine_or_runtime_has_a_place_of_its_own(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
):
    embedded(bundle, tmp_path / "cache")
    if what == "cpu_flags":
        monkeypatch.setattr(graph_cache, "cpu_flags", lambda: {"avx1024"})
    elif what == "version":
        monkeypatch.setattr(graph_cache.onnxruntime, "__version__", "9.9")
    else:
        monkeypatch.setattr(graph_cache, "FORMAT", 0)
    embedded(bundle, tmp_path / "cache")
    assert len(kept(tmp_path / "cache")) > 2


def test_the_least_recently_used_goes(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    embedded(bundle, tmp_path / "cache")
    first = {place.name for place in kept(tmp_path / "cache")}
    for place in kept(tmp_path / "cache"):
        os.utime(place / SEAL, (0, 0))
    monkeypatch.setattr(graph_cache, "cpu_flags", lambda: {"avx1024"})
    size = sum(file.stat().st_size for place in kept(tmp_path / "cache") for file in place.iterdir())
    monkeypatch.setattr(graph_cache, "MAX_BYTES", size + 1)
    embedded(bundle, tmp_path / "cache")
    left = {place.name for place in kept(tmp_path / "cache")}
    assert len(left) == 2
    assert not left & first


def test_a_full_disk_only_means_slower(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(graph_cache.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    np.testing.assert_array_equal(embedded(bundle, tmp_path / "cache"), embedded(bundle, None))
    assert kept(tmp_path / "cache") == []


LIMITED = """
import resource, signal, sys
import numpy as np
import edgeclip
from edgeclip.runtime import graph_cache
graph_cache.MIN_BYTES = 0
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))  # no file may be larger
clip = edgeclip.load(sys.argv[1], threads=1, cache=sys.argv[2])
print(clip.encode_image(np.zeros((32, 32, 3), np.uint8)).shape, clip.encode_text("a").shape)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
def test_a_disk_that_fills_while_it_is_written_only_means_slower(bundle: Path, tmp_path: Path):
    command = [sys.executable, "-c", LIMITED, bundle, tmp_path / "cache"]
    done = subprocess.run(command, capture_output=True, text=True, env=untraced(), check=False)
    assert done.stdout == "(1, 16) (1, 16)\n", done.stderr
    assert done.stderr == ""
    assert list((tmp_path / "cache" / "graphs").iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_only_means_slower(bundle: Path, tmp_path: Path):
    (tmp_path / "cache").mkdir(mode=0o500)
    np.testing.assert_array_equal(embedded(bundle, tmp_path / "cache"), embedded(bundle, None))


def test_another_user_s_graph_is_not_run(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    embedded(bundle, tmp_path / "cache")
    assert all(map(graph_cache._is_sealed, kept(tmp_path / "cache")))
    monkeypatch.setattr("os.geteuid", lambda: 12345, raising=False)
    assert not any(map(graph_cache._is_sealed, kept(tmp_path / "cache")))


def test_a_seal_is_decoded_strictly(bundle: Path, tmp_path: Path):
    embedded(bundle, tmp_path / "cache")
    for content in (b"", b"[]", b"{}", b'{"files": {"a": [1]}}', msgspec.json.encode({"files": {}}), b"\xff"):
        for place in kept(tmp_path / "cache"):
            (place / SEAL).write_bytes(content)
            assert not graph_cache._is_sealed(place)


def test_none_keeps_nothing(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    embedded(bundle, None)
    assert not (tmp_path / "home").exists()
    edgeclip.load(bundle, threads=1).encode_image(PICTURE)
    assert (tmp_path / "home" / "edgeclip" / "graphs").is_dir()


START = """
import sys, threading
import numpy as np, edgeclip
from edgeclip.runtime import graph_cache
graph_cache.MIN_BYTES = 0
for _ in range(3):
    clip = edgeclip.load(sys.argv[1], threads=1, cache=sys.argv[2])
    print(clip.encode_image(np.zeros((32, 32, 3), np.uint8)).tobytes().hex())
"""


def test_processes_that_make_it_at_once(bundle: Path, tmp_path: Path):
    command = [sys.executable, "-c", START, str(bundle), str(tmp_path / "cache")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    printed = {line for process in started for line in process.communicate()[0].splitlines()}
    assert all(process.returncode == 0 for process in started)
    assert len(printed) == 1
    assert len(kept(tmp_path / "cache")) == 1
