"""`python docs/search_transcript.py`: runs the commands of search.md's transcript and puts what they print into it.

The pictures are 300 scenes of the built-in world, for which the built-in bundle was trained.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from edgeclip.data.tabletop import describe, render, sample_scene

PAGE = Path(__file__).parent / "search.md"
PLACE = re.compile(r"(<!-- transcript -->\n```text\n).*?(```\n)", re.DOTALL)
HERE = sample_scene("transcript", 0, 17), sample_scene("transcript", 1, 4)
COMMANDS = (
    "edgeclip index Pictures --db photos.db --bundle builtin:tabletop",
    f'edgeclip search "{describe(HERE[0])[1]}" --db photos.db -k 3',
    f'edgeclip search "{describe(HERE[1])[1]}" --db photos.db',
    "edgeclip search Pictures/017.jpg + snow --db photos.db -k 3",
    "mv Pictures/017.jpg Pictures/moved.jpg; cp Pictures/018.jpg Pictures/copy.jpg; rm Pictures/019.jpg",
    "edgeclip index Pictures --db photos.db",
    "edgeclip prune --db photos.db",
    "edgeclip dupes --db photos.db",
    "edgeclip status --db photos.db",
)


def main() -> None:
    """Run them in an empty folder, one after another."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "Pictures").mkdir()
        for number in range(300):
            path = folder / "Pictures" / f"{number:03d}.jpg"
            Image.fromarray(render(sample_scene("transcript", 0, number))).save(path)
            os.utime(path, (1.7e9 + 86_400 * number, 1.7e9 + 86_400 * number))
        said = "".join(f"$ {command}\n{run(command, folder)}" for command in COMMANDS)
    said = said.replace(f"{folder.resolve()}/", "").replace(str(folder.resolve()), ".")
    PAGE.write_text(PLACE.sub(lambda found: found[1] + said + found[2], PAGE.read_text()))


def run(command: str, folder: Path) -> str:
    """What a command prints, but for rates, which are the machine's, and its exit code where it is not 0."""
    command = f'edgeclip() {{ "{sys.executable}" -m edgeclip "$@"; }}; {command}'
    done = subprocess.run(  # noqa: S602 - those above
        command, shell=True, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    lines = [line for line in done.stdout.splitlines(keepends=True) if not re.match(r"[A-Z][\w ]+: [\d.]+ s", line)]
    return "".join(lines) + (f"(exit code {done.returncode})\n" if done.returncode else "")


if __name__ == "__main__":
    main()
