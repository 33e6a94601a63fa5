"""Bundles with something changed: bytes, manifests, configurations and graphs; as found, or sealed again."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from edgeclip.bundle import entries, fingerprint, sealed, verify_files
from edgeclip.errors import EdgeclipError
from edgeclip.manifest import GRAPHS, MANIFEST, Manifest
from edgeclip.runtime import load
from tests.hostile.json_values import mutated, mutated_text


def mutated_bundles(bundle: Path, place: Path, seed: int, count: int) -> Iterator[tuple[str, Path]]:
    """One after the other, in the same place."""
    for number in range(count):
        rng = random.Random(seed * 1_000_003 + number)
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(bundle, place)
        way = rng.choice(WAYS)
        way(place, rng)
        is_sealed = rng.random() < 0.6 and seal_again(place)
        yield f"{way.__name__}{', sealed again' if is_sealed else ''} {seed}/{number}", place


def seal_again(place: Path) -> bool:
    """Give a changed bundle a manifest that fits it; whether what is there can be one."""
    if any(path.is_symlink() for path in place.rglob("*")):  # which may have no end
        return False
    try:
        manifest = msgspec.json.decode((place / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    files = entries(place)
    changed = msgspec.structs.replace(manifest, files=files, fingerprint=fingerprint(files))
    (place / MANIFEST).write_bytes(msgspec.json.encode(sealed(changed)))
    return True


def _manifest(place: Path, rng: random.Random) -> None:
    path = place / MANIFEST
    path.write_bytes(mutated_text(path.read_text("utf-8"), rng))


def _configuration(place: Path, rng: random.Random) -> None:
    path = rng.choice(sorted(file for file in place.glob("*.json") if file.name != MANIFEST))
    path.write_bytes(mutated_text(path.read_text("utf-8"), rng))


def _pipeline(place: Path, rng: random.Random) -> None:
    """tokenizer.json but for its vocabulary, which is most of it."""
    path = place / "tokenizer.json"
    raw = json.loads(path.read_text("utf-8"))
    raw |= mutated({key: value for key, value in raw.items() if key != "model"}, rng)
    path.write_bytes(json.dumps(raw).encode("utf-8", "surrogatepass"))


def _graph(place: Path, rng: random.Random) -> None:
    path = place / rng.choice([name for names in GRAPHS.values() for name in names if (place / name).is_file()])
    data = bytearray(path.read_bytes())
    where = rng.choice([200, 5000, len(data)])
    for _ in range(rng.choice([1, 1, 4, 50])):
        at = rng.randrange(min(where, len(data)))
        data[at if rng.random() < 0.5 else len(data) - 1 - at] = rng.randrange(256)
    if rng.random() < 0.1:
        del data[rng.randrange(len(data)) :]
    path.write_bytes(data)


def _files(place: Path, rng: random.Random) -> None:
    """A file that is gone, empty, another's, a folder, or too much."""
    path = rng.choice(sorted(file for file in place.rglob("*") if file.is_file()))
    other = rng.choice(sorted(file for file in place.rglob("*") if file.is_file()))
    content = other.read_bytes()
    path.unlink()
    way = rng.choice(["gone", "empty", "another's", "folder", "link"])
    if way == "empty":
        path.write_bytes(b"")
    elif way == "another's":
        path.write_bytes(content)
    elif way == "folder":
        path.mkdir()
    elif way == "link":
        path.symlink_to(rng.choice(["/dev/zero", "/etc/passwd", "nowhere", path.name]))


WAYS = (_manifest, _configuration, _pipeline, _graph, _graph, _files)


def attempt(place: Path) -> bool:
    """Load, use and verify a bundle; whether all of it could be done.

    Raises:
        AssertionError: the error has more than a line, or what was given is no embeddings.
    """
    try:
        clip = load(place, threads=1)
        texts = clip.encode_text(["a red ball", "x" * 500])
        images = clip.encode_image([np.zeros((40, 30, 3), np.uint8)])
        if not (texts.shape == (2, clip.embedding_size) and images.shape == (1, clip.embedding_size)):
            raise AssertionError((texts.shape, images.shape))
        verify_files(clip.bundle)
    except EdgeclipError as error:
        if "\n" in str(error):
            raise AssertionError(repr(error)) from error
        return False
    return True
