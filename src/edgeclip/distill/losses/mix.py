"""Which losses a recipe asks for, and how much of each."""

from __future__ import annotations

from edgeclip.config import Config, check_range
from edgeclip.distill.losses.hidden_state import LayerPairs
from edgeclip.errors import ConfigError

LOSSES = (
    "contrastive",
    "feature",
    "affinity",
    "interactive",
    "contrastive_relational",
    "soft_contrastive",
    "patch_word",
    "hidden_state",
)
"""The keys of `LossMix` that are weights; each is explained in the file of its name."""
TOKEN_LOSSES = ("patch_word", "hidden_state")
"""Those that compare tokens, which an int8 graph computes only in part; the others compare embeddings."""


class LossMix(Config, frozen=True, kw_only=True):
    """`[loss]` of a recipe: a weight for each of LOSSES, and the settings of those that have some.

    CLIP-KD's full recipe is contrastive = 1, contrastive_relational = 1, interactive = 1 and feature = 15.6 (see
    `feature_loss`); TinyCLIP's is affinity = 1; the paper's loss at temperature 1 and MobileCLIP's with one teacher
    are contrastive_relational = lambda with contrastive = 1 - lambda.

    `affinity_scale` is the fixed scale of the affinity loss, `softening` the share of the label that the soft
    contrastive loss gives to other pairs at the end of training. `vision_layers` and `text_layers` are the
    [student's, teacher's] blocks, counted from 1, that the hidden-state loss compares.
    """

    contrastive: float = 0.0
    feature: float = 0.0
    affinity: float = 0.0
    interactive: float = 0.0
    contrastive_relational: float = 0.0
    soft_contrastive: float = 0.0
    patch_word: float = 0.0
    hidden_state: float = 0.0
    affinity_scale: float = 50.0
    softening: float = 0.1
    vision_layers: LayerPairs = ()
    text_layers: LayerPairs = ()

    def __post_init__(self) -> None:
        for name in LOSSES:
            check_range(f"loss {name}", getattr(self, name), 0, 1e6)
        check_range("loss affinity_scale", self.affinity_scale, 1e-3, 1000)
        check_range("loss softening", self.softening, 0, 0.9)
        if not self.weights:
            raise ConfigError(
                "a loss without a weight above 0", expected=f"one of {', '.join(LOSSES)}", fix="give one a weight"
            )
        if ("hidden_state" in self.weights) != bool(self.vision_layers or self.text_layers):
            raise ConfigError(
                f"loss hidden_state {self.hidden_state:g} with vision_layers {list(map(list, self.vision_layers))} and "
                f"text_layers {list(map(list, self.text_layers))}",
                expected="a weight above 0 and pairs of layers, or neither",
                fix="write hidden_state = 1 and vision_layers = [[1, 1]], or none of them, into [loss]",
            )

    @property
    def weights(self) -> dict[str, float]:
        """The losses in use."""
        return {name: weight for name in LOSSES if (weight := getattr(self, name)) > 0}
