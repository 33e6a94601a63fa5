"""The bundle: a Hugging Face style folder with ONNX graphs and edgeclip.json, which says what is in it and proves it.

    config.json  preprocessor_config.json  tokenizer.json  tokenizer_config.json
    onnx/vision_model[_quantized].onnx     onnx/text_model[_quantized].onnx
    onnx/model[_quantized].onnx            (both towers and the logits, where asked for)
    edgeclip.json

Other clients load the folder as it is; edgeclip.json adds a hash of each file, golden embeddings for a self-test, and
the fingerprint that an index stores, so that embeddings of different models never mix.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import UNSET

from edgeclip.config import ClipConfig, OneTowerConfig, PreprocessConfig, TextConfig
from edgeclip.errors import MALFORMED, BundleError, ConfigError
from edgeclip.files import present, printable, read_whole
from edgeclip.graph_model import GraphModel, Kind
from edgeclip.hf_config import read_towers
from edgeclip.hf_json import read_json
from edgeclip.hf_preprocess import preprocess_from
from edgeclip.hub import snapshot
from edgeclip.manifest import (
    ABOUT,
    COMBINED_GRAPHS,
    COMPRESS_CARD,
    CONFIGURATIONS,
    EARLIER_SCHEMA,
    MANIFEST,
    SCHEMA,
    FileEntry,
    Manifest,
)
from edgeclip.names import BUILTIN, is_hub_id
from edgeclip.tokenizer import ClipTokenizer
from edgeclip.tokenizer_files import load_tokenizer


@dataclass(frozen=True, kw_only=True)
class Bundle(GraphModel):
    """A bundle that was read: its folder, and what the files in it say."""

    manifest: Manifest
    towers: ClipConfig | OneTowerConfig

    @property
    def config(self) -> ClipConfig:
        """Both towers' sizes.

        Raises:
            BundleError: there is one alone.
        """
        if isinstance(self.towers, OneTowerConfig):
            raise self.without("text" if self.towers.kind == "image" else "image")
        return self.towers

    @property
    def text(self) -> TextConfig:
        """The text tower's sizes.

        Raises:
            BundleError: there is none.
        """
        if self.towers.text is None:
            raise self.without("text")
        return self.towers.text

    @cached_property
    def tokenizer(self) -> ClipTokenizer:
        """Read when it is needed: CLIP's takes half as much memory as its text graph, and images need none.

        Raises:
            TokenizerError: its files are malformed.
            BundleError: the bundle was replaced since it was read.
        """
        text = self.text
        for name, entry in self.manifest.files.items():
            if name.startswith("tokenizer"):
                _check_hash(self.folder / name, entry)
        return load_tokenizer(self.folder, text.context_length, fixed_length=text.sees_padding)

    @property
    def needs_proof(self) -> bool:
        """Whether its int8 weights are right only where products are added in the pairs of `runtime.int8_proof`."""
        manifest = self.manifest
        return "int8" in (manifest.precision, manifest.text_precision) and manifest.schema != EARLIER_SCHEMA

    @property
    def graphs(self) -> dict[Kind, Path]:
        """The graphs of the towers that are there."""
        names = self.manifest.graphs
        kinds: tuple[Kind, ...] = ("image", "text")
        return {kind: self.folder / names[kind] for kind in kinds if kind in names}

    @property
    def name(self) -> str:
        """What the bundle was made from."""
        return self.manifest.teacher

    @property
    def precision(self) -> str:
        """What its graphs are stored as: of both, or of each where they differ."""
        return self.manifest.precisions

    @property
    def fingerprint(self) -> str:
        """What tells its embeddings from another model's."""
        return self.manifest.fingerprint

    @property
    def bytes(self) -> int:
        """Of all its files."""
        return sum(entry.bytes for entry in self.manifest.files.values())

    @property
    def logit_scale(self) -> float:
        """The factor on cosines that makes logits of them.

        Raises:
            BundleError: there is one tower alone.
        """
        if self.manifest.logit_scale is UNSET:
            raise self.without("text" if "image" in self.graphs else "image")
        return self.manifest.logit_scale

    @property
    def logit_bias(self) -> float | None:
        """What is added to logits before the sigmoid makes a probability of each; None where softmax does."""
        return None if self.manifest.logit_bias is UNSET else self.manifest.logit_bias

    @property
    def embedding_size(self) -> int:
        """E, the length of an embedding."""
        return self.towers.projection_dim

    @property
    def context_length(self) -> int:
        """Tokens of a text at most.

        Raises:
            BundleError: there is no text tower.
        """
        return self.text.context_length

    def entry(self, graph: Path) -> FileEntry:
        """A graph's hash and size."""
        return self.manifest.files[graph.relative_to(self.folder).as_posix()]


def entries(folder: Path) -> dict[str, FileEntry]:
    """Hash every file of a folder but the manifest."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: file_entry(path) for name, path in files.items() if path.name != MANIFEST and name not in ABOUT}


def file_entry(path: Path) -> FileEntry:
    """A file's hash and size."""
    with path.open("rb") as file:
        return FileEntry(sha256=_sha256(file), bytes=path.stat().st_size)


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def fingerprint(files: dict[str, FileEntry]) -> str:
    """What decides the embeddings, in 16 hexadecimal digits: the towers' graphs, preprocessing and tokenizer."""
    deciding = sorted(files.keys() - {*COMBINED_GRAPHS.values(), COMPRESS_CARD})
    text = "\n".join(f"{name} {files[name].sha256}" for name in deciding)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def find_bundle(source: str | Path) -> Path | None:
    """The folder of `builtin:tabletop`, or of that name; None for a hub id that is no folder."""
    if str(source) == BUILTIN:
        return Path(__file__).parent / "assets" / "tabletop-int8"
    folder = present(Path(source))
    return None if is_hub_id(str(source)) and not folder.exists() else folder


def download_bundle(hub_id: str) -> Path | None:
    """Fetch a bundle from the hub; None where there is something else.

    Raises:
        HubError: it can't be downloaded and is not in the cache.
    """
    folder = snapshot(hub_id, [MANIFEST, CONFIGURATIONS])  # one alone that isn't there would be warned of
    if not (folder / MANIFEST).is_file():
        return None
    files = [_inside(folder, name).relative_to(folder).as_posix() for name in _read_manifest(folder / MANIFEST).files]
    return snapshot(hub_id, [MANIFEST, *files], revision=folder.name)


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle's manifest and small files. Sizes are checked, and all hashes but those of the large graphs, which
    `verify_files` checks.

    Raises:
        BundleError: it is no bundle, of a newer schema, or a file is missing or of another size.
        EdgeclipError: one of its other files is malformed.
    """
    folder = present(folder)
    manifest = _read_manifest(folder / MANIFEST)
    _check_files(folder, manifest)
    towers = read_towers(folder)
    _check_towers(folder, manifest, towers)
    preprocess = None if towers.vision is None else _read_preprocess(folder, towers.vision.image_size)
    return Bundle(folder=folder, manifest=manifest, towers=towers, image_preprocess=preprocess)


def _check_files(folder: Path, manifest: Manifest) -> None:
    for name in manifest.graphs.values():
        if name not in manifest.files:
            raise BundleError(
                f"{folder / MANIFEST} without {name}",
                expected="a graph of each tower",
                fix="export the bundle again",
            )
    for name, entry in manifest.files.items():
        path = _inside(folder, name)
        if not path.is_file():
            raise BundleError(
                f"{folder} without {name}", expected="all files of the manifest", fix="copy the whole folder"
            )
        if path.stat().st_size != entry.bytes:
            raise BundleError(
                f"{path} of {path.stat().st_size} bytes", expected=f"{entry.bytes}", fix="copy the bundle again"
            )
        if path.suffix != ".onnx":
            _check_hash(path, entry)


def _check_towers(folder: Path, manifest: Manifest, towers: ClipConfig | OneTowerConfig) -> None:
    """Refuse graphs or golden embeddings of other towers than config.json has."""
    told = ("image", "text") if isinstance(towers, ClipConfig) else (towers.kind,)
    if told != tuple(manifest.graphs):
        raise BundleError(
            f"{folder / MANIFEST} of the towers {' and '.join(manifest.graphs)}",
            expected=f"{' and '.join(told)}, as config.json has it",
            fix="copy the bundle again",
        )
    golden_embeds = {"image": manifest.golden.image_embeds, "text": manifest.golden.text_embeds}
    for kind, golden in golden_embeds.items():
        if len(golden) != (towers.projection_dim if kind in told else 0):
            raise BundleError(
                f"{folder / MANIFEST} with embeddings of {len(golden)} numbers",
                expected=f"{towers.projection_dim}, the model's",
                fix="copy the bundle again",
            )


def _read_preprocess(folder: Path, side: int) -> PreprocessConfig:
    path = folder / "preprocessor_config.json"  # the one that the manifest seals
    preprocess = preprocess_from(read_json(path), path, side)
    final = preprocess.crop_size or preprocess.resize_to
    if final != (side, side):
        raise BundleError(f"{folder}, whose images are of {final}", expected=f"{side}x{side}", fix="export it again")
    return preprocess


def is_own_layout(folder: Path) -> bool:
    """Whether a folder has a manifest, and not one of an export for another client."""
    try:
        raw = msgspec.json.decode(read_whole(present(folder) / MANIFEST))
    except OSError:
        return False
    except MALFORMED:
        return True
    return not isinstance(raw, dict) or raw.get("layout") is None


def check_replaceable(folder: Path) -> None:
    """Refuse to replace what is not a bundle, or holds more than its bundle.

    Raises:
        ConfigError: naming what would be lost.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"`out` {folder}, which is a file", expected="a folder", fix=f"use `out` {folder}-2")
    if folder.is_mount():
        raise ConfigError(
            f"`out` {folder}, which cannot be replaced", expected="a folder", fix=f"use `out` {folder / 'bundle'}"
        )
    try:
        known = set(msgspec.json.decode(read_whole(folder / MANIFEST), type=dict)["files"])
    except (OSError, KeyError, TypeError, *MALFORMED):
        known = set()
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    if foreign := next((name for name in found if name not in known | ({MANIFEST, *ABOUT} if known else set())), None):
        raise ConfigError(
            f"`out` {folder}, which is no bundle or holds more than one: {foreign}",
            expected="a new folder",
            fix=f"use `out` {folder}-2",
        )


def verify_files(bundle: Bundle) -> None:
    """Compare every file's hash with the manifest.

    Raises:
        BundleError: naming the first file that was changed.
    """
    for name, entry in bundle.manifest.files.items():
        _check_hash(bundle.folder / name, entry)
    found = fingerprint(bundle.manifest.files)
    if found != bundle.manifest.fingerprint:
        raise BundleError(
            f"the fingerprint {bundle.manifest.fingerprint}", expected=found, fix="export the bundle again"
        )


def is_unchanged(path: Path, entry: FileEntry) -> bool:
    """Whether a file is the one that the manifest lists."""
    return file_entry(path).sha256 == entry.sha256


def _check_hash(path: Path, entry: FileEntry) -> None:
    if not is_unchanged(path, entry):
        raise BundleError(f"{path}, which was changed", expected=entry.sha256, fix="copy it again")


def sealed(manifest: Manifest) -> Manifest:
    """The manifest with the hash of all its other fields."""
    unsealed = msgspec.structs.replace(manifest, seal="")
    return msgspec.structs.replace(manifest, seal=hashlib.sha256(msgspec.json.encode(unsealed)).hexdigest())


def _read_manifest(path: Path) -> Manifest:
    try:
        data = read_whole(path)
    except (OSError, ValueError) as error:  # no file, or a name that no file can have
        raise BundleError(
            f"{printable(str(path))} ({getattr(error, 'strerror', error)})",
            expected="a bundle made by `edgeclip export`",
            fix="give its folder, or builtin:tabletop",
        ) from error
    try:
        raw = msgspec.json.decode(data, type=dict)
        schema, layout = raw.get("schema"), raw.get("layout")
        if isinstance(schema, int) and schema not in (EARLIER_SCHEMA, SCHEMA):
            fix = "update edgeclip" if schema > SCHEMA else "export the model again"
            raise BundleError(f"{path} of schema {schema}", expected=f"schema {SCHEMA}", fix=fix)
        if layout is not None:
            raise BundleError(
                f"{path} of the layout {layout!r}, for another client",
                expected="a bundle in edgeclip's own layout",
                fix="export the model again with `layout` edgeclip",
            )
        manifest = msgspec.json.decode(data, type=Manifest)
    except MALFORMED as error:
        raise BundleError(f"{path} ({error})", expected="a bundle's manifest", fix="copy the bundle again") from error
    if manifest != sealed(manifest):
        raise BundleError(f"{path}, which was changed", expected=f"seal {manifest.seal}", fix="copy the bundle again")
    return manifest


def _inside(folder: Path, name: str) -> Path:
    """A file of the bundle; names that lead out of it are refused."""
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise BundleError(f"the file name {name!r}", expected="a path inside the bundle", fix="don't use this bundle")
    return path
