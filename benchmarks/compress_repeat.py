"""Whether `edgeclip compress` chooses the same again: `python benchmarks/compress_repeat.py`.

Runs it several times with one seed, each in a folder of its own and from nothing; one of them beside a process that
loads one core half of the time. Winners that differ are the same where they tie by the contest's rule.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from edgeclip.evaluate.environment import environment
from edgeclip.tune.contest import loses
from edgeclip.tune.record import Compressed, read_card

HALF = """
import time
while True:
    end = time.perf_counter() + 0.05
    while time.perf_counter() < end:
        pass
    time.sleep(0.05)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="builtin:tabletop")
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--beside", type=int, default=3, help="which run has the neighbour, counted from 1")
    arguments = parser.parse_args()
    cards: list[Compressed] = []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(1, arguments.runs + 1):
            out = Path(scratch) / f"run-{number}"
            command = [sys.executable, "-m", "edgeclip", "compress", arguments.model, "--pairs", str(arguments.pairs)]
            neighbour = subprocess.Popen([sys.executable, "-c", HALF]) if number == arguments.beside else None
            try:
                subprocess.run([*command, "--time-budget", "3h", "--out", str(out)], check=True, stdout=sys.stderr)
            finally:
                if neighbour:
                    neighbour.kill()
                    neighbour.wait()
            cards.append(read_card(out))
    said = {"environment": environment(1), "arguments": vars(arguments)}
    print(json.dumps(said | {"runs": [as_line(card, cards[0]) for card in cards]}, indent=2))


def as_line(card: Compressed, first: Compressed) -> dict[str, Any]:
    """A run's winner, and how it compares with the first run's winner where it is another."""
    slower = next((contest.slower for contest in card.contests if contest.candidate == first.winner), None)
    is_same = card.winner == first.winner
    return {
        "winner": card.winner.name,
        "same": is_same,
        "first_over_this": slower and [slower.value, slower.low, slower.high],
        "tie": is_same or (slower is not None and not loses(slower)),
        "seconds": card.seconds,
    }


if __name__ == "__main__":
    main()
