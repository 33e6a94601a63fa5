"""The folder for Immich, read as its machine-learning service reads it, against edgeclip's own runtime."""

import dataclasses
import json
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest
from PIL import Image
from tokenizers import Tokenizer

from edgeclip.bundle import Bundle
from edgeclip.checkpoint import load_checkpoint
from edgeclip.config import PreprocessConfig
from edgeclip.errors import ConfigError
from edgeclip.export import export_immich
from edgeclip.export.immich import preprocess_cfg, write_model_folder
from edgeclip.export.samples import Samples
from edgeclip.runtime import ClipRuntime
from edgeclip.tokenizer import ClipTokenizer

TEXTS = ["a red ball", "", "  two blue\nboxes on   the table", "Ünïcode, 日本語!", "large white mug " * 20]


class Immich:
    """What immich_ml/models/clip/{visual,textual}.py and models/transforms.py do with a model folder."""

    def __init__(self, folder: Path) -> None:
        text_cfg = json.loads((folder / "config.json").read_text())["text_cfg"]
        self.cfg = json.loads((folder / "visual" / "preprocess_cfg.json").read_text())
        self.canonicalize = (text_cfg.get("tokenizer_kwargs") or {}).get("clean") == "canonicalize"
        pad_token = json.loads((folder / "textual" / "tokenizer_config.json").read_text())["pad_token"]
        length = text_cfg.get("context_length", 77)
        self.tokenizer = Tokenizer.from_file(str(folder / "textual" / "tokenizer.json"))
        self.tokenizer.enable_padding(length=length, pad_token=pad_token, pad_id=self.tokenizer.token_to_id(pad_token))
        self.tokenizer.enable_truncation(max_length=length)
        self.visual, self.textual = (
            onnxruntime.InferenceSession(str(folder / part / "model.onnx"), providers=["CPUExecutionProvider"])
            for part in ("visual", "textual")
        )

    def encode_text(self, text: str) -> np.ndarray:
        assert not self.canonicalize
        tokens = self.tokenizer.encode(" ".join(text.split()))
        return self.textual.run(None, {"text": np.array([tokens.ids], dtype=np.int32)})[0][0]

    def encode_image(self, image: Image.Image) -> np.ndarray:
        size = self.cfg["size"][0] if isinstance(self.cfg["size"], list) else self.cfg["size"]
        resample = {method.name.lower(): method for method in Image.Resampling}[self.cfg["interpolation"].lower()]
        if self.cfg["resize_mode"] == "squash":
            image = image.resize((size, size), resample)
        elif image.width < image.height:
            image = image.resize((size, int((image.height / image.width) * size)), resample)
        else:
            image = image.resize((int((image.width / image.height) * size), size), resample)
        left, upper = int(image.width / 2 - size / 2), int(image.height / 2 - size / 2)
        pixels = np.asarray(image.crop((left, upper, left + size, upper + size)), dtype=np.float32) / 255.0
        mean, std = (np.array(self.cfg[key], dtype=np.float32) for key in ("mean", "std"))
        pixels = pixels * (1.0 / std) - mean / std
        return self.visual.run(None, {"image": pixels.transpose(2, 0, 1)[None]})[0][0]


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = ((40, 61), (90, 33), (32, 32))
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


def assert_same(bundle: Bundle, folder: Path):
    write_model_folder(bundle, folder)
    immich, ours = Immich(folder), ClipRuntime(bundle, threads=1)
    for text in TEXTS:
        # Immich pads to the context length; the graph cuts the padding off, so that even int8 scales are the same.
        np.testing.assert_allclose(immich.encode_text(text), ours.encode_text([text])[0], atol=1e-6)
    for picture in pictures():
        embedding, expected = immich.encode_image(picture), ours.encode_image([picture])[0]
        assert embedding.shape == (16,)
        # Pixels are normalised in another order of operations; int8 may round one of them to the next level.
        tolerance = 2e-6 if bundle.manifest.precision == "fp32" else 5e-3
        np.testing.assert_allclose(embedding, expected, atol=tolerance)


def test_immich_gets_the_embeddings_of_the_runtime(joint_bundle: Bundle, tmp_path: Path):
    assert_same(joint_bundle, tmp_path)


def test_a_squashing_preprocessing_and_another_padding_token(joint_bundle: Bundle, tmp_path: Path):
    squash = PreprocessConfig(shortest_edge=None, resize_to=(32, 32), crop_size=None, resample=2, mean=(0.5, 0.4, 0.3))
    tokens = Tokenizer.from_file(str(joint_bundle.folder / "tokenizer.json"))
    tokenizer = ClipTokenizer(tokens, context_length=16, pad_token=0)
    bundle = dataclasses.replace(joint_bundle, image_preprocess=squash)
    vars(bundle)["tokenizer"] = tokenizer  # as if it had been read from the folder
    assert_same(bundle, tmp_path)
    assert Immich(tmp_path).tokenizer.encode("a").ids[-1] == 0


def test_the_files_and_their_sizes(joint_bundle: Bundle, tmp_path: Path):
    write_model_folder(joint_bundle, tmp_path)
    immich = Immich(tmp_path)
    signatures = [
        [(value.name, value.type, value.shape) for value in (*graph.get_inputs(), *graph.get_outputs())]
        for graph in (immich.visual, immich.textual)
    ]
    embedding = ("embedding", "tensor(float)", [1, 16])
    assert signatures == [
        [("image", "tensor(float)", [1, 3, 32, 32]), embedding],
        [("text", "tensor(int32)", [1, 16]), embedding],
    ]
    assert {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()} == {
        *("config.json", "visual/model.onnx", "visual/preprocess_cfg.json"),
        *("textual/model.onnx", "textual/tokenizer.json", "textual/tokenizer_config.json"),
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shortest_edge": 36}, "shortest_edge 36"),
        ({"crop_size": None}, "crop_size None"),
        ({"crop_size": (32, 30)}, r"crop_size \(32, 30\)"),
        ({"resize_to": (32, 40)}, r"resize_to \(32, 40\)"),
        ({"resize_to": (32, 32), "crop_size": (28, 28)}, r"crop_size \(28, 28\)"),
        ({"rescale_factor": 1.0}, "rescale_factor 1.0"),
    ],
)
def test_a_preprocessing_that_immich_lacks_is_refused(changes: dict, message: str):
    with pytest.raises(ConfigError, match=f"{message}.*`layout` edgeclip"):
        preprocess_cfg(msgspec.structs.replace(PreprocessConfig.clip(32), **changes), 32)


def test_a_failed_export_leaves_the_earlier_folder(
    mini_checkpoint: Path, few_pairs: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "immich").mkdir()
    (tmp_path / "immich" / "config.json").write_text("earlier")

    def fail(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    checkpoint = load_checkpoint(mini_checkpoint)
    monkeypatch.setattr("edgeclip.export.immich.export_bundle", fail)
    with pytest.raises(KeyboardInterrupt):
        export_immich(checkpoint, tmp_path / "immich", few_pairs, precision="int8", threads=1)
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")] == ["immich", "immich/config.json"]
