"""What the losses see of a model.

Shape legend: B pairs, E embedding size, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from edgeclip.model import Clip
from edgeclip.model.layers import Tokens


@dataclass(frozen=True)
class Outputs:
    """One model's view of B pairs: `image_embeds` and `text_embeds` (B, E) L2-normalised, `logit_scale` 0-d.

    `logit_scale` is the factor on cosines itself, as `Clip.logit_scale`; `logit_bias` is there for a model that judges
    each pair for itself, as `Clip.logit_bias`. The tokens are there where a loss needs them.
    """

    image_embeds: Tensor
    text_embeds: Tensor
    logit_scale: Tensor
    image_tokens: Tokens | None = None
    text_tokens: Tokens | None = None
    logit_bias: Tensor | None = None


def outputs_of(model: Clip, pixel_values: Tensor, input_ids: Tensor, *, tokens: bool) -> Outputs:
    """Run a model on (B, 3, H, W) and (B, T); with `tokens` where `DistillationLoss` asks for them."""
    if not tokens:
        embeds = model.encode_image(pixel_values), model.encode_text(input_ids)
        return Outputs(*embeds, model.logit_scale, logit_bias=model.logit_bias)
    image_embeds, image_tokens = model.image_features(pixel_values)
    text_embeds, text_tokens = model.text_features(input_ids)
    return Outputs(image_embeds, text_embeds, model.logit_scale, image_tokens, text_tokens, model.logit_bias)
