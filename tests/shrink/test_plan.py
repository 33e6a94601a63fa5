from pathlib import Path

import msgspec
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from edgeclip.config import ClipConfig, Config, load_toml
from edgeclip.errors import ConfigError
from edgeclip.model import Clip
from edgeclip.shrink.plan import ShrinkPlan, count_parameters, explain, propose, student_config
from tests.shrink.conftest import TABLETOP, VIT_B_32

TEACHERS = [(TABLETOP, None), (TABLETOP, 700), (VIT_B_32, None), (VIT_B_32, 6000)]
RECIPE = """
[shrink]
vocabulary = "whole"
[shrink.vision]
layers = [0, 3, 5]
num_attention_heads = 4
intermediate_size = 736
[shrink.text]
layers = [0, 3]
num_attention_heads = 3
intermediate_size = 624
"""


class Recipe(Config, frozen=True, kw_only=True):
    shrink: ShrinkPlan


def on_meta(config: ClipConfig) -> Clip:
    with torch.device("meta"):
        return Clip(config)


def decode(folder: Path, recipe: str) -> ShrinkPlan:
    (folder / "shrink.toml").write_text(recipe)
    return load_toml(folder / "shrink.toml", Recipe).shrink


@pytest.mark.parametrize("teacher", [TABLETOP, VIT_B_32], ids=["tabletop", "ViT-B/32"])
def test_counted_parameters_are_those_of_the_model(teacher: ClipConfig):
    assert count_parameters(teacher) == sum(p.numel() for p in on_meta(teacher).parameters())


@pytest.mark.parametrize(("teacher", "vocab_size"), TEACHERS)
@pytest.mark.parametrize("fraction", [0.5, 0.25, 0.125])
def test_students_have_the_parameters_asked_for(teacher: ClipConfig, vocab_size: int | None, fraction: float):
    plan = propose(teacher, fraction, vocab_size=vocab_size)
    student = on_meta(student_config(teacher, plan, vocab_size))
    share = sum(p.numel() for p in student.parameters()) / sum(p.numel() for p in on_meta(teacher).parameters())
    assert 0.96 * fraction < share <= fraction
    for tower, whole in ((plan.vision, teacher.vision), (plan.text, teacher.text)):
        assert {0, whole.num_hidden_layers - 1} <= set(tower.layers)
    assert plan == propose(teacher, fraction, vocab_size=vocab_size)


@pytest.mark.parametrize("teacher", [TABLETOP, VIT_B_32], ids=["tabletop", "ViT-B/32"])
@pytest.mark.parametrize(("fraction", "faster"), [(0.5, 1.9), (0.25, 3.5), (0.125, 7)])
def test_image_encoding_gets_cheaper(teacher: ClipConfig, fraction: float, faster: float):
    def flops(config: ClipConfig) -> int:
        side = config.vision.image_size
        with FlopCounterMode(display=False) as counter, torch.device("meta"):
            Clip(config).encode_image(torch.empty(1, 3, side, side))
        return counter.get_total_flops()

    student = student_config(teacher, propose(teacher, fraction))
    assert flops(teacher) > faster * flops(student)


@pytest.mark.parametrize("teacher", [TABLETOP, VIT_B_32], ids=["tabletop", "ViT-B/32"])
def test_the_whole_is_the_teacher_itself(teacher: ClipConfig):
    assert student_config(teacher, propose(teacher, 1.0)) == teacher


def test_half_of_the_tabletop_teacher_by_hand(tmp_path: Path):
    plan = propose(TABLETOP, 0.5)
    assert plan == decode(tmp_path, RECIPE)
    lines = explain(TABLETOP, student_config(TABLETOP, plan)).splitlines()
    assert lines == [
        "image: 3 of 6 layers, 4 of 4 heads (width 256 of 256), 736 of 1024 MLP units, 2.79 of 5.60 M parameters",
        "text: 2 of 4 layers, 3 of 3 heads (width 192 of 192), 624 of 768 MLP units, 0.99 of 1.99 M parameters, "
        "784 of 784 tokens",
        "all: 3.78 of 7.60 M parameters, 49.8 %",
    ]


def test_a_deeper_half_has_fewer_units():
    plan = propose(TABLETOP, 0.5, depth=2 / 3)
    assert (plan.vision.layers, plan.vision.num_attention_heads) == ((0, 2, 3, 5), 4)
    assert (plan.text.layers, plan.text.num_attention_heads) == ((0, 2, 3), 3)
    assert (plan.vision.intermediate_size, plan.text.intermediate_size) == (416, 288)
    sizes = [count_parameters(student_config(TABLETOP, p)) for p in (plan, propose(TABLETOP, 0.5))]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)


def test_a_narrower_quarter_has_more_units_and_leaves_the_rest():
    wide, narrow = (propose(TABLETOP, 0.25, depth=0.5, width=width) for width in (1.0, 0.67))
    assert (wide.vision.layers, wide.vision.num_attention_heads, wide.vision.intermediate_size) == ((0, 3, 5), 3, 256)
    assert (narrow.vision.layers, narrow.vision.num_attention_heads) == ((0, 3, 5), 2)
    assert narrow.vision.intermediate_size == 1024 * 2 // 4  # as a head brings with it, though there were room for more
    assert narrow.text == wide.text  # of three heads no more would fit
    assert propose(TABLETOP, 0.25, width=0.01).vision.num_attention_heads == 1
    with pytest.raises(ConfigError, match="width 0"):
        propose(TABLETOP, 0.25, width=0)


def test_the_vocabulary_decides_how_wide_the_text_tower_is():
    whole, reduced = propose(VIT_B_32, 0.25), propose(VIT_B_32, 0.25, vocab_size=6000)
    assert (whole.text.num_attention_heads, reduced.text.num_attention_heads) == (4, 8)
    student = student_config(VIT_B_32, reduced, 6000)
    assert (student.text.vocab_size, student.text.eos_token_id) == (6000, None)
    assert student_config(TABLETOP, propose(TABLETOP, 0.25, vocab_size=700), 700).text.eos_token_id == 699


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("layers = [0, 3, 5]", "layers = [0, 3, 6]", "vision layer 6 of a teacher with 6 layers"),
        ("num_attention_heads = 3", "num_attention_heads = 4", "4 text attention heads of a teacher with 3"),
        ("intermediate_size = 736", "intermediate_size = 1040", "1040 vision MLP units of a teacher with 1024"),
        ('"whole"', '"captions"', "without a reduced vocabulary"),
    ],
)
def test_students_that_their_teacher_cannot_have(tmp_path: Path, before: str, after: str, message: str):
    plan = decode(tmp_path, RECIPE.replace(before, after))
    with pytest.raises(ConfigError, match=message) as caught:
        student_config(TABLETOP, plan)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("vocab_size", [785, 0])
def test_vocabularies_that_cannot_be(vocab_size: int):
    plan = msgspec.structs.replace(propose(TABLETOP, 0.5), vocabulary="captions")
    with pytest.raises(ConfigError, match=str(vocab_size)):
        student_config(TABLETOP, plan, vocab_size)
    with pytest.raises(ConfigError, match="reduced vocabulary"):
        student_config(TABLETOP, propose(TABLETOP, 0.5), 700)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("vocabulary", "depth = 3\nvocabulary", "depth"),
        ("[shrink.text]", "[shrink.text]\nwidth = 3", "width"),
        ('"whole"', '"half"', "half"),
        ("layers = [0, 3]", "layers = [3, 0]", "ascending"),
        ("layers = [0, 3]", "layers = [0, 0]", "ascending"),
        ("layers = [0, 3]", "layers = [-1, 3]", "ascending"),
        ("layers = [0, 3]", "layers = []", "ascending"),
        ("num_attention_heads = 3", "num_attention_heads = 0", "num_attention_heads 0"),
        ("intermediate_size = 624", "intermediate_size = -1", "intermediate_size -1"),
        ("intermediate_size = 624", "", "intermediate_size"),
    ],
)
def test_tables_that_say_no_plan(tmp_path: Path, before: str, after: str, message: str):
    with pytest.raises(ConfigError, match=message):
        decode(tmp_path, RECIPE.replace(before, after))


@pytest.mark.parametrize(("fraction", "message"), [(0.01, "text tower"), (0.0, "fraction"), (1.5, "fraction")])
def test_fractions_that_no_student_has(fraction: float, message: str):
    with pytest.raises(ConfigError, match=message):
        propose(VIT_B_32, fraction)
