"""Results as one HTML file that needs nothing else: pictures are in it, small."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime
from html import escape
from pathlib import Path

from edgeclip.errors import ImageError
from edgeclip.files import printable, write_atomically
from edgeclip.image.small import small_jpeg
from edgeclip.search.rows import Result

SIDE = 320
"""Pixels of a thumbnail's longer side."""
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif }}
body {{ margin: 1.5rem }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)); gap: 1rem }}
figure {{ margin: 0 }}
img {{ width: 100%; aspect-ratio: 1; object-fit: cover; border-radius: .4rem; background: #8883 }}
figcaption {{ overflow-wrap: anywhere; font-size: .85rem }}
</style>
<h1>{title}</h1>
<main>
{figures}
</main>
</html>
"""
FIGURE = """<figure><img alt="" src="{source}"><figcaption>{score:.3f} · {day} · {path}{more}</figcaption></figure>"""


def write(path: Path, title: str, results: Sequence[Result]) -> None:
    """Write the page; a picture that can't be read now has its path alone.

    Raises:
        OSError: the file can't be written.
    """
    page = PAGE.format(title=escape(printable(title)), figures="\n".join(map(_figure, results)))
    write_atomically(path, page.encode())


def _figure(result: Result) -> str:
    more = f" · {len(result.alike)} more like it" if result.alike else ""
    day = datetime.fromtimestamp(result.taken).date().isoformat()
    path = escape(printable(result.path))
    return FIGURE.format(source=_thumbnail(result.path), score=result.score, day=day, path=path, more=more)


def _thumbnail(path: str) -> str:
    try:
        return "data:image/jpeg;base64," + base64.b64encode(small_jpeg(path, SIDE)).decode()
    except ImageError:
        return "data:,"
