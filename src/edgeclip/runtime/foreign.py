"""A CLIP that another program's exporter has written as ONNX graphs, read to what a `ClipRuntime` needs of a bundle.

Nothing is guessed: names, types and fixed sizes come from the graphs, all else from the files beside them, and what
none of them tells is an error.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from edgeclip.bundle import download_bundle, find_bundle, fingerprint, is_own_layout
from edgeclip.config import MAX_WIDTH, TextCleaning, check_range
from edgeclip.errors import BundleError, ConfigError
from edgeclip.graph_model import Kind, ToldModel
from edgeclip.hub import WEIGHTS
from edgeclip.manifest import MANIFEST, FileEntry, Manifest
from edgeclip.runtime import foreign_config
from edgeclip.runtime.arithmetic import precision as precision_of
from edgeclip.runtime.foreign_layouts import (
    COMBINED,
    TOKENIZER,
    TOKENIZER_CONFIG,
    Layout,
    check_external,
    download,
    find_layout,
    graphs,
    has_weights,
    tower_graphs,
)
from edgeclip.runtime.known_hashes import entry_of
from edgeclip.runtime.logit_scale import logits_of
from edgeclip.runtime.onnx_file import OnnxFile
from edgeclip.runtime.ports import Ports, foreign_ports, vocabulary_rows
from edgeclip.tokenizer import ClipTokenizer
from edgeclip.tokenizer_files import load_tokenizer

MIN_LOGIT_SCALE, MAX_LOGIT_SCALE = 0.001, 1000.0


class Tower(NamedTuple):
    """One tower: its graph, how it is fed, what its products are computed with, and the files that hold its weights."""

    graph: Path
    ports: Ports
    precision: str
    weights: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class ForeignModel(ToldModel):
    """A folder of another program that was read.

    Attributes:
        layout: whose program's.
        towers: one or two.
        embedding_size: E.
        text_length: the context length, where there is a text tower.
        eos_token_id: the token of a text that is pooled, but for SigLIP; None for the highest id.
        clean: what is done to texts first; None leaves it to the tokenizer's files.
        cache: where hashes are kept.
    """

    layout: Layout
    towers: dict[Kind, Tower]
    embedding_size: int
    text_length: int | None
    eos_token_id: int | None
    clean: TextCleaning | None
    cache: Path | None = None

    @property
    def name(self) -> str:
        """What the folder is called; of the hub's cache, the model."""
        parent = self.folder.parent.parent.name
        return parent.removeprefix("models--").replace("--", "/") if parent.startswith("models--") else self.folder.name

    @property
    def precision(self) -> str:
        """What most products are computed with: of both towers, or of each where they differ."""
        said = {kind: tower.precision for kind, tower in self.towers.items()}
        return (
            next(iter(said.values()))
            if len(set(said.values())) == 1
            else ", ".join(f"{p} {k}" for k, p in said.items())
        )

    @property
    def needs_proof(self) -> bool:
        """Never: its int8 weights, if any, are not of `quantize.scheme`, and promise nothing."""
        return False

    @property
    def graphs(self) -> dict[Kind, Path]:
        """The graphs of the towers that are there."""
        return {kind: tower.graph for kind, tower in self.towers.items()}

    @property
    def context_length(self) -> int:
        """Tokens of a text at most.

        Raises:
            BundleError: there is no text tower.
        """
        if self.text_length is None:
            raise self.without("text")
        return self.text_length

    @cached_property
    def tokenizer(self) -> ClipTokenizer:
        """Read when it is needed.

        Raises:
            BundleError: there is no text tower, or it pools another token than that ends texts.
            TokenizerError: its files are malformed, or not CLIP's.
        """
        place = self.folder / self.layout.tokenizer
        tokenizer = load_tokenizer(place, self.context_length, clean=self.clean, fixed_length=self.is_siglip)
        end = max(*tokenizer.token_ids(["a"])[0]) if self.eos_token_id is None else self.eos_token_id
        if not self.is_siglip and end != tokenizer.eos_token_id:
            raise BundleError(
                f"{self.folder}, whose graph pools token {end}, where {TOKENIZER} ends texts with another",
                expected=f"token {tokenizer.eos_token_id}, the end of text",
                fix=f"copy {TOKENIZER} and {TOKENIZER_CONFIG} from the page of this model",
            )
        return tokenizer

    @cached_property
    def files(self) -> dict[str, FileEntry]:
        """Hash and size of each file that decides the embeddings, by path within the folder.

        Raises:
            BundleError: one was replaced, or can't be read.
        """
        paths = {path for tower in self.towers.values() for path in (tower.graph, *tower.weights)}
        layout, small = self.layout, set[str]()
        if "image" in self.towers:
            small |= {layout.preprocess, layout.image_config}
        if "text" in self.towers:
            small |= {
                str(Path(layout.tokenizer, TOKENIZER)),
                str(Path(layout.tokenizer, TOKENIZER_CONFIG)),
                layout.text_config,
            }
        paths |= {self.folder / name for name in small if (self.folder / name).is_file()}
        return {path.relative_to(self.folder).as_posix(): entry_of(path, self.cache) for path in sorted(paths)}

    @property
    def fingerprint(self) -> str:
        """What tells its embeddings from another model's: of the content of all files that decide them."""
        return fingerprint(self.files)

    @property
    def bytes(self) -> int:
        """Of the graphs that are opened and their weights."""
        return sum(path.stat().st_size for tower in self.towers.values() for path in (tower.graph, *tower.weights))

    def entry(self, graph: Path) -> FileEntry | None:
        """A graph's hash and size; None where its weights are in other files, which they don't tell of."""
        if any(tower.graph == graph and tower.weights for tower in self.towers.values()):
            return None
        return entry_of(graph, self.cache)

    @property
    def manifest(self) -> Manifest:
        """What a bundle has, and this has not.

        Raises:
            BundleError: always.
        """
        raise self.unproven()

    def unproven(self) -> BundleError:
        """The error that says that nothing proves these graphs."""
        return BundleError(
            f"{self.folder}, graphs of {self.layout.name}, with nothing to verify against",
            expected="a bundle, with hashes and embeddings to compare with",
            fix=f"make one: edgeclip export {self.folder} --out {self.folder.name}-bundle",
        )


def find_model(source: str | Path, precision: str | None = None) -> Path:
    """The folder of a bundle or of another program's graphs; what a hub id names is downloaded.

    Args:
        source: as for `runtime.load`.
        precision: of the graphs that are downloaded.

    Raises:
        HubError: a hub id that can't be downloaded and is not in the cache.
        BundleError: a hub id of something else.
    """
    if (folder := find_bundle(source)) is not None:
        return folder
    hub_id = str(source)
    folder = download_bundle(hub_id) or download(hub_id, precision)
    if folder is None:
        raise BundleError(
            f"{hub_id} on the hub, without {MANIFEST} and without ONNX graphs that are known",
            expected="a bundle, or the graphs of transformers.js, Immich or fastembed",
            fix=f"make one: edgeclip export {hub_id} --out {hub_id.rpartition('/')[2]}",
        )
    return folder


def at_hand(source: str | Path, precision: str | None = None) -> str | Path:
    """A hub id of a bundle, or of graphs without weights beside them, as the folder to which they are downloaded.

    Args:
        source: anything that can be inspected, measured or exported; all else is given back as it is.
        precision: of the graphs.

    Raises:
        HubError: see `find_model`.
    """
    if find_bundle(source) is not None:
        return source
    hub_id = str(source)
    return download_bundle(hub_id) or (None if has_weights(hub_id) else download(hub_id, precision)) or source


def find_foreign(folder: Path) -> Layout | None:
    """Whose graphs a folder holds; None for a bundle in edgeclip's own layout, and for all else.

    Raises:
        BundleError: it holds both towers in one graph alone.
    """
    return None if is_own_layout(folder) else find_layout(folder)


def foreign_graphs(source: str | Path) -> Layout | None:
    """Whose graphs a folder holds; None for a bundle, and for a checkpoint that has graphs beside its weights.

    Raises:
        BundleError: it holds both towers in one graph alone.
    """
    folder = Path(source)
    if not os.path.isdir(folder) or any(any(folder.glob(name)) for names in WEIGHTS for name in names):  # noqa: PTH112
        return None
    return find_foreign(folder)


def read_foreign(
    folder: Path,
    layout: Layout,
    *,
    precision: str | None = None,
    logit_scale: float | None = None,
    logit_bias: float | None = None,
    cache: Path | None = None,
) -> ForeignModel:
    """Read the structure of its graphs and the files beside them.

    Args:
        folder: where they are.
        layout: as `find_layout` gives it.
        precision: of `PRECISIONS`; by default the most exact that each tower has.
        logit_scale: where no file tells it.
        logit_bias: the same, of a SigLIP.
        cache: where hashes of large files are kept.

    Raises:
        EdgeclipError: a graph or file is malformed, missing, of another kind of model, or they don't belong together.
    """
    if logit_scale is not None:
        check_range("`logit_scale`", logit_scale, MIN_LOGIT_SCALE, MAX_LOGIT_SCALE)
    found = tower_graphs(folder, layout, precision)
    said = foreign_config.read(folder, layout, found.keys())
    is_siglip = said.is_siglip is True
    if logit_bias is not None and not is_siglip:
        raise ConfigError(f"`logit_bias` for {folder}, a CLIP", expected="none", fix="leave out `logit_bias`")
    towers = {
        kind: Tower(
            graph.path,
            foreign_ports(graph, kind, siglip=is_siglip),
            precision_of(graph),
            tuple(check_external(graph)),
        )
        for kind, graph in found.items()
    }
    size = _embedding_size(folder, towers, said)
    towers = {kind: tower._replace(ports=replace(tower.ports, width=size)) for kind, tower in towers.items()}
    preprocess = length = None
    if "image" in towers:
        preprocess = foreign_config.preprocess(folder, layout, towers["image"].ports, said)
    if "text" in towers:
        length = _text_length(folder, layout, towers["text"].ports, found["text"], said)
    scale, bias = _logits(folder)
    return ForeignModel(
        folder=folder,
        layout=layout,
        towers=towers,
        embedding_size=size,
        image_preprocess=preprocess,
        text_length=length,
        eos_token_id=said.eos_token_id,
        clean=said.clean,
        told_logit_scale=scale if logit_scale is None else logit_scale,
        told_logit_bias=bias if logit_bias is None else logit_bias,
        is_siglip=is_siglip,
        asked=precision,
        cache=cache,
    )


def _text_length(folder: Path, layout: Layout, ports: Ports, graph: OnnxFile, said: foreign_config.Said) -> int:
    """The context length; the tokenizer's vocabulary is held against the graph's table too."""
    tokenizer = foreign_config.read_tokenizer_facts(folder / layout.tokenizer)
    rows = vocabulary_rows(graph, ports.input)
    if rows is not None and not tokenizer.tokens <= rows < tokenizer.tokens + foreign_config.PADDED_TABLE:
        raise BundleError(
            f"{folder / layout.tokenizer / TOKENIZER} of {tokenizer.tokens} tokens",
            expected=f"{rows}, as {graph.path.name} has",
            fix=f"copy {TOKENIZER} from the page of this model",
        )
    told = [length for length in (ports.shape[1], said.context_length, *tokenizer.lengths) if length is not None]
    if not told:
        raise BundleError(
            f"{folder}, whose files don't tell how many tokens a text may have",
            expected=f"model_max_length in {TOKENIZER_CONFIG}",
            fix="write it there, such as 77",
        )
    check_range("context_length", min(told), 3, MAX_WIDTH)
    return min(told)


def _embedding_size(folder: Path, towers: dict[Kind, Tower], said: foreign_config.Said) -> int:
    widths = {f"the {kind} graph": tower.ports.width for kind, tower in towers.items()}
    widths |= {"the configuration": said.embedding_size}
    told = {name: width for name, width in widths.items() if width is not None}
    if len(set(told.values())) != 1:
        got = ", ".join(f"{name} says {width}" for name, width in told.items()) or "none of its files says"
        raise BundleError(
            f"{folder}, of whose embedding size {got}",
            expected="one size, in the graphs or as projection_dim in config.json",
            fix="put both towers of one model there",
        )
    (size,) = set(told.values())
    check_range("the embedding size", size, 1, MAX_WIDTH)
    return size


def _logits(folder: Path) -> tuple[float | None, float | None]:
    """Logit scale and bias as a graph with both towers tells them, where there is one beside those that are opened."""
    combined = graphs(folder, COMBINED)
    scale, bias = logits_of(next(iter(combined.values()))) if combined else (None, None)
    return (scale if scale is not None and MIN_LOGIT_SCALE <= scale <= MAX_LOGIT_SCALE else None), bias
