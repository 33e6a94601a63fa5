"""Does this machine compute what the bundle's maker computed?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeclip.bundle import verify_files
from edgeclip.errors import BundleError
from edgeclip.runtime.clip import ClipRuntime

GOLDEN_TEXT = "a red ball to the left of two blue boxes"
SELF_TEST_MIN_COSINE = 0.999
"""Kernels differ between processors in rounding; a wrong answer differs by more."""


def test_card(size: int) -> NDArray[np.uint8]:
    """A picture with every colour and frequency, from integers alone: (size, size, 3) uint8."""
    y, x = np.mgrid[0:size, 0:size]
    return np.stack([(x * 7 + y * 3) % 256, (x * y // 5) % 256, (x ^ y) % 256], axis=-1).astype(np.uint8)


test_card.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever pytest thinks of the name


def self_test(clip: ClipRuntime) -> dict[str, float]:
    """Check the hashes, encode the golden image and text, and compare.

    Returns:
        The cosine of each that there is a tower for with the maker's embedding.

    Raises:
        BundleError: a file was changed, or this machine computes something else.
    """
    bundle = clip.own_bundle
    verify_files(bundle)
    golden = bundle.manifest.golden
    pairs: dict[str, tuple[NDArray[np.float32], list[float]]] = {}
    if "image" in clip.towers:
        pairs["image"] = (clip.encode_image([test_card(bundle.image_size)])[0], golden.image_embeds)
    if "text" in clip.towers:
        pairs["text"] = (clip.encode_text([golden.text])[0], golden.text_embeds)
    cosines = {name: float(np.dot(mine, np.asarray(theirs, np.float32))) for name, (mine, theirs) in pairs.items()}
    for name, cosine in cosines.items():
        if not cosine >= SELF_TEST_MIN_COSINE:
            raise BundleError(
                f"an {name} embedding with a cosine of {cosine:.4f} to the bundle's own",
                expected=f"at least {SELF_TEST_MIN_COSINE}",
                fix="report this processor and version of onnxruntime",
            )
    return cosines
