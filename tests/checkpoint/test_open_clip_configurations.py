"""All of open_clip's configurations: which are read and were compared with open_clip, and what is said of others.

See tests/oracles/open_clip_configurations.py, which compares, and open_clip_bert.py.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from edgeclip.checkpoint.open_clip import describe
from edgeclip.errors import CheckpointError

ORACLES = Path(__file__).parents[1] / "oracles"
RECORDED = json.loads((ORACLES / "open_clip_configurations.json").read_text())
CONFIGURATIONS: dict[str, dict] = RECORDED["configurations"]
BERTS = json.loads((ORACLES / "open_clip_bert.json").read_text())["models"]
"""Compared apart, since their text towers are transformers'; a tower of two sizes is compared once."""


def is_read(name: str) -> bool:
    try:
        describe({"model_cfg": CONFIGURATIONS[name]}, Path("open_clip_config.json"))
    except CheckpointError:
        return False
    return True


def test_most_are_read_and_every_one_of_them_was_compared():
    read = {name for name in CONFIGURATIONS if is_read(name)}
    with_bert = {name for name in read if "hf_model_name" in CONFIGURATIONS[name]["text_cfg"]}
    assert len(CONFIGURATIONS) == 144
    assert len(read) == 85
    assert read - with_bert == set(RECORDED["differences"])
    assert max(RECORDED["differences"].values()) < 1e-6
    towers = {CONFIGURATIONS[name]["text_cfg"]["hf_model_name"] for name in with_bert}
    assert {name.removesuffix("-base").removesuffix("-large") for name in towers} == {"roberta", "xlm-roberta"}
    assert BERTS


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("RN50", "a ResNet image tower"),
        ("convnext_base", "timm's 'convnext_base' as its image tower, which has ConvNeXt's convolutions"),
        ("ViTamin-L", "timm's 'vitamin_large_224' as its image tower"),
        ("EVA02-B-16", "as its image tower, which has EVA02's rotary positions"),
        ("PE-Core-T-16-384", "which has Perception Encoder's rotary positions"),
        ("coca_ViT-B-32", "a text decoder, as CoCa has it"),
        ("mt5-base-ViT-B-32", "'google/mt5-base' as its text tower"),
        ("nllb-clip-base", "as its text tower, which has NLLB's encoder"),
        ("swin_base_patch4_window7_224", "which has Swin's windows"),
        ("vit_medium_patch16_gap_256", "which has the mean of patches in place of a class token"),
        ("vit_relpos_medium_patch16_cls_224", "which has relative positions"),
    ],
)
def test_what_is_not_read_is_named(name: str, part: str):
    with pytest.raises(CheckpointError) as refused:
        describe({"model_cfg": CONFIGURATIONS[name]}, Path("open_clip_config.json"))
    assert part in str(refused.value)


def test_every_refusal_is_one_line():
    for name in CONFIGURATIONS:
        if not is_read(name):
            with pytest.raises(CheckpointError) as refused:
                describe({"model_cfg": CONFIGURATIONS[name]}, Path("open_clip_config.json"))
            assert "\n" not in str(refused.value), name
            assert re.search(r"with a ResNet image tower|which has \w|with a text decoder", str(refused.value)), name
