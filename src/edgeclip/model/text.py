"""The text tower.

Shape legend: B batch, T tokens, D hidden size, E projection size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeclip.config import TextConfig
from edgeclip.model.anatomy import mean_of, places, pooled_index, seen, take
from edgeclip.model.fastvit import TokenBlock
from edgeclip.model.layers import Tokens, Transformer, init_transformer


class TextTower(nn.Module):
    """A transformer, one token of which, or the mean of all, is projected: see `TextConfig`.

    Where it is causal, nothing after the end-of-text token can change the result; where it is of BERT's kind, padding
    can't: a batch may be padded to its longest text or to the full context, the embeddings are the same.
    """

    def __init__(self, config: TextConfig, projection_dim: int) -> None:
        super().__init__()
        self.config, D, bert = config, config.hidden_size, config.bert
        self.token_embedding = nn.Embedding(config.vocab_size, D)
        self.position_embedding = nn.Parameter(torch.randn(config.context_length, D) * 0.01)
        self.transformer = Transformer(config, causal=config.causal)
        self.final_norm: nn.Module = nn.Identity()
        has_bias, self.pooler, self.projection_out = config.projection_bias, None, None
        if bert is None:
            self.final_norm = nn.LayerNorm(D, eps=config.layer_norm_eps)
            self.projection = nn.Linear(D, projection_dim, bias=has_bias)
        else:
            self.embedding_norm = nn.LayerNorm(D, eps=config.layer_norm_eps)
            has_bias, units = bert.projection_bias, bert.projection_units
            self.pooler = nn.Linear(D, D) if bert.pooler else None
            self.projection = nn.Linear(D, units or projection_dim, bias=has_bias)
            self.projection_out = nn.Linear(units, projection_dim, bias=has_bias) if units else None
        init_transformer(self.transformer, config)
        if config.mixer is not None:
            first, last = (TokenBlock(config, config.mixer) for _ in range(2))
            self.transformer.blocks = nn.ModuleList([first, *self.transformer.blocks, last])
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        for layer in (self.pooler, self.projection, self.projection_out):
            if layer is not None:
                nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def embed(self, input_ids_BT: Tensor) -> Tensor:
        """(B, T) int64 with T <= context_length -> (B, T, D), what the first block is given."""
        x_BTD = self.token_embedding(input_ids_BT) + self.position_embedding[places(input_ids_BT, self.config)]
        return x_BTD if self.config.bert is None else self.embedding_norm(x_BTD)

    def project(self, x: Tensor) -> Tensor:
        """(..., D) pooled tokens of the last block -> (..., E)."""
        x = self.final_norm(x)
        if self.pooler is not None:
            x = self.pooler(x).tanh()
        x = self.projection(x)
        return x if self.projection_out is None else self.projection_out(functional.gelu(x))

    def pool(self, x_BTD: Tensor, input_ids_BT: Tensor) -> Tensor:
        """What the last block gives -> (B, D)."""
        if self.config.pooling == "mean":
            seen_BT = seen(input_ids_BT, self.config)
            assert seen_BT is not None  # noqa: S101 - a mean is of BERT's kind
            return mean_of(x_BTD, seen_BT)
        return take(x_BTD, pooled_index(input_ids_BT, self.config))

    def forward(self, input_ids_BT: Tensor) -> Tensor:
        """(B, T) int64 with T <= context_length -> (B, E), not normalised."""
        x_BTD = self.transformer(self.embed(input_ids_BT), seen(input_ids_BT, self.config))
        return self.project(self.pool(x_BTD, input_ids_BT))

    def features(self, input_ids_BT: Tensor) -> tuple[Tensor, Tokens]:
        """(B, T) int64 -> what `forward` returns, and every token; what follows the pooled one is padding."""
        seen_BT = seen(input_ids_BT, self.config)
        states = self.transformer.states(self.embed(input_ids_BT), seen_BT)
        if seen_BT is None:
            index_B = pooled_index(input_ids_BT, self.config)
            mask_BT = torch.arange(input_ids_BT.shape[1], device=index_B.device) <= index_B[:, None]
        else:
            mask_BT = seen_BT > 0
        return self.project(self.pool(states[-1], input_ids_BT)), Tokens(self.project(states[-1]), mask_BT, states)
