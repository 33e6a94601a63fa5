"""What bounds the figures on this machine: its int8 matrix products, its JPEG decoder, and waiting threads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from peer_models import SIDE
from peer_photos import Photos
from PIL import Image

from edgeclip.bundle import read_bundle
from edgeclip.config import ClipConfig
from edgeclip.evaluate.latency import time_calls
from edgeclip.runtime.session import session_options

CAPTION_TOKENS = 14
BUSY = "import numpy as np\na = np.ones((1500, 1500), np.float32)\nwhile True: a @ a"
"""Another program that computes."""


def bounds(work: Path, photos: Photos, threads: int) -> dict[str, Any]:
    """Measured peaks, and how far a graph is from them."""
    import onnxruntime

    bundle = read_bundle(work / "bundle-int8")
    ours = onnxruntime.InferenceSession(str(bundle.graph("image")), session_options(1))
    text = onnxruntime.InferenceSession(str(bundle.graph("text")), session_options(1))
    input_ids = np.arange(320, 320 + CAPTION_TOKENS)[None]
    pixel_values = np.random.default_rng(0).standard_normal((1, 3, SIDE, SIDE), np.float32)
    products = image_products(bundle.config)
    calls = {
        "graph": lambda: ours.run(None, {"pixel_values": pixel_values}),
        "text graph": lambda: text.run(None, {"input_ids": input_ids}),
        "int8": product(np.uint8, 400),
        "int8, 50 rows": product(np.uint8, 50),
        "int8, 14 rows": product(np.uint8, CAPTION_TOKENS),
        "fp32": product(np.float32, 400),
        "decode 1920x1080": lambda: decode(photos.full_hd, 2),
        "decode 4032x3024": lambda: decode(photos.large, 8),
        "decode 4032x3024 in full": lambda: decode(photos.large, 1),
    }
    fastest = {name: min(times) for name, times in time_calls(calls, repeats=15, pause_s=0.02).items()}
    rates = {
        name: round(rows * 768 * 3072 / fastest[name] / 1e6, 1)
        for name, rows in (("int8", 400), ("int8, 50 rows", 50), ("int8, 14 rows", CAPTION_TOKENS), ("fp32", 400))
    }
    text_products = caption_products(bundle.config)
    return {
        "billions of products a second, one thread": rates,
        "billions of products of our image graph": round(products / 1e9, 3),
        "our image graph on one thread, ms": round(fastest["graph"], 2),
        "its products at the rate of 50 rows, ms": round(products / rates["int8, 50 rows"] / 1e6, 2),
        "billions of products of our text graph": round(text_products / 1e9, 3),
        "our text graph on one thread, ms": round(fastest["text graph"], 2),
        "its products at the rate of 14 rows, ms": round(text_products / rates["int8, 14 rows"] / 1e6, 2),
        "JPEG decoder alone, ms": {
            name.removeprefix("decode "): round(ms, 2) for name, ms in fastest.items() if name.startswith("decode")
        },
        "waiting threads, median ms": waiting(bundle.graph("image"), bundle.graph("text"), threads),
    }


def image_products(config: ClipConfig) -> int:
    """Multiplications of the int8 layers of one image: all blocks, but of the last one only keys and values."""
    vision = config.vision
    D, F, T = vision.hidden_size, vision.intermediate_size, vision.num_patches + 1
    block, last = T * (4 * D * D + 2 * D * F), T * 2 * D * D + 2 * D * D + 2 * D * F
    return (vision.num_hidden_layers - 1) * block + last + (T - 1) * 3 * vision.patch_size**2 * D


def caption_products(config: ClipConfig) -> int:
    """Multiplications of the int8 layers of one caption: of the last block only keys and values for all tokens."""
    D, F = config.text.hidden_size, config.text.intermediate_size
    block, last = CAPTION_TOKENS * (4 * D * D + 2 * D * F), CAPTION_TOKENS * 2 * D * D + 2 * D * D + 2 * D * F
    return (config.text.num_hidden_layers - 1) * block + last


def product(dtype: type, rows: int) -> Any:
    """One matrix product as a layer of ViT-B has it."""
    import onnxruntime

    rng = np.random.default_rng(0)
    weight = rng.integers(-64, 65, (768, 3072)).astype(np.int8 if dtype is np.uint8 else np.float32)
    kinds = (TensorProto.UINT8, TensorProto.INT32) if dtype is np.uint8 else (TensorProto.FLOAT, TensorProto.FLOAT)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger" if dtype is np.uint8 else "MatMul", ["a", "b"], ["y"])],
        "product",
        [helper.make_tensor_value_info("a", kinds[0], [rows, 768])],
        [helper.make_tensor_value_info("y", kinds[1], [rows, 3072])],
        [numpy_helper.from_array(weight, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), session_options(1))
    a = rng.integers(0, 256, (rows, 768)).astype(dtype)
    return lambda: session.run(None, {"a": a})


def decode(path: Path, scale: int) -> None:
    """Decode a JPEG at 1/scale of its size."""
    with Image.open(path) as image:
        if scale > 1:
            image.draft("RGB", (image.width // scale, image.height // scale))
        image.load()


def waiting(image_graph: Path, text_graph: Path, threads: int) -> dict[str, dict[str, dict[str, float]]]:
    """An image and a text in turn, with ONNX Runtime's own options and with ours; alone, and beside a busy program."""
    import onnxruntime

    plain = onnxruntime.SessionOptions()
    plain.intra_op_num_threads = threads
    pixel_values = np.random.default_rng(0).standard_normal((1, 3, SIDE, SIDE), np.float32)
    feeds = {"image": {"pixel_values": pixel_values}, "text": {"input_ids": np.arange(320, 334)[None]}}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, options in (("ONNX Runtime's options", plain), ("ours", session_options(threads))):
        sessions = {
            "image": onnxruntime.InferenceSession(str(image_graph), options),
            "text": onnxruntime.InferenceSession(str(text_graph), options),
        }
        calls = {what: lambda s=session, w=what: s.run(None, feeds[w]) for what, session in sessions.items()}
        found[name] = {"alone": _medians(calls)}
        with subprocess.Popen([sys.executable, "-c", BUSY], env={"OMP_NUM_THREADS": "1"}) as busy:
            found[name]["beside a busy program"] = _medians(calls)
            busy.kill()
    return found


def _medians(calls: dict[str, Any]) -> dict[str, float]:
    return {name: round(float(np.median(times)), 2) for name, times in time_calls(calls, repeats=20).items()}
