"""What `edgeclip distill` is told: recipes, those that come with the package and those of a file."""

from __future__ import annotations

from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Literal

from edgeclip.config import Config, check_range, load_toml
from edgeclip.data.augment import AugmentConfig
from edgeclip.distill.losses.mix import TOKEN_LOSSES, LossMix
from edgeclip.distill.train_config import TrainConfig
from edgeclip.errors import ConfigError
from edgeclip.shrink.fusion_schedule import read_schedule
from edgeclip.shrink.plan import ShrinkPlan

NAMES = ("qad", "half", "quarter", "eighth")
"""The recipes in `edgeclip.assets.recipes`."""


class ShrinkConfig(Config, frozen=True, kw_only=True):
    """[shrink]: how much of the teacher is kept, as fractions of its parameters or as one plan.

    Each fraction is a stage, made from the student of the stage before and trained in turn (TinyCLIP's 100 -> 50 ->
    25 % is [0.5, 0.25]). `depth` is the fraction of layers that each keeps of the model before, where it is not to be
    that of the parameters, and `width` the most heads (see `plan.propose`). `vocabulary` "captions" keeps only the
    tokens that the training captions need; a plan has its own.
    """

    fractions: tuple[float, ...] = ()
    depth: float | None = None
    width: float = 1.0
    vocabulary: Literal["whole", "captions"] = "whole"
    plan: ShrinkPlan | None = None

    def __post_init__(self) -> None:
        if bool(self.fractions) == (self.plan is not None):
            raise ConfigError(
                "[shrink] with fractions and a plan" if self.fractions else "[shrink] without fractions or a plan",
                expected="one of them",
                fix="write fractions = [0.5], or a plan, into [shrink]",
            )
        if self.plan and (self.depth is not None or self.width != 1 or self.vocabulary != "whole"):
            raise ConfigError(
                "[shrink] with a plan and a depth, width or vocabulary beside it",
                expected="a plan, which has its own",
                fix="leave depth, width and vocabulary out of [shrink]",
            )
        for fraction in self.fractions:
            check_range("shrink fraction", fraction, 0.001, 1)
        check_range("shrink depth", 1 if self.depth is None else self.depth, 0.001, 1)
        check_range("shrink width", self.width, 0.001, 1)
        if any(a <= b for a, b in pairwise(self.fractions)):
            raise ConfigError(
                f"shrink fractions {list(self.fractions)}",
                expected="descending ones",
                fix="write fractions = [0.5, 0.25] or the like",
            )

    @property
    def kept_vocabulary(self) -> Literal["whole", "captions"]:
        """Which tokens the student keeps."""
        return self.plan.vocabulary if self.plan else self.vocabulary


class FuseConfig(Config, frozen=True, kw_only=True):
    """[fuse]: the student fuses tokens of its images, in training and in its bundle, as `schedule` says.

    It is written as for `export`, see `shrink.fusion_schedule`, and what it leaves open is chosen on the calibration
    images before each stage. The teacher keeps all of its tokens, so that any loss of embeddings is one of consistency
    with them (Lee et al. 2024, Multi-criteria Token Fusion, section 3.4, which also trains the student without fusing).
    """

    schedule: str

    def __post_init__(self) -> None:
        read_schedule(self.schedule)


class CacheConfig(Config, frozen=True, kw_only=True):
    """[cache]: how many views of each image the teacher and the student see, the first being the plain crop."""

    augmentations: int = 1
    augment: AugmentConfig = AugmentConfig(flip=0.0)

    def __post_init__(self) -> None:
        check_range("cache augmentations", self.augmentations, 1, 10_000)


class DistillRecipe(Config, frozen=True, kw_only=True):
    """A recipe of `edgeclip distill`.

    `samples` scenes are drawn of the built-in world; of another data set at most so many images are used. `qad_share`
    is the last part of the training of each stage during which the student computes what int8 computes: 1 is
    quantization-aware distillation throughout, 0 is none. Losses that compare tokens are left out in that part, and
    those that need the teacher's tokens run the teacher in the other. Without `shrink` the student starts as a copy.
    """

    samples: int
    loss: LossMix
    train: TrainConfig
    qad_share: float
    shrink: ShrinkConfig | None = None
    fuse: FuseConfig | None = None
    cache: CacheConfig = CacheConfig()

    def __post_init__(self) -> None:
        check_range("samples", self.samples, 2, 2**40)
        check_range("qad_share", self.qad_share, 0, 1)
        if self.qad_share > 0 and self.train.mixed_precision != "no":
            raise ConfigError(
                f"mixed_precision {self.train.mixed_precision} with qad_share {self.qad_share:g}",
                expected="full precision, in which int8 is computed exactly",
                fix="set one of them to no or 0",
            )
        of_tokens = [name for name in self.loss.weights if name in TOKEN_LOSSES]
        if of_tokens and self.train.chunk_size is not None:
            raise ConfigError(
                f"loss {of_tokens[0]} with chunk_size {self.train.chunk_size}",
                expected="the tokens of a whole batch",
                fix="leave chunk_size out, and lower batch_size where memory is short",
            )
        if self.qad_share > 0 and len(of_tokens) == len(self.loss.weights):
            raise ConfigError(
                f"loss {of_tokens[0]} alone with qad_share {self.qad_share:g}",
                expected="a loss of embeddings for the part that computes int8",
                fix="add one, such as feature, or set qad_share to 0",
            )


def load_recipe(source: str) -> DistillRecipe:
    """A recipe by its name or from a TOML file.

    Raises:
        ConfigError: there is none, or it has an unknown, missing or ill-typed key.
    """
    if source in NAMES:
        with resources.as_file(resources.files("edgeclip.assets") / "recipes" / f"{source}.toml") as path:
            return load_toml(path, DistillRecipe)
    if not source.endswith(".toml"):
        raise ConfigError(f"`recipe` {source}", expected=f"{', '.join(NAMES)}, or a TOML file", fix="use `recipe` half")
    return load_toml(Path(source), DistillRecipe)
