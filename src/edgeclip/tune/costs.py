"""What candidates cost on this device: each tower's graph alone, whole bundles, and contenders in turn."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median, quantiles

from edgeclip.cpu import granted_processors
from edgeclip.evaluate.footprint import bytes_on_disk
from edgeclip.manifest import GRAPHS
from edgeclip.measure.bundle_process import TOWERS, BundleProcess, Tower
from edgeclip.measure.child import ChildError
from edgeclip.tune.candidates import KINDS
from edgeclip.tune.drafts import draft_folder
from edgeclip.tune.record import Candidate, Figures
from edgeclip.tune.trials import Trials

CALLS, WARMUP, SECONDS = 25, 3, 4.0
"""Of a tower's first measurement."""
ROUND_CALLS = 3
TIMEOUT_S = 300.0
EMBED_TIMEOUT_S = 3600.0
Member = tuple[Tower, str, int]
"""A tower's graph of a kind with so many threads."""


@dataclass(frozen=True)
class Costs:
    """Measures with one set of pairs, and records what it finds."""

    trials: Trials
    crops: Path
    texts: Path
    cap_mb: float | None

    def process(
        self, folder: Path, threads: int, towers: Sequence[Tower], timeout_s: float = TIMEOUT_S
    ) -> BundleProcess:
        """A process with some towers of a bundle."""
        return BundleProcess(
            folder, self.crops, self.texts, threads=threads, towers=towers, cap_mb=self.cap_mb, timeout_s=timeout_s
        )

    def tower(self, tower: Tower, kind: str, threads: int) -> dict[str, float] | None:
        """`ms`, `rss_mb`, `open_ms` and `size_mb` of one graph; None where it failed.

        The time is the lower quartile: what else the machine does only adds, and this is measured but once.
        """
        folder = draft_folder(self.trials.folder, kind)

        def measure() -> dict[str, float]:
            with self.process(folder, threads, [tower]) as process:
                opened = process.open()
                times = process.time(CALLS, warmup=WARMUP, seconds=SECONDS)[tower]
            graph = folder / GRAPHS[KINDS[kind].precision][TOWERS.index(tower)]
            return {
                "ms": quantiles(times, n=4)[0],
                "rss_mb": opened["rss_mb"],
                "open_ms": opened["open_ms"],
                "size_mb": graph.stat().st_size / 1e6,
            }

        return self.trials.run(_tower_trial(tower, kind, threads), measure).found

    def nothing_opened(self, kind: str) -> dict[str, float] | None:
        """`rss_mb` and `open_ms` of a process with a kind's engine and no graph, and `size_mb` of what is no graph."""
        folder = draft_folder(self.trials.folder, kind)

        def measure() -> dict[str, float]:
            with self.process(folder, 1, []) as process:
                opened = process.open()
            rest = bytes_on_disk(folder) - bytes_on_disk(folder / "onnx")
            return {"rss_mb": opened["rss_mb"], "open_ms": opened["open_ms"], "size_mb": rest / 1e6}

        return self.trials.run(f"nothing opened, {KINDS[kind].engine}", measure).found

    def whole(self, candidate: Candidate, folder: Path) -> Figures | None:
        """The figures of a bundle that was put together; None where it failed."""

        def measure() -> dict[str, float]:
            with self.process(folder, candidate.threads, TOWERS) as process:
                opened = process.open()
                times = process.time(CALLS, warmup=WARMUP, seconds=2 * SECONDS)
                memory = process.memory()
            return {
                "image_ms": median(times["image"]),
                "text_ms": median(times["text"]),
                "size_mb": bytes_on_disk(folder) / 1e6,
                "rss_mb": memory["rss_mb"] or opened["rss_mb"],
                "open_ms": opened["open_ms"],
            }

        found = self.trials.run(f"bundle of {candidate.name}", measure).found
        return None if found is None else Figures(**{name: round(value, 3) for name, value in found.items()})

    def embedded(self, tower: Tower, kind: str) -> Path | None:
        """Where the embeddings of all pairs by one graph are; None where it failed."""
        folder = draft_folder(self.trials.folder, kind)
        path = self.trials.folder / f"{tower}-{folder.name}.npy"

        def embed() -> dict[str, float]:
            with self.process(folder, granted_processors(), [tower], EMBED_TIMEOUT_S) as process:
                return process.embed(path)

        return None if self.trials.run(f"embeddings of {tower} {kind}", embed).found is None else path

    def rounds(self, first: int, count: int, members: Sequence[Member]) -> list[dict[Member, float]]:
        """Rounds in which all members are timed in turn, forwards and backwards by turns: median ms of each.

        As many are open at once as memory allows.
        """
        with ExitStack() as stack:
            processes: dict[Member, BundleProcess] = {}

            def time(member: Member) -> float:
                if member in processes:
                    processes[member] = processes.pop(member)  # the last of them is that which was used last
                else:
                    self._make_room(processes, member)
                    tower, kind, threads = member
                    folder = draft_folder(self.trials.folder, kind)
                    processes[member] = stack.enter_context(self.process(folder, threads, [tower]))
                try:
                    return median(processes[member].time(ROUND_CALLS)[member[0]])
                except ChildError:  # the next round begins with another
                    processes.pop(member).end()
                    raise

            def time_all(order: Sequence[Member]) -> dict[str, float]:
                return {names[member]: time(member) for member in order}

            names = {member: "/".join(map(str, member)) for member in members}
            found = []
            for number in range(first, first + count):
                order = members if number % 2 else members[::-1]
                trial = self.trials.run(f"round {number}: {', '.join(names.values())}", partial(time_all, order))
                if trial.found is not None:
                    found.append({member: trial.found[name] for member, name in names.items()})
            return found

    def _make_room(self, processes: dict[Member, BundleProcess], member: Member) -> None:
        """End the processes that were used the longest ago until one more fits into what all may take together."""
        while processes and self.cap_mb and sum(map(self._rss_mb, (*processes, member))) > self.cap_mb:
            processes.pop(next(iter(processes))).end()

    def _rss_mb(self, member: Member) -> float:
        """What a process took when it was first measured."""
        tower, kind, threads = member
        found = self.trials.done[_tower_trial(tower, kind, threads)].found
        return found["rss_mb"] if found else 0.0


def _tower_trial(tower: Tower, kind: str, threads: int) -> str:
    return f"{tower} {kind}, threads {threads}"
