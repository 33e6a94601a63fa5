"""Give files to the decoder: each ends in pixels or in one line, within memory and time."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from edgeclip.config import PreprocessConfig
from edgeclip.errors import ImageError
from edgeclip.image import open_rgb, preprocess
from tests.hostile.images import bombs, mutated_images, other_files, slow_bombs, special_paths
from tests.hostile.meter import measured

SIZE = 32
MAX_PEAK, MAX_SECONDS = 440_000_000, 20
FORBIDDEN = ("subprocess", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.startfile", "socket")
"""Audit events of a program that is started, or of a connection."""


class Trial:
    """What became of the files that were tried."""

    def __init__(self) -> None:
        self.count = {"files": 0, "images": 0, "errors": 0}
        self.wrong: list[str] = []
        self.largest, self.slowest = (0, ""), (0.0, "")
        sys.addaudithook(self._forbid)

    def files(self, files: Iterable[tuple[str, bytes | Path]], *, in_full: bool = False) -> None:
        """Try each, and where `in_full` is true also without scaling."""
        for name, source in files:
            self.count["files"] += 1
            cost = measured(lambda name=name, source=source: self._attempt(name, source))
            self._note(name, cost.peak, cost.seconds)
            if in_full:
                cost = measured(lambda name=name, source=source: self._in_full(name, source))
                self._note(f"{name}, in full", cost.peak, cost.seconds)

    def summary(self) -> dict[str, object]:
        return {
            **self.count,
            "wrong": self.wrong,
            "largest": [round(self.largest[0] / 1e6), self.largest[1]],
            "slowest": [round(self.slowest[0], 2), self.slowest[1]],
        }

    def _note(self, name: str, peak: int, seconds: float) -> None:
        self.largest, self.slowest = max(self.largest, (peak, name)), max(self.slowest, (seconds, name))
        if peak > MAX_PEAK or seconds > MAX_SECONDS:
            self.wrong.append(f"{name}: {peak / 1e6:.0f} MB, {seconds:.1f} s")

    def _attempt(self, name: str, source: bytes | Path) -> None:
        try:
            pixel_values = preprocess(source, PreprocessConfig.clip(SIZE))
        except ImageError as error:
            self.count["errors"] += 1
            if "\n" in str(error):
                self.wrong.append(f"{name}: {error}")
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is what is looked for
            self.wrong.append(f"{name}: {error!r}")
        else:
            self.count["images"] += 1
            if pixel_values.shape != (3, SIZE, SIZE) or not np.isfinite(pixel_values).all():
                self.wrong.append(f"{name}: {pixel_values.shape}")

    def _in_full(self, name: str, source: bytes | Path) -> None:
        try:
            open_rgb(source)
        except ImageError:
            pass
        except BaseException as error:  # noqa: BLE001
            self.wrong.append(f"{name}: {error!r}")

    def _forbid(self, event: str, arguments: tuple[object, ...]) -> None:
        own = event == "subprocess.Popen" and arguments[0] == sys.executable
        if event.startswith(FORBIDDEN) and not own and not (event.startswith("os.") and "fork_exec" in event):
            self.wrong.append(f"{event} {arguments}")


def run(count: int, seed: int, *, full: bool = True) -> dict[str, object]:
    """Try `count` mutated files, and those that are made to cost much; the slowest of them if `full`."""
    trial = Trial()
    trial.files(mutated_images(seed, count))
    trial.files(other_files(seed))
    trial.files(bombs(), in_full=True)
    if full:
        trial.files(slow_bombs())
    with TemporaryDirectory() as folder:
        trial.files((ascii(path)[:200], path) for path in special_paths(Path(folder)))
        trial.files(_as_paths(mutated_images(seed + 1, count // 20), Path(folder)))
    return trial.summary()


def _as_paths(files: Iterable[tuple[str, bytes]], folder: Path) -> Iterator[tuple[str, Path]]:
    for name, data in files:
        (folder / "image").write_bytes(data)
        yield name, folder / "image"
