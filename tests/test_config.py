from pathlib import Path

import msgspec
import pytest

from edgeclip.config import ClipConfig, PreprocessConfig, TowerConfig, load_toml
from edgeclip.distill.recipe import load_recipe
from edgeclip.distill.scratch import ScratchRecipe
from edgeclip.errors import ConfigError

RECIPES = Path(__file__).parents[1] / "recipes"
"""Most of those of `edgeclip distill` are in the package: see distill/test_recipe.py."""


def test_configs_are_frozen(config: ClipConfig):
    with pytest.raises(AttributeError):
        config.projection_dim = 1


def test_an_unknown_key_is_an_error(tmp_path: Path):
    (tmp_path / "tower.toml").write_text(
        'hidden_size = 8\nnum_hidden_layers = 1\nnum_attention_heads = 2\nintermediate_size = 8\nhidden_act = "gelu"\n'
        "layer_norm_eps = 1e-5\ndropout = 0.1\n"
    )
    with pytest.raises(ConfigError, match="dropout"):
        load_toml(tmp_path / "tower.toml", TowerConfig)


@pytest.mark.parametrize("content", ["hidden_size = ", "hidden_size = 3"])
def test_malformed_and_incomplete_toml_name_the_file(tmp_path: Path, content: str):
    (tmp_path / "x.toml").write_text(content)
    with pytest.raises(ConfigError, match=r"x\.toml"):
        load_toml(tmp_path / "x.toml", TowerConfig)


def test_numbers_out_of_range_name_the_file_too(tmp_path: Path):
    text = (RECIPES / "tabletop-teacher.toml").read_text().replace("seed = ", "seed = -1")
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"x\.toml: seed -\d+; expected 0 to 9223372036854775807;"):
        load_toml(tmp_path / "x.toml", ScratchRecipe)


def test_a_missing_recipe_is_a_user_error(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot read"):
        load_toml(tmp_path / "none.toml", TowerConfig)


def test_heads_must_divide_the_width(config: ClipConfig):
    raw = msgspec.to_builtins(config)
    raw["vision"]["num_attention_heads"] = 5
    with pytest.raises(ConfigError, match="5 attention heads"):
        msgspec.convert(raw, ClipConfig)


def test_a_standard_deviation_of_zero_is_refused():
    with pytest.raises(ConfigError, match="image_std"):
        PreprocessConfig(shortest_edge=8, crop_size=(8, 8), std=(0.5, 0.0, 0.5))


def test_published_recipes_decode():
    found = {path.name for path in RECIPES.glob("*.toml")}
    assert load_toml(RECIPES / "tabletop-teacher.toml", ScratchRecipe).samples > 0
    assert load_recipe(str(RECIPES / "fused.toml")).fuse is not None
    assert found == {"tabletop-teacher.toml", "fused.toml"}
