"""Folders of transformers.js, Immich and fastembed as they are published, of a tiny CLIP of transformers."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from onnxruntime.quantization import quantize_dynamic
from onnxruntime.transformers.float16 import convert_float_to_float16
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, SiglipModel

from edgeclip.export.graph import quiet
from edgeclip.tokenizer import ClipTokenizer

Export = Callable[..., Any]
SIDE, CONTEXT, WIDTH = 32, 16, 16
TEXTS = ["a red ball on the table", "two blue boxes", "a photo of a small green star, and another in the snow"]
LOGIT_SCALE = 4.2


class ImageTower(nn.Module):
    """What `CLIPVisionModelWithProjection` gives, or with `unit` what Immich's exporter makes of it."""

    def __init__(self, model: CLIPModel, *, unit: bool = False) -> None:
        super().__init__()
        self.vision, self.projection, self.unit = model.vision_model, model.visual_projection, unit

    def forward(self, pixel_values: Tensor) -> Tensor:
        embeds = self.projection(self.vision(pixel_values).pooler_output)
        return nn.functional.normalize(embeds, dim=-1) if self.unit else embeds


class TextTower(nn.Module):
    """The same of texts."""

    def __init__(self, model: CLIPModel, *, unit: bool = False) -> None:
        super().__init__()
        self.text, self.projection, self.unit = model.text_model, model.text_projection, unit

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        embeds = self.projection(self.text(input_ids, attention_mask=attention_mask).pooler_output)
        return nn.functional.normalize(embeds, dim=-1) if self.unit else embeds


class Both(nn.Module):
    """Both towers and the logits, as optimum exports them."""

    def __init__(self, model: CLIPModel | SiglipModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, pixel_values: Tensor) -> tuple[Tensor, ...]:
        found = self.model(input_ids=input_ids, pixel_values=pixel_values)
        return found.logits_per_image, found.logits_per_text, found.text_embeds, found.image_embeds


def tiny_clip(tokenizer: ClipTokenizer) -> CLIPModel:
    """A random CLIP of transformers whose norms and biases are random too."""
    tower = {"num_hidden_layers": 2, "intermediate_size": 96, "projection_dim": WIDTH}
    text = {"hidden_size": 48, "num_attention_heads": 3, "vocab_size": tokenizer.vocab_size} | tower
    text |= {"max_position_embeddings": CONTEXT, "eos_token_id": tokenizer.eos_token_id}
    vision = {"hidden_size": 64, "num_attention_heads": 2, "image_size": SIDE, "patch_size": 16} | tower
    torch.manual_seed(4)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)
    model = CLIPModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        model.logit_scale.fill_(float(np.log(LOGIT_SCALE)))
    return model


class SiglipTower(nn.Module):
    """Both outputs of one of transformers' SigLIP towers, as transformers.js's graphs have them."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, given: Tensor) -> tuple[Tensor, Tensor]:
        found = self.tower(given)
        return found.last_hidden_state, found.pooler_output


def siglip(exporter: Export, checkpoint: Path, *, combined: bool = True) -> Path:
    """The graphs of a SigLIP's checkpoint beside its small files, as transformers.js has them; the weights go."""
    model = SiglipModel.from_pretrained(checkpoint).eval()
    outputs = ["last_hidden_state", "pooler_output"]
    for kind, name, example in (
        ("vision", "pixel_values", torch.zeros(1, 3, SIDE, SIDE)),
        ("text", "input_ids", torch.ones(1, 64, dtype=torch.int64)),
    ):
        names = {"input_names": [name], "output_names": outputs}
        free = {name: {0: "batch_size"}, **{output: {0: "batch_size"} for output in outputs}}
        tower = SiglipTower(getattr(model, f"{kind}_model"))
        export(exporter, tower, (example,), checkpoint / "onnx" / f"{kind}_model.onnx", names, dynamic_axes=free)
    if combined:
        names = {
            "input_names": ["input_ids", "pixel_values"],
            "output_names": ["logits_per_image", "logits_per_text", "text_embeds", "image_embeds"],
        }
        examples = (torch.ones(2, 64, dtype=torch.int64), torch.zeros(1, 3, SIDE, SIDE))
        export(exporter, Both(model), examples, checkpoint / "onnx" / "model.onnx", names)
    (checkpoint / "model.safetensors").unlink()
    return checkpoint


def ids_of(folder: Path, text: str) -> list[int]:
    """A text's ids by tokenizer.json itself, cut at the context length."""
    tokenizer = Tokenizer.from_file(str(next(folder.rglob("tokenizer.json"))))
    tokenizer.enable_truncation(CONTEXT)
    return tokenizer.encode(text).ids


def expected_texts(model: CLIPModel, folder: Path, texts: list[str]) -> np.ndarray:
    """Transformers' own embeddings, each text by itself."""
    rows = []
    with torch.no_grad():
        for ids in (ids_of(folder, text) for text in texts):
            pooled = model.text_model(torch.tensor([ids])).pooler_output
            rows.append(nn.functional.normalize(model.text_projection(pooled), dim=-1).numpy()[0])
    return np.stack(rows)


def expected_images(model: CLIPModel, images: list[Image.Image]) -> np.ndarray:
    """Transformers' own embeddings, with its own preprocessing."""
    with torch.no_grad():
        pooled = model.vision_model(processor()(images, return_tensors="pt")["pixel_values"]).pooler_output
        return nn.functional.normalize(model.visual_projection(pooled), dim=-1).numpy()


def processor() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


def export(
    exporter: Export,
    module: nn.Module,
    examples: tuple[Tensor, ...],
    path: Path,
    names: dict[str, list[str]],
    **options: Any,
) -> Path:
    """Export as optimum does: with the older exporter and named sizes where they are free."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exporter(module.eval(), examples, str(path), **names, **({"dynamo": False} | options))
    return path


def image_graph(exporter: Export, model: CLIPModel, path: Path, *, output: str = "image_embeds") -> Path:
    names = {"input_names": ["pixel_values"], "output_names": [output]}
    free = {"pixel_values": {0: "image_batch_size"}, output: {0: "image_batch_size"}}
    return export(exporter, ImageTower(model), (torch.zeros(1, 3, SIDE, SIDE),), path, names, dynamic_axes=free)


def text_graph(exporter: Export, model: CLIPModel, path: Path, *, mask: bool = False) -> Path:
    inputs = ["input_ids", *(["attention_mask"] if mask else [])]
    names = {"input_names": inputs, "output_names": ["text_embeds"]}
    free = {name: {0: "text_batch_size", 1: "sequence_length"} for name in inputs} | {
        "text_embeds": {0: "text_batch_size"}
    }
    ids = torch.ones(2, 7, dtype=torch.int64)
    examples = (ids, torch.ones_like(ids)) if mask else (ids,)
    return export(exporter, TextTower(model), examples, path, names, dynamic_axes=free)


def hugging_face_files(model: CLIPModel, tokenizer: ClipTokenizer, folder: Path, *, kind: str = "both") -> None:
    """config.json, preprocessor_config.json and the tokenizer's files of one tower or both."""
    folder.mkdir(parents=True, exist_ok=True)
    config = (
        model.config if kind == "both" else getattr(model.config, f"{'vision' if kind == 'image' else 'text'}_config")
    )
    config.save_pretrained(folder)
    if kind != "text":
        written = processor().to_dict()
        (folder / "preprocessor_config.json").write_text(json.dumps(written))
    if kind != "image":
        tokenizer.save(folder)


def transformers_js(
    exporter: Export, model: CLIPModel, tokenizer: ClipTokenizer, folder: Path, *, combined: bool = True
) -> Path:
    """onnx/{vision,text}_model{,_quantized,_fp16}.onnx and onnx/model.onnx."""
    hugging_face_files(model, tokenizer, folder)
    for path in (
        image_graph(exporter, model, folder / "onnx" / "vision_model.onnx"),
        text_graph(exporter, model, folder / "onnx" / "text_model.onnx"),
    ):
        quantize_dynamic(path, path.with_name(f"{path.stem}_quantized.onnx"))
        half = convert_float_to_float16(onnx.load(path), keep_io_types=False)
        onnx.save_model(half, path.with_name(f"{path.stem}_fp16.onnx"))
    if combined:
        names = {
            "input_names": ["input_ids", "pixel_values"],
            "output_names": ["logits_per_image", "logits_per_text", "text_embeds", "image_embeds"],
        }
        examples = (torch.ones(2, 7, dtype=torch.int64), torch.zeros(1, 3, SIDE, SIDE))
        export(exporter, Both(model), examples, folder / "onnx" / "model.onnx", names)
    return folder


def immich(exporter: Export, model: CLIPModel, tokenizer: ClipTokenizer, folder: Path) -> Path:
    """visual/ and textual/ with graphs for one image and one text, int32 ids, normalised; open_clip's config.json."""
    names = {"input_names": ["image"], "output_names": ["embedding"]}
    visual = ImageTower(model, unit=True)
    export(exporter, visual, (torch.zeros(1, 3, SIDE, SIDE),), folder / "visual" / "model.onnx", names)
    names = {"input_names": ["text"], "output_names": ["embedding"]}
    ids = torch.full((1, CONTEXT), tokenizer.eos_token_id, dtype=torch.int32)
    export(exporter, TextTower(model, unit=True), (ids,), folder / "textual" / "model.onnx", names)
    tokenizer.save(folder / "textual")
    preprocess = {
        "size": [SIDE, SIDE],
        "mode": "RGB",
        "interpolation": "bicubic",
        "resize_mode": "shortest",
        "fill_color": 0,
    }
    preprocess |= {"mean": processor().image_mean, "std": processor().image_std}
    (folder / "visual" / "preprocess_cfg.json").write_text(json.dumps(preprocess))
    vision = {"image_size": SIDE, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16, "mlp_ratio": 1.5}
    text = {"context_length": CONTEXT, "vocab_size": tokenizer.vocab_size, "width": 48, "heads": 3, "layers": 2}
    config = {"embed_dim": WIDTH, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text | {"mlp_ratio": 2.0}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def fastembed(
    exporter: Export, model: CLIPModel, tokenizer: ClipTokenizer, folder: Path, kind: Literal["image", "text"]
) -> Path:
    """model.onnx of one tower and its files, as `Qdrant/clip-ViT-B-32-vision` and `-text` have them."""
    hugging_face_files(model, tokenizer, folder, kind=kind)
    if kind == "image":
        image_graph(exporter, model, folder / "model.onnx")
    else:
        text_graph(exporter, model, folder / "model.onnx", mask=True)
    return folder
