"""Kill `embed` at named points: the next run comes to the same files as one that nobody killed, and to no other."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from tests.e2e.step_by_step import StepByStep, untraced

POINTS = {  # a function, and the last of its calls after which a run is killed, if it comes to that
    "edgeclip.bulk.embedding_file:claim": 1,
    "edgeclip.bulk.npy_file:NpyFile.append": 8,
    "edgeclip.bulk.row_log:RowLog.append": 8,
    "edgeclip.bulk.embedding_file:EmbeddingFile.append": 8,
    "edgeclip.bulk.known_rows:FileRows.settle": 1,
    "edgeclip.bulk.row_log:RowLog.copy": 1,
    "edgeclip.bulk.npy_file:NpyFile.copy": 1,
    "edgeclip.bulk.origin:write_atomically": 3,
    "os:fsync": 4,
    "pathlib:Path.replace": 4,
    "pathlib:Path.unlink": 3,
}
SUFFIXES = ("npy", "jsonl", "csv")


def run(number: int, seed: int, bundle: str | Path = "builtin:tabletop") -> dict[str, object]:
    """Kill so many runs, each at a point, with files and from a beginning that the seed chooses."""
    rng = random.Random(seed)
    summary: dict[str, object] = {"kills": 0, "ended before": 0, "wrong": []}
    with TemporaryDirectory() as temporary:
        worlds: dict[tuple[str, int, bool], World] = {}
        while summary["kills"] < number:
            kind = (rng.choice(SUFFIXES), rng.choice((1, 4)), rng.random() < 0.7)
            if kind not in worlds:
                worlds[kind] = World(Path(temporary, str(len(worlds))), bundle, *kind)
            point, calls = rng.choice(list(POINTS.items()))
            calls = rng.randint(1, calls)
            killed, wrong = worlds[kind].kill(point, calls)
            summary["kills" if killed else "ended before"] += 1
            if wrong:
                summary["wrong"].append(f"{kind} {point} {calls}: {wrong}")
    return summary


class World:
    """Pictures, what an earlier run made of them, and what a run comes to once some have changed, gone and come."""

    def __init__(self, folder: Path, bundle: str | Path, suffix: str, batch_size: int, is_second: bool) -> None:
        self._pictures, self._out = folder / "pictures", folder / "out"
        self._pictures.mkdir(parents=True)
        self._out.mkdir()
        rng = np.random.default_rng(0)
        self._command = ["embed", bundle, self._pictures, "--out", self._out / f"out.{suffix}", "--prune"]
        self._command += ["--batch-size", batch_size, "--workers", 2]
        for n in range(12):
            self._draw(n, rng)
        if is_second:
            self._embed()
            for n in (1, 4, 5, 12, 13, 14, 15, 16):
                self._draw(n, rng)
            for n in (0, 7):
                (self._pictures / f"{n}.png").unlink()
        self._before = self._contents()
        self._embed()
        self._after = self._contents()

    def kill(self, point: str, calls: int) -> tuple[bool, str]:
        """Kill a run after some calls of a function; whether it came to that, and what the next run then got wrong."""
        shutil.rmtree(self._out)
        self._out.mkdir()
        for name, data in self._before.items():
            (self._out / name).write_bytes(data)
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with StepByStep(point, *self._command, **silent) as command:
            for call, _ in enumerate(command, 1):
                if call == calls:
                    command.send(signal.SIGKILL)
                    break
        self._embed()
        found = self._contents()
        differing = sorted(name for name in {*found, *self._after} if found.get(name) != self._after.get(name))
        return command.process.returncode == -signal.SIGKILL, " ".join(differing)

    def _draw(self, n: int, rng: np.random.Generator) -> None:
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(self._pictures / f"{n}.png")

    def _embed(self) -> None:
        command = [sys.executable, "-m", "edgeclip.cli.main", *map(str, self._command)]
        subprocess.run(command, check=True, capture_output=True, env=untraced())

    def _contents(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self._out.iterdir()}


if __name__ == "__main__":
    print(run(int(sys.argv[1]), seed=0))
