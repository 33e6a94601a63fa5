"""What a graph takes and gives: names, types and sizes that are fixed, and how a batch goes through it.

Shape legend: N items of a call, E embedding size, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgeclip.errors import BundleError
from edgeclip.graph_model import Kind
from edgeclip.runtime.onnx_file import DOUBLE, DTYPES, FLOAT, FLOAT16, INT32, INT64, OnnxFile, Port

MASK = "attention_mask"
INPUTS: dict[Kind, tuple[str, ...]] = {"image": ("pixel_values", "image"), "text": ("input_ids", "text")}
OUTPUTS: dict[Kind, tuple[str, ...]] = {
    "image": ("image_embeds", "image_embedding", "image_features", "embedding", "embeddings"),
    "text": ("text_embeds", "text_embedding", "text_features", "embedding", "embeddings"),
}
"""What other exporters call the input and the pooled and projected output of a tower, the first that is there."""
POOLED = "pooler_output"
"""What SigLIP's towers call it in transformers, whose CLIPs call so what is not projected yet."""
TYPES: dict[Kind, tuple[int, ...]] = {"image": (FLOAT, FLOAT16, DOUBLE), "text": (INT64, INT32)}
HANDED_ON = ("Cast", "Reshape", "Identity", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Concat", "Where", "Clip")
"""What may be done to token ids before they are looked up."""
RANKS: dict[Kind, int] = {"image": 4, "text": 2}


@dataclass(frozen=True)
class Ports:
    """How one tower is fed. `shape` is the input's, None where a size is free; so are `batch` and `width`.

    Attributes:
        input: its name.
        dtype: its type; None where it is given that.
        shape: its sizes.
        output: the name of the embeddings (N, E).
        width: E, where it is fixed.
        mask: the type of `attention_mask`, where the graph asks for one.
        unit: the graph itself gives vectors of length 1.
        sees_padding: texts are padded, and the model was trained to see that: no mask hides it.
    """

    input: str
    dtype: type[np.generic] | None
    shape: tuple[int | None, ...]
    output: str
    width: int | None = None
    mask: type[np.generic] | None = None
    unit: bool = False
    sees_padding: bool = False

    def __call__(
        self,
        session: onnxruntime.InferenceSession,
        batch: NDArray[Any],
        mask_NT: NDArray[np.bool_] | None = None,
        fill: int = 0,
    ) -> NDArray[np.float32]:
        """Run a graph on N items, in as many calls as its fixed batch asks for.

        Args:
            session: the graph.
            batch: pixels (N, 3, H, W), or token ids (N, T).
            mask_NT: which ids are a text's own.
            fill: the id that fills a row up to a length that is fixed.

        Returns:
            (N, E), L2-normalised.

        Raises:
            BundleError: an embedding that has no direction, or is of another width.
        """
        if mask_NT is not None and (length := self.shape[1]) is not None:
            width = ((0, 0), (0, max(length - batch.shape[1], 0)))
            batch, mask_NT = np.pad(batch, width, constant_values=fill), np.pad(mask_NT, width)
        feed: dict[str, NDArray[Any]] = {
            self.input: batch if self.dtype is None else batch.astype(self.dtype, copy=False)
        }
        if self.mask is not None and mask_NT is not None:
            feed[MASK] = (mask_NT | self.sees_padding).astype(self.mask)
        embeds = [session.run([self.output], part)[0][:count] for part, count in self._parts(feed, len(batch))]
        embeds_NE = embeds[0] if len(embeds) == 1 else np.concatenate(embeds)
        if self.width is not None and embeds_NE.shape != (len(batch), self.width):
            raise BundleError(
                f"{self.output} of shape {embeds_NE.shape} for {len(batch)} items",
                expected=f"({len(batch)}, {self.width}), as the graph or config.json says",
                fix="export the tower again",
            )
        return embeds_NE if self.unit else _normalized(embeds_NE, self.output)

    def _parts(self, feed: dict[str, NDArray[Any]], count: int) -> Iterator[tuple[dict[str, NDArray[Any]], int]]:
        """The feed in parts of the size that the graph takes, the last filled up with its last item."""
        size = self.shape[0] or max(count, 1)
        for start in range(0, count, size):
            part = {name: array[start : start + size] for name, array in feed.items()}
            if missing := max(start + size - count, 0):
                part = {name: np.concatenate([array, *[array[-1:]] * missing]) for name, array in part.items()}
            yield part, size - missing


def _normalized(embeds_NE: NDArray[Any], name: str) -> NDArray[np.float32]:
    rows_NE = embeds_NE.astype(np.float32, copy=False)
    norm_N1 = np.linalg.norm(rows_NE, axis=-1, keepdims=True)
    if not (np.isfinite(norm_N1).all() and (norm_N1 > 0).all()):
        raise BundleError(
            f"{name} that are zero or not finite", expected="vectors with a direction", fix="load another precision"
        )
    return rows_NE / norm_N1


def own_ports(session: onnxruntime.InferenceSession) -> Ports:
    """Those of a bundle's graph: one input, one output, vectors of length 1."""
    (given,), (output,) = session.get_inputs(), session.get_outputs()
    shape = tuple(size if isinstance(size, int) else None for size in given.shape)
    return Ports(given.name, None, shape, output.name, unit=True)


def foreign_ports(graph: OnnxFile, kind: Kind, *, siglip: bool = False) -> Ports:
    """Those of another exporter's graph, by the names that are known, of a CLIP or a SigLIP.

    Raises:
        BundleError: an input or output of another name, type or rank.
    """
    masks = [port for port in graph.inputs if port.name == MASK and kind == "text"]
    given = [port for port in graph.inputs if port not in masks]
    outputs = {port.name: port for port in graph.outputs}
    known = (*OUTPUTS[kind], POOLED) if siglip else OUTPUTS[kind]
    name = next((name for name in known if name in outputs), None)
    right = len(given) == 1 and given[0].name in INPUTS[kind] and given[0].dtype in TYPES[kind]
    if not right or len(given[0].shape or ()) != RANKS[kind] or any(port.dtype not in TYPES["text"] for port in masks):
        raise _other(
            graph, kind, "inputs", graph.inputs, f"{_named(INPUTS[kind])} of {_types(kind)}, rank {RANKS[kind]}", siglip
        )
    if name is None or len(outputs[name].shape or (0, 0)) != 2 or outputs[name].dtype not in TYPES["image"]:
        raise _other(graph, kind, "outputs", graph.outputs, f"{_named(known)}, (batch, embedding size)", siglip)
    return Ports(
        given[0].name,
        DTYPES[given[0].dtype],
        given[0].shape or (),
        name,
        width=(outputs[name].shape or (None, None))[1],
        mask=DTYPES[masks[0].dtype] if masks else None,
        sees_padding=siglip,
    )


def _other(graph: OnnxFile, kind: Kind, what: str, ports: Sequence[Port], expected: str, siglip: bool) -> BundleError:
    name = f"Siglip{_CLASS[kind]}Model" if siglip else f"CLIP{_CLASS[kind]}ModelWithProjection"
    got = ", ".join(f"{port.name} {_shown(port)}" for port in ports[:8]) or "none"
    return BundleError(
        f"{graph.path} with the {what} {got}",
        expected=f"of {'SigLIP' if siglip else 'CLIP'}'s {kind} tower: {expected}",
        fix=f"export the {kind} tower with its projection, as {name} has it",
    )


_CLASS: dict[Kind, str] = {"image": "Vision", "text": "Text"}


def _shown(port: Port) -> str:
    dtype = DTYPES[port.dtype].__name__ if port.dtype in DTYPES else f"of type {port.dtype}"
    sizes = "?" if port.shape is None else ", ".join("?" if size is None else str(size) for size in port.shape)
    return f"{dtype} ({sizes})"


def _named(names: tuple[str, ...]) -> str:
    return " or ".join(names)


def _types(kind: Kind) -> str:
    return " or ".join(DTYPES[dtype].__name__ for dtype in TYPES[kind])


def vocabulary_rows(graph: OnnxFile, ids: str) -> int | None:
    """Rows of the table from which token ids take theirs; None where it can't be told."""
    known = {ids}
    for node in graph.nodes:
        if node.op in ("Gather", "GatherBlockQuantized") and len(node.inputs) > 1 and node.inputs[1] in known:
            shape = _table_shape(graph, node.inputs[0])
            if shape is not None:
                return shape[0]
        elif node.op in HANDED_ON and known.intersection(node.inputs):
            known.update(node.outputs)
    return None


def _table_shape(graph: OnnxFile, name: str) -> tuple[int, ...] | None:
    made_by = {output: node for node in graph.nodes for output in node.outputs}
    for _ in range(4):
        if name in graph.tensors:
            shape = graph.tensors[name].shape
            return shape if len(shape) == 2 else None
        node = made_by.get(name)
        if node is None or not node.inputs:
            return None
        name = node.inputs[0]
    return None
