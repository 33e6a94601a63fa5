"""The weighted sum of the losses of a recipe, with what they learn themselves.

Shape legend: B pairs, E embedding size, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeclip.config import ClipConfig, TowerConfig
from edgeclip.distill.losses.affinity import affinity_loss
from edgeclip.distill.losses.contrastive import contrastive_loss
from edgeclip.distill.losses.contrastive_relational import contrastive_relational_loss
from edgeclip.distill.losses.feature import feature_loss, projection
from edgeclip.distill.losses.hidden_state import HiddenStateLoss, LayerPairs
from edgeclip.distill.losses.interactive import InteractiveLoss
from edgeclip.distill.losses.mix import TOKEN_LOSSES, LossMix
from edgeclip.distill.losses.outputs import Outputs
from edgeclip.distill.losses.patch_word import patch_word_loss
from edgeclip.distill.losses.similarity import similarities, widened
from edgeclip.distill.losses.soft_contrastive import soft_contrastive_loss, softening
from edgeclip.errors import ConfigError
from edgeclip.model.layers import Tokens


class DistillationLoss(nn.Module):
    """The losses of a mix between one student and one teacher.

    Its parameters (projections where the sizes differ, the scale of the interactive loss) are to be optimised with
    the student's, and `clamp_logit_scale` to be called after every step.
    """

    def __init__(self, mix: LossMix, student: ClipConfig, teacher: ClipConfig) -> None:
        """Check the mix against both models.

        Raises:
            ConfigError: layers or tokens that a model lacks, or towers whose tokens do not correspond.
        """
        super().__init__()
        self.mix = mix
        sizes = (student.projection_dim, teacher.projection_dim)
        if mix.patch_word > 0 and not student.vision.has_class_token:
            raise ConfigError(
                "loss patch_word for a student without a class token",
                expected="one with it, and a start of text",
                fix="leave patch_word out of [loss]",
            )
        projected = mix.feature > 0 or mix.interactive > 0
        self.image_projection = projection(*sizes) if projected else nn.Identity()
        self.text_projection = projection(*sizes) if projected else nn.Identity()
        self.interactive = InteractiveLoss() if mix.interactive > 0 else None
        self.hidden_states = nn.ModuleDict()
        if mix.vision_layers:
            if student.vision.fusion or teacher.vision.fusion:
                raise ConfigError(
                    "vision_layers for an image tower that fuses tokens",
                    expected="the same tokens in both",
                    fix="leave out vision_layers, or [fuse]; text_layers may stay",
                )
            _check_tokens("vision_layers", "patches", student.vision.num_patches, teacher.vision.num_patches)
            self.hidden_states["image"] = _hidden_states(
                "vision_layers", mix.vision_layers, student.vision, teacher.vision
            )
        if mix.text_layers:
            _check_tokens("text_layers", "vocabulary entries", student.text.vocab_size, teacher.text.vocab_size)
            self.hidden_states["text"] = _hidden_states("text_layers", mix.text_layers, student.text, teacher.text)

    @property
    def needs_student_tokens(self) -> bool:
        """Whether the student's `Outputs` must have their tokens."""
        return self.mix.patch_word > 0 or self.needs_teacher_tokens

    @property
    def needs_teacher_tokens(self) -> bool:
        """Whether the teacher's must; where not, cached embeddings are enough."""
        return self.mix.hidden_state > 0

    def clamp_logit_scale(self) -> None:
        """Keep the learned scale at or below 100; to be called after every step."""
        if self.interactive is not None:
            self.interactive.clamp_logit_scale()

    def forward(
        self, student: Outputs, teacher: Outputs, *, progress: float, tokens: bool = True
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare both models' outputs for the same B pairs; gathered from several processes or not is all the same.

        Args:
            student: with tokens where `needs_student_tokens`.
            teacher: with tokens where `needs_teacher_tokens`; no gradient reaches it.
            progress: the part of training that is done, in [0, 1].
            tokens: False leaves out the losses that compare tokens.

        Returns:
            The weighted sum, a 0-d tensor, and each loss in use without its weight and without a gradient.

        Raises:
            ValueError: tokens are missing, or shapes of student and teacher differ.
        """
        with torch.autocast(student.image_embeds.device.type, enabled=False):  # it would take the products in half
            losses = self._losses(student, teacher, progress)
            parts = {name: losses[name]() for name in self.mix.weights if tokens or name not in TOKEN_LOSSES}
        total = torch.stack([self.mix.weights[name] * part for name, part in parts.items()]).sum()
        return total, {name: part.detach() for name, part in parts.items()}

    def _losses(self, student: Outputs, teacher: Outputs, progress: float) -> dict[str, Callable[[], Tensor]]:
        embeds = (student.image_embeds, student.text_embeds)
        targets = (teacher.image_embeds, teacher.text_embeds)
        logits = similarities(*embeds, student.logit_scale)
        return {
            "contrastive": lambda: contrastive_loss(logits, student.logit_bias),
            "feature": lambda: feature_loss(*self._projected(*embeds), *targets),
            "affinity": lambda: affinity_loss(*embeds, *targets, logit_scale=self.mix.affinity_scale),
            "interactive": lambda: self._interactive(*self._projected(*embeds), *targets),
            "contrastive_relational": lambda: contrastive_relational_loss(
                logits, similarities(*targets, teacher.logit_scale)
            ),
            "soft_contrastive": lambda: soft_contrastive_loss(logits, softening(progress, self.mix.softening)),
            "patch_word": lambda: _patch_word(student),
            "hidden_state": lambda: self._hidden_state(student, teacher),
        }

    def _projected(self, image_embeds_BE: Tensor, text_embeds_BE: Tensor) -> tuple[Tensor, Tensor]:
        images = self.image_projection(widened(image_embeds_BE))
        texts = self.text_projection(widened(text_embeds_BE))
        return functional.normalize(images, dim=-1), functional.normalize(texts, dim=-1)

    def _interactive(self, *embeds_BE: Tensor) -> Tensor:
        assert self.interactive is not None  # noqa: S101 - only called where it is in use
        return self.interactive(*embeds_BE)

    def _hidden_state(self, student: Outputs, teacher: Outputs) -> Tensor:
        towers = {
            "image": (student.image_tokens, teacher.image_tokens),
            "text": (student.text_tokens, teacher.text_tokens),
        }
        losses = [loss(*map(_present, towers[name])) for name, loss in self.hidden_states.items()]
        return torch.stack(losses).mean()


def _patch_word(student: Outputs) -> Tensor:
    """Without the first token, the class token or the start of text, which is neither a patch nor a word."""
    patches, words = _present(student.image_tokens), _present(student.text_tokens)
    return patch_word_loss(patches.embeds[:, 1:], words.embeds[:, 1:], words.mask[:, 1:], student.logit_scale)


def _present(tokens: Tokens | None) -> Tokens:
    if tokens is None:
        raise ValueError("outputs without tokens; expected those that the mix needs, see `outputs_of`")
    return tokens


def _hidden_states(name: str, pairs: LayerPairs, student: TowerConfig, teacher: TowerConfig) -> HiddenStateLoss:
    for s, t in pairs:
        if not (1 <= s <= student.num_hidden_layers and 1 <= t <= teacher.num_hidden_layers):
            raise ConfigError(
                f"{name} with the pair [{s}, {t}]",
                expected=f"[1 to {student.num_hidden_layers}, 1 to {teacher.num_hidden_layers}]",
                fix=f"write {name} = [[{student.num_hidden_layers}, {teacher.num_hidden_layers}]] into [loss]",
            )
    return HiddenStateLoss(pairs, student.hidden_size, teacher.hidden_size)


def _check_tokens(name: str, what: str, student: int, teacher: int) -> None:
    if student != teacher:
        raise ConfigError(
            f"{name} for a student of {student} {what} and a teacher of {teacher}",
            expected="the same tokens in both",
            fix="leave the layers out of the recipe, or give a student that has them",
        )
