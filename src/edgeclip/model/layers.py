"""The transformer that all towers share.

Shape legend: B batch, T tokens, D hidden size, F intermediate size, H heads, K head size (D = H*K),
E projection size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeclip.config import Fusion, TowerConfig
from edgeclip.errors import ConfigError
from edgeclip.model.fusion import FusionStep, fuse, log_size


def quick_gelu(x: Tensor) -> Tensor:
    """X * sigmoid(1.702 x), the activation of OpenAI's checkpoints."""
    return x * torch.sigmoid(1.702 * x)


def _gelu_tanh(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "quick_gelu": quick_gelu,
    "gelu": functional.gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": functional.relu,
    "silu": functional.silu,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """Look an activation up by the name that checkpoints use.

    Raises:
        ConfigError: the name is not known.
    """
    if name not in ACTIVATIONS:
        raise ConfigError(
            f"activation {name!r}",
            expected=f"one of {', '.join(ACTIVATIONS)}",
            fix="train with one of them, or give a checkpoint that was",
        )
    return ACTIVATIONS[name]


class Activation(nn.Module):
    """An activation as a module."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.activation = activation(name)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return self.activation(x)


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection for query, key and value."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x_BTD: Tensor, causal: bool, size_BT: Tensor | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D); `causal` hides later tokens, `size` (B, T) are the patches of each, 0 of padding."""
        B, T, D = x_BTD.shape
        qkv_3BHTK = self.qkv(x_BTD).view(B, T, 3, self.num_heads, D // self.num_heads).permute(2, 0, 3, 1, 4)
        query_BHTK, key_BHTK, value_BHTK = qkv_3BHTK.unbind(0)
        y_BHTK = functional.scaled_dot_product_attention(
            query_BHTK, key_BHTK, value_BHTK, attn_mask=log_size(size_BT), is_causal=causal
        )
        return self.out(y_BHTK.transpose(1, 2).reshape(B, T, D))

    @property
    def projections(self) -> tuple[nn.Linear, ...]:
        """The layers that make query, key and value; the last rows of the last make the value."""
        return (self.qkv,)

    def query_key(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Query, scaled, and key, (B, T, D) each; by the whole product, whose layer others look at."""
        return self.query_key_value(x_BTD)[:2]

    def value(self, x_BTD: Tensor) -> Tensor:
        """Value, (B, T, D)."""
        return self.query_key_value(x_BTD)[2]

    def query_key_value(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, scaled, key and value, (B, T, D) each."""
        query_BTD, key_BTD, value_BTD = self.qkv(x_BTD).chunk(3, dim=-1)
        return query_BTD * (x_BTD.shape[-1] // self.num_heads) ** -0.5, key_BTD, value_BTD

    def project(self, y_BTD: Tensor) -> Tensor:
        """The output projection."""
        return self.out(y_BTD)

    def pool(self, query_B1D: Tensor, x_BTD: Tensor) -> Tensor:
        """One query over all tokens, (B, 1, D)."""
        qkv_BTD = self.qkv(torch.cat([query_B1D, x_BTD], dim=1)).chunk(3, dim=-1)
        query, key, value = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in qkv_BTD)
        y_BH1K = functional.scaled_dot_product_attention(query[:, :, :1], key[:, :, 1:], value[:, :, 1:])
        return self.out(y_BH1K.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """D -> F -> D with the configured activation."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = activation(config.hidden_act)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return self.fc2(self.activation(self.fc1(x_BTD)))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); where it has a `step`, `through` fuses tokens in it.

    Where it `normalizes_after`, norm(x + attention(x)), then norm(x + mlp(x)) (Vaswani et al. 2017); what is read can
    then be scaled, see `export.rewrites.scaled_inputs`.
    """

    def __init__(self, config: TowerConfig, step: FusionStep | None = None) -> None:
        super().__init__()
        self.step, self.normalizes_after = step, config.normalizes_after
        self.attention_input: nn.Module = nn.Identity()
        self.mlp_input: nn.Module = nn.Identity()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = Attention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x_BTD: Tensor, causal: bool, size_BT: Tensor | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D); `size` (B, T) are the patches of each token, None for one each, 0 for padding."""
        if self.normalizes_after:
            x_BTD = self.norm1(x_BTD + self.attention(self.attention_input(x_BTD), causal, size_BT))
            return self.norm2(x_BTD + self.mlp(self.mlp_input(x_BTD)))
        x_BTD = x_BTD + self.attention(self.norm1(x_BTD), causal, size_BT)
        return x_BTD + self.mlp(self.norm2(x_BTD))


def through(block: nn.Module, x_BTD: Tensor, size_BT: Tensor | None, causal: bool) -> tuple[Tensor, Tensor | None]:
    """A block, with its fusing if it does any: (B, T, D) and the sizes of tokens -> fewer, and theirs."""
    if not isinstance(block, Block) or block.step is None:
        return block(x_BTD, causal, size_BT), size_BT
    x_BMD, size_BM = fuse(block.attention, block.norm1, x_BTD, size_BT, block.step)
    return x_BMD + block.mlp(block.norm2(x_BMD)), size_BM


class AttentionPooling(nn.Module):
    """A learned query over all tokens, then x + mlp(norm(x)): SigLIP's head (Zhai et al. 2022, Scaling ViT, "MAP")."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.randn(config.hidden_size) * config.hidden_size**-0.5)
        self.attention = Attention(config)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)
        init_linears(self, config)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) -> (B, D)."""
        x_BD = self.attention.pool(self.probe.expand(x_BTD.shape[0], 1, -1), x_BTD)[:, 0]
        return x_BD + self.mlp(self.norm(x_BD))

    def folded_query(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weights of the same function without keys: scores of a token (H, D), and values (D, D) with their bias (D,).

        See `export.rewrites.folded_query`.
        """
        qkv, D = self.attention.qkv, self.attention.out.in_features
        query_DD, key_DD, value_DD = qkv.weight.chunk(3)
        K = D // self.attention.num_heads
        query_HK = (query_DD @ self.probe + qkv.bias[:D]).view(-1, K) * K**-0.5
        return torch.einsum("hk,hkd->hd", query_HK, key_DD.view(-1, K, D)), value_DD, qkv.bias[2 * D :]


class Transformer(nn.Module):
    """A stack of blocks; `causal` for text, whose tokens are never fused."""

    def __init__(self, config: TowerConfig, *, causal: bool, fusion: Fusion | None = None) -> None:
        super().__init__()
        self.causal = causal
        steps = {} if fusion is None else {layer: FusionStep(fusion, merged) for layer, merged in fusion.steps}
        self.blocks = nn.ModuleList(Block(config, steps.get(i + 1)) for i in range(config.num_hidden_layers))

    def forward(self, x_BTD: Tensor, size_BT: Tensor | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D), fewer tokens where some are fused; `size` (B, T) as for `Block`."""
        for block in self.blocks:
            x_BTD, size_BT = through(block, x_BTD, size_BT, self.causal)
        return x_BTD

    def states(self, x_BTD: Tensor, size_BT: Tensor | None = None) -> tuple[Tensor, ...]:
        """(B, T, D) -> the output of every block, (B, T, D) each; the last is what `forward` returns."""
        states = []
        for block in self.blocks:
            x_BTD, size_BT = through(block, x_BTD, size_BT, self.causal)
            states.append(x_BTD)
        return tuple(states)


@dataclass(frozen=True)
class Tokens:
    """What a tower makes of every token, beside the pooled embedding; the first is the class or start-of-text token,
    where the tower has one.

    `embeds` (B, T, E), the last states normalised by the final LayerNorm and projected, not of unit length;
    `mask` (B, T) bool, False for padding; `hidden_states`, the output of every block, (B, T, D) each.
    """

    embeds: Tensor
    mask: Tensor
    hidden_states: tuple[Tensor, ...]


def init_transformer(transformer: Transformer, config: TowerConfig) -> None:
    """Initialise as OpenAI's CLIP does: normal weights whose spread shrinks with width and depth, zero biases."""
    for block in transformer.blocks:
        assert isinstance(block, Block)  # noqa: S101 - for the type checker
        init_linears(block, config)


def init_linears(block: Block | AttentionPooling, config: TowerConfig) -> None:
    """Initialise the attention and the MLP of one block: see `init_transformer`."""
    width, depth = config.hidden_size, max(config.num_hidden_layers, 1)
    attention_std, residual_std = width**-0.5, width**-0.5 * (2 * depth) ** -0.5
    nn.init.normal_(block.attention.qkv.weight, std=attention_std)
    nn.init.normal_(block.attention.out.weight, std=residual_std)
    nn.init.normal_(block.mlp.fc1.weight, std=(2 * width) ** -0.5)
    nn.init.normal_(block.mlp.fc2.weight, std=residual_std)
    for linear in (block.attention.qkv, block.attention.out, block.mlp.fc1, block.mlp.fc2):
        nn.init.zeros_(linear.bias)
