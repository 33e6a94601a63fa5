"""Kill `index` at named points and at random moments: what was committed stays, and the next run comes to the same as
one that nobody killed.
"""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from edgeclip.data.tabletop import describe, render, sample_scene
from edgeclip.runtime import ClipRuntime, load
from edgeclip.search import Index
from tests.e2e.step_by_step import StepByStep, untraced

POINTS = {  # a function, and the last of its calls after which a run is killed, if it comes to that
    "edgeclip.search.database:create": 1,
    "edgeclip.search.database:Database.insert": 1,
    "edgeclip.search.adding:hashed": 70,
    "edgeclip.search.adding:crop_and_size": 70,
    "edgeclip.search.adding:Adding._store_photo": 70,  # within a transaction
    "edgeclip.search.adding:Adding._store_broken": 1,
    "edgeclip.search.adding:Adding._store": 3,
    "edgeclip.search.confidence:_encoded": 1,
    "edgeclip.search.confidence:Confidence.calibrate": 1,
    "edgeclip.search.index:Index._settle": 1,
}
PICTURES = 80
ROWS = """
SELECT path, size, mtime_ns, taken, hash, width, height, embedding FROM photos, vectors WHERE vectors.id = vector
UNION ALL SELECT path, size, mtime_ns, reason, NULL, NULL, NULL, NULL FROM broken
"""


def run(number: int, seed: int) -> dict[str, object]:
    """Kill so many runs, half of them at a point, half at a moment, each from a beginning that the seed chooses."""
    rng = random.Random(seed)
    summary: dict[str, object] = {"kills": 0, "ended before": 0, "rows kept": 0, "wrong": []}
    with TemporaryDirectory() as temporary:
        worlds = [World(Path(temporary, name), is_second=name == "second") for name in ("first", "second")]
        while summary["kills"] < number:
            world = rng.choice(worlds)
            if rng.random() < 0.5:
                where: tuple[str, int] | float = rng.random() * world.seconds
            else:
                point, calls = rng.choice(list(POINTS.items()))
                where = point, rng.randint(1, calls)
            killed, kept, wrong = world.kill(where)
            summary["kills" if killed else "ended before"] += 1
            summary["rows kept"] += kept
            if wrong:
                summary["wrong"].append(f"{world.name} {where}: {wrong}")
    return summary


class World:
    """Pictures, what an earlier run made of them, and what a run comes to once some have changed, moved, gone and come.

    Attributes:
        seconds: that a run takes here, within which it is killed.
    """

    def __init__(self, folder: Path, *, is_second: bool) -> None:
        self.name = folder.name
        self._clip = load("builtin:tabletop", threads=1)
        self._pictures, self._db, self._earlier = folder / "pictures", folder / "db" / "photos.db", folder / "earlier"
        self._pictures.mkdir(parents=True)
        self._db.parent.mkdir()
        self._command = ["index", self._pictures, "--db", self._db, "--bundle", "builtin:tabletop", "--workers", "2"]
        (self._pictures / "broken.png").write_bytes(b"?")
        for n in range(PICTURES):
            self._draw(n)
        if is_second:
            self._index()
            for n in range(0, PICTURES, 3):
                self._draw(n, n + 1000)
            for n in range(1, PICTURES, 8):
                (self._pictures / f"{n}.png").rename(self._pictures / f"moved {n}.png")
            (self._pictures / "2.png").unlink()
            shutil.copy(self._pictures / "4.png", self._pictures / "copy.png")
        shutil.copytree(self._db.parent, self._earlier)
        begin = time.monotonic()
        self._index()
        self.seconds = time.monotonic() - begin
        self._after = sorted(rows(self._db)), list(answers(self._db, self._clip))

    def kill(self, where: tuple[str, int] | float) -> tuple[bool, int, str]:
        """Kill a run after some calls of a function, or after some seconds.

        Returns:
            Whether it came to that, how many rows were there then, and what was wrong then or after the next run.
        """
        shutil.rmtree(self._db.parent)
        shutil.copytree(self._earlier, self._db.parent)
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        if isinstance(where, float):
            process = subprocess.Popen(self._line(), env=untraced(), **silent)
            time.sleep(where)
            before = rows(self._db)
            process.send_signal(signal.SIGKILL)
            process.wait()
        else:
            point, calls = where
            before = set()
            with StepByStep(point, *self._command, **silent) as command:
                for call, _ in enumerate(command, 1):
                    if call == calls:
                        before = rows(self._db)
                        command.send(signal.SIGKILL)
                        break
            process = command.process
        is_killed, kept = process.returncode == -signal.SIGKILL, rows(self._db)
        if lost := before - kept if is_killed else set():
            return is_killed, len(kept), f"{len(lost)} rows that were committed are gone"
        self._index()
        if sorted(rows(self._db)) != self._after[0]:
            return is_killed, len(kept), "other rows than those of a run that nobody killed"
        same = list(answers(self._db, self._clip)) == self._after[1]
        left = sorted(path.name for path in self._db.parent.iterdir() if path.name not in ("photos.db", *SHARED))
        return is_killed, len(kept), "" if same and not left else f"other answers, or {left} left"

    def _line(self) -> list[str]:
        return [sys.executable, "-m", "edgeclip.cli.main", *map(str, self._command)]

    def _index(self) -> None:
        done = subprocess.run(self._line(), capture_output=True, text=True, env=untraced(), check=False)
        if done.returncode != 3:  # one picture is broken
            raise RuntimeError(f"index ended with {done.returncode}: {done.stderr[-300:]}")

    def _draw(self, name: int, scene: int | None = None) -> None:
        pixels = render(sample_scene("kill", 0, name if scene is None else scene))
        Image.fromarray(pixels).save(self._pictures / f"{name}.png", compress_level=1)


SHARED = ("photos.db-wal", "photos.db-shm")


def rows(db: Path) -> set[tuple[object, ...]]:
    """All that is committed, whole."""
    if not db.exists():
        return set()
    with closing(sqlite3.connect(db)) as connection:
        if (found := connection.execute("PRAGMA integrity_check").fetchone()) != ("ok",):
            raise RuntimeError(f"a damaged database: {found}")
        return set(connection.execute(ROWS))


def answers(db: Path, clip: ClipRuntime) -> Iterator[list[tuple[str, float]]]:
    """What some searches find."""
    with Index.open(db, clip) as index:
        for number in range(0, PICTURES, 10):
            found = index.search(describe(sample_scene("kill", 0, number))[0], k=20)
            yield [(result.path, round(result.score, 5)) for result in found.results]


if __name__ == "__main__":
    print(run(int(sys.argv[1]), seed=0))
