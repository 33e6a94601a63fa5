"""Changes to finished graphs: names, fixed sizes, and small graphs in front, which name their own sizes."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import compose, helper, parser

END_TEXTS = """
end_texts (int64[batch, tokens] input_ids) => (int64[batch, tokens] ended_ids)
<int64 eos = {{{eos}}}, int64[1] zero = {{0}}, int64[1] last = {{-1}}, int64[1] past = {{65536}}, int64[1] one = {{1}}>
{{
    is_end = Equal(input_ids, eos)
    is_end_int = Cast<to = 7>(is_end)
    has_end_int = ReduceMax<keepdims = 1>(is_end_int, one)
    has_end = Cast<to = 9>(has_end_int)
    body = Slice(input_ids, zero, last, one)
    last_id = Slice(input_ids, last, past, one)
    ended_id = Where(has_end, last_id, eos)
    ended_ids = Concat<axis = 1>(body, ended_id)
}}
"""


def load_graph(path: Path, *, weights: bool = True) -> onnx.ModelProto:
    """Load a graph without the sizes that were noted inside it: runtimes find them, and changed inputs change them.

    Args:
        path: the file.
        weights: False leaves those that are in a file beside it there.
    """
    model = onnx.load_model(path, load_external_data=weights)
    del model.graph.value_info[:]
    return model


def prefixed(model: onnx.ModelProto, prefix: str) -> onnx.ModelProto:
    """Put a prefix before every name of a graph but those of its inputs and outputs."""
    return compose.add_prefix(model, prefix, rename_inputs=False, rename_outputs=False)


def rename(model: onnx.ModelProto, names: dict[str, str]) -> None:
    """Rename inputs and outputs of a graph, wherever they are used; nothing else in it may have the new names."""
    graph = model.graph
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)


def name_sizes(model: onnx.ModelProto, names: dict[str, str | int]) -> None:
    """Rename the dynamic sizes of inputs and outputs, or fix them at a number."""
    for value in (*model.graph.input, *model.graph.output):
        for size in value.type.tensor_type.shape.dim:
            new = names.get(size.dim_param)
            if isinstance(new, int):
                size.dim_value = new
            elif new is not None:
                size.dim_param = new


def put_in_front(model: onnx.ModelProto, text: str) -> onnx.ModelProto:
    """Feed a graph's one input from another graph.

    Args:
        model: the graph.
        text: the other graph in ONNX's text form, with one output of its own name.
    """
    graph = parser.parse_graph(text)
    front = helper.make_model(graph, ir_version=model.ir_version, opset_imports=list(model.opset_import))
    front = compose.add_prefix(front, f"{graph.name}/", rename_inputs=False)
    (old,) = (value.name for value in model.graph.input)
    (output,) = (value.name for value in front.graph.output)
    rename(model, {old: output})
    nodes = [*front.graph.node, *model.graph.node]
    del model.graph.node[:], model.graph.input[:]
    model.graph.node.extend(nodes)
    model.graph.input.extend(front.graph.input)
    model.graph.initializer.extend(front.graph.initializer)
    return model


def end_texts(path: Path, eos_token_id: int) -> None:
    """Let a text graph put the end of text where a row has none, in place of its last token.

    transformers.js cuts a text that is too long with its end, and the tower would pool the first token instead. With
    the end put back the row is what every other client makes of that text. Rows with an end are left as they are.
    """
    onnx.save_model(put_in_front(load_graph(path, weights=False), END_TEXTS.format(eos=eos_token_id)), path)
