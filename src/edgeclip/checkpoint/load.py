"""From a name, folder or file to a model with its preprocessing and tokenizer."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeclip.checkpoint import bert, hf, mobileclip, open_clip, openai
from edgeclip.checkpoint.beside import find_tokenizer, prepared, tokenizer_origin, vocabulary_beside
from edgeclip.checkpoint.describe import HUGGING_FACE, OPENAI_ORIGIN, configured, of_itself
from edgeclip.checkpoint.description import Description
from edgeclip.checkpoint.keys import Rule, to_ours, without_constants
from edgeclip.checkpoint.one_tower import OneTower, holds_one_tower, join, read_one_tower
from edgeclip.checkpoint.reader import read_tensors, read_weights
from edgeclip.checkpoint.sentence_transformers import clip_folder
from edgeclip.checkpoint.torch_file import TensorFile
from edgeclip.config import ClipConfig, PreprocessConfig
from edgeclip.errors import CheckpointError, EdgeclipError
from edgeclip.hf_json import read_json
from edgeclip.hub import download_checkpoint
from edgeclip.image import ImageSource, crop_uint8, normalize
from edgeclip.inputs import texts_of
from edgeclip.model import Clip, clip
from edgeclip.model.encode import encode_images, encode_texts
from edgeclip.model.fastvit import FastViT
from edgeclip.model.text import TextTower
from edgeclip.model.vision import VisionTower
from edgeclip.names import BUILTIN, is_hub_id, joined_parts
from edgeclip.runtime.foreign import MAX_LOGIT_SCALE, MIN_LOGIT_SCALE
from edgeclip.runtime.given_images import Images, OnError, OnSkip, Skips, crops_of
from edgeclip.runtime.lost_words import LostWords
from edgeclip.tokenizer import ClipTokenizer

logger = logging.getLogger(__name__)

WEIGHTS = (("model", "pytorch_model"), ("open_clip_model", "open_clip_pytorch_model"))
"""What files of weights are called in the layouts of Hugging Face and open_clip."""
PAPER_MEAN = PAPER_STD = (0.5, 0.5, 0.5)
"""The normalisation that the paper uses instead of the checkpoint's own."""


@dataclass(frozen=True, eq=False, repr=False)
class Checkpoint:
    """A checkpoint ready for use, an `evaluate.encoder.Encoder`. `model` is in evaluation mode, on the CPU, in float32.

    A checkpoint without a usable tokenizer loads all the same, for its model; the reason is raised when text comes in.
    `batch_size` images or texts are encoded at a time. `origins` says where what tensors can't tell was read.
    `lost_words` is there where it has fewer words than it was loaded with.
    """

    name: str
    layout: str
    stored_dtype: str
    model: Clip
    preprocess_config: PreprocessConfig
    tokenizer_or_reason: ClipTokenizer | EdgeclipError
    batch_size: int = 32
    origins: Mapping[str, str] = field(default_factory=dict)
    lost_words: LostWords | None = None

    @property
    def tokenizer(self) -> ClipTokenizer:
        """The tokenizer.

        Raises:
            EdgeclipError: the checkpoint has none, or not its own.
        """
        if isinstance(self.tokenizer_or_reason, EdgeclipError):
            raise self.tokenizer_or_reason
        return self.tokenizer_or_reason

    @property
    def config(self) -> ClipConfig:
        """Both towers' sizes."""
        return self.model.config

    @property
    def embedding_size(self) -> int:
        """E, the length of an embedding."""
        return self.model.config.projection_dim

    @property
    def logit_scale(self) -> float:
        """The factor on cosines that makes logits of them."""
        return self.model.logit_scale.item()

    @property
    def logit_bias(self) -> float | None:
        """What is added to logits before the sigmoid makes probabilities of them; None where softmax does."""
        return None if self.model.logit_bias is None else self.model.logit_bias.item()

    def __repr__(self) -> str:
        config = self.model.config
        size = config.vision.image_size
        return (
            f"<Checkpoint {self.name}: {self.layout}, {self.stored_dtype}, embeddings of {self.embedding_size}, images "
            f"of {size}x{size}, texts of {config.text.context_length} tokens>"
        )

    def encode_image(
        self, images: Images, *, on_error: OnError = "raise", on_skip: OnSkip | None = None
    ) -> NDArray[np.float32]:
        """Images to L2-normalised `image_embeds` (N, E) float32, with the arguments of `ClipRuntime.encode_image`.

        Raises:
            ImageError: one cannot be decoded.
            InputError: `images` are, or hold, something else than images.
        """
        config, skips = self.preprocess_config, Skips(on_error, on_skip)
        parts = [np.empty((0, self.embedding_size), np.float32)]
        crops = crops_of(images, config, skips)
        while batch := list(islice(crops, self.batch_size)):
            parts.append(encode_images(self.model, np.stack(batch), config, batch_size=self.batch_size))
        skips.warn()
        return np.concatenate(parts)

    def encode_text(self, texts: str | Iterable[str]) -> NDArray[np.float32]:
        """One text, or any iterable of texts, to L2-normalised `text_embeds` (M, E) float32.

        Raises:
            EdgeclipError: the checkpoint has no tokenizer.
            InputError: `texts` are, or hold, something else than strings.
        """
        return encode_texts(self.model, texts_of(texts), self.tokenizer, batch_size=self.batch_size)

    def require_tokenizer(self) -> None:
        """Raise now what the tokenizer would raise when text comes in."""
        if isinstance(self.tokenizer_or_reason, EdgeclipError):
            raise self.tokenizer_or_reason

    def preprocess(self, image: ImageSource) -> Tensor:
        """Path, bytes, Pillow image or uint8 array to (3, H, W) float32.

        Raises:
            ImageError: it cannot be decoded.
        """
        return torch.from_numpy(normalize(crop_uint8(image, self.preprocess_config), self.preprocess_config))

    def tokenize(self, texts: str | Iterable[str]) -> Tensor:
        """Texts to (B, T) int64 token ids, T = the context length.

        Raises:
            EdgeclipError: the checkpoint has no tokenizer.
        """
        return torch.from_numpy(self.tokenizer(texts))

    def with_paper_normalization(self) -> Checkpoint:
        """The same checkpoint with the paper's mean and standard deviation of 0.5."""
        config = msgspec.structs.replace(self.preprocess_config, mean=PAPER_MEAN, std=PAPER_STD)
        return replace(self, preprocess_config=config)


def load_checkpoint(
    source: str | Path, *, vocabulary: str | Path | None = None, model_config: str | Path | None = None
) -> Checkpoint:
    """Load a CLIP checkpoint.

    Args:
        source: `builtin:tabletop`; a folder in the Hugging Face or open_clip layout; a file of weights in either, or in
            OpenAI's; a hub id such as `openai/clip-vit-base-patch32`; or two of these with a + between them, the image
            tower of the first and the text tower of the second, either of which may be of one tower alone.
        vocabulary: OpenAI's `bpe_simple_vocab_16e6.txt.gz`, for checkpoints that bring no tokenizer; without it, the
            file of that name beside the checkpoint.
        model_config: for weights without a configuration: the file of one, or a published architecture's name such as
            `ViT-B-32-quickgelu`. It wins over what lies beside them.

    Raises:
        CheckpointError: there is no such model, it is damaged, of another architecture, or does not tell its own.
        HubError: a hub id that can't be downloaded.
    """
    found = load_towers(source, vocabulary=vocabulary, model_config=model_config)
    if isinstance(found, OneTower):
        raise CheckpointError(
            f"{source}, {found.kind} alone",
            expected="both towers",
            fix=f"give {'IMAGE+' if isinstance(found.tower, TextTower) else ''}{source}"
            f"{'' if isinstance(found.tower, TextTower) else '+TEXT'}, with a checkpoint that has the other",
        )
    return found


def load_towers(
    source: str | Path, *, vocabulary: str | Path | None = None, model_config: str | Path | None = None
) -> Checkpoint | OneTower:
    """Load a CLIP checkpoint, or one of its towers alone; with the arguments and errors of `load_checkpoint`."""
    options = _Options(
        None if vocabulary is None else Path(vocabulary), None if model_config is None else str(model_config)
    )
    if (parts := joined_parts(str(source))) is not None:
        image, text = (_load(part, options) for part in parts)
        return _joined(str(source), image, text)
    return _load(str(source), options)


def _load(name: str, options: _Options) -> Checkpoint | OneTower:
    path = Path(name)
    if name == BUILTIN:
        with resources.as_file(resources.files("edgeclip.assets") / "tabletop") as folder:
            return _load_folder(name, folder, options)
    if path.is_file():
        return _load_file(name, path, options)
    if path.is_dir() or is_hub_id(name):
        folder = clip_folder(path if path.is_dir() else download_checkpoint(name))
        return read_one_tower(name, folder) if holds_one_tower(folder) else _load_folder(name, folder, options)
    raise CheckpointError(
        f"unknown model {name!r}",
        expected=f"{BUILTIN}, a checkpoint's folder or file, or a hub id such as openai/clip-vit-base-patch32",
        fix=f"give the path of one, or {BUILTIN}",
    )


def _joined(name: str, image: Checkpoint | OneTower, text: Checkpoint | OneTower) -> Checkpoint:
    """The image tower of one and the text tower of another."""
    images = image if isinstance(image, OneTower) else _half(image, image.model.vision)
    texts = text if isinstance(text, OneTower) else _half(text, text.model.text)
    scaled = next((part.model for part in (image, text) if isinstance(part, Checkpoint)), None)
    if scaled is None:
        logger.warning("%s has no logit scale: %g is used, which CLIPs end with", name, clip.MAX_LOGIT_SCALE)
    model = join(name, images, texts, scaled)
    preprocess, tokenizer = images.preprocess_config, texts.tokenizer_or_reason
    assert preprocess is not None and tokenizer is not None  # noqa: S101, PT018 - each tower has its own
    both = (images, texts)
    return Checkpoint(
        name=name,
        layout=" and ".join(part.layout for part in both),
        stored_dtype="/".join(sorted({dtype for part in both for dtype in part.stored_dtype.split("/")})),
        model=model,
        preprocess_config=preprocess,
        tokenizer_or_reason=tokenizer,
        origins={
            **images.origins,
            **texts.origins,
            "architecture": " and ".join(part.origins["architecture"] for part in both),
            "preprocessing": images.origins["preprocessing"],
        },
    )


def _half(checkpoint: Checkpoint, tower: VisionTower | FastViT | TextTower) -> OneTower:
    """One tower of a checkpoint."""
    return OneTower(
        name=checkpoint.name,
        layout=checkpoint.layout,
        stored_dtype=checkpoint.stored_dtype,
        tower=tower,
        projection_dim=checkpoint.embedding_size,
        preprocess_config=checkpoint.preprocess_config,
        tokenizer_or_reason=checkpoint.tokenizer_or_reason,
        origins=checkpoint.origins,
    )


@dataclass(frozen=True)
class _Options:
    vocabulary: Path | None
    model_config: str | None


def _load_folder(name: str, folder: Path, options: _Options) -> Checkpoint:
    hugging_face = not (folder / open_clip.CONFIG_NAME).is_file() or _is_hugging_face_too(folder)
    said = configured(folder, options.model_config, hugging_face=hugging_face)
    if said is None:
        raise CheckpointError(
            f"{folder} without {HUGGING_FACE} or {open_clip.CONFIG_NAME}",
            expected="a folder in the Hugging Face or open_clip layout",
            fix="download the whole checkpoint, or give the file of its weights",
        )
    file, container = read_weights(folder, WEIGHTS if hugging_face else WEIGHTS[::-1])
    return _assemble(name, file, container, folder, said, options)


def _load_file(name: str, path: Path, options: _Options) -> Checkpoint:
    file = read_tensors(path)
    if mobileclip.is_apples(file.tensors):
        file = replace(file, tensors=mobileclip.as_open_clip(file.tensors), is_apples=True)
    said = configured(path.parent, options.model_config, hugging_face=file.is_hugging_face) or of_itself(file, name)
    return _assemble(name, file, "", path.parent, said, options)


def _is_hugging_face_too(folder: Path) -> bool:
    """Some repositories carry both layouts; then the weights that are there decide. timm's own, of the image tower
    alone, have its names: their config.json has no model_type.
    """
    has_weights = any(folder.glob("model*.safetensors*")) or any(folder.glob("pytorch_model*.bin*"))
    config = folder / HUGGING_FACE
    return has_weights and config.is_file() and "model_type" in read_json(config)


def _assemble(
    name: str, file: TensorFile, container: str, folder: Path, said: Description, options: _Options
) -> Checkpoint:
    config = said.config
    weights = without_constants(file.tensors, name)
    if config.text.bert is not None:
        weights = bert.used(weights, config.text, f"{hf.TEXT}." if file.is_hugging_face else openai.BERT_PREFIX)
    if file.is_hugging_face:
        rules = hf.rules(config)
    else:
        rules = openai.rules(
            config,
            openai.text_prefix(weights),
            present=frozenset(weights),
            projects_text=said.projects_text,
            scaled=said.scaled,
        )
    preprocess, origin = prepared(name, folder, config.vision, said.preprocess, said.preprocess_origin)
    model = build(name, config, weights, rules)
    vocabulary = options.vocabulary or vocabulary_beside(folder)
    clean = None if file.is_hugging_face else said.clean
    tokenizer = said.no_text or find_tokenizer(
        folder, vocabulary, config.text, clean, name, said.pad_token_id, ends_in_padding=said.ends_in_padding
    )
    return Checkpoint(
        name=name,
        layout=f"{_layout(file, said)}{container and f', {container}'}",
        stored_dtype="/".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in weights.values()})),
        model=model,
        preprocess_config=preprocess,
        tokenizer_or_reason=tokenizer,
        origins={
            "architecture": said.origin,
            "preprocessing": origin,
            "tokenizer": tokenizer_origin(folder, vocabulary, tokenizer),
        },
    )


def _layout(file: TensorFile, said: Description) -> str:
    if file.is_hugging_face:
        return "Hugging Face"
    if file.is_apples:
        return "Apple"
    return "OpenAI" if said.origin == OPENAI_ORIGIN else "open_clip"


def build(name: str, config: ClipConfig, weights: dict[str, Tensor], rules: list[Rule]) -> Clip:
    """A model of a checkpoint's tensors, by a key table.

    Raises:
        CheckpointError: see `to_ours`; or its logit_scale is out of range.
    """
    with torch.device("meta"):
        model = Clip(config)
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    model.load_state_dict(to_ours(weights, rules, shapes, name), assign=True)
    least, most = MIN_LOGIT_SCALE, MAX_LOGIT_SCALE
    if not least <= model.logit_scale.item() <= most:
        raise CheckpointError(
            f"{name} with the logit_scale {model.log_logit_scale.item():g}",
            expected=f"the logarithm of a scale from {least:g} to {most:g}, such as 4.6",
            fix="download it again",
        )
    return model.eval()
