"""What a bundle is, without running it."""

from __future__ import annotations

from pathlib import Path

from edgeclip.bundle import Manifest, read_bundle
from edgeclip.config import ClipConfig, Config, PreprocessConfig
from edgeclip.runtime.arithmetic import int8_arithmetic


class BundleInspection(Config, frozen=True, kw_only=True):
    """What `edgeclip inspect` gives of a bundle; `arithmetic` is this machine's, all else the bundle's own."""

    name: str
    manifest: Manifest
    config: ClipConfig
    preprocess: PreprocessConfig
    disk_bytes: int
    arithmetic: str


def inspect_bundle(folder: Path) -> BundleInspection:
    """Read a bundle's description.

    Raises:
        EdgeclipError: it is incomplete, malformed or of a newer version.
    """
    bundle = read_bundle(folder)
    return BundleInspection(
        name=str(folder),
        manifest=bundle.manifest,
        config=bundle.config,
        preprocess=bundle.preprocess,
        disk_bytes=sum(entry.bytes for entry in bundle.manifest.files.values()),
        arithmetic=int8_arithmetic(),
    )
