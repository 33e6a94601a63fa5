from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from transformers import CLIPModel

import edgeclip
from edgeclip.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgeclip.config import ClipConfig, PreprocessConfig
from edgeclip.errors import ConfigError
from edgeclip.export import export_bundle
from edgeclip.export.samples import Samples
from edgeclip.model import Clip
from edgeclip.shrink.importance import Calibration
from edgeclip.shrink.plan import ShrinkPlan, TowerPlan, propose
from edgeclip.shrink.student import shrink
from edgeclip.shrink.trim_vocabulary import TrimmedVocabulary, trim_vocabulary
from edgeclip.tokenizer import ClipTokenizer

TEXTS = ["a red ball", "two blue boxes on the table", "star"]


def plan_of(config: ClipConfig, layers: tuple[int, ...]) -> ShrinkPlan:
    """Depth alone."""
    vision, text = (
        TowerPlan(
            layers=layers, num_attention_heads=tower.num_attention_heads, intermediate_size=tower.intermediate_size
        )
        for tower in (config.vision, config.text)
    )
    return ShrinkPlan(vision=vision, text=text, vocabulary="whole")


NARROW = ShrinkPlan(
    vision=TowerPlan(layers=(0, 3), num_attention_heads=1, intermediate_size=20),
    text=TowerPlan(layers=(0, 1, 3), num_attention_heads=2, intermediate_size=32),
    vocabulary="whole",
)


SEEN = Calibration(
    torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)),
    torch.tensor([[558, 5, 559, 559], [558, 6, 7, 559]]),
)


@pytest.fixture(scope="module")
def pixel_values() -> torch.Tensor:
    return SEEN.pixel_values


@pytest.fixture(scope="module")
def input_ids(tokenizer: ClipTokenizer) -> torch.Tensor:
    return torch.from_numpy(tokenizer(TEXTS))


@pytest.fixture(scope="module")
def reduced(tokenizer: ClipTokenizer) -> TrimmedVocabulary:
    return trim_vocabulary(tokenizer, TEXTS)


@torch.no_grad()
def test_keeping_everything_is_bit_equal(deep: Clip, pixel_values: torch.Tensor, input_ids: torch.Tensor):
    student = shrink(deep, propose(deep.config, 1.0), SEEN)
    assert student.config == deep.config
    assert torch.equal(student(pixel_values, input_ids), deep(pixel_values, input_ids))
    own = {parameter.data_ptr() for parameter in student.parameters()}
    assert own.isdisjoint(parameter.data_ptr() for parameter in deep.parameters())
    assert all(parameter.requires_grad for parameter in student.parameters())


@torch.no_grad()
def test_depth_alone_keeps_exactly_the_listed_blocks(deep: Clip, pixel_values: torch.Tensor, input_ids: torch.Tensor):
    student = shrink(deep, plan_of(deep.config, (0, 2, 3)), SEEN)
    for tower in (deep.vision, deep.text):
        del tower.transformer.blocks[1]
    assert student.config.vision.num_hidden_layers == student.config.text.num_hidden_layers == 3
    assert student.state_dict().keys() == deep.state_dict().keys()
    assert all(torch.equal(student.state_dict()[key], tensor) for key, tensor in deep.state_dict().items())
    assert torch.equal(student(pixel_values, input_ids), deep(pixel_values, input_ids))


@torch.no_grad()
def test_stages_compose(deep: Clip):
    stages = shrink(shrink(deep, plan_of(deep.config, (0, 2, 3)), SEEN), plan_of(deep.config, (0, 2)), SEEN)
    at_once = shrink(deep, plan_of(deep.config, (0, 3)), SEEN)
    assert all(torch.equal(stages.state_dict()[key], tensor) for key, tensor in at_once.state_dict().items())


@torch.no_grad()
def test_units_that_nothing_reads_leave_without_a_trace(
    deep: Clip, pixel_values: torch.Tensor, input_ids: torch.Tensor
):
    unread = torch.randperm(48, generator=torch.Generator().manual_seed(0))[:28]
    for block in [*deep.vision.transformer.blocks, *deep.text.transformer.blocks]:
        block.mlp.fc2.weight[:, unread] = 0
    plan = plan_of(deep.config, (0, 1, 2, 3))
    vision, text = (msgspec.structs.replace(tower, intermediate_size=20) for tower in (plan.vision, plan.text))
    student = shrink(deep, msgspec.structs.replace(plan, vision=vision, text=text), SEEN)
    images, texts = student.encode_image(pixel_values), student.encode_text(input_ids)
    torch.testing.assert_close(images, deep.encode_image(pixel_values), atol=1e-6, rtol=0)
    torch.testing.assert_close(texts, deep.encode_text(input_ids), atol=1e-6, rtol=0)


def widened(small: Clip) -> Clip:
    """A model of twice the width that computes the same, its channels, heads and units shuffled.

    Every residual channel is there twice, so that LayerNorm's mean and variance stay what they are; the second one is
    scaled to zero after every LayerNorm, and what would read it is random. The added heads and units are random and
    nothing reads them.
    """
    config, rng = small.config, torch.Generator().manual_seed(3)
    towers = {
        name: msgspec.structs.replace(
            tower,
            hidden_size=2 * tower.hidden_size,
            num_attention_heads=2 * tower.num_attention_heads,
            intermediate_size=2 * tower.intermediate_size,
        )
        for name, tower in (("vision", config.vision), ("text", config.text))
    }
    wide = Clip(msgspec.structs.replace(config, **towers)).eval()
    state = wide.state_dict()
    for name, tower in (("vision", config.vision), ("text", config.text)):
        D, H, F = tower.hidden_size, tower.num_attention_heads, tower.intermediate_size
        channels, units = torch.randperm(2 * D, generator=rng), torch.randperm(2 * F, generator=rng)[:F]
        first, both = channels[:D], channels
        heads = torch.randperm(2 * H, generator=rng)[:H].sort().values
        head_channels = (heads[:, None] * (D // H) + torch.arange(D // H)).flatten()
        for key, tensor in small.state_dict().items():
            if not key.startswith(name):
                continue
            target = state[key]
            part = key.rsplit(".", 2)[-2]
            if "norm" in part and part != "pre_norm":  # what pre_norm gives is the residual stream itself
                target.zero_()
                target[first] = tensor
            elif part == "projection":
                target[:, first] = tensor
            elif part == "qkv":
                rows = torch.cat([head_channels + i * 2 * D for i in range(3)])
                target[rows] = target[rows].index_copy(1, first, tensor) if tensor.ndim == 2 else tensor
            elif part == "fc1":
                target[units] = target[units].index_copy(1, first, tensor) if tensor.ndim == 2 else tensor
            elif part in ("out", "fc2") and tensor.ndim == 2:
                target.zero_()
                read = head_channels if part == "out" else units
                target[both[:, None], read[None]] = tensor.repeat(2, 1)
            elif part == "patch_embedding" or key.endswith(".bias") or tensor.ndim == 1:
                target[both] = torch.cat([tensor, tensor])
            else:  # token and position embeddings
                target[:, both] = torch.cat([tensor, tensor], dim=1)
    state["log_logit_scale"].copy_(small.log_logit_scale)
    return wide


@torch.no_grad()
def test_a_student_hidden_in_a_wider_teacher_is_found(deep: Clip, pixel_values: torch.Tensor, input_ids: torch.Tensor):
    teacher = widened(deep)
    expected = deep(pixel_values, input_ids)
    torch.testing.assert_close(teacher(pixel_values, input_ids), expected, atol=1e-4, rtol=0)
    student = shrink(teacher, plan_of(deep.config, (0, 1, 2, 3)), Calibration(pixel_values, input_ids))
    torch.testing.assert_close(student(pixel_values, input_ids), expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_padding_has_no_say_in_what_is_important(deep: Clip, pixel_values: torch.Tensor, input_ids: torch.Tensor):
    other_padding = input_ids.clone()
    after = (input_ids == deep.config.text.eos_token_id).cumsum(dim=1) > 0
    after = after & after.roll(1, dims=1)
    other_padding[after] = 5
    assert not torch.equal(other_padding, input_ids)
    first, second = (shrink(deep, NARROW, Calibration(pixel_values, ids)) for ids in (input_ids, other_padding))
    assert all(torch.equal(second.state_dict()[key], tensor) for key, tensor in first.state_dict().items())


@torch.no_grad()
def test_a_reduced_vocabulary_gives_the_same_embeddings(
    deep: Clip, reduced: TrimmedVocabulary, input_ids: torch.Tensor, pixel_values: torch.Tensor
):
    plan = msgspec.structs.replace(plan_of(deep.config, (0, 1, 2, 3)), vocabulary="captions")
    student = shrink(deep, plan, Calibration(pixel_values, input_ids), kept_tokens=reduced.kept_tokens)
    assert student.text.token_embedding.weight.shape == (reduced.tokenizer.vocab_size, 24)
    assert reduced.tokenizer.vocab_size < deep.config.text.vocab_size
    new_ids = torch.from_numpy(reduced.tokenizer(TEXTS))
    assert torch.equal(student.encode_text(new_ids), deep.encode_text(input_ids))


def test_vocabularies_that_do_not_belong_to_the_teacher(deep: Clip, reduced: TrimmedVocabulary):
    plan, kept = msgspec.structs.replace(NARROW, vocabulary="captions"), reduced.kept_tokens
    for wrong, message in (
        (kept[:-1], "ends in"),
        (np.append(kept[1:], kept[-1]), "repeat"),
        (np.append([-1], kept[1:]), "lacks"),
        (np.append(kept[1:], 10_000), "lacks"),
    ):
        with pytest.raises(ConfigError, match=message):
            shrink(deep, plan, SEEN, kept_tokens=wrong)
    with pytest.raises(ConfigError, match="without a reduced vocabulary"):
        shrink(deep, plan, SEEN)


@torch.no_grad()
def test_transformers_loads_a_student_and_computes_the_same(
    deep: Clip, reduced: TrimmedVocabulary, few_pairs: Samples, tmp_path: Path, pixel_values: torch.Tensor
):
    student = shrink(
        deep, msgspec.structs.replace(NARROW, vocabulary="captions"), SEEN, kept_tokens=reduced.kept_tokens
    )
    save_checkpoint(student, PreprocessConfig.clip(32), reduced.tokenizer, tmp_path / "student")
    input_ids = torch.from_numpy(reduced.tokenizer(TEXTS))
    theirs = CLIPModel.from_pretrained(tmp_path / "student").eval()(input_ids=input_ids, pixel_values=pixel_values)
    torch.testing.assert_close(student(pixel_values, input_ids), theirs.logits_per_image, atol=1e-4, rtol=0)
    again = load_checkpoint(tmp_path / "student")
    assert again.model.config == student.config
    assert torch.equal(again.model(pixel_values, again.tokenize(TEXTS)), student(pixel_values, input_ids))


@torch.no_grad()
@pytest.mark.slow
def test_a_bundle_of_a_student_computes_the_same(
    deep: Clip, reduced: TrimmedVocabulary, few_pairs: Samples, tmp_path: Path
):
    student = shrink(
        deep, msgspec.structs.replace(NARROW, vocabulary="captions"), SEEN, kept_tokens=reduced.kept_tokens
    )
    checkpoint = Checkpoint("student", "shrunk", "float32", student, PreprocessConfig.clip(32), reduced.tokenizer)
    export_bundle(checkpoint, tmp_path / "bundle", few_pairs, precision="fp32", threads=1)
    clip = edgeclip.load(tmp_path / "bundle", threads=1)
    picture = np.random.default_rng(0).integers(0, 256, (40, 36, 3), dtype=np.uint8)
    image_embeds = student.encode_image(checkpoint.preprocess(picture)[None]).numpy()
    np.testing.assert_allclose(clip.encode_image([picture]), image_embeds, atol=1e-5)
    np.testing.assert_allclose(
        clip.encode_text(TEXTS), student.encode_text(checkpoint.tokenize(TEXTS)).numpy(), atol=1e-5
    )
