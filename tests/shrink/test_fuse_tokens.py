"""Schedules of token fusion: how they are read, what they mean for a tower, and which fusion is chosen."""

import pytest
import torch
from msgspec.structs import replace

from edgeclip.config import ClipConfig, Fusion
from edgeclip.errors import ConfigError
from edgeclip.model import Clip
from edgeclip.shrink.fuse_tokens import fuse_tokens, with_fusion
from edgeclip.shrink.fusion_schedule import read_schedule, spared, steps_of
from tests.shrink.conftest import TABLETOP, VIT_B_32

B16 = replace(VIT_B_32.vision, patch_size=16)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("35%x3", ((3, 69), (6, 44), (9, 29))),
        ("tome:35%@3,6,9", ((3, 69), (6, 44), (9, 29))),
        ("mctf:8", tuple((layer, 8) for layer in range(1, 12))),
        ("16x2", ((4, 16), (8, 16))),
        ("98@11", ((11, 98),)),
        ("0.6%x2", ((4, 1), (8, 1))),
    ],
)
def test_a_schedule_at_layers_has_one_meaning(text: str, steps):
    assert steps_of(read_schedule(text), B16) == [steps]
    assert B16.num_patches == 196


@pytest.mark.parametrize("share", [10, 30, 50, 70])
def test_a_share_of_all_work_is_met_and_hardly_more(share: int):
    for tower, patch in ((B16, 0.01), (TABLETOP.vision, 0.05)):
        for steps in steps_of(read_schedule(f"{share}%"), tower):
            Fusion(criterion="tome", steps=steps).check(tower)
            assert share / 100 <= spared(tower, steps) <= share / 100 + patch
    assert {len(steps) for steps in steps_of(read_schedule("50%"), B16)} == {3, 11}


def test_what_is_spared_by_hand():
    """2 layers, D = 256, F = 4 D: a block has 4 + 8 D^2 a token, the last block 2, as its class token alone goes on."""
    two = replace(TABLETOP.vision, num_hidden_layers=2)
    assert spared(two, ()) == 0
    assert spared(two, ((1, 24),)) == pytest.approx(1 - (50 * 4 + 26 * 8 + 26 * 2) / (50 * 14))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("half", "'half'; expected 50%, 35%x3"),
        ("", "expected 50%"),
        ("50 %", "expected 50%"),
        ("8x0", "expected 50%"),
        ("-8", "expected 50%"),
        ("8.5", "expected 50%"),
        ("100%", "expected 50%"),
        ("pitome:8", "expected 50%"),
        ("8x3@1", "expected 50%"),
        ("8\n", "expected 50%"),
        ("٨", "expected 50%"),
        ("8@3,3", "ascending"),
        ("0%", "more than 0 %"),
        ("60%x3", "at most 50 %"),
        ("8x12", "at most 11"),
        ("8@12", "layer 12 of an image tower of 12; expected layers 1 to 11"),
        ("99@3", "at most 98"),
        ("17", "at most 16 at each of 11; give 16"),
        ("0.1%x3", "a larger share"),
        ("99%", "at most 87%; give 87%"),
    ],
)
def test_a_schedule_that_cannot_be_is_one_line(text: str, message: str):
    with pytest.raises(ConfigError, match=r"`fuse_tokens`|token fusion") as refused:
        steps_of(read_schedule(text), B16)
    assert message in str(refused.value)


def test_towers_without_tokens_or_layers_to_spare_and_text_towers_are_refused():
    with pytest.raises(ConfigError, match="causal text tower"):
        steps_of(read_schedule("8"), VIT_B_32.text)
    for tower in (replace(B16, patch_size=224), replace(B16, num_hidden_layers=1)):
        for text in ("1", "1x1", "1@1", "35%x1", "35%@1", "20%"):
            with pytest.raises(ConfigError, match=r"fuse_tokens|token fusion"):
                steps_of(read_schedule(text), tower)


@torch.no_grad()
def test_what_a_schedule_leaves_open_is_what_agrees_best_with_all_tokens(config: ClipConfig):
    vision = replace(config.vision, patch_size=4, num_hidden_layers=4)
    torch.manual_seed(0)
    clip = Clip(replace(config, vision=vision)).eval()
    batches = [torch.randn(3, 3, 32, 32), torch.randn(2, 3, 32, 32)]
    chosen = fuse_tokens(clip, read_schedule("40%"), batches)
    fusion = chosen.config.vision.fusion
    assert fusion is not None
    assert chosen.vision.projection.weight.data_ptr() == clip.vision.projection.weight.data_ptr()

    def agreement(fusion: Fusion) -> float:
        pairs = [(with_fusion(clip, fusion).encode_image(b), clip.encode_image(b)) for b in batches]
        return torch.cat([(a * b).sum(dim=1) for a, b in pairs]).mean().item()

    others = [
        replace(fusion, steps=steps, criterion=criterion, attention_power=power, size_power=power / 2)
        for steps in steps_of(read_schedule("40%"), vision)
        for criterion, power in (("tome", 0.0), ("mctf", 0.0), ("mctf", 0.05), ("mctf", 0.1))
    ]
    assert fusion in others
    assert agreement(fusion) == pytest.approx(max(map(agreement, others)), abs=1e-6)
    # Of a model that fuses already, all tokens are what it is compared with.
    again = fuse_tokens(chosen, read_schedule("40%"), batches)
    assert again.config == chosen.config
    assert with_fusion(again, None).config == clip.config


def test_a_criterion_that_is_given_is_taken(config: ClipConfig):
    clip = Clip(replace(config, vision=replace(config.vision, patch_size=8, num_hidden_layers=4)))
    for criterion in ("tome", "mctf"):
        fusion = fuse_tokens(clip, read_schedule(f"{criterion}:2@2"), [torch.randn(2, 3, 32, 32)]).config.vision.fusion
        assert fusion is not None
        assert (fusion.criterion, fusion.steps) == (criterion, ((2, 2),))
