"""Recall of one model on one data set."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from edgeclip.bundle import MANIFEST
from edgeclip.config import PreprocessConfig, check_range, check_run, processors
from edgeclip.data.prepare import prepare_parts
from edgeclip.data.settings import DataSettings
from edgeclip.data.source import load_data
from edgeclip.errors import DataError
from edgeclip.evaluate.environment import environment
from edgeclip.evaluate.retrieval import retrieval
from edgeclip.export.card import one_by_one
from edgeclip.files import printable
from edgeclip.model.encode import encode_images, encode_texts
from edgeclip.progress import Advance, stage
from edgeclip.quantize.paper import int8_layers
from edgeclip.reproduce.models import load_any
from edgeclip.results import SCHEMA, Evaluation, Standard
from edgeclip.runtime import load

DEFAULT_SCENES = 1000


class EvaluationSettings(DataSettings, frozen=True, kw_only=True):
    """Options of `edgeclip evaluate`; `samples` None means every image."""

    model: str
    samples: int | None = None
    threads: int = msgspec.field(default_factory=processors)
    vocabulary: str | None = None

    def __post_init__(self) -> None:
        check_run(threads=self.threads, workers=self.workers, seed=self.seed)
        if self.samples is not None:
            check_range("--samples", self.samples, 1, 2**40)


class _Model(NamedTuple):
    """How its images are cropped; 8-bit crops (N, H, W, 3), or N texts, to embeddings (N, E)."""

    preprocess: PreprocessConfig
    encode_images: Callable[[NDArray[np.uint8], Advance], NDArray[np.float32]]
    encode_texts: Callable[[list[str], Advance], NDArray[np.float32]]


def _load(settings: EvaluationSettings) -> _Model:
    if (Path(settings.model) / MANIFEST).is_file():
        clip = load(settings.model, threads=settings.threads)
        return _Model(
            clip.bundle.preprocess, partial(one_by_one, clip.encode_image), partial(one_by_one, clip.encode_text)
        )
    torch.set_num_threads(settings.threads)
    loaded = load_any(settings.model, Path(settings.vocabulary) if settings.vocabulary else None)
    model, config, tokenizer = loaded.model, loaded.preprocess_config, loaded.tokenizer
    batch_size = 1 if int8_layers(model) else 32
    return _Model(
        config,
        lambda pixels, advance: encode_images(model, pixels, config, batch_size=batch_size, advance=advance),
        lambda texts, advance: encode_texts(model, texts, tokenizer, batch_size=batch_size, advance=advance),
    )


def evaluate(settings: EvaluationSettings) -> Evaluation:
    """Measure recall by both protocols.

    Raises:
        EdgeclipError: the model or the data can't be used.
    """
    model = _load(settings)
    captions = load_data(
        settings.data,
        samples=settings.samples or DEFAULT_SCENES,
        seed=settings.seed,
        options=settings.data_options,
    )
    samples = len(captions) if settings.samples is None else settings.samples
    if samples > len(captions):
        raise DataError(f"--samples {samples} of {len(captions)} images", expected="at most all", fix="lower it")
    chosen = np.random.default_rng(settings.seed).permutation(len(captions))[:samples].tolist()
    (pairs,) = prepare_parts([(captions, chosen)], model.preprocess, settings)
    texts, image_of_caption = pairs.all_captions
    with stage("encoding", len(pairs) + len(texts)) as advance:
        image_embeds, text_embeds = model.encode_images(pairs.pixels, advance), model.encode_texts(texts, advance)
    first = np.unique(image_of_caption, return_index=True)[1]
    i2t, t2i = retrieval(image_embeds, text_embeds[first], np.arange(len(pairs)))
    standard_i2t, standard_t2i = retrieval(image_embeds, text_embeds, image_of_caption)
    return Evaluation(
        schema=SCHEMA,
        model=printable(settings.model),
        data=printable(settings.data),
        seed=settings.seed,
        images=len(pairs),
        i2t=i2t,
        t2i=t2i,
        standard=Standard(captions=len(texts), i2t=standard_i2t, t2i=standard_t2i),
        bad_images=pairs.bad_images,
        environment=environment(settings.threads),
    )
