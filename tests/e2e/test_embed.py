"""`edgeclip embed` and `classify` on files, folders and lists; killed, resumed, and given what they can't use."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgeclip as package
from edgeclip.bulk.path_names import path_from_text
from tests.e2e.step_by_step import StepByStep


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 pictures, in two folders."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for index in range(300):
        path = folder / ("first" if index % 2 else "second") / f"{index:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (33, 40, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Two pictures, one with a name that is no UTF-8, an empty file, and a text that calls itself a picture."""
    folder = tmp_path / "odd"
    (folder / "sub").mkdir(parents=True)
    Image.new("RGB", (40, 30), "red").save(folder / "a.png")
    (folder / "sub" / os.fsdecode(b'\xe9t\xe9, "x".png')).write_bytes((folder / "a.png").read_bytes())
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.gif").write_text("text")
    (folder / "notes.txt").write_text("no picture")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_embeddings_are_those_of_the_runtime(edgeclip, bundle: Path, odd: Path, tmp_path: Path):
    done = edgeclip("embed", bundle, odd, "--out", tmp_path / "out.npy", "--dtype", "float16", "--workers", 2)
    assert done.returncode == 3, done.stderr  # images were left out
    assert done.stdout == f"{tmp_path / 'out.npy'}  2 rows, 2 of them new\n"
    *broken, skipped, count, rate = done.stderr.splitlines()
    assert [line.split(" cannot")[0] for line in broken] == [f"left out: {odd / n}" for n in ("empty.jpg", "text.gif")]
    assert skipped == "not read by this version: 1 .txt"
    assert count == "broken images left out: 2"
    assert rate.endswith("images/s")
    rows = [json.loads(line) for line in (tmp_path / "out.npy.rows.jsonl").read_text("utf-8").splitlines()]
    root = Path(json.loads((tmp_path / "out.npy.edgeclip.json").read_text())["root"])
    paths = [root / path_from_text(row["path"]) for row in rows]
    assert [os.fsencode(path.relative_to(odd)) for path in paths] == [b"a.png", b'sub/\xe9t\xe9, "x".png']
    assert [row["size"] for row in rows] == [(odd / "a.png").stat().st_size] * 2
    expected = package.load(bundle, threads=1).encode_image(paths, dtype="float16")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)

    again = edgeclip("embed", bundle, odd, "--out", tmp_path / "out.npy", "--dtype", "float16")
    assert (again.returncode, again.stdout) == (3, f"{tmp_path / 'out.npy'}  2 rows, 0 of them new\n")
    other = edgeclip("embed", bundle, odd, "--out", tmp_path / "out.npy", "--dtype", "int8")
    assert other.returncode == 2
    assert "whose dtype is float16" in other.stderr


def test_run_again_it_is_as_if_all_were_embedded_anew(
    edgeclip_here, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Files changed, removed and added, the folder called otherwise and moved: the rows are those of what is there."""
    folder, out = tmp_path / "pictures", tmp_path / "out.npy"
    (folder / "sub").mkdir(parents=True)
    for name, colour in (
        ("a.png", "red"),
        ("b.jpg", "blue"),
        ("sub/c.mpo", "green"),
        ("x.psd", None),
        ("y.MOV", None),
    ):
        if colour:
            Image.new("RGB", (40, 30), colour).save(folder / name, "JPEG" if name.endswith("mpo") else None)
        else:
            (folder / name).write_bytes(b"?")
    first = edgeclip_here("embed", bundle, folder, "--out", out)
    assert first.stdout.endswith("  3 rows, 3 of them new\n")
    assert first.returncode == 0
    assert "not read by this version: 1 .psd, 1 .mov" in first.stderr.splitlines()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(folder)
    for called in ("pictures/", "link", "./pictures/../pictures", f"{folder}/"):
        assert edgeclip_here("embed", bundle, called, "--out", out).stdout.endswith("  3 rows, 0 of them new\n")
    twice = edgeclip_here("embed", bundle, "link", "pictures", "--out", out)
    assert twice.stdout.endswith("  3 rows, 0 of them new\n")
    assert "named more than once, and embedded once: 3" in twice.stderr

    folder = folder.rename(tmp_path / "moved")
    Image.new("RGB", (40, 30), "yellow").save(folder / "a.png")
    Image.new("RGB", (40, 30), "white").save(folder / "d.png")
    (folder / "b.jpg").unlink()
    again = edgeclip_here("embed", bundle, "moved", "--out", out)
    assert again.stdout == f"{out}  4 rows, 2 of them new, 1 of files that have changed\n"
    assert "rows kept, which --prune drops, of files that are no longer there: 1 (first: b.jpg)" in again.stderr
    pruned = edgeclip_here("embed", bundle, "moved", "--out", out, "--prune")
    assert (pruned.returncode, pruned.stdout) == (0, f"{out}  3 rows, 0 of them new\n")
    rows = [json.loads(line)["path"] for line in (tmp_path / "out.npy.rows.jsonl").read_text().splitlines()]
    assert rows == ["sub/c.mpo", "a.png", "d.png"]
    expected = package.load(bundle, threads=1).encode_image([folder / name for name in rows])
    np.testing.assert_array_equal(np.load(out), expected)


def test_texts_from_a_file_and_from_standard_input(edgeclip, bundle: Path, tmp_path: Path):
    texts = ["a red ball", "", "two blue boxes", "a red ball"]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n")
    for name, source in (("file", tmp_path / "texts.txt"), ("stdin", "-")):
        out = tmp_path / f"{name}.jsonl"
        done = edgeclip("embed", bundle, "--texts", source, "--out", out, stdin="\n".join(texts))
        assert done.returncode == 0, done.stderr
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        assert [row["text"] for row in rows] == texts
        embeds = np.array([row["embedding"] for row in rows], np.float32)
        np.testing.assert_array_equal(embeds, package.load(bundle, threads=1).encode_text(texts))


@pytest.mark.parametrize(
    ("suffix", "options", "after"),
    [
        ("npy", [], "edgeclip.bulk.npy_file:NpyFile.append"),  # before the row's name is written
        ("jsonl", ["--batch-size", "4"], "edgeclip.bulk.row_log:RowLog.append"),
        ("csv", [], "edgeclip.bulk.embedding_file:EmbeddingFile.append"),
    ],
)
def test_killed_at_any_moment_it_goes_on_to_the_same_file(
    edgeclip, stop, bundle: Path, pictures: Path, tmp_path: Path, suffix: str, options: list[str], after: str
):
    command = ["embed", bundle, pictures, *options, "--workers", 2, "--out"]
    (tmp_path / "whole").mkdir()
    assert edgeclip(*command, tmp_path / "whole" / f"out.{suffix}").returncode == 0
    out = tmp_path / "cut" / f"out.{suffix}"
    size = (tmp_path / "whole" / out.name).stat().st_size
    for part in (0.0, 0.3, 0.7):

        def is_there(part: float = part) -> bool:
            return out.stat().st_size >= part * size

        code, _ = stop(*command, out, after=after, when=is_there, sign=signal.SIGKILL)
        assert code == -signal.SIGKILL
    done = edgeclip(*command, out)
    assert done.returncode == 0, done.stderr
    assert content(out.parent) == content(tmp_path / "whole")


def test_a_list_that_never_ends_is_classified_as_it_comes(bundle: Path, pictures: Path):
    command = [sys.executable, "-m", "edgeclip.cli.main", "classify", bundle, "-", "--labels", "ball,box", "--json"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for path in sorted(pictures.rglob("*.png"))[:3]:
            tell(process, path)
            assert json.loads(process.stdout.readline())["image"] == str(path)
        process.stdin.close()
    assert process.returncode == 0


def test_a_list_that_never_ends_is_embedded_as_it_comes(bundle: Path, pictures: Path, tmp_path: Path):
    append, out = "edgeclip.bulk.embedding_file:EmbeddingFile.append", tmp_path / "o.jsonl"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True}
    with StepByStep(append, "embed", bundle, "-", "--out", out, **pipes) as command:
        appended = iter(command)
        for number, path in enumerate(sorted(pictures.rglob("*.png"))[:3], 1):
            tell(command.process, path)
            next(appended)
            assert out.read_bytes().count(b"\n") == number
        command.process.stdin.close()
    assert command.process.returncode == 0


def tell(process: subprocess.Popen[str], path: Path) -> None:
    """Add a path to the list, which is open still."""
    print(path, file=process.stdin, flush=True)


def test_classify_takes_folders_lists_and_label_files(edgeclip, bundle: Path, odd: Path, tmp_path: Path):
    (tmp_path / "labels.txt").write_text("red ball\n\nblue box\n")
    listed = f"{odd / 'a.png'}\n{odd / 'missing.png'}\n"
    done = edgeclip("classify", bundle, odd, "-", "--labels-file", tmp_path / "labels.txt", "--json", stdin=listed)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["image"].split("/")[-1] for line in lines] == ["a.png", "%E9t%E9%2C%20%22x%22.png", "a.png"]
    assert [sorted(line["labels"]) for line in lines] == [["blue box", "red ball"]] * 3
    assert done.stderr.splitlines()[-1] == "broken images left out: 3"
    plain = edgeclip("classify", bundle, odd, "--labels", "red ball,blue box")
    assert plain.returncode == 0, plain.stderr
    assert [line.split("/")[-1].split("  ")[0] for line in plain.stdout.splitlines()] == [
        "a.png",
        '\ufffdt\ufffd, "x".png',
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embed", "{bundle}", "--out", "{tmp}/x.npy"], "both PATHS and --texts, or neither"),
        (["embed", "{bundle}", "{odd}", "--texts", "-", "--out", "{tmp}/x.npy"], "both PATHS and --texts, or neither"),
        (["embed", "{bundle}", "{tmp}/nothing", "--out", "{tmp}/x.npy"], "nothing at"),
        (["embed", "{bundle}", "{tmp}/void", "--out", "{tmp}/x.npy"], "no images"),
        (["embed", "{bundle}", "-", "--out", "{tmp}/x.npy"], "no images"),
        (["embed", "{bundle}", "--texts", "-", "--out", "{tmp}/x.npy"], "no texts"),
        (["embed", "{bundle}", "--texts", "{tmp}/nothing", "--out", "{tmp}/x.npy"], "No such file"),
        (["embed", "{bundle}", "--texts", "/dev/zero", "--out", "{tmp}/x.npy"], "--texts /dev/zero, a device"),
        (["embed", "{bundle}", "--texts", "{odd}/a.png", "--out", "{tmp}/x.npy"], "--texts, line 1, which is no UTF-8"),
        (["embed", "{bundle}", "{tmp}/films", "--out", "{tmp}/x.npy"], "no images among 1 .mp4"),
        (["embed", "{bundle}", "{odd}", "--out", "{tmp}/x.txt"], ".npy or .jsonl or .csv"),
        (["embed", "{bundle}", "{odd}", "--out", "{odd}/notes.txt/x.npy"], "cannot make the folder"),
        (["embed", "{bundle}", "{odd}", "--out", "{tmp}/x.npy", "--on-bad-image", "fail"], "empty.jpg cannot be"),
        (["embed", "{bundle}", "{odd}", "--out", "{tmp}/x.npy", "--workers", "-1"], "--workers"),
        (["embed", "{tmp}/void", "{odd}", "--out", "{tmp}/x.npy"], "edgeclip export"),
        (["classify", "{bundle}", "{odd}"], "0 labels"),
        (["classify", "{bundle}", "--labels", "a"], "no paths"),
        (["classify", "{bundle}", "{odd}", "--labels", "a", "--labels-file", "{odd}/notes.txt"], "one of them"),
        (["classify", "{bundle}", "{odd}", "--labels-file", "/dev/zero"], "a larger file"),
        (["classify", "{bundle}", "{odd}/empty.jpg", "--labels", "a"], "none of which can be read"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes(mistake, bundle: Path, odd: Path, tmp_path: Path, arguments: list[str], message: str):
    (tmp_path / "void").mkdir()
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "a.mp4").write_bytes(b"?")
    assert message in mistake(*(argument.format(bundle=bundle, odd=odd, tmp=tmp_path) for argument in arguments))
    if "--on-bad-image" not in arguments:
        assert not (tmp_path / "x.npy").exists()
