"""`edgeclip index`, `search` and the rest as they are typed; killed, run twice at once, and given odd things."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from PIL import Image

from edgeclip.data.tabletop import describe, render, sample_scene
from tests.e2e.step_by_step import StepByStep


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 scenes, two copies, a broken file, a name that is no UTF-8, and what is no picture."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(70):
        path = folder / ("odd" if number % 2 else "even") / f"{number:02d}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(render(sample_scene("e2e", 0, number))).save(path)
    shutil.copy(folder / "odd" / "01.jpg", folder / "copy of 1.jpg")
    shutil.copy(folder / "odd" / "01.jpg", folder / os.fsdecode(b"\xe9.jpg"))
    (folder / "broken.jpg").write_bytes(b"?")
    (folder / "notes.txt").write_text("?")
    return folder


@pytest.fixture(scope="module")
def db(
    edgeclip: Callable[..., CompletedProcess[str]], pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("index") / "photos.db"
    done = edgeclip("index", pictures, "--db", path, "--bundle", "builtin:tabletop")
    assert done.returncode == 3, done.stderr  # one is broken
    assert done.stdout == f"{path}  73 pictures: 70 new, 2 copies, 0 moved, 0 unchanged\n"
    assert "not read by this version: 1 .txt" in done.stderr
    assert "broken pictures left out: 1, 0 of them as before" in done.stderr
    return path


def content(db: Path) -> list[tuple[object, ...]]:
    """Everything in an index but the order in which it came."""
    with closing(sqlite3.connect(db)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return sorted(
            connection.execute(
                "SELECT path, size, mtime_ns, taken, hash, width, height, embedding FROM photos, vectors "
                "WHERE vectors.id = vector"
            )
        )


def test_search_prints_paths_scores_and_json(edgeclip_here, pictures: Path, db: Path):
    caption = describe(sample_scene("e2e", 0, 1))[0]
    done = edgeclip_here("search", caption, "--db", db, "-k", 2)
    assert done.returncode == 0, done.stderr
    score, path, more = done.stdout.splitlines()[0].split("  ")
    assert (path, more) == (f"{pictures / 'copy of 1.jpg'}", "(2 more like it)")
    lines = edgeclip_here("search", caption, "--db", db, "-k", 2, "--json").stdout.splitlines()
    first = json.loads(lines[0])
    assert (first["path"], f"{first['score']:.3f}", len(lines)) == (path, score, 2)
    assert first["alike"] == [f"file:{pictures}/%E9.jpg", str(pictures / "odd" / "01.jpg")]
    command = [sys.executable, "-m", "edgeclip", "search", caption, "--db", db, "-k", "3", "--each", "-0"]
    each = subprocess.run(command, capture_output=True, check=True).stdout.split(b"\0")
    assert each == [
        os.fsencode(pictures / name) for name in ("copy of 1.jpg", os.fsdecode(b"\xe9.jpg"), "odd/01.jpg")
    ] + [b""]


def test_words_pictures_and_filters_together(edgeclip_here, pictures: Path, db: Path):
    picture = pictures / "even" / "02.jpg"
    command = ("search", picture, "+", "a red mug", "--not", "snow", "--in", pictures / "even", "--db", db, "--json")
    rows = [json.loads(line) for line in edgeclip_here(*command).stdout.splitlines()]
    assert len(rows) == 10
    assert all(Path(row["path"]).parent.name == "even" and row["path"] != str(picture) for row in rows)
    assert edgeclip_here("search", "mug", "--ext", "png", "--db", db).returncode == 1
    assert edgeclip_here("search", "mug", "--before", "1999", "--db", db).returncode == 1


def test_no_match_is_exit_code_1_and_all_shows_the_nearest(edgeclip_here, db: Path):
    captions = [describe(sample_scene("e2e", 0, number))[1] for number in range(100, 120)]
    done = {caption: edgeclip_here("search", caption, "--db", db) for caption in captions}
    absent = [caption for caption, result in done.items() if result.returncode == 1]
    assert len(absent) >= 5
    assert done[absent[0]].stdout == ""
    assert "no good match; --all shows the nearest" in done[absent[0]].stderr
    assert len(edgeclip_here("search", absent[0], "--db", db, "--all").stdout.splitlines()) == 10


def test_copies_and_a_contact_sheet(edgeclip_here, db: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    options = ("--copy-to", tmp_path / "out", "--html", tmp_path / "sheet.html", "--db", db, "--all", "-k", 3)
    for _ in range(2):
        done = edgeclip_here("search", "<b>a red mug</b>", *options)
        assert done.returncode == 0, done.stderr
    names = [Path(line.split("  ")[1]) for line in done.stdout.splitlines()]
    expected = sorted(name for path in names for name in (path.name, f"{path.stem}-2{path.suffix}"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == expected
    page = (tmp_path / "sheet.html").read_text("utf-8")
    assert page.count("data:image/jpeg;base64,") == 3
    assert "<b>" not in page
    assert "http" not in page


def test_the_other_commands(edgeclip_here, pictures: Path, db: Path):
    status = json.loads(edgeclip_here("status", "--db", db, "--json").stdout)
    assert (status["photos"], status["contents"], status["roots"]) == (72, 70, [str(pictures)])
    assert list(status["broken"]) == [str(pictures / "broken.jpg")]
    assert edgeclip_here("status", "--db", db).stdout.splitlines()[0].startswith(f"{db}  72 pictures, 70 that differ")
    (group,) = edgeclip_here("dupes", "--db", db, "--json").stdout.splitlines()
    assert len(json.loads(group)["paths"]) == 3
    assert json.loads(edgeclip_here("prune", "--db", db, "--json").stdout) == {"removed": [], "kept": {}}
    again = json.loads(edgeclip_here("index", pictures, "--db", db, "--json").stdout)
    assert (again["found"], again["unchanged"], again["known_broken"], again["encoded"]) == (73, 72, 1, 0)


def test_searching_opens_the_text_tower_only(db: Path):
    code = (
        "import sys; from pathlib import Path; from edgeclip.search import Index\n"
        "with Index.open(Path(sys.argv[1])) as index:\n"
        "    index.search('a red mug'); print(index.clip.open_graphs, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(db)], capture_output=True, text=True, check=True)
    assert done.stdout == "['text'] False\n"


@pytest.mark.parametrize(
    "after",
    [
        "edgeclip.search.database:create",
        "edgeclip.search.adding:Adding._store_photo",  # within a transaction
        "edgeclip.search.adding:Adding._store",
        "edgeclip.search.confidence:_encoded",
        "edgeclip.search.index:Index._settle",
    ],
)
def test_killed_at_any_moment_the_next_run_goes_on(edgeclip, pictures: Path, db: Path, tmp_path: Path, after: str):
    """What was committed stays, and in the end all is as if it had never been interrupted."""
    path = tmp_path / "photos.db"
    command = ("index", pictures, "--db", path, "--bundle", "builtin:tabletop")
    stored = 0
    for calls in (1, 40):
        with StepByStep(after, *command) as run:
            for number, _ in enumerate(run, 1):
                if number == calls:
                    run.send(signal.SIGKILL)
                    break
        if path.exists():
            now = len(content(path))
            assert now >= stored
            stored = now
    assert edgeclip(*command).returncode == 3
    assert content(path) == content(db)
    caption = describe(sample_scene("e2e", 0, 5))[0]
    assert edgeclip("search", caption, "--db", path).stdout == edgeclip("search", caption, "--db", db).stdout


@pytest.mark.parametrize(
    "after",
    [
        "edgeclip.search.adding:Adding._store",
        "edgeclip.search.reindexing:remove_staging",
        "edgeclip.search.database:create",
    ],
)
def test_reindexing_killed_leaves_the_one_or_the_other(edgeclip, pictures: Path, db: Path, tmp_path: Path, after: str):
    path = tmp_path / "photos.db"
    with closing(sqlite3.connect(db)) as whole, closing(sqlite3.connect(path)) as copy:
        whole.backup(copy)
    with StepByStep(after, "reindex", "--db", path) as run:
        for _ in run:
            run.send(signal.SIGKILL)
            break
    assert content(path) == content(db)
    assert edgeclip("search", "a red mug", "--db", path, "--all").returncode == 0
    assert edgeclip("reindex", "--db", path).returncode == 0
    assert content(path) == content(db)
    assert list(tmp_path.glob("*reindex*")) == []


def test_one_writes_while_others_read(edgeclip, pictures: Path, tmp_path: Path):
    path = tmp_path / "photos.db"
    command = ("index", pictures, "--db", path, "--bundle", "builtin:tabletop")
    with StepByStep("edgeclip.search.adding:Adding._store", *command) as run:
        next(iter(run))
        second = edgeclip(*command)
        assert second.returncode == 2
        assert second.stderr.strip() == (
            f"edgeclip: {path}, to which another run writes; expected one at a time; wait for it, or give --db another"
        )
        assert edgeclip("search", "a red mug", "--db", path).returncode == 0
        run.send(signal.SIGKILL)
