"""What bundles and other programs' folders have in common: one or two towers as graphs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeclip.config import PreprocessConfig
from edgeclip.errors import BundleError

Kind = Literal["image", "text"]
"""What a tower encodes."""


@dataclass(frozen=True, kw_only=True)
class GraphModel(ABC):
    """Graphs that are opened when they are needed, and what the files beside them say.

    What is of a tower that is not there raises.

    Attributes:
        folder: where it is.
        image_preprocess: how images are made, where there is an image tower.
    """

    folder: Path
    image_preprocess: PreprocessConfig | None

    @property
    @abstractmethod
    def graphs(self) -> dict[Kind, Path]:
        """The graphs of the towers that are there."""

    @property
    def preprocess(self) -> PreprocessConfig:
        """How images are made.

        Raises:
            BundleError: there is no image tower.
        """
        if self.image_preprocess is None:
            raise self.without("image")
        return self.image_preprocess

    @property
    def image_size(self) -> int:
        """Pixels of a side, as the image graph takes them.

        Raises:
            BundleError: there is no image tower.
        """
        final = self.preprocess.crop_size or self.preprocess.resize_to
        assert final is not None  # noqa: S101 - checked when it was read
        return final[0]

    def graph(self, kind: Kind) -> Path:
        """A tower's graph.

        Raises:
            BundleError: there is none.
        """
        if kind not in self.graphs:
            raise self.without(kind)
        return self.graphs[kind]

    def without(self, kind: Kind) -> BundleError:
        """The error that says that a tower is not there."""
        other = "texts" if kind == "image" else "images"
        both = f"IMAGE+{self.folder}" if kind == "image" else f"{self.folder}+TEXT"
        return BundleError(
            f"{self.folder}, which has no {kind} tower",
            expected=f"the {kind} tower of the same model, or {other} alone",
            fix=f"give a folder that has it too, as {both}",
        )


@dataclass(frozen=True, kw_only=True)
class ToldModel(GraphModel):
    """Graphs whose logit scale and bias a file or the caller tells, or nobody.

    Attributes:
        told_logit_scale: what was told.
        told_logit_bias: the same.
        is_siglip: whether texts are padded, and pairs judged each for itself.
        asked: the precision that was asked for.
    """

    told_logit_scale: float | None
    told_logit_bias: float | None = None
    is_siglip: bool = False
    asked: str | None = None

    @property
    def logit_scale(self) -> float:
        """The factor on cosines that makes logits of them.

        Raises:
            BundleError: no file tells it.
        """
        if self.told_logit_scale is None:
            raise BundleError(
                f"{self.folder}, whose files don't tell the logit scale",
                expected="it, to make probabilities of cosines",
                fix="give `logit_scale`, the model's own: 100 for OpenAI's and most others",
            )
        return self.told_logit_scale

    @property
    def logit_bias(self) -> float | None:
        """What is added to a SigLIP's logits; None of CLIP's, which have none.

        Raises:
            BundleError: no file tells it.
        """
        if self.is_siglip and self.told_logit_bias is None:
            raise BundleError(
                f"{self.folder}, whose files don't tell the logit bias",
                expected="it, to make probabilities of a SigLIP's cosines",
                fix="give `logit_bias`, the model's own, such as -16.8",
            )
        return self.told_logit_bias if self.is_siglip else None
