"""`edgeclip verify`: hashes and golden embeddings of a bundle."""

from __future__ import annotations

from edgeclip.cli import options
from edgeclip.settings import Settings


class VerifySettings(Settings, frozen=True, kw_only=True):
    """Which bundle."""

    bundle: options.Bundle


def command(settings: VerifySettings) -> None:
    """Check that no file was changed and that this machine computes what the bundle's maker computed."""
    from edgeclip.runtime import load, self_test

    clip = load(settings.bundle)
    cosines = self_test(clip)
    print(f"{len(clip.own_bundle.manifest.files)} files as they were made, fingerprint {clip.bundle.fingerprint}")
    print("  ".join(f"{name} cosine {cosine:.6f}" for name, cosine in cosines.items()))
