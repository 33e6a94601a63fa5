"""`/v1/classify` in Jina's shape: which of the labels, without training."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Request, Response
from msgspec import Meta

from edgeclip.errors import ConfigError
from edgeclip.runtime.classifier import Classifier
from edgeclip.serve.embeddings import check_count
from edgeclip.serve.inputs import Part, decoded, item_of, text_of
from edgeclip.serve.model import Model
from edgeclip.serve.openapi import takes

router = APIRouter()


class ClassifyRequest(msgspec.Struct, kw_only=True):
    """Texts or pictures, and what to choose from."""

    input: Part | str | list[Part | str]
    labels: list[str]
    model: str = ""
    template: Annotated[str, Meta(description="A sentence with {} where the label goes.")] = "a photo of a {}"


@router.post("/v1/classify", **takes(ClassifyRequest))
async def classify(request: Request) -> Response:
    """Every label's probability for each input, the most probable first."""
    model: Model = request.app.state.model
    most = request.app.state.settings.max_inputs
    body = decoded(await request.body(), ClassifyRequest)
    inputs = body.input if isinstance(body.input, list) else [body.input]
    check_count(len(inputs), most)
    if not 1 <= len(body.labels) <= most or "{}" not in body.template:
        raise ConfigError(
            f"{len(body.labels)} labels and the template {body.template!r}",
            expected=f"1 to {most} labels, and {{}} in the template",
            fix="give `labels`, and a `template` such as 'a photo of a {}'",
        )
    items = [item_of(part) for part in inputs]
    prompts = [text_of(body.template.replace("{}", label)) for label in body.labels]
    with model.request():
        embeds, _ = await model.embed([*prompts, *items])
    clip = model.clip
    classifier = Classifier(tuple(body.labels), embeds[: len(prompts)], clip.logit_scale, clip.logit_bias)
    data = [
        {
            "object": "classification",
            "index": index,
            "prediction": labels[0].name,
            "score": labels[0].probability,
            "predictions": [{"label": label.name, "score": label.probability} for label in labels],
        }
        for index, labels in enumerate(classifier(embeds[len(prompts) :]))
    ]
    tokens = await model.tokens([*prompts, *(item for item in items if isinstance(item, str))])
    answer = {"object": "list", "model": request.app.state.name, "data": data, "usage": {"total_tokens": tokens}}
    return Response(msgspec.json.encode(answer), media_type="application/json")
