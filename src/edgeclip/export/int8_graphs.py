"""Many int8 graphs of the same float graphs, each written without exporting anything again."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from pathlib import Path

from torch import Tensor, nn

from edgeclip.data.prepare import Prepared
from edgeclip.export.calibration_batches import image_batches, text_batches
from edgeclip.export.float_graphs import FloatGraphs
from edgeclip.export.int8 import HEAD, Int8Tower
from edgeclip.export.stored import round_what_is_stored
from edgeclip.export.towers import Tower
from edgeclip.manifest import GRAPHS
from edgeclip.quantize.pixels import PixelBytes
from edgeclip.quantize.sensitivity import choose_float_layers, embed

CHOICE_MIN_COSINE = 0.997
"""On the pairs that are chosen on; the release card asks for 0.995 on others."""
FLOAT_SHARE = 4
"""At most one in so many layers is left in float."""
IMAGE, TEXT = "image: ", "text: "
"""What the names of a tower's layers begin with."""


class Int8Graphs:
    """Both towers, read once; every `write` leaves other layers in float."""

    def __init__(self, floats: FloatGraphs) -> None:
        self._image, self._text = Int8Tower(floats.image.graph, floats.pixels), Int8Tower(floats.text.graph)

    def write(self, folder: Path, float_layers: Collection[str] = ()) -> None:
        """Write both graphs under their names in a bundle.

        Args:
            folder: where the bundle is made; its `onnx` folder must be there.
            float_layers: as `float_layers_of` gives them.
        """
        image_graph, text_graph = (folder / name for name in GRAPHS["int8"])
        self._image.write(image_graph, float_layers=_of_tower(IMAGE, float_layers))
        self._text.write(text_graph, float_layers=_of_tower(TEXT, float_layers))


def _of_tower(prefix: str, layers: Collection[str]) -> set[str]:
    return {name.removeprefix(prefix) for name in layers if name.startswith(prefix)}


def float_layers_of(floats: FloatGraphs, choose: Prepared) -> list[str]:
    """The Linear layers that int8 would cost too much, as "image: name" or "text: name".

    Args:
        floats: the towers, equalized.
        choose: the pairs to choose on.
    """
    images = image_batches(choose, floats.checkpoint.preprocess_config)
    texts = text_batches(choose, floats.checkpoint.tokenizer)
    return [f"{IMAGE}{name}" for name in chosen_layers(floats.image.tower, images, floats.pixels)] + [
        f"{TEXT}{name}" for name in chosen_layers(floats.text.tower, texts)
    ]


def chosen_layers(tower: Tower, batches: Sequence[Tensor], pixels: PixelBytes | None = None) -> list[str]:
    """The Linear layers of a tower that int8 would cost too much, on what it embeds."""
    exact_NE = embed(tower, batches)
    stored = copy.deepcopy(tower)
    round_what_is_stored(stored)
    layers = [name for name, module in stored.named_modules() if isinstance(module, nn.Linear) and name not in HEAD]
    return choose_float_layers(
        stored,
        layers,
        batches,
        exact_NE,
        min_cosine=CHOICE_MIN_COSINE,
        at_most=len(layers) // FLOAT_SHARE,
        pixels=pixels,
    )
