import os
import select
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeclip.config import PreprocessConfig
from edgeclip.data.data_settings import DataOptions
from edgeclip.data.decode_views import decode, in_chunks
from edgeclip.data.load_data import load_data
from edgeclip.data.prepare import prepare
from edgeclip.data.records import CaptionSet, FileImage, Record
from edgeclip.errors import DataError

CONFIG = PreprocessConfig.clip(32)
LAST_RESORT = 600
"""Seconds after which a test that waits in vain fails."""


@pytest.fixture
def with_broken(tmp_path: Path) -> CaptionSet:
    records = []
    for index in range(5):
        path = tmp_path / f"{index}.png"
        Image.new("RGB", (40, 40), (index * 10, 0, 0)).save(path)
        records.append(Record(path.name, FileImage(path), (f"caption {index}",)))
    (tmp_path / "2.png").write_bytes(b"rubbish")
    (tmp_path / "4.png").unlink()
    return CaptionSet("broken", records)


def test_broken_images_are_counted_and_named(with_broken: CaptionSet):
    prepared = prepare(with_broken, range(5), CONFIG, workers=0, on_bad_image="skip")
    assert prepared.names == ["0.png", "1.png", "3.png"]
    assert prepared.first_captions == ["caption 0", "caption 1", "caption 3"]
    assert [bad.split(":")[0] for bad in prepared.bad_images] == ["2.png", "4.png"]
    assert prepared.pixels[:, 0, 0, 0].tolist() == [0, 10, 30]


def test_broken_images_can_be_fatal(with_broken: CaptionSet):
    with pytest.raises(DataError, match=r"2\.png"):
        prepare(with_broken, range(5), CONFIG, workers=0, on_bad_image="fail")


def test_nothing_readable_is_an_error(with_broken: CaptionSet):
    with pytest.raises(DataError, match="none of whose images"):
        prepare(with_broken, [2, 4], CONFIG, workers=0, on_bad_image="skip")


def test_a_chunk_of_broken_images_alone_has_the_size_of_the_others(with_broken: CaptionSet):
    """Also where preprocessing squashes instead of cropping."""
    squash = PreprocessConfig(shortest_edge=None, resize_to=(32, 32), crop_size=None)
    assert [part.pixels.shape for part in decode(with_broken.records, [[0, 1], [2, 4]], squash, workers=0)] == [
        (2, 32, 32, 3),
        (0, 32, 32, 3),
    ]


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(captioned_folder: Path, tmp_path: Path):
    code = (
        "import multiprocessing, sys\n"
        "from edgeclip.config import PreprocessConfig\n"
        "from edgeclip.data.decode_views import decode\n"
        "from edgeclip.data.load_data import load_data\n"
        "if __name__ == '__main__':\n"
        "    records = load_data(sys.argv[1], samples=0, seed=0).records\n"
        "    work = decode(records, ([0] for _ in iter(int, 1)), PreprocessConfig.clip(32), workers=1)\n"
        "    next(work)\n"
        "    print(multiprocessing.active_children()[0].pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    script = tmp_path / "endless.py"
    script.write_text(code)
    parent = subprocess.Popen(
        [sys.executable, script, captioned_folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    ended = os.pidfd_open(worker)
    parent.kill()
    parent.communicate()
    assert select.select([ended], [], [], LAST_RESORT)[0]
    os.close(ended)


@pytest.mark.slow
def test_worker_processes_give_the_same_in_the_same_order(captioned_folder: Path):
    captions = load_data(str(captioned_folder), samples=24, seed=0, options=DataOptions())
    order = np.random.default_rng(0).permutation(24).tolist()
    serial = list(decode(captions.records, in_chunks(order, 5), CONFIG, workers=0))
    parallel = list(decode(captions.records, in_chunks(order, 5), CONFIG, workers=2))
    assert [part.indices for part in parallel] == [part.indices for part in serial]
    for a, b in zip(parallel, serial, strict=True):
        np.testing.assert_array_equal(a.pixels, b.pixels)


def test_all_captions_know_their_image(captioned_folder: Path):
    captions = load_data(str(captioned_folder), samples=24, seed=0)
    prepared = prepare(captions, [3, 0], CONFIG, workers=0, on_bad_image="fail")
    texts, image_of_caption = prepared.all_captions
    assert texts == ["picture, number 3", "the 3th picture", "picture, number 0", "the 0th picture"]
    assert image_of_caption.tolist() == [0, 0, 1, 1]
