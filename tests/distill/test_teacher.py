import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from edgeclip.checkpoint import Checkpoint, load_checkpoint
from edgeclip.config import PreprocessConfig
from edgeclip.data.augment import AugmentConfig
from edgeclip.data.load_data import load_data
from edgeclip.data.records import FileImage, Record
from edgeclip.distill import teacher as module
from edgeclip.distill.batches import Batch, BatchStream, Sampler
from edgeclip.distill.cache import CachedTeacher
from edgeclip.distill.recipe import CacheConfig
from edgeclip.distill.teacher import build_cache
from edgeclip.errors import CheckpointError, DataError
from edgeclip.model import Clip
from edgeclip.tokenizer import ClipTokenizer

CONFIG = PreprocessConfig.clip(32)
AUGMENTATIONS = 3


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch):
    shrink_shards(monkeypatch.setattr)


def shrink_shards(setattr_=setattr) -> None:
    """5 shards of the 24 pictures."""
    for name in ("edgeclip.distill.cache", "edgeclip.distill.teacher"):
        setattr_(sys.modules[name], "SHARD", 5)


@pytest.fixture
def records(captioned_folder: Path) -> list[Record]:
    return list(load_data(str(captioned_folder), samples=0, seed=0).records)


def build(clip: Clip, tokenizer: ClipTokenizer, records: list[Record], folder: Path, **changes: object):
    options = {"seed": 7, **changes}
    teacher = Checkpoint("mini", "clip", "float32", clip, options.pop("preprocess", CONFIG), tokenizer)
    config = CacheConfig(
        augmentations=options.pop("augmentations", AUGMENTATIONS), augment=options.pop("augment", AugmentConfig())
    )
    return build_cache(teacher, records, folder, config, **options)


def batches(records: list[Record], tokenizer: ClipTokenizer, cache: CachedTeacher | None, **options: object):
    given = {"workers": 0, "on_skip": pytest.fail, **options}
    return list(BatchStream(records, Sampler(len(records), 8, 0), CONFIG, tokenizer, cache=cache, **given)(range(9)))


@torch.no_grad()
def check(clip: Clip, batch: Batch) -> None:
    """The targets are what the teacher makes of the very tensors that a student is given."""
    torch.testing.assert_close(batch.targets.image_embeds, clip.encode_image(batch.pixel_values), atol=5e-4, rtol=0)
    torch.testing.assert_close(batch.targets.text_embeds, clip.encode_text(batch.input_ids), atol=5e-4, rtol=0)


def test_teacher_and_student_see_the_same(clip: Clip, tokenizer: ClipTokenizer, records: list[Record], tmp_path: Path):
    cache = build(clip, tokenizer, records, tmp_path / "cache", workers=1)
    assert cache.logit_scale == pytest.approx(clip.logit_scale.item())
    seen = batches(records, tokenizer, cache)
    for batch in seen:
        assert batch.targets.image_embeds.dtype == torch.float32
        check(clip, batch)
    # and what it makes of other pixels is far from that
    with torch.no_grad():
        plain = torch.cat([clip.encode_image(b.pixel_values) for b in batches(records, tokenizer, None)])
    changed = (torch.cat([batch.targets.image_embeds for batch in seen]) - plain).abs().amax(dim=1) > 5e-3
    assert changed.float().mean().item() == pytest.approx(2 / 3, abs=0.15)  # one in three is the plain crop


def test_every_process_gets_its_share_of_the_same_batches(
    clip: Clip, tokenizer: ClipTokenizer, records: list[Record], tmp_path: Path
):
    cache = build(clip, tokenizer, records, tmp_path / "cache")
    whole = batches(records, tokenizer, cache)
    shares = [batches(records, tokenizer, cache, share=(process, 3)) for process in range(3)]
    for batch, *parts in zip(whole, *shares, strict=True):
        np.testing.assert_array_equal(np.concatenate([part.indices for part in parts]), batch.indices)
        torch.testing.assert_close(torch.cat([part.pixel_values for part in parts]), batch.pixel_values)
        torch.testing.assert_close(torch.cat([part.targets.text_embeds for part in parts]), batch.targets.text_embeds)
    with pytest.raises(DataError, match="batch size 8 for 9 processes"):
        batches(records, tokenizer, cache, share=(0, 9))


def test_the_teacher_never_runs_again(
    clip: Clip, tokenizer: ClipTokenizer, records: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    build(clip, tokenizer, records, tmp_path / "cache")
    calls: list[torch.nn.Module] = []
    for part in clip.modules():
        part.register_forward_pre_hook(lambda part, arguments: calls.append(part))
    cache = build(clip, tokenizer, records, tmp_path / "cache")
    assert len(batches(records, tokenizer, cache)) == 9
    assert calls == []
    clip.encode_text(torch.zeros(1, 3, dtype=torch.int64))
    assert calls


def test_storage_is_what_is_documented(clip: Clip, tokenizer: ClipTokenizer, records: list[Record], tmp_path: Path):
    build(clip, tokenizer, records, tmp_path / "cache")
    stored = sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.safetensors"))
    embeds = 24 * (AUGMENTATIONS + 2) * clip.config.projection_dim * 2
    numbers = 24 * (AUGMENTATIONS * 8 * 4 + 8) + 5 * 8
    assert embeds + numbers < stored < embeds + numbers + 5 * 400  # and the headers


def kill_a_build(checkpoint: Path, data: Path, folder: Path) -> None:
    """Run in a process of its own: end it without warning in the middle of the third shard."""
    shrink_shards()
    checkpoint, texts = load_checkpoint(checkpoint), []
    embed = module.encode_texts

    def encode_texts(*arguments: object, **options: object):
        texts.append(1)
        if len(texts) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return embed(*arguments, **options)

    module.encode_texts = encode_texts
    build(checkpoint.model, checkpoint.tokenizer, list(load_data(str(data), samples=0, seed=0).records), folder)


@pytest.mark.slow
def test_a_killed_build_goes_on(mini_checkpoint: Path, captioned_folder: Path, records: list[Record], tmp_path: Path):
    arguments = [sys.executable, "-m", "tests.distill.test_teacher", mini_checkpoint, captioned_folder, tmp_path / "a"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(arguments, env=environment, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(DataError, match="cut short after 10 of 24 images"):
        CachedTeacher(tmp_path / "a")
    (tmp_path / "a" / "shard-00002.safetensors").write_bytes(b"half")  # as of a kill before the index was written
    checkpoint = load_checkpoint(mini_checkpoint)
    images: list[int] = []
    build(checkpoint.model, checkpoint.tokenizer, records, tmp_path / "a", advance=images.append)
    assert images == [10, 5, 5, 4]  # what was there, and then shard by shard
    build(checkpoint.model, checkpoint.tokenizer, records, tmp_path / "b")
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("a", "b")]
    assert files[0] == files[1]
    assert len(files[0]) == 6


def test_a_cache_of_something_else_is_refused(
    clip: Clip, tokenizer: ClipTokenizer, records: list[Record], tmp_path: Path, config
):
    folder = tmp_path / "cache"
    build(clip, tokenizer, records, folder)
    torch.manual_seed(1)
    first, second, *others = records
    captioned = [first, Record(second.name, second.image, (*second.captions, "another")), *others]
    cut = ClipTokenizer(tokenizer._tokenizer.__class__.from_str(tokenizer._tokenizer.to_str()), context_length=5)
    given = {"clip": clip, "tokenizer": tokenizer, "records": records, "folder": folder}
    for expected, changes in {
        "another teacher": {"clip": Clip(config)},
        "another data": {"records": captioned},
        "another data and another seed": {"records": others, "seed": 8},
        "another tokens": {"tokenizer": cut},
        "another pixels": {"records": [Record(r.name, records[0].image, r.captions) for r in records]},
        "another preprocess": {"preprocess": msgspec.structs.replace(CONFIG, std=(1.0, 1.0, 1.0))},
        "another preprocess and another augmentations": {
            "preprocess": msgspec.structs.replace(CONFIG, resample=2),
            "augmentations": 4,
        },
        "another augment": {"augment": AugmentConfig(flip=0.1)},
        "another seed": {"seed": 8},
    }.items():
        with pytest.raises(DataError, match=f"a cache with {expected};") as error:
            build(**given | changes)
        assert "\n" not in str(error.value)


def test_a_damaged_cache_is_refused(clip: Clip, tokenizer: ClipTokenizer, records: list[Record], tmp_path: Path):
    folder = tmp_path / "cache"
    build(clip, tokenizer, records, folder)
    shard, index = folder / "shard-00003.safetensors", folder / "index.json"
    whole, text = shard.read_bytes(), index.read_bytes()
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    for damaged in (whole[:-10], bytes(flipped), b""):
        shard.write_bytes(damaged)
        with pytest.raises(DataError, match=r"shard-00003\.safetensors, which was changed"):
            CachedTeacher(folder)
    index.write_bytes(
        msgspec.json.encode(msgspec.json.decode(text) | {"shards": msgspec.json.decode(text)["shards"][:4]})
    )
    with pytest.raises(DataError, match=r"shard-00003\.safetensors, which was changed"):
        build(clip, tokenizer, records, folder, advance=pytest.fail)  # before any more work is done
    shard.unlink()
    with pytest.raises(DataError, match=r"shard-00003\.safetensors cannot be read"):
        build(clip, tokenizer, records, folder)
    for damaged in (text[:-5], b"[]", b"\xff", text.replace(b'"schema":1', b'"schema":"1"')):
        index.write_bytes(damaged)
        with pytest.raises(DataError, match=r"index\.json cannot be read"):
            CachedTeacher(folder)
    index.write_bytes(text.replace(b'"schema":1', b'"schema":2'))
    with pytest.raises(DataError, match="of schema 2"):
        build(clip, tokenizer, records, folder)
    index.write_bytes(msgspec.json.encode(msgspec.json.decode(text) | {"logit_scale": -5.0}))
    with pytest.raises(DataError, match=r"index\.json, which was changed"):
        build(clip, tokenizer, records, folder)
    with pytest.raises(DataError, match=r"index\.json cannot be read"):
        CachedTeacher(tmp_path)


@pytest.mark.parametrize(("fill", "length"), [(0.0, "0"), (1e30, "(0|nan|inf)")])
def test_a_teacher_without_a_direction_is_refused(
    clip: Clip, tokenizer: ClipTokenizer, records: list[Record], tmp_path: Path, fill: float, length: str
):
    """Its weights are finite, and would teach nothing."""
    clip.vision.projection.weight.data.fill_(fill)
    with pytest.raises(CheckpointError, match=f"embeddings of images have lengths such as {length};"):
        build(clip, tokenizer, records, tmp_path / "cache")


def test_broken_images_are_reported_and_have_no_targets(
    clip: Clip, tokenizer: ClipTokenizer, records: list[Record], tmp_path: Path
):
    (tmp_path / "broken.jpg").write_bytes(b"rubbish")
    records[4] = Record("broken", FileImage(tmp_path / "broken.jpg"), ("no picture",))
    reasons: list[str] = []
    cache = build(clip, tokenizer, records, tmp_path / "cache", on_skip=reasons.append)
    assert len(reasons) == 1
    assert cache.unreadable == (4,)
    seen = batches(records, tokenizer, cache, on_skip=reasons.append)
    assert {len(batch.indices) for batch in seen} == {7, 8}
    for batch in seen:
        check(clip, batch)
    with pytest.raises(DataError, match=r"without the images \[4\]"):
        cache.targets(np.array([3, 4]), np.array([0, 1]), np.array([0, 0]))
    reasons.clear()
    build(clip, tokenizer, records, tmp_path / "cache", on_skip=reasons.append)
    assert reasons == [f"broken, not readable when {tmp_path / 'cache'} was made; remove that to try again"]


if __name__ == "__main__":
    kill_a_build(*map(Path, sys.argv[1:4]))
