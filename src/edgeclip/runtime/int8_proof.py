"""Does this runtime add int8 products as `quantize.scheme` relies on?

Weights of 8 bits give right sums where the kernel adds those of inputs 0 and 1, 2 and 3, ... in 16 bits, or none. No
list of processors can say so of a runtime's next version, so it is tried: `assets/int8-proof.onnx` multiplies the
largest activations by weights of which every pair is at its limit, and any two others together are far beyond it, and
puts out how far the sums are from those in float. ONNX Runtime can do without sums in 16 bits, more slowly.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

from edgeclip.errors import BundleError
from edgeclip.runtime.session import Open, open_graph

GRAPH = Path(__file__).parent.parent / "assets" / "int8-proof.onnx"
INPUTS = 67
"""Of the proof's product: odd, so that the last is in no pair."""
ROWS = (1, 5)
"""One row is multiplied by other code than several."""
LEAST_WRONG = 128
"""What a single pair beyond its limit costs at least."""

logger = logging.getLogger(__name__)


@functools.cache
def needs_precise() -> bool:
    """Whether graphs with such weights must be opened without sums in 16 bits here. Tried once a process.

    Raises:
        BundleError: their sums are wrong either way.
    """
    if _wrong_by(precise=False) < LEAST_WRONG / 2:
        return False
    if (wrong := _wrong_by(precise=True)) >= LEAST_WRONG / 2:
        raise BundleError(
            f"int8 products that onnxruntime {onnxruntime.__version__} gets wrong by {wrong:.0f} on this processor",
            expected="right ones",
            fix="export the model with `precision` fp32",
        )
    logger.warning(
        "onnxruntime %s adds int8 products in other pairs than a bundle's weights allow: graphs are opened with "
        "session.x64quantprecision, which is right and slower",
        onnxruntime.__version__,
    )
    return True


def in_words() -> str:
    """What the proof says of this runtime and processor."""
    try:
        precise = needs_precise()
    except BundleError:
        return "int8 sums proved wrong here"
    return f"int8 sums proved right here{', with session.x64quantprecision, which is slower' if precise else ''}"


def _wrong_by(*, precise: bool) -> float:
    """How far the worst sum of the proof is from what it should be."""
    session = open_graph(GRAPH, 1, precise=precise)
    rows = [np.full((count, INPUTS), 255, np.float32) for count in ROWS]
    return max(float(session.run(None, {"x": x})[0]) for x in rows)


def proved(open_: Callable[..., onnxruntime.InferenceSession]) -> Open:
    """The same way of opening graphs, but so that their int8 sums are right; see `needs_precise`."""

    def opened(path: Path, threads: int) -> onnxruntime.InferenceSession:
        return open_(path, threads, precise=needs_precise())

    return opened
