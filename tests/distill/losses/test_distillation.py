import math
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import torch
from torch import Tensor

from edgeclip.config import ClipConfig, Config, Fusion, load_toml
from edgeclip.distill.losses.contrastive import contrastive_loss
from edgeclip.distill.losses.distillation import DistillationLoss
from edgeclip.distill.losses.feature import feature_loss
from edgeclip.distill.losses.mix import LOSSES, LossMix
from edgeclip.distill.losses.outputs import Outputs, outputs_of
from edgeclip.distill.losses.patch_word import patch_word_loss
from edgeclip.distill.train_config import TrainConfig
from edgeclip.distill.trainer import fit
from edgeclip.distill.training_stage import StudentWithLoss
from edgeclip.errors import ConfigError, EdgeclipError
from edgeclip.model import Clip
from edgeclip.reproduce.paper_loss import paper_loss

ALL = LossMix(**dict.fromkeys(LOSSES, 1.0), vision_layers=((1, 1), (2, 3)), text_layers=((2, 3),))


class Recipe(Config, frozen=True, kw_only=True):
    loss: LossMix


def read(path: Path, text: str) -> LossMix:
    (path / "recipe.toml").write_text(text)
    return load_toml(path / "recipe.toml", Recipe).loss


def teacher_of(config: ClipConfig, **changes: object) -> Clip:
    """Wider and deeper than the student, in a larger space."""
    vision = msgspec.structs.replace(config.vision, hidden_size=40, num_hidden_layers=3)
    text = msgspec.structs.replace(config.text, hidden_size=30, num_hidden_layers=3)
    larger = msgspec.structs.replace(config, projection_dim=20, vision=vision, text=text)
    return Clip(msgspec.structs.replace(larger, **changes)).eval()


@pytest.fixture
def pairs(config: ClipConfig) -> tuple[Tensor, Tensor]:
    input_ids = torch.randint(3, 500, (4, 9))
    input_ids[:, -1] = config.text.eos_token_id
    input_ids[1, 4:] = config.text.eos_token_id
    return torch.randn(4, 3, 32, 32), input_ids


def test_a_recipe_table(tmp_path: Path):
    mix = read(tmp_path, "[loss]\nfeature = 1\nhidden_state = 0.5\nvision_layers = [[1, 2], [2, 4]]\n")
    assert mix.weights == {"feature": 1.0, "hidden_state": 0.5}
    assert mix.vision_layers == ((1, 2), (2, 4))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("features = 1.0", "features"),
        ("feature = -1.0", "loss feature -1"),
        ("feature = nan", "loss feature nan"),
        ("affinity = inf", "loss affinity inf"),
        ("feature = true", "float"),
        ("feature = '1'", "float"),
        ("", "without a weight above 0"),
        ("feature = 0.0\naffinity = 0", "without a weight above 0"),
        ("affinity = 1.0\naffinity_scale = 0", "affinity_scale 0"),
        ("soft_contrastive = 1.0\nsoftening = 1.0", "softening 1"),
        ("hidden_state = 1.0", "hidden_state 1 with vision_layers"),
        ("feature = 1.0\ntext_layers = [[1, 1]]", r"text_layers \[\[1, 1\]\]"),
        ("hidden_state = 1.0\ntext_layers = [[1]]", "length 2"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(tmp_path: Path, table: str, message: str):
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, f"[loss]\n{table}\n")
    assert "\n" not in str(caught.value)


def test_the_total_is_the_weighted_sum_of_the_parts(clip: Clip, config: ClipConfig, pairs: tuple[Tensor, Tensor]):
    mix = LossMix(contrastive=0.5, feature=3.0)
    student, teacher = (outputs_of(model, *pairs, tokens=False) for model in (clip, Clip(config)))
    total, parts = DistillationLoss(mix, config, config)(student, teacher, progress=0.0)
    contrastive = contrastive_loss(student.logit_scale * student.image_embeds @ student.text_embeds.T)
    feature = feature_loss(student.image_embeds, student.text_embeds, teacher.image_embeds, teacher.text_embeds)
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(
        {"contrastive": contrastive.item(), "feature": feature.item()}, rel=1e-5
    )
    assert total.item() == pytest.approx((0.5 * contrastive + 3 * feature).item(), rel=1e-5)
    assert not any(part.requires_grad for part in parts.values())


def test_the_reports_loss_is_a_mix(clip: Clip, config: ClipConfig, pairs: tuple[Tensor, Tensor]):
    mix = LossMix(contrastive_relational=0.3, contrastive=0.7)
    models = (clip, Clip(config))
    models[1].log_logit_scale.data.fill_(1.0)  # each at its own scale
    student, teacher = (outputs_of(model, *pairs, tokens=False) for model in models)
    total, _ = DistillationLoss(mix, config, config)(student, teacher, progress=0.0)
    expected = paper_loss(*(model(*pairs) for model in models), alpha=0.3)
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_only_soft_labels_depend_on_the_progress(clip: Clip, config: ClipConfig, pairs: tuple[Tensor, Tensor]):
    loss = DistillationLoss(LossMix(contrastive=1.0, soft_contrastive=1.0, softening=0.2), config, config)
    student = outputs_of(clip, *pairs, tokens=False)
    start, end = (loss(student, student, progress=progress)[1] for progress in (0.0, 1.0))
    assert start["soft_contrastive"].item() == pytest.approx(start["contrastive"].item(), rel=1e-6)
    assert end["soft_contrastive"].item() != pytest.approx(start["soft_contrastive"].item(), rel=1e-3)
    assert end["contrastive"] == start["contrastive"]


def test_tokens_are_asked_for_only_where_a_loss_needs_them(clip: Clip, config: ClipConfig, pairs):
    def needs(mix: LossMix) -> tuple[bool, bool]:
        loss = DistillationLoss(mix, config, config)
        return loss.needs_student_tokens, loss.needs_teacher_tokens

    assert needs(LossMix(feature=1.0, affinity=1.0, interactive=1.0)) == (False, False)
    assert needs(LossMix(patch_word=1.0)) == (True, False)
    assert needs(LossMix(hidden_state=1.0, text_layers=((1, 1),))) == (True, True)
    without = outputs_of(clip, *pairs, tokens=False)
    assert without.image_tokens is without.text_tokens is None
    with pytest.raises(ValueError, match="outputs without tokens"):
        DistillationLoss(LossMix(patch_word=1.0), config, config)(without, without, progress=0.0)


def test_the_class_token_and_the_start_of_text_are_no_patch_and_no_word(clip: Clip, config: ClipConfig, pairs):
    student = outputs_of(clip, *pairs, tokens=True)
    total, _ = DistillationLoss(LossMix(patch_word=1.0), config, config)(student, student, progress=0.0)
    patches_BPE, words = student.image_tokens.embeds[:, 1:], student.text_tokens
    assert patches_BPE.shape[1] == config.vision.num_patches
    assert words.mask[:, 1:].sum(dim=1).tolist() == [8, 4, 8, 8]  # up to and with the end of text
    expected = patch_word_loss(patches_BPE, words.embeds[:, 1:], words.mask[:, 1:], clip.logit_scale)
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_learned_scale_is_clamped_where_there_is_one(config: ClipConfig):
    loss = DistillationLoss(LossMix(interactive=1.0), config, config)
    loss.interactive.log_logit_scale.data.fill_(9.0)
    loss.clamp_logit_scale()
    assert loss.interactive.log_logit_scale.item() == pytest.approx(math.log(100))
    DistillationLoss(LossMix(feature=1.0), config, config).clamp_logit_scale()


def test_states_of_fused_tokens_are_not_compared_with_those_of_patches(config: ClipConfig):
    vision = msgspec.structs.replace(config.vision, fusion=Fusion(criterion="tome", steps=((1, 2),)))
    fused = msgspec.structs.replace(config, vision=vision)
    for student, teacher in ((fused, config), (config, fused), (fused, fused)):
        with pytest.raises(ConfigError, match="vision_layers for an image tower that fuses tokens"):
            DistillationLoss(LossMix(hidden_state=1.0, vision_layers=((1, 1),)), student, teacher)
        DistillationLoss(LossMix(hidden_state=1.0, text_layers=((1, 1),)), student, teacher)


def test_what_is_learned_beside_the_student(config: ClipConfig):
    def learned(mix: LossMix, teacher: ClipConfig = config) -> list[str]:
        return [name for name, _ in DistillationLoss(mix, config, teacher).named_parameters()]

    other = teacher_of(config).config
    same_depth = msgspec.structs.replace(ALL, vision_layers=((2, 2),), text_layers=((2, 2),))
    assert learned(same_depth) == ["interactive.log_logit_scale"]
    projections = ["image_projection.weight", "text_projection.weight"]
    assert learned(LossMix(feature=1.0), other) == projections
    assert learned(LossMix(affinity=1.0, contrastive_relational=1.0), other) == []
    assert learned(ALL, other) == [
        *projections,
        "interactive.log_logit_scale",
        "hidden_states.image.projections.0.weight",
        "hidden_states.image.projections.1.weight",
        "hidden_states.text.projections.0.weight",
    ]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"vision_layers": ((0, 1),)}, r"vision_layers with the pair \[0, 1\]; expected \[1 to 2, 1 to 3\]"),
        ({"text_layers": ((1, 4),)}, r"text_layers with the pair \[1, 4\]"),
    ],
)
def test_layers_that_a_model_lacks_are_refused(config: ClipConfig, layers: dict, message: str):
    with pytest.raises(EdgeclipError, match=message):
        DistillationLoss(LossMix(hidden_state=1.0, **layers), config, teacher_of(config).config)


def test_towers_whose_tokens_do_not_correspond_are_refused(config: ClipConfig):
    finer = msgspec.structs.replace(config, vision=msgspec.structs.replace(config.vision, patch_size=8))
    with pytest.raises(ConfigError, match="4 patches and a teacher of 16"):
        DistillationLoss(LossMix(hidden_state=1.0, vision_layers=((1, 1),)), config, finer)
    more_words = msgspec.structs.replace(config, text=msgspec.structs.replace(config.text, vocab_size=900))
    with pytest.raises(ConfigError, match="a teacher of 900"):
        DistillationLoss(LossMix(hidden_state=1.0, text_layers=((1, 1),)), config, more_words)


@pytest.mark.slow
def test_all_losses_together_train_a_student_and_every_parameter(clip: Clip, config: ClipConfig, pairs):
    teacher = teacher_of(config)
    loss = DistillationLoss(ALL, config, teacher.config)
    model = StudentWithLoss(clip.train(), loss)
    before = {name: p.clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        targets = outputs_of(teacher, *pairs, tokens=loss.needs_teacher_tokens)
    seen: list[dict[str, Tensor]] = []

    def loss_of(step: int) -> Tensor:
        outputs: Outputs = outputs_of(clip, *pairs, tokens=loss.needs_student_tokens)
        total, parts = loss(outputs, targets, progress=step / 40)
        seen.append(parts)
        return total

    def batches(steps: range) -> Iterator[int]:
        return iter(steps)

    losses = fit(model, batches, loss_of, TrainConfig(epochs=1, batch_size=4, lr=3e-3), steps=40)
    assert losses[-1] < 0.5 * losses[0]
    assert set(seen[0]) == set(LOSSES)
    for name in LOSSES:
        assert seen[-1][name] < seen[0][name], name
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []
