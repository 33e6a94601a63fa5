"""Try what was made to do harm: `python -m tests.hostile --images 20000 --seed 0`.

Prints a line of JSON for each kind, and fails if anything was not as promised.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial

from tests.hostile import kill_embed, kill_index, kill_makers, try_images, try_indexes, try_rows
from tests.hostile.try_folders import try_bundles, try_checkpoints

KINDS = {
    "images": try_images.run,
    "bundles": try_bundles,
    "checkpoints": try_checkpoints,
    "rows": try_rows.run,
    "indexes": try_indexes.run,
    "kills-of-embed": kill_embed.run,
    "kills-of-index": kill_index.run,
    **{f"kills-of-{name}": partial(kill_makers.run, name) for name in ("export", "train", "distill", "reproduce")},
}
"""What is tried: each takes how many to make and a seed, and returns a summary with what was "wrong"."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile")
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=int, default=0, metavar="NUMBER")
    parser.add_argument("--seed", type=int, default=0)
    arguments = vars(parser.parse_args())
    failed = False
    for kind, run in KINDS.items():
        if number := arguments[kind.replace("-", "_")]:
            summary = run(number, arguments["seed"])
            print(json.dumps({"kind": kind, **summary}), flush=True)
            failed = failed or bool(summary["wrong"])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
