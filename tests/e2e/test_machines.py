"""Closed streams, narrow locales, and two runs with one output."""

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.e2e.step_by_step import ROOT, StepByStep, untraced


def shell(line: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command from a shell: {} in the line is `edgeclip` and its arguments."""
    command = shlex.join([sys.executable, "-m", "edgeclip", *map(str, arguments)])
    return subprocess.run(
        ["/bin/sh", "-c", line.format(command)],
        capture_output=True,
        cwd=ROOT,
        env=untraced() | environment,
        check=False,
    )


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell closes streams")
@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams(bundle: Path, picture: Path, tmp_path: Path, closed: str):
    (tmp_path / "broken.png").write_bytes(b"no picture")  # which a warning tells of
    out = tmp_path / "out.jsonl"
    done = shell(f"{{}} {closed}", "embed", bundle, tmp_path, "--out", out, "--workers", 0)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [Path(row["path"]).name for row in rows] == ["a.png"], done
    mistake = shell(f"{{}} {closed}", "embed", bundle, "--out", tmp_path / "other.npy")
    assert mistake.returncode == 2
    assert b"Traceback" not in done.stderr + mistake.stderr


def test_json_is_utf_8_in_an_ascii_locale(bundle: Path, tmp_path: Path, picture: Path):
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    folder = tmp_path / "modèle"
    folder.symlink_to(bundle)
    inspected = shell("{}", "inspect", folder, "--json", **ascii_only)
    assert json.loads(inspected.stdout.decode("utf-8"))["name"] == str(folder), inspected.stderr
    classified = shell("{}", "classify", bundle, picture, "--labels", "café,été", "--json", **ascii_only)
    assert set(json.loads(classified.stdout)["labels"]) == {"café", "été"}, classified.stderr
    text = shell("{}", "classify", bundle, picture, "--labels", "café,été", **ascii_only)
    assert text.returncode == 0, text.stderr
    assert b"xe9" in text.stdout.replace(b"\xc3\xa9", b"xe9")


def test_names_in_an_ascii_locale_are_the_same_files(bundle: Path, tmp_path: Path, picture: Path):
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    picture.rename(tmp_path / "été.png")
    arguments = ("embed", bundle, tmp_path, "--out", tmp_path / "out.jsonl", "--workers", 0)
    for environment, new in ((ascii_only, 1), ({}, 0), (ascii_only, 0)):
        done = shell("{}", *arguments, **environment)
        assert f"1 rows, {new} of them new".encode() in done.stdout, done.stderr
    assert json.loads((tmp_path / "out.jsonl").read_text("utf-8"))["path"] == "été.png"
    classified = shell("{}", "classify", bundle, tmp_path / "été.png", "--labels", "a", "--json", **ascii_only)
    assert Path(json.loads(classified.stdout)["image"]).name == "été.png"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux's")
@pytest.mark.parametrize("arguments", [("--help",), ("inspect", "builtin:tabletop"), ("--version",)])
def test_output_that_takes_nothing(arguments: tuple[str, ...]):
    done = shell("{} > /dev/full", *arguments, PYTHONUNBUFFERED="")
    assert done.returncode == 2
    assert done.stderr.startswith(b"edgeclip: ")
    assert done.stderr.count(b"\n") == 1


def test_two_exports_to_one_folder(edgeclip, mini_checkpoint: Path, tmp_path: Path):
    arguments = ("export", mini_checkpoint, "--out", tmp_path / "b", "--samples", 6, "--threads", 1)
    with StepByStep("edgeclip.export.samples:load_samples", *arguments, stdout=subprocess.DEVNULL) as first:
        for _ in first:
            second = edgeclip(*arguments)
            first.send(signal.SIGKILL)
            break
    assert second.returncode == 2
    assert "to which another run exports" in second.stderr
    third = edgeclip(*arguments)
    assert third.returncode == 0, third.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
