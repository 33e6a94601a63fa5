"""The text tower.

Shape legend: B batch, T tokens, D hidden size, E projection size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeclip.config import TextConfig
from edgeclip.model.anatomy import pooled_index, take
from edgeclip.model.layers import Tokens, Transformer, init_transformer


class TextTower(nn.Module):
    """A transformer, one token of which is normalised and projected: see `TextConfig`.

    Where it is causal, nothing after the end-of-text token can change the result: a batch may be padded to its longest
    text or to the full context, the embeddings are the same.
    """

    def __init__(self, config: TextConfig, projection_dim: int) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Parameter(torch.randn(config.context_length, config.hidden_size) * 0.01)
        self.transformer = Transformer(config, causal=config.causal)
        self.final_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.projection = nn.Linear(config.hidden_size, projection_dim, bias=config.projection_bias)
        init_transformer(self.transformer, config)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.projection.weight, std=config.hidden_size**-0.5)
        if config.projection_bias:
            nn.init.zeros_(self.projection.bias)

    def embed(self, input_ids_BT: Tensor) -> Tensor:
        """(B, T) int64 with T <= context_length -> (B, T, D), what the first block is given."""
        return self.token_embedding(input_ids_BT) + self.position_embedding[: input_ids_BT.shape[1]]

    def forward(self, input_ids_BT: Tensor) -> Tensor:
        """(B, T) int64 with T <= context_length -> (B, E), not normalised."""
        x_BTD = self.transformer(self.embed(input_ids_BT))
        return self.projection(self.final_norm(take(x_BTD, pooled_index(input_ids_BT, self.config))))

    def features(self, input_ids_BT: Tensor) -> tuple[Tensor, Tokens]:
        """(B, T) int64 -> what `forward` returns, and every token; what follows the pooled one is padding."""
        states = self.transformer.states(self.embed(input_ids_BT))
        embeds_BTE = self.projection(self.final_norm(states[-1]))
        index_B = pooled_index(input_ids_BT, self.config)
        mask_BT = torch.arange(input_ids_BT.shape[1], device=index_B.device) <= index_B[:, None]
        return take(embeds_BTE, index_B), Tokens(embeds_BTE, mask_BT, states)
