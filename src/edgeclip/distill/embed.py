"""Embeddings of a whole batch from pieces of it: chunk by chunk within a process, and from one process to the next.

A contrastive loss compares every pair of a batch with every other, so that a batch cannot be cut into smaller ones as
other losses allow. Its embeddings are small, though, and can be had piece by piece.

Shape legend: B pairs of this process's share of a batch, W processes, G pairs of the whole batch, E embedding size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


def embed_in_chunks(encode: Callable[[Tensor], Tensor], inputs_B: Tensor, chunk_size: int | None) -> Tensor:
    """Embed a batch, keeping the activations of one chunk at a time (GradCache, Gao et al. 2021, section 3).

    Nothing but the embeddings outlives the forward pass of a chunk. In the backward pass the gradients of all
    embeddings are computed first; then each chunk is encoded again, with the random numbers of the first time, and its
    part of those gradients is carried on into the parameters. The gradient is that of the whole batch; the price is one
    more forward pass, but for the last chunk: its turn comes first, so that keeping it takes no more memory.

    Args:
        encode: (C, ...) to (C, E), row by row.
        inputs_B: (B, ...) `pixel_values` or `input_ids`.
        chunk_size: rows at a time; None keeps the activations of all.

    Returns:
        (B, E).
    """
    if chunk_size is None or len(inputs_B) <= chunk_size:
        return encode(inputs_B)
    *chunks, last = inputs_B.split(chunk_size)
    return torch.cat([*(checkpoint(encode, chunk, use_reentrant=False) for chunk in chunks), encode(last)])


def gather(embeds_BE: Tensor, accelerator: Accelerator) -> Tensor:
    """The embeddings of all processes, in order, so that each can compute the loss of the whole batch.

    Each process has the gradient of the loss for its own rows already, and for those alone. It is multiplied by W here
    since `trainer.fit` averages the gradients of parameters over the processes: the mean is that of the whole batch,
    for the parameters of the encoders as for those that the loss itself uses, such as `logit_scale`.

    Args:
        embeds_BE: (B, E); B may differ from process to process.
        accelerator: knows the other processes.

    Returns:
        (G, E), the same on every process.
    """
    if accelerator.num_processes == 1:
        return embeds_BE
    sizes = accelerator.gather(torch.tensor([len(embeds_BE)], device=embeds_BE.device)).tolist()
    padded = functional.pad(embeds_BE.detach(), (0, 0, 0, max(sizes) - len(embeds_BE)))
    parts = [part[:size] for part, size in zip(accelerator.gather(padded).split(max(sizes)), sizes, strict=True)]
    if embeds_BE.requires_grad:
        embeds_BE.register_hook(lambda gradient: gradient * accelerator.num_processes)
    parts[accelerator.process_index] = embeds_BE
    return torch.cat(parts)
