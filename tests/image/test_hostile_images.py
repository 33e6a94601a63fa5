"""A sample of `make hostile`; whole size there."""

import re
import subprocess
import sys

import pytest
from PIL import Image

from edgeclip.errors import ImageError
from edgeclip.image import open_rgb
from tests.hostile.images import bombs, mutated_images, png_of, saved

REASONS = {
    "PNG 60000x60000": "60000x60000 pixels of PNG that may take 32402 MB to decode; expected at most 440 MB",
    "PNG 1 x 45,000,000": "1x45000000 pixels of PNG that may take 1845 MB",
    "PNG of a million chunks": "too many chunks",
    "JPEG of a million segments": "no coded data",
    "JPEG of 1,000 scans": "8000x8000 pixels in 1006 scans, which would take too long",
    "JPEG of 1,000 scans behind FF 01": "in 1006 scans",
    "JPEG of 1,000 scans behind FF FF": "in 1006 scans",
    "JPEG of 1,000 scans behind junk": "in 1006 scans",
    "JPEG of 1,000 arithmetic scans": "in 1006 scans",
    "JPEG progressive in one scan": "23000x23000 pixels of JPEG that may take",
    "JPEG sequential, a component a scan": "20000x20000 pixels of JPEG that may take",
    "AVIF 16,000 x 16,000": "16000x16000 pixels of AVIF that may take 2304 MB",
    "BMP of run lengths, a row of 40,000,000": "too much memory",
    "BigTIFF": "not a TIFF of the classic kind",
    "ICO around a giant PNG": "unknown format",
}


@pytest.mark.slow
def test_a_hostile_file_gives_an_image_or_one_line_in_bounded_memory_and_time():
    program = "from tests.hostile.try_images import run; print(run(1500, 0, full=False)['wrong'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_bombs_are_refused_for_what_they_are_at_little_cost():
    reasons = dict(REASONS)
    for name, data in bombs():
        if name in reasons:
            with pytest.raises(ImageError, match=re.escape(reasons.pop(name))):
                open_rgb(data)
    assert not reasons


def test_the_same_seed_makes_the_same_files():
    assert list(mutated_images(3, 20)) == list(mutated_images(3, 20)) != list(mutated_images(4, 20))


def test_a_picture_too_large_for_memory_names_its_size_and_the_limit():
    with pytest.raises(
        ImageError, match="7200x7200 pixels of PNG that may take 466 MB to decode; expected at most 440 MB"
    ):
        open_rgb(png_of(7200, 7200, colour=0, depth=1))


def test_pipes_and_devices_are_refused():
    with pytest.raises(ImageError, match=r"/dev/zero cannot be decoded \(not a regular file\)"):
        open_rgb("/dev/zero")


def test_formats_that_start_programs_are_not_opened():
    with pytest.raises(ImageError, match="unknown format"):
        open_rgb(saved(Image.new("RGB", (8, 8)), "EPS"))
