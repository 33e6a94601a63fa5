"""Both towers in one graph with the logits, as optimum and transformers.js's zero-shot pipeline read it.

Shape legend: M images, N texts, E embedding size.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import compose, helper, parser

from edgeclip.errors import ConfigError
from edgeclip.export.surgery import load_graph, name_sizes, prefixed, rename

OUTPUTS = ["logits_per_image", "logits_per_text", "text_embeds", "image_embeds"]
LOGITS = """
logits (float[images, E] image, float[texts, E] text) =>
    (float[images, texts] logits_per_image, float[texts, images] logits_per_text)
<float logit_scale = {{{logit_scale!r}}}, float logit_bias = {{{logit_bias!r}}}>
{{
    text_EN = Transpose<perm = [1, 0]>(text)
    cosines_MN = MatMul(image, text_EN)
    scaled_MN = Mul(cosines_MN, logit_scale)
    logits_per_image = Add(scaled_MN, logit_bias)
    logits_per_text = Transpose<perm = [1, 0]>(logits_per_image)
}}
"""
MAX_BYTES = 2**31 - 1
"""What one ONNX file can hold."""


def write_combined_graph(
    image_graph: Path, text_graph: Path, path: Path, *, logit_scale: float, logit_bias: float = 0.0
) -> None:
    """Write the graph input_ids (N, T), pixel_values (M, 3, S, S) -> logits, text_embeds (N, E), image_embeds (M, E).

    The towers are the two graphs' own nodes and weights, so that the embeddings are theirs to the bit.

    Args:
        image_graph: the finished image tower, in float or int8.
        text_graph: the finished text tower.
        path: where to write.
        logit_scale: exponentiated.
        logit_bias: what is added to scaled cosines.

    Raises:
        ConfigError: the two are too large for one ONNX file.
    """
    size = image_graph.stat().st_size + text_graph.stat().st_size
    if size > MAX_BYTES:
        raise ConfigError(
            f"`combined_graph` for towers of {size / 1e9:.1f} GB",
            expected="at most 2 GB, the limit of an ONNX file",
            fix="leave it out, or use `precision` int8",
        )
    image, text = load_graph(image_graph), load_graph(text_graph)
    # One name for both batches would promise ONNX Runtime that they are equal.
    name_sizes(image, {"batch": "images"})
    name_sizes(text, {"batch": "texts"})
    rename(image, {image.graph.output[0].name: "image_embeds"})
    rename(text, {text.graph.output[0].name: "text_embeds"})
    towers = compose.merge_models(prefixed(text, "text/"), prefixed(image, "image/"), io_map=[])
    logits = helper.make_model(
        parser.parse_graph(LOGITS.format(logit_scale=logit_scale, logit_bias=logit_bias)),
        ir_version=towers.ir_version,
        opset_imports=list(towers.opset_import),
    )
    combined = compose.merge_models(
        towers,
        compose.add_prefix(logits, "logits/", rename_outputs=False),
        io_map=[("image_embeds", "logits/image"), ("text_embeds", "logits/text")],
        outputs=OUTPUTS,
    )
    combined.graph.output.sort(key=lambda output: OUTPUTS.index(output.name))
    onnx.save_model(combined, path)
