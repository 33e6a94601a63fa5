"""A model in float that computes, with gradients, what its int8 bundle computes (see `quantize.scheme`).

Four things differ from the model itself, besides the rounding. Ranges are those of one image or one text, as a device
encodes them. Pixels are the bytes that they were, see `quantize.pixels`. The last block is computed for the pooled
token alone, so that its query, its output projection and its MLP have that token's range. And padding must not count,
since a device runs a text up to its end only: a token after the end of text is a copy of it in every layer (the same
embedding, sight of the same tokens), which changes no range.

Shape legend: B images or texts, C channels, H and W pixels, I of one patch, T tokens, D hidden size, E
projection size, H heads, K head size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeclip.config import PreprocessConfig
from edgeclip.model import Clip
from edgeclip.model.anatomy import mean_of, places, pooled_index, seen, take
from edgeclip.model.fastvit import FastViT
from edgeclip.model.fusion import fuse, log_size
from edgeclip.model.layers import MLP, Attention, AttentionPooling, Block, Transformer
from edgeclip.model.text import TextTower
from edgeclip.model.vision import VisionTower
from edgeclip.quantize.fake_quant import fake_quant_activation, fake_quant_stored, fake_quant_weight
from edgeclip.quantize.pixels import PixelBytes
from edgeclip.quantize.scheme import FINE_LIMIT, TABLE_LIMIT
from edgeclip.quantize.sensitivity import replaced

PROJECTION = "projection"


class DeployedClip(nn.Module):
    """The two encoders of a model as int8 computes them; the parameters are the model's own."""

    def __init__(self, model: Clip, preprocess: PreprocessConfig) -> None:
        """For images that were preprocessed so.

        Raises:
            ConfigError: see `PixelBytes.of`.
        """
        super().__init__()
        self.model = model
        tower = model.vision
        self.pixels = None
        if isinstance(tower, VisionTower) and tower.config.stem is None:
            self.pixels = PixelBytes.of(preprocess, tower.patch_embedding.in_features)

    def encode_image(self, pixel_values_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) float -> (B, E) L2-normalised `image_embeds`."""
        tower = self.model.vision
        if isinstance(tower, FastViT):
            return _convolutional(tower, pixel_values_BCHW)
        position_TD = tower.position_embedding
        if self.pixels is None:
            x_BTD = tower.patches(pixel_values_BCHW)
        else:
            patches_BTI = self.pixels.round(tower.unfold(pixel_values_BCHW))
            x_BTD = functional.linear(patches_BTI, self.pixels.fake_quant_weight(tower.patch_embedding.weight))
        if not tower.config.has_class_token:
            x_BTD = x_BTD + fake_quant_stored(position_TD + tower.patch_embedding.bias, FINE_LIMIT)
            x_BTD = _all_blocks(tower.transformer, x_BTD)
            return functional.normalize(_attention_pooling(tower.head, tower.post_norm(x_BTD)), dim=-1)
        class_B1D = (tower.class_embedding + position_TD[0]).expand(len(x_BTD), 1, -1)
        x_BTD = x_BTD + fake_quant_stored(position_TD[1:], FINE_LIMIT)
        x_BTD = tower.pre_norm(torch.cat([class_B1D, x_BTD], dim=1))
        if tower.config.pooling == "patches":
            pooled_BD = _all_blocks(tower.transformer, x_BTD)[:, 1:].mean(dim=1)
            return _project(tower.projection, tower.post_norm(pooled_BD))
        first_B = torch.zeros(len(x_BTD), dtype=torch.int64, device=x_BTD.device)
        pooled_BD = _run(tower.transformer, x_BTD, first_B, None)
        return _project(tower.projection, tower.post_norm(pooled_BD))

    def encode_text(self, input_ids_BT: Tensor) -> Tensor:
        """(B, T) int64 -> (B, E) L2-normalised `text_embeds`, whatever follows the end of a text that is cut there."""
        tower = self.model.text
        table_VD = fake_quant_stored(tower.token_embedding.weight, TABLE_LIMIT)
        position_TD = fake_quant_stored(tower.position_embedding, FINE_LIMIT)
        pooled_B = pooled_index(input_ids_BT, tower.config)
        if tower.config.sees_padding:
            x_BTD = functional.embedding(input_ids_BT, table_VD) + position_TD[: input_ids_BT.shape[1]]
            if tower.config.mixer is not None:
                return _project_text(tower, take(_all_blocks(tower.transformer, x_BTD), pooled_B))
            return _project_text(tower, _run(tower.transformer, x_BTD, pooled_B, None))
        position_T = torch.arange(input_ids_BT.shape[1], device=input_ids_BT.device)
        if (seen_BT := seen(input_ids_BT, tower.config)) is not None:
            return self._encode_seen(input_ids_BT, seen_BT > 0, table_VD, position_TD)
        source_BT = torch.minimum(position_T, pooled_B[:, None])
        seen_B1TT = (position_T <= source_BT[:, :, None])[:, None]
        x_BTD = functional.embedding(input_ids_BT.gather(1, source_BT), table_VD) + position_TD[source_BT]
        return _project_text(tower, _run(tower.transformer, x_BTD, pooled_B, seen_B1TT))

    def _encode_seen(self, input_ids_BT: Tensor, seen_BT: Tensor, table_VD: Tensor, position_TD: Tensor) -> Tensor:
        """A tower of BERT's kind, in which padding is a copy of the first token."""
        tower = self.model.text
        rows, T = places(input_ids_BT, tower.config), input_ids_BT.shape[1]
        place_BT = torch.arange(T, device=seen_BT.device).expand_as(seen_BT) if isinstance(rows, slice) else rows
        ids_BT, place_BT = (x.where(seen_BT, x[:, :1]) for x in (input_ids_BT, place_BT))
        x_BTD = tower.embedding_norm(functional.embedding(ids_BT, table_VD) + position_TD[place_BT])
        seen_B1TT = seen_BT[:, None, None, :].expand(-1, 1, T, T)
        if tower.config.pooling == "mean":
            return _project_text(tower, mean_of(_all_blocks(tower.transformer, x_BTD, seen_B1TT), seen_BT.float()))
        return _project_text(tower, _run(tower.transformer, x_BTD, pooled_index(ids_BT, tower.config), seen_B1TT))


class _Int8Linear(nn.Module):
    """A Linear layer of the int8 graph, with the layer's own parameters."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        """(B, ..., I) -> (B, ..., O)."""
        return _int8(x, self.linear.weight, self.linear.bias)


def _convolutional(tower: nn.Module, pixel_values_BCHW: Tensor) -> Tensor:
    """A tower that is computed in float but for its Linear layers: (B, C, H, W) -> (B, E) L2-normalised."""
    projection = tower.get_submodule(PROJECTION)
    assert isinstance(projection, nn.Linear)  # noqa: S101 - for the type checker
    with replaced(tower, _int8_layers(tower) | {PROJECTION: nn.Identity()}):
        pooled_BD = tower(pixel_values_BCHW)
    return _project(projection, pooled_BD)


def _int8_layers(module: nn.Module) -> dict[str, nn.Module]:
    """What stands in place of a module's Linear layers."""
    return {name: _Int8Linear(layer) for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}


def _int8(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """A Linear layer of the int8 graph."""
    return functional.linear(fake_quant_activation(x, per_sample=True), fake_quant_weight(weight_OI), bias_O)


def _project(projection: nn.Linear, x_BD: Tensor) -> Tensor:
    return functional.normalize(_stored(projection, x_BD), dim=-1)


def _project_text(tower: TextTower, x_BD: Tensor) -> Tensor:
    x_BD = tower.final_norm(x_BD)
    if tower.pooler is not None:
        x_BD = _stored(tower.pooler, x_BD).tanh()
    if tower.projection_out is None:
        return _project(tower.projection, x_BD)
    return _project(tower.projection_out, functional.gelu(_stored(tower.projection, x_BD)))


def _stored(layer: nn.Linear, x_BD: Tensor) -> Tensor:
    return functional.linear(x_BD, fake_quant_stored(layer.weight, FINE_LIMIT), layer.bias)


def _run(transformer: Transformer, x_BTD: Tensor, pooled_B: Tensor, seen_B1TT: Tensor | None) -> Tensor:
    """All blocks, the last one for the pooled tokens only: (B, T, D) -> (B, D)."""
    blocks = [block for block in transformer.blocks if isinstance(block, Block)]
    size_BT = None
    for block in blocks[:-1]:
        if block.step is None:
            x_BTD = _block(block, x_BTD, log_size(size_BT) if seen_B1TT is None else seen_B1TT)
        else:
            x_BTD, size_BT = fuse(_Int8Attention(block.attention), block.norm1, x_BTD, size_BT, block.step)
            x_BTD = _mlp(block.norm2, block.mlp, x_BTD)
    rows_B = torch.arange(len(x_BTD), device=x_BTD.device)
    seen_B11T = log_size(size_BT) if seen_B1TT is None else seen_B1TT[rows_B, :, pooled_B, None]
    return _last_block(blocks[-1], x_BTD, pooled_B, seen_B11T)


class _Int8Attention:
    """The parts of an attention that fuses tokens, for `fuse`."""

    def __init__(self, attention: Attention) -> None:
        self.num_heads, self._qkv, self._out = attention.num_heads, attention.qkv, attention.out
        self._D = attention.out.in_features

    def query_key(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        query_BTD, key_BTD = self._rows(x_BTD, slice(2 * self._D)).chunk(2, dim=-1)
        return self._scaled(query_BTD), key_BTD

    def query_key_value(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query_BTD, key_BTD, value_BTD = self._rows(x_BTD, slice(None)).chunk(3, dim=-1)
        return self._scaled(query_BTD), key_BTD, value_BTD

    def value(self, x_BTD: Tensor) -> Tensor:
        return self._rows(x_BTD, slice(2 * self._D, None))

    def project(self, y_BTD: Tensor) -> Tensor:
        return _int8(y_BTD, self._out.weight, self._out.bias)

    def _rows(self, x_BTD: Tensor, rows: slice) -> Tensor:
        return _int8(x_BTD, self._qkv.weight[rows], self._qkv.bias[rows])

    def _scaled(self, query_BTD: Tensor) -> Tensor:
        return query_BTD * (self._D // self.num_heads) ** -0.5


def _all_blocks(transformer: Transformer, x_BTD: Tensor, seen_B1TT: Tensor | None = None) -> Tensor:
    """All blocks, every token of which is pooled: (B, T, D) -> (B, T, D)."""
    for block in transformer.blocks:
        if isinstance(block, Block):
            x_BTD = _block(block, x_BTD, seen_B1TT)
        else:  # of convolutions
            with replaced(block, _int8_layers(block)):
                x_BTD = block(x_BTD)
    return x_BTD


def _attention_pooling(head: AttentionPooling, x_BTD: Tensor) -> Tensor:
    """The learned query folded into keys and values, as `export.rewrites.folded_query` has it: (B, T, D) -> (B, D)."""
    scores_HD, value_DD, value_D = head.folded_query()
    average_BHD = _int8(x_BTD, scores_HD, None).softmax(dim=1).transpose(1, 2) @ x_BTD
    y_BHHK = _int8(average_BHD, value_DD, value_D).unflatten(-1, (head.attention.num_heads, -1))
    y_BD = y_BHHK.diagonal(dim1=1, dim2=2).transpose(1, 2).flatten(1)
    y_BD = _int8(y_BD, head.attention.out.weight, head.attention.out.bias)
    return _mlp(head.norm, head.mlp, y_BD)


def _block(block: Block, x_BTD: Tensor, seen_B1TT: Tensor | None) -> Tensor:
    qkv = block.attention.qkv
    read_BTD = x_BTD if block.normalizes_after else block.norm1(x_BTD)
    query_BTD, key_BTD, value_BTD = _int8(read_BTD, qkv.weight, qkv.bias).chunk(3, dim=-1)
    return _second_half(block, x_BTD + _attend(block.attention, query_BTD, key_BTD, value_BTD, seen_B1TT))


def _last_block(block: Block, x_BTD: Tensor, pooled_B: Tensor, seen_B11T: Tensor | None) -> Tensor:
    B, _, D = x_BTD.shape
    rows_B = torch.arange(B, device=x_BTD.device)
    qkv, read_BTD = block.attention.qkv, x_BTD if block.normalizes_after else block.norm1(x_BTD)
    query_B1D = _int8(read_BTD[rows_B, pooled_B, None], qkv.weight[:D], qkv.bias[:D])
    key_BTD, value_BTD = _int8(read_BTD, qkv.weight[D:], qkv.bias[D:]).chunk(2, dim=-1)
    y_B1D = _attend(block.attention, query_B1D, key_BTD, value_BTD, seen_B11T)
    return _second_half(block, x_BTD[rows_B, pooled_B, None] + y_B1D).squeeze(1)


def _second_half(block: Block, x: Tensor) -> Tensor:
    """The MLP of a block and what is normalised, of x and the attention."""
    if not block.normalizes_after:
        return _mlp(block.norm2, block.mlp, x)
    x = block.norm1(x)
    return block.norm2(x + _mlp_of(block.mlp, x))


def _attend(attention: Attention, query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None) -> Tensor:
    """Queries (B, Q, D) over keys and values (B, T, D), and the output projection.

    `seen` (B, 1, Q, T) is bool, or added to the scores.
    """
    query, key, value = (x.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for x in (query, key, value))
    y_BHQK = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
    return _int8(y_BHQK.transpose(1, 2).flatten(2), attention.out.weight, attention.out.bias)


def _mlp(norm: nn.LayerNorm, mlp: MLP, x: Tensor) -> Tensor:
    """X and the MLP of it."""
    return x + _mlp_of(mlp, norm(x))


def _mlp_of(mlp: MLP, x: Tensor) -> Tensor:
    hidden = mlp.activation(_int8(x, mlp.fc1.weight, mlp.fc1.bias))
    return _int8(hidden, mlp.fc2.weight, mlp.fc2.bias)
