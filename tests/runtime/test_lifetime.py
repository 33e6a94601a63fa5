"""A runtime closed, copied, pickled and sent to another process."""

import copy
import multiprocessing
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

import edgeclip
from edgeclip import errors
from edgeclip.checkpoint import Checkpoint
from edgeclip.errors import BundleError, EdgeclipError, InputError
from edgeclip.runtime import ClipRuntime


def test_what_it_says_of_itself(clip: ClipRuntime, checkpoint: Checkpoint, bundles: dict[str, Path]):
    shown = repr(clip)
    for part in (clip.bundle.manifest.teacher, "fp32", "MB", "embeddings of 16", "32x32", "16 tokens", "1 threads"):
        assert part in shown
    assert str(bundles["fp32"]) in shown
    assert len(repr(checkpoint)) < 400
    for part in (checkpoint.name, "float32", "embeddings of 16"):
        assert part in repr(checkpoint)


def test_after_close_everything_is_one_line(bundles: dict[str, Path], pictures: list[Path]):
    with edgeclip.load(bundles["fp32"], threads=1) as clip:
        clip.encode_text("a", cached=True)
        clip.encode_image(pictures[0])
        stream = clip.stream_images(pictures * 9)
        next(stream)
        assert not clip.closed
        assert clip.open_graphs == ["image", "text"]
    assert clip.closed
    assert clip.open_graphs == []
    assert repr(clip).endswith(", closed>")
    clip.close()
    for call in (
        lambda: clip.encode_text("a", cached=True),
        lambda: clip.encode_text([]),
        lambda: clip.encode_image([]),
        lambda: clip.classify(pictures[0], ["a"]),
        lambda: clip.stream_images(pictures),
        lambda: list(clip.stream_texts(["a"])),
        lambda: list(stream),
        lambda: pickle.dumps(clip),
        lambda: copy.copy(clip),
        clip.__enter__,
    ):
        with pytest.raises(BundleError, match="whose runtime was closed; expected an open one; load the bundle again"):
            call()
    assert clip.embedding_size == 16


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda clip: pickle.loads(pickle.dumps(clip))])
def test_a_copy_opens_the_same_files_anew(bundles: dict[str, Path], tmp_path: Path, again):
    clip = edgeclip.load(bundles["fp32"], threads=1, cache=tmp_path)
    expected = clip.encode_text("a red ball", cached=True)
    other = again(clip)
    assert repr(other) == repr(clip)
    assert other.open_graphs == []
    clip.close()
    np.testing.assert_array_equal(other.encode_text("a red ball", cached=True), expected)
    assert other.open_graphs == []  # it has the same prompt cache
    np.testing.assert_array_equal(other.encode_text("a red ball"), expected)


def test_pickled_it_is_small_and_knows_its_bundle(bundles: dict[str, Path], tmp_path: Path, monkeypatch):
    folder = shutil.copytree(bundles["fp32"], tmp_path / "bundle")
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps(edgeclip.load("bundle", threads=1))
    assert len(content) < 1000
    monkeypatch.chdir("/")
    assert pickle.loads(content).embedding_size == 16
    shutil.rmtree(folder)
    with pytest.raises(BundleError, match=r"edgeclip\.json"):
        pickle.loads(content)
    shutil.copytree(bundles["int8"], folder)
    with pytest.raises(BundleError, match="the one that was pickled"):
        pickle.loads(content)


def embed(clip: ClipRuntime, path: Path) -> np.ndarray:
    return clip.encode_image(path)


@pytest.mark.slow
def test_another_process_is_given_one(clip: ClipRuntime, pictures: list[Path]):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(embed, (clip, pictures[0])), embed(clip, pictures[0]))
        with pytest.raises(errors.ImageError, match=r"none\.png"):  # which comes back whole
            pool.apply(embed, (clip, Path("none.png")))


@pytest.mark.parametrize("kind", [kind for kind in vars(errors).values() if isinstance(kind, type)])
def test_errors_survive_the_way_between_processes(kind: type):
    if not issubclass(kind, EdgeclipError):
        return
    error = kind("a text", expected="another", fix="change it")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (str(again), again.got, again.expected, again.fix) == (str(error), "a text", "another", "change it")
    assert str(copy.copy(error)) == str(error)


@pytest.mark.parametrize("source", [None, 3, b"bundle", ["bundle"], np.zeros(3), "a\0b", "\ud800"], ids=ascii)
def test_a_source_that_is_no_path(source: object):
    with pytest.raises(InputError, match=r"`source`.*expected a path"):
        edgeclip.load(source)
    with pytest.raises(InputError, match="`threads` '2'"):
        edgeclip.load("builtin:tabletop", threads="2")
    with pytest.raises(InputError, match=r"`cache`.*expected a path"):
        edgeclip.load("builtin:tabletop", cache=3 if source is None else source)


@pytest.mark.parametrize("source", ["", "no such folder", "x" * 5000, "a/" * 3000])
def test_a_path_where_nothing_is(source: str, bundles: dict[str, Path]):
    with pytest.raises(BundleError) as caught:
        edgeclip.load(source)
    assert len(str(caught.value)) < 700
    clip = edgeclip.load(bundles["fp32"], threads=1, cache=source + "x" * 5000)  # which keeps nothing
    np.testing.assert_array_equal(clip.encode_text("a", cached=True), clip.encode_text("a"))
