"""Patch-word matching: each patch finds its best word and each word its best patch.

Shape legend: B images, N texts, P patches, W words, E embedding size; I and M images and texts of a chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from edgeclip.distill.losses.contrastive import contrastive_loss
from edgeclip.distill.losses.similarity import widened

MAX_SIMILARITIES = 2**24
"""How many similarities of patches and words exist at a time: 64 MiB of float32."""


def patch_word_loss(
    patches_BPE: Tensor, words_BWE: Tensor, word_mask_BW: Tensor, logit_scale: Tensor | float
) -> Tensor:
    """The contrastive loss (InfoNCE) of images and texts that are compared token by token.

    L = contrastive(a s),  s(I, T) = 1/2 [mean_p max_w S_pw + mean_w max_p S_pw],  S the cosines of patches and words

    After LightCLIP (Nie et al. 2023, arXiv 2312.00674), whose abstract names a relaxed bipartite matching of patches
    and words; dropping the one-to-one constraint on both sides, and this formula, are this project's reading.

    Args:
        patches_BPE: (B, P, E) projected patches of any length.
        words_BWE: (B, W, E) projected words of any length.
        word_mask_BW: (B, W) bool, False for padding.
        logit_scale: a, exponentiated.

    Returns:
        0-d tensor, at least 0.

    Raises:
        ValueError: a text has no word.
    """
    return contrastive_loss(logit_scale * patch_word_similarities(patches_BPE, words_BWE, word_mask_BW))


def patch_word_similarities(patches_BPE: Tensor, words_NWE: Tensor, word_mask_NW: Tensor) -> Tensor:
    """s(I, T) of all images and texts, in chunks of at most `MAX_SIMILARITIES` cosines, also in the backward pass.

    Returns:
        (B, N), in [-1, 1].

    Raises:
        ValueError: a text has no word.
    """
    if not word_mask_NW.any(dim=1).all():
        raise ValueError("a text without words; expected at least one True in each row of the mask")
    patches_BPE = functional.normalize(widened(patches_BPE), dim=-1)
    words_NWE = functional.normalize(widened(words_NWE), dim=-1)
    of_a_pair = patches_BPE.shape[1] * words_NWE.shape[1]
    texts = min(max(MAX_SIMILARITIES // of_a_pair, 1), len(words_NWE))
    images = max(MAX_SIMILARITIES // (of_a_pair * texts), 1)
    columns = [
        torch.cat([_matched(chunk_IPE, words_MWE, mask_MW) for chunk_IPE in patches_BPE.split(images)])
        for words_MWE, mask_MW in zip(words_NWE.split(texts), word_mask_NW.split(texts), strict=True)
    ]
    return torch.cat(columns, dim=1)


def _matched(patches_IPE: Tensor, words_MWE: Tensor, mask_MW: Tensor) -> Tensor:
    """(I, M). `max` along one dimension keeps positions and not the cosines for the backward pass, unlike `amax`."""
    cosines_IMPW = torch.einsum("ipe,mwe->impw", patches_IPE, words_MWE)
    padding_1M1W = ~mask_MW[None, :, None, :]
    per_patch_IMP = cosines_IMPW.masked_fill(padding_1M1W, float("-inf")).max(dim=3).values
    per_word_IMW = cosines_IMPW.max(dim=2).values
    return (per_patch_IMP.mean(dim=2) + (per_word_IMW * mask_MW).sum(dim=2) / mask_MW.sum(dim=1)) / 2
