"""What is written to a terminal for a picture, byte by byte; and that nothing else than a terminal gets it."""

from __future__ import annotations

import base64
import io
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeclip.cli.terminal_pictures import cells, drawn, protocol
from edgeclip.search import Index

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("environment", "kind"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-kitty", "TMUX": "default,1,0"}, "blocks"),
        ({"TERM": "screen-256color", "LC_TERMINAL": "iTerm2"}, "blocks"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, "blocks"),
        ({}, "blocks"),
    ],
)
def test_the_environment_tells_what_a_terminal_understands(environment: dict[str, str], kind: str):
    assert protocol(environment) == kind


@pytest.mark.parametrize(
    ("size", "expected"),
    [((400, 300), (27, 10)), ((300, 400), (15, 10)), ((4000, 100), (40, 1)), ((1, 900), (1, 10)), ((2, 2), (20, 10))],
)
def test_a_picture_keeps_its_proportions_within_forty_cells_by_ten(size: tuple[int, int], expected: tuple[int, int]):
    assert cells(size) == expected


def test_kitty_is_sent_a_png_in_pieces():
    written = drawn(NOISE, "kitty")
    pieces = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", written)
    assert "".join(f"\x1b_G{control};{text}\x1b\\" for control, text in pieces) + "\n" == written
    controls, texts = zip(*pieces, strict=True)
    assert controls[0] == "a=T,f=100,q=2,c=20,r=10,m=1"
    assert set(controls[1:-1]) == {"m=1"}
    assert controls[-1] == "m=0"
    assert {len(text) for text in texts[:-1]} == {4096}
    sent = Image.open(io.BytesIO(base64.b64decode("".join(texts))))
    np.testing.assert_array_equal(np.asarray(sent), np.asarray(NOISE))


def test_iterm_is_sent_a_file():
    head, text = drawn(NOISE, "iterm").split(":")
    data = base64.b64decode(text.removesuffix("\a\n"))
    assert head == f"\x1b]1337;File=inline=1;size={len(data)};width=20;height=10"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(NOISE))


def test_half_blocks_have_the_upper_pixel_before_the_lower(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    image = Image.new("RGB", (2, 1), (255, 0, 0))  # 40 by 10 cells, of which the lower half is blue
    image = image.resize((40, 20))
    image.paste((0, 0, 255), (0, 1, 40, 20))
    lines = drawn(image, "blocks").split("\n")
    assert len(lines) == 11
    assert lines[0] == "\x1b[38;2;255;0;0;48;2;0;0;255m▀\x1b[0m" * 40
    assert set(lines[1:10]) == {"\x1b[38;2;0;0;255;48;2;0;0;255m▀\x1b[0m" * 40}
    assert lines[10] == ""


@pytest.fixture
def search(tmp_path: Path) -> list[str]:
    NOISE.save(tmp_path / "noise.png")
    with Index.open(tmp_path / "photos.db", "builtin:tabletop") as index:
        index.add(tmp_path)
    return [sys.executable, "-m", "edgeclip", "search", "a mug", "--db", str(tmp_path / "photos.db"), "--thumbnails"]


def test_only_a_terminal_is_sent_pictures(search: list[str]):
    environment = {**os.environ, "TERM": "xterm-kitty"}
    environment.pop("TMUX", None)
    piped = subprocess.run(search, capture_output=True, text=True, env=environment, check=True)
    assert piped.stdout.count("\n") == 1
    assert "no terminal" in piped.stderr
    ours, theirs = pty.openpty()
    process = subprocess.Popen(search, stdout=theirs, stderr=subprocess.DEVNULL, env=environment)
    os.close(theirs)
    written = b""
    try:
        while block := os.read(ours, 1 << 16):
            written += block
    except OSError:  # the other end is closed
        pass
    assert process.wait() == 0
    assert written.startswith(b"\x1b_Ga=T,f=100,q=2,c=20,r=10,")
    assert written.endswith(b"noise.png\r\n")


def test_thumbnails_are_no_json(mistake: Callable[..., str], search: list[str]):
    line = mistake(*search[3:], "--json")
    assert "both --thumbnails and --json" in line
