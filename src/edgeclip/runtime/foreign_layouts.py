"""Where other programs keep a CLIP as ONNX graphs: folders of transformers.js, Immich and fastembed, and the hub's.

    transformers.js   onnx/vision_model.onnx  onnx/text_model.onnx    config, preprocessing, tokenizer in the folder
    Immich            visual/model.onnx       textual/model.onnx      open_clip's config.json; each tower's with it
    fastembed         vision/model.onnx       text/model.onnx         each tower's with it
    fastembed         model.onnx                                      one tower and its files

A graph's name may end in a precision, such as `_quantized`. Sources: huggingface/transformers.js src/utils/dtypes.js;
immich-app/immich machine-learning/immich_ml/models/clip; qdrant/fastembed fastembed/{text,image}.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple, TypeAlias

from edgeclip.errors import BundleError, ConfigError, HubError
from edgeclip.files import printable
from edgeclip.graph_model import Kind
from edgeclip.hub import WEIGHTS, file_names, snapshot
from edgeclip.manifest import CONFIGURATIONS
from edgeclip.runtime.onnx_file import OnnxFile, read_onnx
from edgeclip.runtime.ports import INPUTS

PRECISIONS = {
    "fp32": "",
    "fp16": "_fp16",
    "q8": "_quantized",
    "int8": "_int8",
    "uint8": "_uint8",
    "q4": "_q4",
    "q4f16": "_q4f16",
    "bnb4": "_bnb4",
}
"""How the names of graphs end, the most exact first, by transformers.js's names; the first that is there is opened."""
Has: TypeAlias = Callable[[str], bool]
"""Whether there is a file of that name, in a folder or at the hub."""
CONFIG, TOKENIZER, TOKENIZER_CONFIG = "config.json", "tokenizer.json", "tokenizer_config.json"
EXAMPLES: dict[Kind, str] = {"image": "Qdrant/clip-ViT-B-32-vision", "text": "Qdrant/clip-ViT-B-32-text"}


class Layout(NamedTuple):
    """Names in one program's folders, relative to them: `image` and `text` are graphs without ending."""

    name: str
    image: str
    text: str
    preprocess: str
    tokenizer: str
    image_config: str = CONFIG
    text_config: str = CONFIG


HUGGING_FACE = "preprocessor_config.json"
LAYOUTS = (
    Layout("transformers.js", "onnx/vision_model", "onnx/text_model", HUGGING_FACE, "."),
    Layout("immich", "visual/model", "textual/model", "visual/preprocess_cfg.json", "textual"),
    Layout(
        *("fastembed", "vision/model", "text/model", f"vision/{HUGGING_FACE}", "text"),
        *(f"vision/{CONFIG}", f"text/{CONFIG}"),
    ),
    Layout("fastembed", "model", "model", HUGGING_FACE, "."),
)
COMBINED = "onnx/model"
"""Both towers in one graph, which is not opened; the logit scale is read from it."""


def find_layout(folder: Path) -> Layout | None:
    """Whose folder it is, by the graphs in it; None where it is none of these.

    Raises:
        BundleError: it has only a graph of both towers in one.
    """
    layout = _layout(_in(folder))
    if layout is None and (combined := graphs(folder, COMBINED)):
        raise BundleError(
            f"{folder} with both towers in one graph, {next(iter(combined.values())).name}",
            expected=f"a graph for each: {LAYOUTS[0].image}.onnx and {LAYOUTS[0].text}.onnx",
            fix="export the towers apart, or give the checkpoint to edgeclip export",
        )
    return layout


def graphs(folder: Path, stem: str) -> dict[str, Path]:
    """The graphs of a tower by precision, the most exact first."""
    return {precision: folder / name for precision, name in _names(_in(folder), stem).items()}


def _in(folder: Path) -> Has:
    return lambda name: os.path.isfile(folder / name)  # noqa: PTH113 - for which no name is too long


def _layout(has: Has) -> Layout | None:
    return next((layout for layout in LAYOUTS if _names(has, layout.image) or _names(has, layout.text)), None)


def _names(has: Has, stem: str) -> dict[str, str]:
    names = {precision: f"{stem}{suffix}.onnx" for precision, suffix in PRECISIONS.items()}
    return {precision: name for precision, name in names.items() if has(name)}


def tower_graphs(folder: Path, layout: Layout, precision: str | None) -> dict[Kind, OnnxFile]:
    """The graph of each tower that is there, in the precision asked for, or in the most exact.

    Raises:
        BundleError: there is none of that precision, or a file is no ONNX graph.
        ConfigError: an unknown precision.
    """
    check_precision(precision)
    found: dict[Kind, OnnxFile] = {}
    for stem in dict.fromkeys((layout.image, layout.text)):
        if not (there := graphs(folder, stem)):
            continue
        graph = read_onnx(there[_chosen(str(folder), stem, there, precision)])
        found[_kind(graph, layout, stem)] = graph
    return found


def _chosen(place: str, stem: str, there: Collection[str], precision: str | None) -> str:
    """The precision of a tower that is opened, of those that are there."""
    if precision is not None and precision not in there:
        raise BundleError(
            f"{place} with {stem}.onnx, but not in the precision {precision}",
            expected=f"one that is there: {', '.join(there)}",
            fix=f"use `precision` {next(iter(there))}",
        )
    return precision or next(iter(there))


def _kind(graph: OnnxFile, layout: Layout, stem: str) -> Kind:
    """Which tower a graph is of: by its name, or where both would have the same, by its input."""
    if layout.image != layout.text:
        return "image" if stem == layout.image else "text"
    names = {port.name for port in graph.inputs}
    is_image, is_text = (not names.isdisjoint(INPUTS[kind]) for kind in ("image", "text"))
    if is_image and is_text:
        raise BundleError(
            f"{graph.path} with both towers in one graph",
            expected="a graph of one tower",
            fix=f"give a folder such as {EXAMPLES['image']}, or the checkpoint to edgeclip export",
        )
    return "text" if is_text else "image"


def check_precision(precision: str | None) -> None:
    """Refuse a precision that has no name.

    Raises:
        ConfigError: naming those that have.
    """
    if precision is not None and precision not in PRECISIONS:
        raise ConfigError(
            f"`precision` {precision!r}", expected=" or ".join(PRECISIONS), fix="leave it out for the most exact"
        )


def check_external(graph: OnnxFile) -> list[Path]:
    """The files beside a graph that hold its weights.

    Raises:
        BundleError: one of them is elsewhere, missing, or too short.
    """
    folder, found = graph.path.parent, []
    homes = (folder.resolve(), graph.path.resolve().parent)  # in the hub's cache all files are links to one folder
    for location, length in graph.locations.items():
        path = folder / location
        if not _is_inside(location) or not any(path.resolve().is_relative_to(home) for home in homes):
            raise BundleError(
                f"{graph.path} with weights in {printable(location)!r}",
                expected="a file in its own folder",
                fix="don't use this folder",
            )
        if not path.is_file():
            raise BundleError(
                f"{graph.path} without {printable(location)}, which holds its weights",
                expected="both files",
                fix="copy or download it too",
            )
        if path.stat().st_size < length:
            raise BundleError(
                f"{path} of {path.stat().st_size} bytes",
                expected=f"{length}, as {graph.path.name} has it",
                fix="copy or download both again",
            )
        found.append(path)
    return found


def download(hub_id: str, precision: str | None) -> Path | None:
    """Fetch such a folder from the hub: one graph of each tower, and its small files; None where there is none.

    Raises:
        HubError: it can't be fetched and is not in the cache.
        BundleError: a file that was fetched is no ONNX graph.
    """
    check_precision(precision)
    folder = snapshot(hub_id, [CONFIGURATIONS])
    has = _at_hub(hub_id, folder)
    if (layout := _layout(has)) is None:
        return None
    names = {layout.image_config, layout.text_config, layout.preprocess}
    names |= {str(Path(layout.tokenizer, name)) for name in (TOKENIZER, TOKENIZER_CONFIG)}
    there = {stem: _names(has, stem) for stem in (layout.image, layout.text)}
    chosen = {found[_chosen(hub_id, stem, found, precision)] for stem, found in there.items() if found}
    folder = snapshot(hub_id, sorted(names | chosen), revision=folder.name)
    beside = [(folder / name, location) for name in chosen for location in read_onnx(folder / name).locations]
    weights = [
        (path.parent / location).relative_to(folder).as_posix() for path, location in beside if _is_inside(location)
    ]
    return snapshot(hub_id, weights, revision=folder.name) if weights else folder


def has_weights(hub_id: str) -> bool:
    """Whether a repository of the hub has the weights of a checkpoint, which say more than graphs.

    Raises:
        HubError: it can't be asked, and is not in the cache.
    """
    folder = snapshot(hub_id, [CONFIGURATIONS])
    try:
        names = file_names(hub_id, folder.name)
    except HubError:
        names = {path.name for path in folder.iterdir()}
    return any(fnmatch(name, pattern) for patterns in WEIGHTS for pattern in patterns for name in names)


def _at_hub(hub_id: str, folder: Path) -> Has:
    """Whether the hub has a file of a repository's commit; without a network, whether the cache has."""
    try:
        return file_names(hub_id, folder.name).__contains__
    except HubError:
        return _in(folder)


def _is_inside(location: str) -> bool:
    """Whether a name leads to no other folder."""
    return (
        bool(location)
        and "\0" not in location
        and not Path(location).is_absolute()
        and ".." not in Path(location).parts
    )
