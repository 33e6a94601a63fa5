"""The pages: links lead somewhere, and printed commands and options exist; `make docs-check` runs them."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from edgeclip.cli.main import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "recipes").glob("*.md")])
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # it is a group


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_printed_commands_and_options_exist(page: Path):
    blocks = re.findall(r"^```console\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    for line in "".join(blocks).splitlines():
        words = shlex.split(line, comments=True)
        if "edgeclip" not in words or "pip" in words:
            continue
        command, *rest = words[words.index("edgeclip") + 1 :]
        known = {flag for parameter in COMMANDS[command].params for flag in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= known, line


def test_the_first_screen_is_short_and_pages_are_finished():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130
    for page in PAGES:
        assert not re.search(r"^(TODO|FIXME|[A-Z]{4,})$", page.read_text(), re.MULTILINE), page
