"""Recipes: those that are shipped, and what a user may get wrong in one."""

from pathlib import Path

import msgspec
import pytest

from edgeclip.config import ClipConfig
from edgeclip.distill.recipe import NAMES, DistillRecipe, ShrinkConfig, load_recipe
from edgeclip.errors import ConfigError
from edgeclip.shrink.plan import count_parameters, propose, student_config
from tests.shrink.conftest import TABLETOP, VIT_B_32

TEXT = """
samples = 20
qad_share = 0.5
[loss]
feature = 1.0
[train]
epochs = 1
batch_size = 4
lr = 1e-4
"""
PLAN = """
[shrink.plan]
vocabulary = "captions"
[shrink.plan.vision]
layers = [0]
num_attention_heads = 1
intermediate_size = 16
[shrink.plan.text]
layers = [0, 1]
num_attention_heads = 1
intermediate_size = 16
"""


def test_the_shipped_recipes_are_what_their_names_say():
    fractions = {name: load_recipe(name).shrink for name in NAMES}
    assert fractions.pop("qad") is None
    assert {name: shrink.fractions[-1] for name, shrink in fractions.items()} == {
        "half": 0.5,
        "quarter": 0.25,
        "eighth": 0.125,
    }
    assert all(load_recipe(name).qad_share > 0 for name in NAMES)


@pytest.mark.parametrize("teacher", [TABLETOP, VIT_B_32], ids=["tabletop", "ViT-B/32"])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "qad"])
def test_the_shipped_recipes_fit_small_and_full_size(name: str, teacher: ClipConfig):
    shrink = load_recipe(name).shrink
    plan = propose(teacher, shrink.fractions[0], depth=shrink.depth, width=shrink.width)
    share = count_parameters(student_config(teacher, plan)) / count_parameters(teacher)
    least = 0.8 if shrink.width < 1 and teacher is TABLETOP else 0.95  # of four heads, one is a large part
    assert least * shrink.fractions[0] < share <= shrink.fractions[0]


def test_a_recipe_of_a_file(tmp_path: Path):
    (tmp_path / "mine.toml").write_text(TEXT)
    recipe = load_recipe(str(tmp_path / "mine.toml"))
    assert (recipe.qad_share, recipe.shrink, recipe.cache.augmentations) == (0.5, None, 1)
    assert recipe.cache.augment.flip == 0  # captions tell left from right
    (tmp_path / "mine.toml").write_text(TEXT + PLAN)
    assert load_recipe(str(tmp_path / "mine.toml")).shrink.kept_vocabulary == "captions"
    assert ShrinkConfig(fractions=(0.5, 0.25)).kept_vocabulary == "whole"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("colour = 1\n" + TEXT, "colour"),
        (TEXT.replace("lr = 1e-4", 'lr = "high"'), "lr"),
        (TEXT.replace("feature = 1.0", "feature = 0.0"), "without a weight"),
        (TEXT.replace("feature = 1.0", "patch_word = 1.0"), "patch_word alone with qad_share 0.5"),
        (TEXT.replace("feature = 1.0", "feature = 1.0\npatch_word = 1.0") + "chunk_size = 2\n", "with chunk_size 2"),
        (TEXT.replace("qad_share = 0.5", "qad_share = 1.5"), "qad_share 1.5"),
        (TEXT.replace("samples = 20", "samples = 1"), "samples 1"),
        (TEXT.replace("lr = 1e-4", 'lr = 1e-4\nmixed_precision = "bf16"'), "mixed_precision bf16 with qad_share 0.5"),
        (TEXT + "[shrink]\nfractions = [0.5]\ndepth = 0\n", "depth 0"),
        (TEXT + "[shrink]\nfractions = [0.5]\nwidth = 1.1\n", "width 1.1"),
        (TEXT + PLAN.replace("[shrink.plan]", "[shrink]\nwidth = 0.5\n[shrink.plan]"), "depth, width or vocabulary"),
        (TEXT + "[shrink]\n", "without fractions or a plan"),
        (TEXT + PLAN + "[shrink]\nfractions = [0.5]\n", "fractions and a plan"),
        (TEXT + "[shrink]\nfractions = [0.25, 0.5]\n", "descending"),
        (TEXT + "[shrink]\nfractions = [2.0]\n", "fraction 2.0"),
        (TEXT + "[cache]\naugmentations = 0\n", "augmentations 0"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, change: str, message: str):
    (tmp_path / "mine.toml").write_text(change)
    with pytest.raises(ConfigError) as error:
        load_recipe(str(tmp_path / "mine.toml"))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["tenth", "", "half.tom", "../half"])
def test_an_unknown_name_lists_the_known_ones(name: str):
    with pytest.raises(ConfigError, match="qad, half, quarter, eighth, or a TOML file"):
        load_recipe(name)


def test_a_recipe_survives_its_json():
    recipe = load_recipe("half")
    assert msgspec.convert(msgspec.to_builtins(recipe), DistillRecipe) == recipe


def test_a_recipe_may_fuse_tokens(tmp_path: Path):
    recipe = tmp_path / "fused.toml"
    recipe.write_text(TEXT + '[fuse]\nschedule = "35%x3"\n')
    fuse = load_recipe(str(recipe)).fuse
    assert fuse is not None
    assert fuse.schedule == "35%x3"
    recipe.write_text(TEXT + '[fuse]\nschedule = "a third"\n')
    with pytest.raises(ConfigError, match="a third"):
        load_recipe(str(recipe))
