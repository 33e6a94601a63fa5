"""`edgeclip verify`: hashes, int8 sums and golden embeddings of a bundle."""

from __future__ import annotations

from edgeclip.cli import options
from edgeclip.settings import Settings


class VerifySettings(Settings, frozen=True, kw_only=True):
    """Which bundle."""

    bundle: options.Bundle


def command(settings: VerifySettings) -> None:
    """Check that no file was changed and that this machine computes what the bundle's maker computed.

    A bundle of edgeclip compress is measured again: what is other here than where it was chosen is printed.
    """
    from edgeclip.manifest import COMPRESS_CARD
    from edgeclip.runtime import int8_proof, load, self_test
    from edgeclip.tune.again import changes

    clip = load(settings.bundle)
    cosines = self_test(clip)
    manifest = clip.own_bundle.manifest
    print(f"{len(manifest.files)} files as they were made, fingerprint {manifest.fingerprint}")
    if clip.engine == "openvino":
        print("int8 in OpenVINO, with VNNI")
    elif clip.bundle.needs_proof:
        print(int8_proof.in_words())
    print("  ".join(f"{name} cosine {cosine:.6f}" for name, cosine in cosines.items()))
    if COMPRESS_CARD in manifest.files:
        for line in changes(clip.own_bundle):
            print(line)
