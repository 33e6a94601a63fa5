"""Recall of one model on one data set."""

from __future__ import annotations

import numpy as np

from edgeclip.data.prepare import prepare_parts
from edgeclip.data.split import to_measure
from edgeclip.evaluate.encoder import embed_images, embed_texts
from edgeclip.evaluate.environment import environment
from edgeclip.evaluate.retrieval import retrieval
from edgeclip.files import printable
from edgeclip.measure.evaluation_settings import EvaluationSettings
from edgeclip.measure.source import load_encoder
from edgeclip.progress import task
from edgeclip.results import SCHEMA, Evaluation, Standard

DEFAULT_SCENES = 1000


def evaluate(settings: EvaluationSettings) -> Evaluation:
    """Measure recall by both protocols.

    Raises:
        EdgeclipError: the model or the data can't be used.
    """
    encoder, preprocess = load_encoder(
        settings.model,
        threads=settings.threads,
        vocabulary=settings.vocabulary,
        model_config=settings.model_config,
    )
    part = to_measure(
        settings.data,
        samples=settings.samples,
        seed=settings.seed,
        options=settings.data_options,
        all_scenes=DEFAULT_SCENES,
    )
    (pairs,) = prepare_parts([part], preprocess, settings)
    texts, image_of_caption = pairs.all_captions
    with task("encoding", len(pairs) + len(texts)) as advance:
        image_embeds = embed_images(encoder, pairs.crops, advance)
        text_embeds = embed_texts(encoder, texts, advance)
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
