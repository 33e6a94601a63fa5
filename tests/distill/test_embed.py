import weakref

import torch
from torch import nn

from edgeclip.distill.embed import embed_in_chunks
from edgeclip.distill.losses.contrastive import contrastive_loss
from edgeclip.model import Clip


def gradients(clip: Clip, chunk_size: int | None) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pixel_values = torch.randn(10, 3, 32, 32, generator=generator)
    input_ids = torch.randint(0, clip.config.text.vocab_size, (10, 9), generator=generator)
    image_embeds = embed_in_chunks(clip.encode_image, pixel_values, chunk_size)
    text_embeds = embed_in_chunks(clip.encode_text, input_ids, chunk_size)
    clip.zero_grad()
    contrastive_loss(clip.logit_scale * image_embeds @ text_embeds.T).backward()
    return {name: p.grad.clone() for name, p in clip.named_parameters()}


def test_the_gradient_by_chunks_is_that_of_the_whole_batch(clip: Clip):
    whole = gradients(clip, None)
    assert max(g.abs().max().item() for g in whole.values()) > 0.01
    for chunk_size in (1, 4, 9):
        torch.testing.assert_close(gradients(clip, chunk_size), whole, atol=1e-5, rtol=1e-5)


def test_in_bfloat16_too(clip: Clip):
    with torch.autocast("cpu", torch.bfloat16):
        whole, chunked = gradients(clip, None), gradients(clip, 4)
    for name, gradient in whole.items():
        if gradient.norm() > 1e-2:
            assert (chunked[name] - gradient).norm() < 0.05 * gradient.norm(), name


def test_activations_of_one_chunk_at_a_time():
    """Counts the rows that autograd keeps for the backward pass."""
    layer, alive, peak = nn.Linear(4, 4), 0, 0

    def forget(rows: int) -> None:
        nonlocal alive
        alive -= rows

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            nonlocal alive, peak
            kept = x.clone()
            weakref.finalize(kept, forget, len(x))
            ctx.save_for_backward(kept)
            alive, peak = alive + len(x), max(peak, alive + len(x))
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            assert len(ctx.saved_tensors[0]) == len(gradient)
            return gradient

    embeds = embed_in_chunks(lambda x: Counted.apply(layer(x)), torch.randn(12, 4), 3)
    embeds.sum().backward()
    assert peak == 3
    whole = embed_in_chunks(lambda x: Counted.apply(layer(x)), torch.randn(12, 4), None)
    whole.sum().backward()
    assert peak == 12


def test_the_second_pass_draws_the_random_numbers_of_the_first():
    torch.manual_seed(0)
    dropout, scale = nn.Dropout(0.5), nn.Parameter(torch.ones(40))
    embeds = embed_in_chunks(lambda x: dropout(x * scale), torch.ones(6, 40), 2)
    embeds.sum().backward()
    # Where y = x * mask with x = 1, the gradient of the scale is the sum of what came out.
    torch.testing.assert_close(scale.grad, embeds.detach().sum(dim=0))
