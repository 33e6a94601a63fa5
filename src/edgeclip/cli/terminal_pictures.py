"""Pictures in a terminal: by Kitty's or iTerm2's protocol where the environment tells of one, else by half blocks.

Sources: Kitty's terminal graphics protocol; iTerm2's inline images protocol. Neither is used inside tmux and screen,
which pass pictures on only where they are told to. No library draws them: `term-image` wants Pillow 10, and
`textual-image` of today Python 3.12.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping

from PIL import Image

COLUMNS, ROWS = 40, 10
"""The most cells of a picture; a cell is twice as high as wide."""
SIDE = 400
"""Pixels of the longer side that are sent."""
CHUNK = 4096
"""Letters of base64 in one of Kitty's escape sequences."""
UPPER_HALF = "▀"
KITTY = ("KITTY_WINDOW_ID", "GHOSTTY_RESOURCES_DIR", "KONSOLE_VERSION")
ITERM = ("iTerm.app", "WezTerm", "mintty", "iTerm2")
"""Values of TERM_PROGRAM and, which ssh passes on, LC_TERMINAL."""


def protocol(environment: Mapping[str, str]) -> str:
    """What a terminal understands: kitty, iterm or blocks."""
    if environment.get("TMUX") or environment.get("TERM", "").startswith(("screen", "tmux")):
        return "blocks"
    if environment.get("TERM") in ("xterm-kitty", "xterm-ghostty") or any(map(environment.get, KITTY)):
        return "kitty"
    return "iterm" if {environment.get("TERM_PROGRAM"), environment.get("LC_TERMINAL")} & set(ITERM) else "blocks"


def cells(size: tuple[int, int]) -> tuple[int, int]:
    """(columns, rows) that a picture (width, height) takes."""
    scale = min(COLUMNS / size[0], 2 * ROWS / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale / 2))


def drawn(image: Image.Image, kind: str) -> str:
    """What is written to a terminal, which is then at the beginning of the next line."""
    if kind == "blocks":
        return _blocks(image)
    columns, rows = cells(image.size)
    data = io.BytesIO()
    image.save(data, "PNG")
    text = base64.b64encode(data.getvalue()).decode()
    if kind == "kitty":
        return "".join(_chunks(text, columns, rows)) + "\n"
    size = f"size={len(data.getvalue())};width={columns};height={rows}"
    return f"\x1b]1337;File=inline=1;{size}:{text}\a\n"


def _chunks(text: str, columns: int, rows: int) -> Iterator[str]:
    """Kitty's sequences: show (a=T) a PNG (f=100) in so many cells, and answer nothing (q=2)."""
    for start in range(0, len(text), CHUNK):
        control = f"a=T,f=100,q=2,c={columns},r={rows}," if start == 0 else ""
        yield f"\x1b_G{control}m={int(start + CHUNK < len(text))};{text[start : start + CHUNK]}\x1b\\"


def _blocks(image: Image.Image) -> str:
    """Upper half blocks, in colours that the terminal has."""
    from rich.color import Color
    from rich.console import Console
    from rich.segment import Segment, Segments
    from rich.style import Style

    columns, rows = cells(image.size)
    small = image.resize((columns, 2 * rows), Image.Resampling.BOX)

    def colour(x: int, y: int) -> Color:
        return Color.from_rgb(*small.getpixel((x, y)))  # type: ignore[misc]

    segments = []
    for row in range(rows):
        styles = (Style(color=colour(x, 2 * row), bgcolor=colour(x, 2 * row + 1)) for x in range(columns))
        segments += [*(Segment(UPPER_HALF, style) for style in styles), Segment.line()]
    console = Console(width=columns)
    with console.capture() as captured:
        console.print(Segments(segments), end="")
    return captured.get()
