"""A student made of its teacher's weights.

Stages (TinyCLIP goes 100 -> 50 -> 25 %, each stage starting from the student before it, always taught by the original
model) are calls of `shrink` one after the other, with training between them; a plan counts layers in the model given.

Shape legend: V tokens kept.
"""

from __future__ import annotations

import numpy as np
import torch
from msgspec.structs import replace
from numpy.typing import NDArray
from torch import Tensor

from edgeclip.config import ClipConfig
from edgeclip.errors import ConfigError
from edgeclip.model import Clip
from edgeclip.shrink.importance import Calibration, input_importance
from edgeclip.shrink.plan import ShrinkPlan, student_config
from edgeclip.shrink.width import choose, inherit


def shrink(
    model: Clip,
    plan: ShrinkPlan,
    calibration: Calibration,
    *,
    kept_tokens: NDArray[np.int64] | None = None,
) -> Clip:
    """A smaller model with inherited weights, in evaluation mode; the teacher is not changed.

    Args:
        model: the teacher, in float.
        plan: what is kept.
        calibration: data to measure importance on.
        kept_tokens: (V,) int64, the teacher's id of each token that is kept (`TrimmedVocabulary.kept_tokens`), for
            plans with `vocabulary = "captions"`.

    Raises:
        ConfigError: the student would be larger than its teacher, or the tokens are not the plan's.
    """
    vocab_size = None if kept_tokens is None else len(kept_tokens)
    config = student_config(model.config, plan, vocab_size)
    if kept_tokens is not None:
        _check_tokens(kept_tokens, model)
        config = _with_pooled_token(config, model.config.text.eos_token_id, kept_tokens)
    state, importance = model.state_dict(), input_importance(model, calibration)
    inherited: dict[str, Tensor] = {}
    for name in ("log_logit_scale", "logit_bias"):
        if name in state:
            inherited[name] = state[name].clone()
    for name, tower, part in (("vision", model.config.vision, plan.vision), ("text", model.config.text, plan.text)):
        inherited |= inherit(state, name, part.layers, choose(importance, name, tower, part))
    if kept_tokens is not None:
        rows = inherited["text.token_embedding.weight"]
        inherited["text.token_embedding.weight"] = rows[torch.from_numpy(kept_tokens)]
    with torch.device("meta"):
        student = Clip(config)
    student.load_state_dict(inherited, assign=True)
    return student.eval()


def _check_tokens(kept_tokens: NDArray[np.int64], model: Clip) -> None:
    text = model.config.text
    pooled = kept_tokens.max() if text.eos_token_id is None else text.eos_token_id
    distinct = len(np.unique(kept_tokens)) == len(kept_tokens)
    if not distinct or kept_tokens.min() < 0 or kept_tokens.max() >= text.vocab_size:
        raise ConfigError(
            "kept tokens that repeat, or that the teacher lacks",
            expected=f"each once, below {text.vocab_size}",
            fix="reduce the vocabulary of the teacher's own tokenizer",
        )
    if text.bert is not None and kept_tokens[: text.bert.pad_token_id + 1].tolist()[-1:] != [text.bert.pad_token_id]:
        raise ConfigError(
            "a reduced vocabulary in which the padding has another number",
            expected=f"token {text.bert.pad_token_id} where it was",
            fix="keep the tokens before it too",
        )
    found = kept_tokens[-1:] if text.eos_token_id is None else kept_tokens  # the highest id, or that very token
    if pooled not in found:
        raise ConfigError(
            f"a reduced vocabulary that ends in the teacher's token {kept_tokens[-1]}",
            expected=f"the token that the teacher pools, {pooled}",
            fix="reduce the vocabulary of the teacher's own tokenizer",
        )


def _with_pooled_token(config: ClipConfig, eos_token_id: int | None, kept_tokens: NDArray[np.int64]) -> ClipConfig:
    """The end of text under its new number: the last of CLIP's vocabulary, the third of MetaCLIP 2's."""
    if eos_token_id is None:
        return config
    (place,) = np.flatnonzero(kept_tokens == eos_token_id).tolist()
    return replace(config, text=replace(config.text, eos_token_id=place))
