import io
import json
import re
import subprocess
import sys

import pytest
from PIL import Image

from edgeclip.errors import ImageError
from edgeclip.image import open_rgb
from tests.image.hostile_images import bombs, png_of, saved

LIBTIFF = re.compile(r"(tempfile\.tif|\w+): ")
"""libtiff prints about damaged files, and Pillow can't keep it from doing so."""


@pytest.mark.slow
def test_a_hostile_file_gives_an_image_or_one_error_in_bounded_memory_and_time():
    done = subprocess.run(
        [sys.executable, "-m", "tests.image.hostile_images", "0"],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=1800,  # a last resort
    )
    assert done.returncode == 0, f"{done.stdout[-300:]} {done.stderr[-2000:]}"
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["wrong"] == []
    assert [line for line in done.stderr.splitlines() if not LIBTIFF.match(line)] == []
    assert summary["files"] > 2000
    assert min(summary["images"], summary["errors"]) > 1000
    assert summary["peak_rss_mb"] < 500
    assert summary["slowest"][0] < 10, summary["slowest"]  # seconds of a slow processor, however busy it is


@pytest.mark.slow
def test_bombs_are_refused_for_what_they_are():
    reasons = {
        "PNG 60000x60000": "exceeds limit of",
        "PNG bilevel 30000x30000": "exceeds limit of",
        "PNG of a million chunks": "too many parts",
        "JPEG of a million segments": "too many parts",
        "JPEG of 1,000 scans": "8000x8000 pixels in 1006 scans; expected at most 600 million",
        "TIFF of a giant tile": "too large a tile",
        "TIFF of a million strips": "too many entries in tag 273",
        "BigTIFF": "not a TIFF of the classic kind",
        "ICO around a giant PNG": "unknown format",
    }
    for name, data in bombs():
        if name in reasons:
            with pytest.raises(ImageError, match=reasons.pop(name)):
                open_rgb(data)
    assert not reasons


def test_a_picture_too_large_for_memory_names_its_size_and_the_limit():
    with pytest.raises(
        ImageError, match="7200x7200 pixels of PNG that may take 467 MB to decode; expected at most 440"
    ):
        open_rgb(png_of(7200, 7200, colour=0, depth=1))


def test_pipes_and_devices_are_refused():
    with pytest.raises(ImageError, match=r"/dev/zero cannot be decoded \(not a regular file\)"):
        open_rgb("/dev/zero")


def test_formats_that_start_programs_are_not_opened():
    with pytest.raises(ImageError, match="unknown format"):
        open_rgb(saved(Image.new("RGB", (8, 8)), "EPS"))


def test_a_progressive_jpeg_of_usual_scans_passes():
    data = saved(Image.new("RGB", (640, 480), "red"), "JPEG", progressive=True)
    assert Image.open(io.BytesIO(data)).info["progressive"]
    assert open_rgb(data).size == (640, 480)
