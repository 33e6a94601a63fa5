"""`python -m tests.tune.killed_run MODEL OUT AFTER SETTINGS`: a compress of given times, killed once AFTER trials have
ended.
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
from tests.tune.conftest import put_in

SETTINGS = {"data": "builtin:tabletop", "pairs": 8, "max_drop": 100.0, "workers": 0}
TORN = b'{"name": "torn'
"""As a kill in the middle of a line leaves it."""


def main(model: Path, out: Path, after: int, settings: dict[str, Any]) -> None:
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
        put_in(patch)
        patch.setattr(Trials, "run", run)
        tune.compress(model, out, **settings)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4]))
