"""Two models that are read, the image tower of one and the text tower of the other."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

from msgspec import UNSET

from edgeclip.bundle import Bundle, is_own_layout, read_bundle
from edgeclip.config import check_range
from edgeclip.errors import BundleError, ConfigError
from edgeclip.files import present
from edgeclip.graph_model import Kind, ToldModel
from edgeclip.manifest import FileEntry
from edgeclip.names import joined_parts
from edgeclip.runtime.foreign import (
    MAX_LOGIT_SCALE,
    MIN_LOGIT_SCALE,
    ForeignModel,
    at_hand,
    find_foreign,
    find_model,
    foreign_graphs,
    read_foreign,
)
from edgeclip.tokenizer import ClipTokenizer

SAME_SCALE = 1e-3
"""Relative difference of two logit scales that are one, written in different precisions."""


@dataclass(frozen=True, kw_only=True)
class JoinedModel(ToldModel):
    """The towers of two folders; `folder` is the source that names both, which `load` takes again.

    Attributes:
        halves: what each tower is of.
    """

    halves: dict[Kind, Bundle | ForeignModel]

    @property
    def graphs(self) -> dict[Kind, Path]:
        """The graphs of both towers."""
        return {kind: half.graph(kind) for kind, half in self.halves.items()}

    @property
    def name(self) -> str:
        """What both were made from."""
        return "+".join(half.name for half in self.halves.values())

    @property
    def precision(self) -> str:
        """What the graphs are stored as."""
        return ", ".join(dict.fromkeys(half.precision for half in self.halves.values()))

    @property
    def needs_proof(self) -> bool:
        """Whether int8 weights of either need `runtime.int8_proof`."""
        return any(half.needs_proof for half in self.halves.values())

    @property
    def fingerprint(self) -> str:
        """What tells its embeddings from another model's."""
        both = " ".join(half.fingerprint for half in self.halves.values())
        return hashlib.sha256(both.encode()).hexdigest()[:16]

    @property
    def bytes(self) -> int:
        """Of the files of both."""
        return sum(half.bytes for half in self.halves.values())

    @property
    def embedding_size(self) -> int:
        """E."""
        return self.halves["image"].embedding_size

    @property
    def context_length(self) -> int:
        """Tokens of a text at most."""
        return self.halves["text"].context_length

    @property
    def tokenizer(self) -> ClipTokenizer:
        """That of the text tower.

        Raises:
            EdgeclipError: see `Bundle.tokenizer` and `ForeignModel.tokenizer`.
        """
        return self.halves["text"].tokenizer

    def entry(self, graph: Path) -> FileEntry | None:
        """A graph's hash and size."""
        (half,) = (half for kind, half in self.halves.items() if half.graph(kind) == graph)
        return half.entry(graph)

    def unproven(self) -> BundleError:
        """The error that says that there is no one bundle to verify."""
        return BundleError(
            f"{self.folder}, two models joined", expected="one", fix=f"give each alone: {self.halves['image'].folder}"
        )


def read_model(
    source: str | Path,
    *,
    precision: str | None = None,
    logit_scale: float | None = None,
    logit_bias: float | None = None,
    cache: Path | None = None,
) -> Bundle | ForeignModel | JoinedModel:
    """Read a bundle, another program's folder, or one tower of each of two; with the arguments of `runtime.load`.

    Raises:
        EdgeclipError: see `runtime.load`.
    """
    given = {"precision": precision, "logit_scale": logit_scale, "logit_bias": logit_bias}
    if (parts := joined_parts(str(source))) is not None:
        image, text = (_half(part, precision, cache) for part in parts)
        return _join(image, text, precision, logit_scale, logit_bias)
    folder = find_model(source, precision)
    if (layout := find_foreign(folder)) is not None:
        return read_foreign(
            folder, layout, precision=precision, logit_scale=logit_scale, logit_bias=logit_bias, cache=cache
        )
    if odd := [name for name, value in given.items() if value is not None]:
        raise ConfigError(f"`{odd[0]}` for {source}, a bundle", expected="its own", fix=f"leave out `{odd[0]}`")
    return read_bundle(folder)


def joins_graphs(source: str | Path) -> bool:
    """Whether a source names two folders with graphs, and not two checkpoints."""
    parts = joined_parts(str(source))
    return parts is not None and all(
        is_own_layout(present(Path(found))) or foreign_graphs(found) is not None for found in map(at_hand, parts)
    )


def refuse_joined(source: str | Path, fix: str) -> None:
    """Refuse two folders with graphs, where two checkpoints would do.

    Raises:
        ConfigError: naming them.
    """
    if joins_graphs(source):
        raise ConfigError(f"{source}, two models of graphs", expected="one, or two checkpoints", fix=fix)


def _half(source: str, precision: str | None, cache: Path | None) -> Bundle | ForeignModel:
    folder = find_model(source, precision)
    layout = find_foreign(folder)
    return read_bundle(folder) if layout is None else read_foreign(folder, layout, precision=precision, cache=cache)


def _join(
    image: Bundle | ForeignModel,
    text: Bundle | ForeignModel,
    precision: str | None,
    logit_scale: float | None,
    logit_bias: float | None,
) -> JoinedModel:
    """Both, where nothing says that they don't belong together.

    Raises:
        BundleError: one has not the tower that is taken of it, or they don't belong together.
        ConfigError: a logit scale out of range, or a bias of what has none.
    """
    if precision is not None and isinstance(image, Bundle) and isinstance(text, Bundle):
        raise ConfigError("`precision` for two bundles", expected="their own", fix="leave out `precision`")
    name = f"{image.folder}+{text.folder}"
    halves: dict[Kind, Bundle | ForeignModel] = {"image": image, "text": text}
    for kind, half in halves.items():
        if kind not in half.graphs:
            is_turned = "text" in image.graphs and "image" in text.graphs
            raise BundleError(
                f"{name}, of which {half.folder} has no {kind} tower",
                expected="an image tower before the + and a text tower after it",
                fix=f"use {text.folder}+{image.folder}" if is_turned else "give one that has it in its place",
            )
    kinds = _is_siglips(image, "image"), _is_siglips(text, "text")
    if set(kinds) == {True, False}:
        raise _unlike(name, "{}'s image tower and {}'s text tower".format(*("SigLIP" if k else "CLIP" for k in kinds)))
    if image.embedding_size != text.embedding_size:
        raise _unlike(name, f"embeddings of {image.embedding_size} for images and {text.embedding_size} for texts")
    told = [_told(half) for half in (image, text)]
    scales, biases = ([value for value in values if value is not None] for values in zip(*told, strict=True))
    if logit_scale is not None:
        check_range("`logit_scale`", logit_scale, MIN_LOGIT_SCALE, MAX_LOGIT_SCALE)
        scales = [logit_scale]
    if len(scales) == 2 and not math.isclose(*scales, rel_tol=SAME_SCALE):
        raise _unlike(name, f"the logit scales {scales[0]:g} and {scales[1]:g}")
    is_siglip = True in kinds or bool(biases)
    if logit_bias is not None and not is_siglip:
        raise ConfigError(f"`logit_bias` for {name}, a CLIP", expected="none", fix="leave out `logit_bias`")
    return JoinedModel(
        folder=Path(f"{image.folder.resolve()}+{text.folder.resolve()}"),
        image_preprocess=image.preprocess,
        halves=halves,
        told_logit_scale=next(iter(scales), None),
        told_logit_bias=next(iter(biases), None) if logit_bias is None else logit_bias,
        is_siglip=is_siglip,
        asked=precision,
    )


def _unlike(name: str, got: str) -> BundleError:
    return BundleError(
        f"{name}, with {got}",
        expected="towers that were trained for each other",
        fix="give both of one model, exported from the same checkpoint",
    )


def _told(half: Bundle | ForeignModel) -> tuple[float | None, float | None]:
    """Logit scale and bias as the folder tells them."""
    if isinstance(half, ForeignModel):
        return half.told_logit_scale, half.told_logit_bias
    scale = half.manifest.logit_scale
    return None if scale is UNSET else scale, half.logit_bias


def _is_siglips(half: Bundle | ForeignModel, kind: Kind) -> bool | None:
    """Whether a tower is SigLIP's; None where it may belong to either."""
    if isinstance(half, ForeignModel):
        return half.is_siglip
    towers = half.towers
    if kind == "image":
        return towers.vision is not None and towers.vision.is_siglips
    assert towers.text is not None  # noqa: S101 - it has a graph
    return None if towers.text.bert is not None else towers.text.is_siglips
