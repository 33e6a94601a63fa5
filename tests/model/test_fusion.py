"""Fused tokens, against a slow oracle in NumPy that keeps lists of which tokens are together.

Shape legend: T tokens, D hidden size, H heads.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from msgspec.structs import replace
from numpy.typing import NDArray

from edgeclip.config import ClipConfig, Fusion
from edgeclip.errors import ConfigError
from edgeclip.export.graph import write_image_graph
from edgeclip.export.int8 import Int8Tower
from edgeclip.export.tower_pairs import pairs_of_tower
from edgeclip.export.towers import ExportedImageTower
from edgeclip.model import Clip
from edgeclip.model.fusion import members
from edgeclip.quantize.deployed import DeployedClip
from edgeclip.quantize.equalize import equalize

Array = NDArray[np.float64]
STEPS = ((1, 5), (2, 3), (3, 2))  # of 17 tokens: 12, 9, 7
TOME = Fusion(criterion="tome", steps=STEPS)
MCTF = Fusion(criterion="mctf", steps=STEPS, attention_power=0.3, size_power=0.2)
BOTH = pytest.mark.parametrize("fusion", [TOME, MCTF], ids=["tome", "mctf"])


def fusing(config: ClipConfig, fusion: Fusion | None) -> Clip:
    """A tower of 4 layers and 17 tokens, with random biases and normalisations too."""
    vision = replace(config.vision, patch_size=8, num_hidden_layers=4, fusion=fusion)
    torch.manual_seed(0)
    clip = Clip(replace(config, vision=vision)).eval()
    for parameter in clip.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return clip


def images(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(5))


@BOTH
@torch.no_grad()
def test_it_is_what_the_oracle_computes_and_not_the_tower_with_all_tokens(config: ClipConfig, fusion: Fusion):
    clip = fusing(config, fusion)
    found = clip.encode_image(images()).numpy()
    np.testing.assert_allclose(found, [oracle(clip, image) for image in images()], atol=2e-6)
    assert np.abs(found - fusing(config, None).encode_image(images()).numpy()).max() > 1e-3
    assert [state.shape[1] for state in clip.image_features(images())[1].hidden_states] == [12, 9, 7, 7]


@BOTH
@torch.no_grad()
@pytest.mark.slow
def test_the_graphs_are_the_tower_with_standard_operators(config: ClipConfig, fusion: Fusion, tmp_path: Path):
    clip = fusing(config, fusion)
    write_image_graph(ExportedImageTower(clip).eval(), tmp_path / "v.onnx")
    Int8Tower(tmp_path / "v.onnx").write(tmp_path / "v8.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    graph, graph8 = (
        onnxruntime.InferenceSession(tmp_path / name, options, providers=["CPUExecutionProvider"])
        for name in ("v.onnx", "v8.onnx")
    )
    for count in (1, 3):
        (embeds,) = graph.run(None, {"pixel_values": images(count).numpy()})
        np.testing.assert_allclose(embeds, clip.encode_image(images(count)).numpy(), atol=2e-6)
    for image in images():
        (embeds,) = graph8.run(None, {"pixel_values": image[None].numpy()})
        np.testing.assert_allclose(embeds, DeployedClip(clip).encode_image(image[None]).numpy(), atol=1e-3)
    for name in ("v.onnx", "v8.onnx"):
        nodes = onnx.load(tmp_path / name).graph.node
        assert {node.domain for node in nodes} <= {"", "ai.onnx"}
        assert not {node.op_type for node in nodes} & {"ScatterND", "ScatterElements", "Loop", "If", "NonZero"}
        assert sum(node.op_type == "TopK" for node in nodes) == len(STEPS) * (1 + (fusion is MCTF))


@BOTH
@torch.no_grad()
def test_patches_that_are_all_the_same_may_be_fused_without_loss(config: ClipConfig, fusion: Fusion):
    """Only if a fused token counts as many times as it has patches, and no patch was fused with the class token."""
    embeds = []
    for fused in (fusion, None):
        clip = fusing(config, fused)
        clip.vision.position_embedding[1:] = clip.vision.position_embedding[1]
        embeds.append(clip.encode_image(torch.full((2, 3, 32, 32), 0.7)))
    torch.testing.assert_close(embeds[0], embeds[1], atol=1e-5, rtol=0)


@BOTH
@torch.no_grad()
def test_channels_are_equalized_across_a_fusion(config: ClipConfig, fusion: Fusion):
    tower = ExportedImageTower(fusing(config, fusion)).eval()
    for norm in (tower.blocks[0].norm1, tower.blocks[1].norm1):
        norm.weight[3] *= 50
        norm.bias[3] *= 50
    expected = tower(images())
    assert equalize(pairs_of_tower(tower), lambda: tower(images()))
    torch.testing.assert_close(tower(images()), expected, atol=1e-5, rtol=0)


@BOTH
@pytest.mark.parametrize("as_int8", [False, True])
def test_every_weight_of_the_image_tower_learns_through_a_fusion(config: ClipConfig, fusion: Fusion, as_int8: bool):
    clip = fusing(config, fusion)
    encode = DeployedClip(clip).encode_image if as_int8 else clip.encode_image
    (encode(images()) @ torch.linspace(-1, 1, 16)).sum().backward()
    assert [name for name, p in clip.vision.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_best_matches_go_and_the_class_token_stays():
    """A is tokens 0, 2, 4 and 6, of which 0 is the class token; N is tokens 1, 3 and 5."""
    scores = torch.tensor([[[9.0, 9, 9], [0.1, 0.8, 0.2], [0.3, 0.1, 0.2], [0.5, 0.6, 0.9]]])
    assert together(members(scores, 2)) == [{0}, {4}, {1}, {2, 3}, {5, 6}]
    # Token 6 goes to 5; then 3 to 2, since 5 and 1 fit none of the A that are left so well.
    assert together(members(scores, 1, 1)) == [{0}, {4}, {2, 3}, {5, 6}, {1}]


def together(members_1MT: torch.Tensor) -> list[set[int]]:
    assert (members_1MT.sum(dim=1) == 1).all()
    return [set(row.nonzero().flatten().tolist()) for row in members_1MT[0]]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (((4, 1),), "layer 4 of an image tower of 4; expected layers 1 to 3"),
        (((0, 1),), "layer 0"),
        (((1, 9),), "9 tokens to fuse at layer 1, where an image has 16 beside the class token; expected 1 to 8"),
        (((1, 8), (2, 4), (3, 3)), "3 tokens to fuse at layer 3, where an image has 4"),
        (((1, 0),), "0 tokens"),
        (((2, 1), (1, 1)), "ascending"),
        ((), "ascending"),
    ],
)
def test_steps_that_a_tower_has_not_the_tokens_for_are_refused(config: ClipConfig, steps, message: str):
    with pytest.raises(ConfigError, match=message):
        fusing(config, Fusion(criterion="tome", steps=steps))


def oracle(clip: Clip, image: torch.Tensor) -> Array:
    """The embedding of an image, in double precision, token by token."""
    tower, fusion = clip.vision, clip.config.vision.fusion
    x = tower.embed(image[None])[0].double().numpy()
    groups = [[t] for t in range(len(x))]
    size = np.ones(len(x))
    for number, block in enumerate(tower.transformer.blocks, 1):
        w = {name: p.double().numpy() for name, p in block.named_parameters()}
        merged, heads = dict(fusion.steps).get(number, 0), block.attention.num_heads
        normed = norm(x, w, "norm1")
        query, key, value = np.split(normed @ w["attention.qkv.weight"].T + w["attention.qkv.bias"], 3, axis=1)
        attention = np.stack([weights(q, k, size) for q, k in zip(split(query, heads), split(key, heads), strict=True)])
        if merged and fusion.criterion == "mctf":
            received = attention.mean(axis=(0, 1))
            factor = received**-fusion.attention_power * size**-fusion.size_power

            def score(i: int, j: int, x: Array = x, factor: Array = factor) -> float:
                return (cosine(x[i], x[j]) + 1) / 2 * factor[i] * factor[j]

            groups = matched(len(x), score, merged // 2, merged - merged // 2)
            weight = received * size
            x = mean(x, groups, weight)
            value = norm(x, w, "norm1") @ w["attention.qkv.weight"].T + w["attention.qkv.bias"]
            value = value[:, 2 * x.shape[1] :]
            rows = [mean(a, groups, weight) for a in attention]
            attention = np.stack([np.stack([a[:, g].sum(axis=1) for g in groups], axis=1) for a in rows])
            size = np.array([size[g].sum() for g in groups])
        y = np.concatenate([a @ v for a, v in zip(attention, split(value, heads), strict=True)], axis=1)
        x = x + y @ w["attention.out.weight"].T + w["attention.out.bias"]
        if merged and fusion.criterion == "tome":
            keys = np.mean(split(key, heads), axis=0)
            groups = matched(len(x), lambda i, j, keys=keys: cosine(keys[i], keys[j]), merged, 0)
            x, size = mean(x, groups, size), np.array([size[g].sum() for g in groups])
        hidden = norm(x, w, "norm2") @ w["mlp.fc1.weight"].T + w["mlp.fc1.bias"]
        x = x + (hidden / (1 + np.exp(-1.702 * hidden))) @ w["mlp.fc2.weight"].T + w["mlp.fc2.bias"]
    w = {f"post_norm.{name}": p.double().numpy() for name, p in tower.post_norm.named_parameters()}
    embeds = norm(x[0], w, "post_norm") @ tower.projection.weight.double().numpy().T
    return embeds / np.linalg.norm(embeds)


def matched(count: int, score, into_odd: int, into_even: int) -> list[list[int]]:
    """Who is together: the class token, the even tokens that are left, and the odd ones that are left."""
    even, odd = list(range(0, count, 2)), list(range(1, count, 2))
    best = {i: max((score(i, j), j) for j in odd) for i in even[1:]}
    order = [0, *sorted(best, key=lambda i: best[i][0])]
    left, gone = order[: len(even) - into_odd], order[len(even) - into_odd :]
    groups = {t: [t] for t in (*left, *odd)}
    for i in gone:
        groups[best[i][1]].append(i)
    if into_even:
        best = {j: max((score(i, j), i) for i in left[1:]) for j in odd}
        odd = sorted(odd, key=lambda j: best[j][0])
        odd, gone = odd[: len(odd) - into_even], odd[len(odd) - into_even :]
        for j in gone:
            groups[best[j][1]] += groups[j]
    return [groups[t] for t in (*left, *odd)]


def norm(x: Array, w: dict[str, Array], name: str) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def split(x: Array, heads: int) -> list[Array]:
    return np.split(x, heads, axis=1)


def weights(query: Array, key: Array, size: Array) -> Array:
    counted = np.exp(query @ key.T / key.shape[1] ** 0.5) * size
    return counted / counted.sum(axis=1, keepdims=True)


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def mean(x: Array, groups: list[list[int]], weight: Array) -> Array:
    return np.stack([(x[g] * weight[g, None]).sum(axis=0) / weight[g].sum() for g in groups])
