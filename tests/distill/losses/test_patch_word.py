import math
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from edgeclip.distill.losses import patch_word
from edgeclip.distill.losses.patch_word import patch_word_loss, patch_word_similarities

WORDS = torch.ones(1, 2, dtype=torch.bool)


def example(B: int = 5, N: int = 4, P: int = 3, W: int = 6, E: int = 7) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(B, P, E, dtype=torch.float64, generator=generator)
    words = torch.randn(N, W, E, dtype=torch.float64, generator=generator)
    mask = torch.arange(W) < torch.randint(1, W + 1, (N, 1), generator=generator)
    return patches, words, mask


def test_by_hand():
    """Cosines [[1, 0], [0.6, 0.8], [0, 1]] of three patches and two words; the lengths don't count."""
    patches = torch.tensor([[[2.0, 0.0], [0.6, 0.8], [0.0, 0.1]]])
    words = torch.tensor([[[3.0, 0.0], [0.0, 4.0]]])
    best_words, best_patches = (1 + 0.8 + 1) / 3, (1 + 1) / 2
    expected = (best_words + best_patches) / 2
    assert patch_word_similarities(patches, words, WORDS).item() == pytest.approx(expected)
    # Without the second word the patches have only the first.
    only_first = torch.tensor([[True, False]])
    expected = ((1 + 0.6 + 0) / 3 + 1) / 2
    assert patch_word_similarities(patches, words, only_first).item() == pytest.approx(expected)


def test_every_pair_as_loops_would():
    patches, words, mask = example()
    found = patch_word_similarities(patches, words, mask)
    for i, patches_PE in enumerate(patches):
        for j, words_WE in enumerate(words):
            cosines = [
                [functional.cosine_similarity(p, w, dim=0).item() for w in words_WE[mask[j]]] for p in patches_PE
            ]
            per_patch = sum(max(row) for row in cosines) / len(cosines)
            per_word = sum(max(column) for column in zip(*cosines, strict=True)) / int(mask[j].sum())
            assert found[i, j].item() == pytest.approx((per_patch + per_word) / 2, rel=1e-12)


def test_padding_changes_nothing():
    patches, words, mask = example()
    expected = patch_word_similarities(patches, words, mask)
    longer = torch.cat([words.masked_fill(~mask[:, :, None], 1e6), torch.full((4, 3, 7), -1e6)], dim=1)
    longer_mask = torch.cat([mask, torch.zeros(4, 3, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(patch_word_similarities(patches, longer, longer_mask), expected, atol=0, rtol=1e-12)


def test_the_limit_of_pairs_that_match_in_full():
    """Image i has patches along axis i alone, text j words along axis j: s is the identity."""
    patches, words = torch.eye(4)[:, None].expand(4, 3, 4), torch.eye(4)[:, None].expand(4, 5, 4)
    mask = torch.ones(4, 5, dtype=torch.bool)
    assert patch_word_loss(patches, words, mask, 2.0).item() == pytest.approx(math.log(1 + 3 * math.exp(-2)), rel=1e-5)


def test_gradients():
    patches, words, mask = example(B=3, N=3, W=4)
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    inputs = (patches.requires_grad_(), words.requires_grad_(), scale)
    assert torch.autograd.gradcheck(lambda p, w, a: patch_word_loss(p, w, mask, a), inputs)


class Largest(TorchDispatchMode):
    """Remembers the most values that any result of an operation has, forward and backward."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.numel = max([self.numel, *sizes])
        return result


@pytest.mark.parametrize("limit", [1, 36, 150])
def test_chunks_bound_the_memory_and_change_nothing(monkeypatch: pytest.MonkeyPatch, limit: int):
    """5 x 4 pairs of 3 patches and 6 words have 360 cosines; at the least, one pair's 18 are needed."""

    def run() -> tuple[torch.Tensor, list[torch.Tensor], int]:
        patches, words, mask = example(E=2)
        inputs = (patches.requires_grad_(), words.requires_grad_())
        with Largest() as largest:
            s = patch_word_similarities(*inputs, mask)
            grads = torch.autograd.grad(s.square().sum(), inputs)
        return s, list(grads), largest.numel

    whole, grads, numel = run()
    assert numel == 360
    monkeypatch.setattr(patch_word, "MAX_SIMILARITIES", limit)
    chunked, chunked_grads, numel = run()
    assert numel <= max(limit, 4 * 6 * 2)  # the words themselves are 48 values
    torch.testing.assert_close(chunked, whole, atol=1e-12, rtol=0)
    torch.testing.assert_close(chunked_grads, grads, atol=1e-12, rtol=0)


def test_the_backward_pass_keeps_positions_and_not_cosines():
    patches, words, mask = example(P=10, W=10)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        patch_word_similarities(patches.requires_grad_(), words.requires_grad_(), mask)
    assert 0 < max(kept) < 5 * 4 * 10 * 10


def test_a_text_without_words_is_refused():
    patches, words, mask = example()
    mask[2] = False
    with pytest.raises(ValueError, match="without words"):
        patch_word_similarities(patches, words, mask)
