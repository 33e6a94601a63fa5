import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeclip.errors import ImageError
from edgeclip.image import apart, open_rgb
from tests.hostile.images import restated, run_length_bmp, saved
from tests.hostile.meter import measured
from tests.hostile.webp_tables import webp_of_tables


@pytest.fixture(autouse=True)
def fresh_processes():
    """Limits are given to a process when it starts."""
    apart.close()
    yield
    apart.close()


def gradient(width: int = 300, height: int = 200) -> Image.Image:
    return Image.merge("RGB", [Image.linear_gradient("L").resize((width, height)).rotate(90 * i) for i in range(3)])


@pytest.mark.parametrize(
    ("format_", "options"),
    [("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("AVIF", {}), ("WEBP", {"lossless": True}), ("PPM", {})],
)
def test_pixels_are_those_that_pillow_decodes_here(format_: str, options: dict[str, object]):
    image = gradient(1500, 1100)  # in two bands
    data = saved(image, format_, **options)
    if format_ == "PPM":
        data = data.replace(b"P6\n", b"P6\n# a comment, which only the process apart reads\n")
    expected = Image.open(io.BytesIO(data)).convert("RGB")
    np.testing.assert_array_equal(np.asarray(open_rgb(data)), np.asarray(expected))
    assert len(apart._idle) == 1  # it waits for the next


def test_what_a_header_tells_is_decoded_here():
    for format_ in ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP"):
        open_rgb(saved(gradient(), format_))
    assert not apart._idle


def test_a_valid_run_length_bmp_is_read():
    """Each run has a call of `read`, which once counted as too many."""
    row = b"".join(bytes((1, x % 256)) for x in range(600))
    rgb = np.asarray(open_rgb(run_length_bmp(600, 600, (row + b"\0\0") * 600 + b"\0\1")))
    np.testing.assert_array_equal(rgb[0, :, 2], np.arange(600) % 256)  # the palette is blue, green, red
    np.testing.assert_array_equal(rgb[599, :, 0], 255 - np.arange(600) % 256)


def test_processor_time_is_limited(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(apart, "MAX_SECONDS", 1)
    digits = b"P3 2000 2000 255\n" + b"1 " * 12_000_000
    with pytest.raises(ImageError, match=r"takes more than 1 s of processor time; expected at most 440 MB and 1 s"):
        open_rgb(digits)
    assert open_rgb(b"P3 1 1 255 7 8 9").getpixel((0, 0)) == (7, 8, 9)  # by the next process


def test_a_frame_larger_than_an_avif_says_stays_within_the_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(apart, "MAX_BYTES", 20_000_000)
    lying = restated(saved(Image.new("RGB", (5000, 5000)), "AVIF", speed=10), 16)
    assert open_rgb(saved(gradient(), "AVIF")).size == (300, 200)  # started

    def attempt() -> None:
        with pytest.raises(ImageError):
            open_rgb(lying)

    assert measured(attempt).peak < 20_000_000


def test_a_webp_of_very_many_tables_stays_within_the_memory(monkeypatch: pytest.MonkeyPatch):
    """Pillow alone takes 386 MB for this one of 295 kB and a megapixel."""
    monkeypatch.setattr(apart, "MAX_BYTES", 100_000_000)

    def attempt() -> None:
        with pytest.raises(ImageError):
            open_rgb(webp_of_tables())

    open_rgb(saved(gradient(), "WEBP", lossless=True))
    assert measured(attempt).peak < 100_000_000


def test_a_process_that_ends_costs_one_picture():
    data = saved(gradient(), "TIFF")
    open_rgb(data)
    os.kill(apart._idle[0].pid, signal.SIGKILL)
    with pytest.raises(ImageError, match="its decoder broke down"):
        open_rgb(data)
    assert open_rgb(data).size == (300, 200)


def test_threads_have_a_process_each(tmp_path: Path):
    (tmp_path / "a.tif").write_bytes(saved(gradient(1500, 1100), "TIFF"))
    expected, results = open_rgb(tmp_path / "a.tif").tobytes(), []
    threads = [
        threading.Thread(target=lambda: results.append(open_rgb(tmp_path / "a.tif").tobytes())) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4
    assert len(apart._idle) <= 4


def test_nothing_of_the_working_folder_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "PIL").mkdir()
    (tmp_path / "PIL" / "__init__.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (tmp_path / "numpy.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert open_rgb(saved(gradient(), "TIFF")).size == (300, 200)
    assert not (tmp_path / "ran").exists()


def test_the_process_ends_with_this_one():
    open_rgb(saved(gradient(), "TIFF"))
    process = apart._idle.pop()
    process.stdin.close()
    assert process.wait(timeout=60) == 0


def test_limits_that_the_user_has_set_are_kept():
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (2 * 10**9, 2 * 10**9));"
        "resource.setrlimit(resource.RLIMIT_CPU, (10, 10));"
        "from edgeclip.image import open_rgb; print(open_rgb(sys.stdin.buffer.read()).size)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=saved(gradient(), "TIFF"), capture_output=True, timeout=60
    )
    assert done.stdout == b"(300, 200)\n", done.stderr
