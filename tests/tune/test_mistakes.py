"""What is wrong in the arguments is one line, said before any model is loaded."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeclip.tune import arguments, device


@pytest.fixture(autouse=True)
def nothing_takes_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeclip.tune.run.load_checkpoint", lambda *args, **options: pytest.fail("it loads a model"))


def test_mistakes(mistake, captioned_folder: Path, tmp_path: Path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_bytes(b"a picture")
    out = ("--out", tmp_path / "new")
    teacher = "builtin:tabletop"
    assert "a token embedding of 0.2 MB" in mistake("compress", teacher, "--max-size-mb", 0.1, *out)
    assert "holds more than one: one.jpg" in mistake("compress", teacher, "--out", tmp_path / "photos")
    few = mistake("compress", teacher, "--data", captioned_folder, *out)
    assert "--max-drop 1 on 10 pairs" in few
    assert "at least 276 to choose on and as many to report on" in few
    assert "--pairs 276" in mistake("compress", teacher, "--pairs", 100, *out)
    assert "90s, 20m or 1h" in mistake("compress", teacher, "--time-budget", "soon", *out)
    assert "unknown data set" in mistake("compress", teacher, "--data", tmp_path / "nowhere.csv", *out)
    assert "an empty folder" in mistake("compress", teacher, "--data", _folder(tmp_path / "empty"), *out)
    (tmp_path / "new-trials").mkdir()
    (tmp_path / "new-trials" / "notes.txt").write_text("mine")
    assert "notes.txt; expected nothing there" in mistake("compress", teacher, *out)
    shutil.rmtree(tmp_path / "new-trials")
    (tmp_path / "captions.csv").write_text("image,caption\na.jpg,one picture\n")
    assert "of 1 pairs" in mistake("compress", teacher, "--data", tmp_path / "captions.csv", *out)
    assert not (tmp_path / "new").exists()


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_the_teacher_is_not_written_over(mistake, mini_checkpoint: Path):
    assert "which is in the teacher" in mistake("compress", mini_checkpoint, "--out", mini_checkpoint / "small")


def test_a_processor_without_vectors_is_refused(mistake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device, "cpu_flags", lambda: {"sse2"})
    line = mistake("compress", "builtin:tabletop", "--out", tmp_path / "new")
    assert "a processor without AVX2 or NEON" in line
    assert "--precision fp32" in line or "`precision` fp32" in line


def test_mistakes_are_found_before_pytorch_is_imported(tmp_path: Path):
    arguments = ["edgeclip", "compress", "builtin:tabletop", "--max-size-mb", "0.1", "--out", str(tmp_path / "new")]
    code = (
        f"import sys; from edgeclip.cli.main import main\nsys.argv = {arguments!r}\n"
        "try: main()\n"
        "except SystemExit as ended: print(ended.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"]


def test_pictures_without_captions_teach_no_student(mistake, tmp_path: Path):
    photos = _folder(tmp_path / "photos")
    for number in range(8):
        (photos / f"{number}.jpg").write_bytes(b"a picture" * number)
    arguments = ("compress", "builtin:tabletop", "--data", photos, "--out", tmp_path / "new")
    assert "pictures without captions; expected pairs" in mistake(*arguments, "--distill")
    assert "--max-drop 1 on 3 pictures without captions" in mistake(*arguments)


def test_a_full_disk_is_refused(tmp_path: Path):
    with pytest.raises(arguments.ConfigError, match=r"MB free in .*; expected .* MB for the candidates"):
        device.check_room(tmp_path / "new" / "deep", 1 << 60)
