"""`python docs/screenshots.py`: the pictures of the search page, of scenes of the built-in world, in a real browser."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from edgeclip.data.tabletop import render, sample_scene

IMAGES = Path(__file__).parent / "images"
SCENES = 600
QUERY = "a red heart on a wooden table"


def save(page: Page, name: str) -> None:
    """The page as it is, as a JPEG."""
    page.wait_for_load_state("networkidle")
    Image.open(io.BytesIO(page.screenshot())).convert("RGB").save(IMAGES / name, quality=80, optimize=True)


def main() -> None:
    """Make scenes, index them, serve them, and look."""
    edgeclip = [sys.executable, "-m", "edgeclip"]
    with tempfile.TemporaryDirectory() as scratch:
        photos, db = Path(scratch) / "Pictures", Path(scratch) / "photos.db"
        photos.mkdir()
        for number in range(SCENES):
            Image.fromarray(render(sample_scene("screenshots", 0, number))).save(photos / f"IMG_{number:04d}.jpg")
        subprocess.run([*edgeclip, "index", photos, "--db", db, "--bundle", "builtin:tabletop"], check=True)
        command = [*edgeclip, "serve", "builtin:tabletop", "--db", str(db), "--port", "0"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server, sync_playwright() as tools:
            url = next(found[0] for line in server.stderr or () if (found := re.search(r"http://[\d.]+:\d+", line)))
            browser = tools.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            for scheme in ("light", "dark"):
                page = browser.new_page(viewport={"width": 1180, "height": 660}, color_scheme=scheme)
                page.goto(f"{url}/#q={QUERY.replace(' ', '+')}")
                page.locator("#grid button").first.wait_for()
                save(page, f"search-page-{scheme}.jpg")
            browser.close()
            server.terminate()


if __name__ == "__main__":
    main()
