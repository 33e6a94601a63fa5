"""`python -m tests.tune.killed_run MODEL OUT AFTER SETTINGS ONCE`: a compress of given times, killed once AFTER trials
have ended. What is made once is in ONCE.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeclip import tune
from edgeclip.tune.trials import TRIALS, Trials
from tests.once import MadeOnce, made_once_in
from tests.tune.conftest import put_in

TORN = b'{"name": "torn'
"""As a kill in the middle of a line leaves it."""


def main(model: Path, out: Path, after: int, settings: dict[str, Any], once: MadeOnce) -> None:
    usual, ended = Trials.run, []

    def run(self: Trials, name: str, work: object) -> object:
        trial = usual(self, name, work)
        ended.append(name)
        if len(ended) == after:
            with (self.folder / TRIALS).open("ab") as file:
                file.write(TORN)
            os.kill(os.getpid(), signal.SIGKILL)
        return trial

    with pytest.MonkeyPatch.context() as patch:
        put_in(patch, once)
        patch.setattr(Trials, "run", run)
        tune.compress(model, out, **settings)


if __name__ == "__main__":
    MODEL, OUT, AFTER, SETTINGS, ONCE = sys.argv[1:]
    main(Path(MODEL), Path(OUT), int(AFTER), json.loads(SETTINGS), made_once_in(Path(ONCE)))
