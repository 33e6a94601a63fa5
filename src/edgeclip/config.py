"""Frozen configurations of the model and of its preprocessing, and their strict decoding.

Our own formats (recipes, manifests, results) are decoded strictly: an unknown or missing key is an error. Foreign
configuration files are read key by key in `hf_config` and `checkpoint/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from edgeclip.errors import MALFORMED, ConfigError
from edgeclip.files import read_whole

T = TypeVar("T")

MAX_WIDTH = 65_536
MAX_IMAGE_SIZE = 4096
"""Far above any CLIP; larger numbers are a damaged file, and would exhaust memory before they failed."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

SIGLIP_MEAN = SIGLIP_STD = (0.5, 0.5, 0.5)

BILINEAR = 2
"""Pillow's number of it."""

TextCleaning = Literal["none", "openai", "lower", "whitespace", "canonicalize", "siglip"]
"""What is done to a text before it is divided into words, see `text_cleaning`; three of them by open_clip's names."""


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Refuse a number outside [low, high], or one that is not a number.

    Raises:
        ConfigError: naming it, and the nearest number that would do.
    """
    if not low <= value <= high:
        least, most = (str(limit) if isinstance(limit, int) else f"{limit:g}" for limit in (low, high))
        raise ConfigError(
            f"{name} {value}", expected=f"{least} to {most}", fix=f"use {most if value > high else least}"
        )


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Common settings of every configuration: frozen, keyword-only, no unknown keys."""


class TowerConfig(Config, frozen=True, kw_only=True):
    """One transformer. `hidden_act` is a key of `model.layers.ACTIVATIONS`; widths in channels."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str
    layer_norm_eps: float

    @property
    def pools_by_attention(self) -> bool:
        """Whether a block with a learned query gives the embedding, in place of a projection."""
        return False

    @property
    def normalizes_after(self) -> bool:
        """Whether each block normalises what it adds up, as BERT's, and not what it reads."""
        return False


class Fusion(Config, frozen=True, kw_only=True):
    """Where an image tower fuses tokens, and which; see `model.fusion`. What it computes is no longer the same.

    `steps` are (layer, how many tokens fewer from there on), layers counted from 1. The powers are MCTF's, of the
    attention that tokens receive and of their size.
    """

    criterion: Literal["tome", "mctf"]
    steps: tuple[tuple[int, int], ...]
    attention_power: float = 0.0
    size_power: float = 0.0

    def __post_init__(self) -> None:
        layers = [layer for layer, _ in self.steps]
        if not layers or layers != sorted(set(layers)):
            raise ConfigError(
                f"token fusion at layers {layers}", expected="ascending ones", fix="export with `fuse_tokens` again"
            )
        for power in (self.attention_power, self.size_power):
            check_range("power of token fusion", power, 0, 10)

    def tokens(self, num_tokens: int) -> list[int]:
        """How many tokens are left after each step, of so many with the class token."""
        return [num_tokens - fewer for fewer in accumulate(merged for _, merged in self.steps)]

    def check(self, tower: VisionConfig) -> None:
        """Refuse steps that a tower has no layers or tokens for.

        Raises:
            ConfigError: naming the first of them.
        """
        if tower.pooling != "class":
            raise ConfigError(
                "token fusion in an image tower that pools no class token",
                expected="one that does, as CLIP's",
                fix="leave out `fuse_tokens`",
            )
        last, left = tower.num_hidden_layers - 1, tower.num_patches + 1
        for layer, merged in self.steps:
            if not 1 <= layer <= last:
                raise ConfigError(
                    f"token fusion at layer {layer} of an image tower of {last + 1}",
                    expected=f"layers 1 to {last}: of the last one only the class token is used"
                    if last
                    else "a tower of 2 layers or more",
                    fix=f"use layer {min(max(layer, 1), last)}" if last else "leave out `fuse_tokens`",
                )
            most = (left - 1) // 2
            if not 1 <= merged <= most:
                raise ConfigError(
                    f"{merged} tokens to fuse at layer {layer}, where an image has {left - 1} beside the class token",
                    expected=f"1 to {most}, half of them" if most else "at least 2 of them",
                    fix=f"use {min(max(merged, 1), most)} there" if most else "fuse fewer tokens before it, or none",
                )
            left -= merged


MIXER, CONTEXT, HALVING = 3, 7, 7
"""Of a convolutional tower, sides of the kernels that mix places, that an MLP looks through, and that halve."""
SQUEEZE, LAST_SQUEEZE = 4, 16
"""A squeeze has so many times fewer channels than what it weighs."""
WIDENED = 2
"""The last convolution gives so many times the channels of the last stage."""


class Stage(Config, frozen=True, kw_only=True):
    """Blocks of a convolutional tower at one resolution; each but the first stage halves that of the one before.

    `attends` mixes its places by attention, and else by a convolution; `squeezes` weighs its channels as it halves.
    """

    width: int
    depth: int
    attends: bool = False
    squeezes: bool = False


class ConvStages(Config, frozen=True, kw_only=True):
    """FastViT (Vasu et al. 2023), MobileCLIP's image tower, in its inference form: see `model.fastvit`.

    `norm` is what stands before attention: a scale and shift of each channel, which batch normalisation is then, or a
    layer normalisation.
    """

    stages: tuple[Stage, ...]
    norm: Literal["affine", "layer"]


class ConvStem(Config, frozen=True, kw_only=True):
    """Three convolutions in place of one (Xiao et al. 2021, Early convolutions help transformers see better).

    Their kernels do not overlap: the first has sides of a quarter of a patch, the others of 2. `width` is that of the
    first two, each of which a GELU follows; the first sees `padding` pixels of nothing around an image.
    """

    width: int
    padding: int = 0


class VisionConfig(TowerConfig, frozen=True, kw_only=True):
    """The image tower: a square image of `image_size` pixels cut into squares of `patch_size` pixels.

    `pooling` "class" is CLIP's tower: a class token, a normalisation before the blocks, a projection of that token.
    "attention" is SigLIP's: a bias of the patches, and a learned query over all of them that gives the embedding.
    "patches" is CLIPA's: the mean of all but the class token, normalised after it is taken. Of these with a class token
    `pre_norm` says whether there is a normalisation before the blocks, and `stem` what makes MobileCLIP-B's patches.
    "places" is that of the other MobileCLIPs, of convolutions: the mean over all places of the last stage, projected.
    Its sizes are then those of the last stage, and `patch_size` is how many pixels a place there stands for.
    """

    image_size: int
    patch_size: int
    num_channels: int = 3
    pooling: Literal["class", "patches", "attention", "places"] = "class"
    pre_norm: bool = True
    projection_bias: bool = False
    stem: ConvStem | None = None
    fusion: Fusion | None = None
    convolutions: ConvStages | None = None

    @property
    def num_patches(self) -> int:
        """Number of patches, without the class token."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def pools_by_attention(self) -> bool:
        """See `TowerConfig`."""
        return self.pooling == "attention"

    @property
    def is_siglips(self) -> bool:
        """Whether it is SigLIP's image tower."""
        return self.pools_by_attention

    @property
    def has_class_token(self) -> bool:
        """Whether the first token is a class token."""
        return self.pooling in ("class", "patches")

    def check_shape(self, shape: Sequence[int]) -> None:
        """Refuse what are not images (B, C, H, W) of the configured size.

        Raises:
            ValueError: naming both sizes.
        """
        expected = (self.num_channels, self.image_size, self.image_size)
        if tuple(shape[1:]) != expected:
            raise ValueError(f"pixel_values of shape {tuple(shape)}; expected (B, {', '.join(map(str, expected))})")

    @property
    def num_tokens(self) -> int:
        """Number of tokens that the blocks see."""
        return self.num_patches + self.has_class_token


class Bert(Config, frozen=True, kw_only=True):
    """What a text tower of BERT's kind has of its own.

    Padding is not seen: tokens of the id `pad_token_id`. `skips_padding` is RoBERTa's way to count positions, over the
    tokens that are no padding. Between the pooled token and the projection there can be BERT's own `pooler`, a layer
    with tanh. The projection has a bias or none, and of two layers the first has `projection_units` outputs and a GELU.
    """

    pad_token_id: int
    skips_padding: bool = False
    pooler: bool = False
    projection_units: int | None = None
    projection_bias: bool = False


class TextConfig(TowerConfig, frozen=True, kw_only=True):
    """The text tower. `eos_token_id` None means "the highest id of the row", the rule of OpenAI's code.

    `pooling` "end" is CLIP's tower: causal, its end of text is projected. "last" is SigLIP's: every token sees every
    other, padding included, so that each text is padded to the context length; the last position is projected, with a
    bias. "first" and "mean" are those of BERT's kind, which are told by `bert`: every token sees every other but
    padding, and the first one, or the mean of all, is projected. Only "end" has a use for `eos_token_id`. `sees_all` is
    for those of its kind whose tokens see every other too, as in most MobileCLIPs; CLIPA's text tower pools the last,
    without `projection_bias`. `mixer` is MobileCLIP-S0's: before the blocks, and after them, stands one of convolutions
    over so many tokens.
    """

    vocab_size: int
    context_length: int
    eos_token_id: int | None
    pooling: Literal["end", "last", "first", "mean"] = "end"
    sees_all: bool = False
    projection_bias: bool = False
    bert: Bert | None = None
    mixer: int | None = None

    @property
    def causal(self) -> bool:
        """Whether tokens see only what is before them: then nothing after the pooled one needs to be computed."""
        return self.pooling == "end" and not self.sees_all

    @property
    def is_siglips(self) -> bool:
        """Whether it is SigLIP's text tower."""
        return self.pooling == "last" and self.projection_bias

    @property
    def sees_padding(self) -> bool:
        """Whether padding counts: then every text is as long as the context."""
        return self.pooling == "last" or self.sees_all

    @property
    def normalizes_after(self) -> bool:
        """See `TowerConfig`."""
        return self.bert is not None

    def __post_init__(self) -> None:
        if (self.bert is not None) != (self.pooling in ("first", "mean")):
            raise ConfigError(
                f"text pooling {self.pooling} {'without' if self.bert is None else 'with'} what BERT has of its own",
                expected="first or mean with it, end or last without",
                fix='write pooling = "end", or a table [text.bert]',
            )
        if self.mixer is not None and (self.mixer % 2 == 0 or not self.sees_all):
            raise ConfigError(
                f"convolutions over {self.mixer} tokens of a text",
                expected="an odd number, in a tower whose tokens see each other all",
                fix="leave out mixer, or take the configuration from the checkpoint's page",
            )
        if self.bert is not None:
            check_range("pad_token_id", self.bert.pad_token_id, 0, self.vocab_size - 1)
            if self.bert.projection_units is not None:
                check_range("projection_units", self.bert.projection_units, 1, 4 * MAX_WIDTH)


class ClipConfig(Config, frozen=True, kw_only=True):
    """Both towers and the width E of the space they share.

    `sigmoid` models were trained to judge each pair for itself: a pair's probability is the sigmoid of its scaled
    cosine plus a bias. The others compare the pairs of a batch: softmax.
    """

    projection_dim: int
    vision: VisionConfig
    text: TextConfig
    sigmoid: bool = False

    def __post_init__(self) -> None:
        check_range("projection_dim", self.projection_dim, 1, MAX_WIDTH)
        check_range("image_size", self.vision.image_size, 1, MAX_IMAGE_SIZE)
        check_range("num_channels", self.vision.num_channels, 3, 3)
        check_range("context_length", self.text.context_length, 3, MAX_WIDTH)
        check_range("mixer", self.text.mixer or 1, 1, self.text.context_length)
        check_range("vocab_size", self.text.vocab_size, 3, 2**24)
        for name, tower in (("vision", self.vision), ("text", self.text)):
            check_range(f"{name} hidden_size", tower.hidden_size, 1, MAX_WIDTH)
            check_range(f"{name} intermediate_size", tower.intermediate_size, 1, 4 * MAX_WIDTH)
            check_range(f"{name} num_hidden_layers", tower.num_hidden_layers, 1, 256)
            check_range(f"{name} layer_norm_eps", tower.layer_norm_eps, 1e-12, 1.0)
            if tower.num_attention_heads < 1 or tower.hidden_size % tower.num_attention_heads:
                raise ConfigError(
                    f"{name} hidden_size {tower.hidden_size} with {tower.num_attention_heads} attention heads",
                    expected="a width that the heads divide",
                    fix="write a num_attention_heads that divides it into its configuration",
                )
        if self.vision.pools_by_attention and self.vision.hidden_size != self.projection_dim:
            raise ConfigError(
                f"an image tower {self.vision.hidden_size} wide, without a projection to {self.projection_dim}",
                expected="the width of the embeddings",
                fix=f"write {self.vision.hidden_size} as the width of the text's embeddings",
            )
        if (self.vision.convolutions is None) != (self.vision.pooling != "places"):
            has = "with" if self.vision.convolutions else "without"
            raise ConfigError(
                f"vision pooling {self.vision.pooling} {has} convolutions",
                expected="places with them, and only with them",
                fix='write pooling = "class", or a table [vision.convolutions]',
            )
        if self.vision.convolutions is not None:
            _check_stages(self.vision, self.vision.convolutions)
        if self.vision.stem is not None and (self.vision.pooling != "class" or self.vision.patch_size % 4):
            raise ConfigError(
                f"a stem of convolutions with pooling {self.vision.pooling} and patch_size {self.vision.patch_size}",
                expected="class, and a multiple of 4",
                fix="leave out stem, or take the configuration from the checkpoint's page",
            )
        if self.vision.patch_size < 1 or self.vision.image_size < self.vision.patch_size:
            raise ConfigError(
                f"image_size {self.vision.image_size} with patch_size {self.vision.patch_size}",
                expected="an image of at least one patch",
                fix="write a patch_size from 1 to image_size into its configuration",
            )
        if self.vision.fusion is not None:
            self.vision.fusion.check(self.vision)


def _check_stages(vision: VisionConfig, convolutions: ConvStages) -> None:
    """Refuse stages that do not go with the sizes of the last one, which a tower is told by."""
    for stage in convolutions.stages:
        check_range("width of a stage", stage.width, 1, MAX_WIDTH)
        check_range("depth of a stage", stage.depth, 1, 256)
    head_size = vision.hidden_size // vision.num_attention_heads
    sizes = [
        ("num_hidden_layers", vision.num_hidden_layers, sum(stage.depth for stage in convolutions.stages)),
        ("patch_size", vision.patch_size, 2 ** (len(convolutions.stages) + 1)),
        ("hidden_size", vision.hidden_size, convolutions.stages[-1].width if convolutions.stages else 0),
        *(("channels of the last head", s.width % head_size, 0) for s in convolutions.stages if s.attends),
        *(("channels left over", b.width % a.width, 0) for a, b in pairwise(convolutions.stages)),
        ("MLP units left over", vision.intermediate_size % vision.hidden_size, 0),
    ]
    for name, got, expected in sizes:
        if got != expected:
            raise ConfigError(
                f"{name} {got} of an image tower of {len(convolutions.stages)} stages",
                expected=f"{expected}, as its stages have it",
                fix=f"write {name} = {expected}, or take the configuration from the checkpoint's page",
            )


class OneTowerConfig(Config, frozen=True, kw_only=True):
    """One tower without the other, and the width E of its embeddings."""

    projection_dim: int
    vision: VisionConfig | None = None
    text: TextConfig | None = None

    @property
    def kind(self) -> Literal["image", "text"]:
        """What the tower encodes."""
        return "text" if self.vision is None else "image"

    @property
    def is_siglips(self) -> bool:
        """Whether it is one of SigLIP's."""
        return any(tower is not None and tower.is_siglips for tower in (self.vision, self.text))


class PreprocessConfig(Config, frozen=True, kw_only=True):
    """How an image becomes `pixel_values`. Sizes in pixels; `resample` is Pillow's number (3 = bicubic).

    `shortest_edge` None with `resize_to` set means a resize to (height, width) that ignores the aspect ratio;
    both None means no resize. `crop_size` is (height, width); None means no crop.
    """

    shortest_edge: int | None = None
    resize_to: tuple[int, int] | None = None
    crop_size: tuple[int, int] | None = None
    resample: int = 3
    rescale_factor: float = 1 / 255
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    def __post_init__(self) -> None:
        for size in (self.shortest_edge, *(self.resize_to or ()), *(self.crop_size or ())):
            if size is not None:
                check_range("image size", size, 1, MAX_IMAGE_SIZE)
        check_range("resample", self.resample, 0, 5)
        if self.rescale_factor == 0:
            raise ConfigError("rescale_factor 0", expected="1/255 or the like", fix="write 0.00392156862745098")
        for value in (self.rescale_factor, *self.mean):
            check_range("image normalisation", value, -1e6, 1e6)
        if not all(1e-6 <= value <= 1e6 for value in self.std):
            raise ConfigError(
                f"image_std {self.std}",
                expected="three positive numbers",
                fix="write image_std = [0.5, 0.5, 0.5] or the like",
            )

    @classmethod
    def clip(cls, image_size: int) -> PreprocessConfig:
        """CLIP's own preprocessing at `image_size` pixels."""
        return cls(shortest_edge=image_size, crop_size=(image_size, image_size))

    @classmethod
    def siglip(cls, image_size: int) -> PreprocessConfig:
        """SigLIP's own: squashed to a square of `image_size` pixels."""
        side = (image_size, image_size)
        return cls(shortest_edge=None, resize_to=side, crop_size=None, mean=SIGLIP_MEAN, std=SIGLIP_STD)

    @classmethod
    def mobileclip(cls, image_size: int) -> PreprocessConfig:
        """MobileCLIP's own: as CLIP's, but bilinear, and bytes become numbers from 0 to 1."""
        side = (image_size, image_size)
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        return cls(shortest_edge=image_size, crop_size=side, resample=BILINEAR, mean=mean, std=std)


def load_toml(path: Path, type_: type[T]) -> T:
    """Read a TOML file strictly as `type_`.

    Raises:
        ConfigError: the file is missing, is not TOML, or has an unknown, missing or ill-typed key.
    """
    try:
        return msgspec.toml.decode(read_whole(path), type=type_)
    except OSError as error:
        raise ConfigError(
            f"cannot read {path} ({error.strerror})", expected="a TOML file", fix="give the path of one"
        ) from error
    except MALFORMED as error:
        raise ConfigError(
            f"{path}: {error}", expected="the keys that its documentation lists", fix="mend the line that is named"
        ) from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.got}", expected=error.expected, fix=error.fix) from error
