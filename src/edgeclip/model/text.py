"""The text tower.

Shape legend: B batch, T tokens, D hidden size, E projection size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeclip.config import TextConfig
from edgeclip.model.layers import Tokens, Transformer, init_transformer


def end_of_text_index(input_ids_BT: Tensor, eos_token_id: int | None) -> Tensor:
    """Position of the token that is pooled: the first `eos_token_id`, or the highest id of the row where it is None.

    Args:
        input_ids_BT: (B, T) int64.
        eos_token_id: the id to look for.

    Returns:
        (B,) int64. A row without the id pools its first token, as the reference implementation does.
    """
    if eos_token_id is None:
        return input_ids_BT.argmax(dim=-1)
    return (input_ids_BT == eos_token_id).int().argmax(dim=-1)


def pool(x_BTD: Tensor, index_B: Tensor) -> Tensor:
    """The token at `index_B` of each row, (B, D)."""
    return x_BTD[torch.arange(x_BTD.shape[0], device=x_BTD.device), index_B]


class TextTower(nn.Module):
    """A causal transformer; the end-of-text token is normalised and projected.

    Because attention is causal, nothing after the end-of-text token can change the result: a batch may be padded to
    its longest text or to the full context, the embeddings are the same.
    """

    def __init__(self, config: TextConfig, projection_dim: int) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Parameter(torch.randn(config.context_length, config.hidden_size) * 0.01)
        self.transformer = Transformer(config, causal=True)
        self.final_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.projection = nn.Linear(config.hidden_size, projection_dim, bias=False)
        init_transformer(self.transformer, config)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.projection.weight, std=config.hidden_size**-0.5)

    def embed(self, input_ids_BT: Tensor) -> Tensor:
        """(B, T) int64 with T <= context_length -> (B, T, D), what the first block is given."""
        return self.token_embedding(input_ids_BT) + self.position_embedding[: input_ids_BT.shape[1]]

    def forward(self, input_ids_BT: Tensor) -> Tensor:
        """(B, T) int64 with T <= context_length -> (B, E), not normalised."""
        x_BTD = self.transformer(self.embed(input_ids_BT))
        return self.projection(self.final_norm(pool(x_BTD, self._pooled_index(input_ids_BT))))

    def features(self, input_ids_BT: Tensor) -> tuple[Tensor, Tokens]:
        """(B, T) int64 -> what `forward` returns, and every token; what follows the end of text is padding."""
        states = self.transformer.states(self.embed(input_ids_BT))
        embeds_BTE = self.projection(self.final_norm(states[-1]))
        index_B = self._pooled_index(input_ids_BT)
        mask_BT = torch.arange(input_ids_BT.shape[1], device=index_B.device) <= index_B[:, None]
        return pool(embeds_BTE, index_B), Tokens(embeds_BTE, mask_BT, states)

    def _pooled_index(self, input_ids_BT: Tensor) -> Tensor:
        return end_of_text_index(input_ids_BT, self.config.eos_token_id)
