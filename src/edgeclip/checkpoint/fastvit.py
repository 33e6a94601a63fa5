"""timm's FastViT, MobileCLIP's image tower: its sizes by name, and the key table that folds it.

Source: huggingface/pytorch-image-models 1.0.31, timm/models/fastvit.py.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

import torch
from msgspec.structs import replace
from torch import Tensor

from edgeclip.checkpoint import folding
from edgeclip.checkpoint.folding import Branch, Shape, convolution, normalisation, normalised, summed
from edgeclip.checkpoint.keys import Rule, constant, linear, same, scaled_linear
from edgeclip.config import (
    CLIP_MEAN,
    CLIP_STD,
    CONTEXT,
    HALVING,
    MIXER,
    WIDENED,
    ConvStages,
    PreprocessConfig,
    Stage,
    VisionConfig,
)

_SMALL = (0, 0, 1, 1), (0, 0, 0, 1), 3, "affine"
_LARGE = (0, 0, 0, 0, 0), (0, 0, 0, 1, 1), 4, "layer"
_TOWERS = {
    "fastvit_mci0": ((64, 128, 256, 512), (2, 6, 10, 2), *_SMALL),
    "fastvit_mci1": ((64, 128, 256, 512), (4, 12, 20, 4), *_SMALL),
    "fastvit_mci2": ((80, 160, 320, 640), (4, 12, 24, 4), *_SMALL),
    "fastvit_mci3": ((96, 192, 384, 768, 1536), (2, 12, 24, 4, 2), *_LARGE),
    "fastvit_mci4": ((128, 256, 512, 1024, 2048), (2, 12, 24, 4, 4), *_LARGE),
}
"""Of each stage the width, the depth, whether it squeezes and whether it attends; the MLP ratio, and which norms."""
HEAD_SIZE, EPS = 32, 1e-5


def fastvit_tower(name: str, image_size: int) -> VisionConfig | None:
    """The tower of a timm name such as `fastvit_mci0`, whose own classifier is the projection; None for another."""
    if name not in _TOWERS:
        return None
    widths, depths, squeezes, attends, ratio, norm = _TOWERS[name]
    sizes = zip(widths, depths, attends, squeezes, strict=True)
    return VisionConfig(
        image_size=image_size,
        patch_size=2 ** (len(widths) + 1),
        hidden_size=widths[-1],
        num_hidden_layers=sum(depths),
        num_attention_heads=widths[-1] // HEAD_SIZE,
        intermediate_size=ratio * widths[-1],
        hidden_act="gelu",
        layer_norm_eps=EPS,
        pooling="places",
        projection_bias=True,
        convolutions=ConvStages(
            stages=tuple(Stage(width=w, depth=d, attends=bool(a), squeezes=bool(s)) for w, d, a, s in sizes),
            norm="affine" if norm == "affine" else "layer",
        ),
    )


def fastvit_of(state: Mapping[str, Tensor], trunk: str, image_size: int) -> VisionConfig | None:
    """The tower whose blocks and width the tensors have; None where there is none."""
    pattern = re.compile(re.escape(trunk) + r"\.stages\.(\d+)\.blocks\.(\d+)\.mlp\.fc1\.weight")
    found = [(int(match[1]), tensor.shape[1]) for name, tensor in state.items() if (match := pattern.fullmatch(name))]
    for name, (widths, depths, *_) in _TOWERS.items():
        if sorted(found) == [(i, width) for i, width in enumerate(widths) for _ in range(depths[i])]:
            return fastvit_tower(name, image_size)
    return None


def fastvit_preprocess(vision: VisionConfig) -> PreprocessConfig:
    """How images are prepared for such a tower: MobileCLIP's way, and those with layer normalisations CLIP's numbers.

    Source: mlfoundations/open_clip 3.3.0, open_clip/pretrained.py, MobileCLIP-S1 to MobileCLIP2-S4.
    """
    own = PreprocessConfig.mobileclip(vision.image_size)
    is_large = vision.convolutions is not None and vision.convolutions.norm == "layer"
    return replace(own, mean=CLIP_MEAN, std=CLIP_STD) if is_large else own


class _Names:
    """The key table of one tower, whose branches were folded before or not."""

    def __init__(self, trunk: str, convolutions: ConvStages, *, folded: bool) -> None:
        self.trunk, self.folded = trunk, folded
        self.stages, self.norm = convolutions.stages, convolutions.norm
        self.stem_has_scales = convolutions.norm == "affine"  # those with layer normalisations have none

    def mobile_one(self, name: str, shape: Shape, *, scale: bool = True, identity: bool = True) -> Branch:
        """A MobileOneBlock's convolution; `scale` and `identity` are the branches that it has beside its own."""
        if self.folded:
            return convolution(f"{name}.reparam_conv", shape)
        branches = [normalised(f"{name}.conv_kxk.0", shape)]
        if scale and shape.height > 1:
            branches.append(normalised(f"{name}.conv_scale", shape._replace(height=1, width=1)))
        if identity:
            branches.append(normalisation(f"{name}.identity", shape))
        return summed(branches, shape)

    def stem(self) -> Iterator[Rule]:
        """The three convolutions before the first stage."""
        width, scale = self.stages[0].width, self.stem_has_scales
        for index, ours, inputs in ((0, "stem", 3), (1, "stem_depthwise", 1)):
            branch = self.mobile_one(
                f"{self.trunk}.stem.{index}", Shape(width, inputs, 3, 3), scale=scale, identity=False
            )
            yield from folding.rules(f"vision.{ours}", branch)
        branch = self.mobile_one(f"{self.trunk}.stem.2", Shape(width, width, 1, 1))
        yield from folding.pointwise("vision.stem_pointwise", branch)

    def halving(self, index: int) -> Iterator[Rule]:
        """What stands before a stage."""
        stage, ours, theirs = (
            self.stages[index],
            f"vision.halvings.{index - 1}",
            f"{self.trunk}.stages.{index}.downsample.proj",
        )
        shape = Shape(stage.width, 1, HALVING, HALVING)
        if self.folded:
            branch = convolution(f"{theirs}.0.reparam_conv", shape)
        else:
            small = normalised(f"{theirs}.0.small_conv", shape._replace(height=3, width=3))
            branch = summed([normalised(f"{theirs}.0.large_conv", shape), small], shape)
        yield from folding.rules(f"{ours}.context", branch)
        if stage.squeezes:
            yield from _squeeze(f"{ours}.squeeze", f"{theirs}.0.se")
        branch = self.mobile_one(f"{theirs}.1", Shape(stage.width, stage.width, 1, 1))
        yield from folding.pointwise(f"{ours}.pointwise", branch)

    def position(self, index: int) -> Iterator[Rule]:
        """What tells a stage that attends where each place is."""
        theirs, shape = f"{self.trunk}.stages.{index}.pos_emb", Shape(self.stages[index].width, 1, CONTEXT, CONTEXT)
        if self.folded:
            branch = convolution(f"{theirs}.reparam_conv", shape)
        else:
            branch = folding.added(convolution(f"{theirs}.pos_enc", shape), shape)
        yield from folding.rules(f"vision.positions.{index}", branch)

    def block(self, index: int, at: int, units: int) -> Iterator[Rule]:
        """One block of a stage."""
        stage, ours, theirs = (
            self.stages[index],
            f"vision.stages.{index}.{at}",
            f"{self.trunk}.stages.{index}.blocks.{at}",
        )
        width = stage.width
        scale = f"{theirs}.layer_scale_2.gamma" if stage.attends else f"{theirs}.layer_scale.gamma"
        if stage.attends:
            yield from self.attention(ours, theirs, width)
        else:
            yield from folding.rules(
                f"{ours}.mixer", self.mixer(f"{theirs}.token_mixer", Shape(width, 1, MIXER, MIXER))
            )
        context = normalised(f"{theirs}.mlp.conv", Shape(width, 1, CONTEXT, CONTEXT))
        yield from folding.rules(f"{ours}.context", context)
        yield from folding.pointwise(f"{ours}.mlp.fc1", convolution(f"{theirs}.mlp.fc1", Shape(units, width, 1, 1)))
        fc2 = convolution(f"{theirs}.mlp.fc2", Shape(width, units, 1, 1))
        yield from folding.pointwise(f"{ours}.mlp.fc2", folding.scaled(fc2, scale, (width, 1, 1)))

    def mixer(self, name: str, shape: Shape) -> Branch:
        """A RepMixer."""
        if self.folded:
            return convolution(f"{name}.reparam_conv", shape)
        norm = normalisation(f"{name}.norm.identity", shape)
        scale = f"{name}.layer_scale.gamma"
        return folding.mixed(self.mobile_one(f"{name}.mixer", shape), norm, scale, (shape.outputs, 1, 1), shape)

    def attention(self, ours: str, theirs: str, width: int) -> Iterator[Rule]:
        """The attention of a block, whose query, key and value have no bias."""
        yield from (linear if self.norm == "layer" else folding.affine)(f"{ours}.norm", f"{theirs}.norm")
        yield same(f"{ours}.attention.qkv.weight", f"{theirs}.token_mixer.qkv.weight")
        yield constant(f"{ours}.attention.qkv.bias", torch.zeros(3 * width))
        scale = f"{theirs}.layer_scale_1.gamma"
        yield from scaled_linear(f"{ours}.attention.out", f"{theirs}.token_mixer.proj", scale, after=2)

    def ends(self) -> Iterator[Rule]:
        """What follows the last stage."""
        shape = Shape(WIDENED * self.stages[-1].width, 1, MIXER, MIXER)
        yield from folding.rules("vision.last", self.mobile_one(f"{self.trunk}.final_conv", shape, identity=False))
        yield from _squeeze("vision.squeeze", f"{self.trunk}.final_conv.se")
        yield from linear("vision.projection", f"{self.trunk}.head.fc")


def _squeeze(ours: str, theirs: str) -> list[Rule]:
    return [*linear(f"{ours}.fewer", f"{theirs}.fc1"), *linear(f"{ours}.all", f"{theirs}.fc2")]


def rules(vision: VisionConfig, convolutions: ConvStages, trunk: str, present: Collection[str]) -> list[Rule]:
    """The key table of an image tower.

    Args:
        vision: the tower.
        convolutions: its stages.
        trunk: what its names begin with.
        present: the names in the file, which has a block's one convolution, `reparam_conv`, or its branches.
    """
    folded = any(".reparam_conv." in name for name in present if name.startswith(f"{trunk}."))
    names, ratio = _Names(trunk, convolutions, folded=folded), vision.intermediate_size // vision.hidden_size
    table = [*names.stem(), *names.ends()]
    for index, stage in enumerate(names.stages):
        table += names.halving(index) if index else []
        table += names.position(index) if stage.attends else []
        for at in range(stage.depth):
            table += names.block(index, at, ratio * stage.width)
    return table
