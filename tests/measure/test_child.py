"""Processes of their own: time-outs and caps end them with a reason, bundles are opened, timed and embedded with."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgeclip.measure.bundle_process import BundleProcess
from edgeclip.measure.child import Child, ChildError
from edgeclip.runtime import load

pytestmark = pytest.mark.slow


@pytest.fixture
def pairs(tmp_path: Path) -> tuple[Path, Path]:
    np.save(tmp_path / "crops.npy", np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8))
    (tmp_path / "texts.json").write_text(json.dumps(["a red ball", "two blue boxes"]))
    return tmp_path / "crops.npy", tmp_path / "texts.json"


def test_a_tower_is_opened_timed_and_embedded_with(bundles: dict[str, Path], pairs: tuple[Path, Path], tmp_path: Path):
    with BundleProcess(bundles["int8"], *pairs, threads=1, towers=["text"]) as process:
        opened = process.open()
        assert opened["cold_ms"] > opened["open_ms"] > 0
        assert opened["rss_mb"] > 20
        times = process.time(4)
        assert {tower: len(ms) for tower, ms in times.items()} == {"text": 4}
        assert process.memory()["rss_mb"] >= opened["rss_mb"]
        assert process.embed(tmp_path / "texts.npy") == {"rows": 2}
    mine = load(bundles["int8"], threads=1, cache=None).encode_text(["a red ball", "two blue boxes"])
    np.testing.assert_allclose(np.load(tmp_path / "texts.npy"), mine, atol=1e-6)


def test_a_process_that_takes_too_long_is_ended(bundles: dict[str, Path], pairs: tuple[Path, Path]):
    with (
        BundleProcess(bundles["int8"], *pairs, threads=1, timeout_s=0.01) as process,
        pytest.raises(ChildError, match=r"took more than 0\.01 s"),
    ):
        process.open()


@pytest.mark.skipif(os.name != "posix", reason="elsewhere a process keeps the number of a parent that is gone")
def test_a_process_ends_with_a_parent_that_is_killed(tmp_path: Path):
    (tmp_path / "busy.py").write_text(
        "import os, time\nfrom edgeclip.measure.child import first_line\n_, answers = first_line()\n"
        "print(os.getpid(), file=answers, flush=True)\ninput()\nwhile True: time.sleep(60)\n"
    )
    (tmp_path / "parent.py").write_text(
        "from edgeclip.measure.child import Child\n"
        "with Child('busy', {}, threads=1) as child:\n    print(child.ask(), flush=True)\n    child.ask()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, tmp_path / "parent.py"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        child = int(parent.stdout.readline())
        parent.kill()
    while True:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if "\nState:\tZ" in Path(f"/proc/{child}/status").read_text():
            return
        time.sleep(0.1)


def test_a_process_that_needs_too_much_memory_is_ended(tmp_path: Path):
    (tmp_path / "greedy.py").write_text(
        "from edgeclip.measure.child import first_line\nfirst_line()\ninput()\nbytearray(500_000_000)\nprint('{}')\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
        with Child("greedy", {}, threads=1, cap_mb=300) as process, pytest.raises(ChildError, match="more than 300 MB"):
            process.ask()
