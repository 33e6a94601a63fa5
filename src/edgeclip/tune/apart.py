"""A function called in a process of its own: `python -m edgeclip.tune.apart`. What it takes and crashes is its own."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeclip.cpu import granted_processors
from edgeclip.errors import EdgeclipError
from edgeclip.files import scratch_folder
from edgeclip.measure.child import Child, first_line
from edgeclip.tune.trials import TrialError

TIMEOUT_S = 1800.0


def called_apart(
    function: Callable[..., dict[str, Any]],
    *arguments: object,
    place: Path,
    cap_mb: float | None,
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Any]:
    """What a function gives, in a process of its own.

    Args:
        function: one of a module; what it gives must be JSON.
        arguments: its own; what can be pickled.
        place: a folder for the arguments on their way.
        cap_mb: see `Child`.
        timeout_s: see `Child`.

    Raises:
        TrialError: it met a user's mistake.
        ChildError: the process ended, took too long, or needed more memory.
    """
    with scratch_folder(place) as scratch:
        scratch.chmod(0o700)  # what others write there would run
        path = scratch / "call.pickle"
        with path.open("wb") as file:
            pickle.dump((function, arguments), file)
        job = {"call": str(path)}
        with Child(__name__, job, threads=granted_processors(), cap_mb=cap_mb, timeout_s=timeout_s) as process:
            answer = process.ask(do="call")
    if "failed" in answer:
        raise TrialError(answer["failed"])
    return answer["found"]


def _main() -> None:
    job, answers = first_line()
    with Path(job["call"]).open("rb") as file:
        function, arguments = pickle.load(file)  # noqa: S301 - this process's parent has just written it
    try:
        answer = {"found": function(*arguments)}
    except EdgeclipError as error:
        answer = {"failed": str(error)}
    print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    _main()
