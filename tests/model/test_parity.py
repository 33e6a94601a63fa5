"""Our model against transformers' on random weights: per layer on small models, end to end at full size."""

from pathlib import Path

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from edgeclip.checkpoint import load_checkpoint
from edgeclip.distill.learn_vocabulary import learn_vocabulary
from edgeclip.tokenizer import ClipTokenizer

TOWER = {"num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 80}


def reference(**changes: object) -> CLIPModel:
    torch.manual_seed(0)
    vision = {"hidden_size": 48, "image_size": 32, "patch_size": 8, **TOWER}
    text = {"hidden_size": 32, "vocab_size": 600, "max_position_embeddings": 16, "eos_token_id": 599, **TOWER}
    for key, value in changes.items():
        tower, _, name = key.partition("__")
        (vision if tower == "vision" else text)[name] = value
    config = CLIPConfig(vision_config=vision, text_config=text, projection_dim=24)
    model = CLIPModel(config).eval()
    # Random positions, scales and biases too: at their initial values they would hide mistakes.
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


pytestmark = pytest.mark.filterwarnings("ignore:.*end of text")  # one case pools token 2


@pytest.fixture
def sized_tokenizer() -> ClipTokenizer:
    return learn_vocabulary([f"{a}{b}" * 3 for a in "abcdefgh" for b in "stuvwxyz"], 600, context_length=16)


def both(folder: Path, tokenizer: ClipTokenizer, **changes: object):
    theirs = reference(**changes)
    theirs.save_pretrained(folder)
    tokenizer.save(folder)
    return load_checkpoint(folder).model, theirs


def embeds(features: object) -> torch.Tensor:
    pooled = getattr(features, "pooler_output", features)
    return torch.nn.functional.normalize(pooled, dim=-1)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"vision__hidden_act": "gelu", "text__hidden_act": "gelu_new"},
        {"vision__layer_norm_eps": 1e-2, "text__layer_norm_eps": 3e-2},
        {"vision__image_size": 36},
        {"text__eos_token_id": 2},
    ],
    ids=["default", "activations", "eps", "patches that don't fill the image", "legacy end of text"],
)
@torch.no_grad()
def test_every_layer_equals_transformers(tmp_path: Path, sized_tokenizer: ClipTokenizer, changes: dict):
    ours, theirs = both(tmp_path, sized_tokenizer, **changes)
    size = ours.config.vision.image_size
    pixel_values = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))
    input_ids = torch.from_numpy(sized_tokenizer(["as at", "bs", "hz hz hz hz hz hz hz hz hz hz hz hz hz hz hz hz hz"]))

    ours_states: dict[str, list[torch.Tensor]] = {"vision": [], "text": []}
    for name, states in ours_states.items():
        for block in getattr(ours, name).transformer.blocks:
            block.register_forward_hook(lambda module, args, out, states=states: states.append(out))
    image_embeds, text_embeds = ours.encode_image(pixel_values), ours.encode_text(input_ids)
    theirs_states = {
        "vision": theirs.vision_model(pixel_values, output_hidden_states=True).hidden_states[1:],
        "text": theirs.text_model(input_ids, output_hidden_states=True).hidden_states[1:],
    }
    for name, states in ours_states.items():
        assert len(states) == len(theirs_states[name]) == 3
        for mine, other in zip(states, theirs_states[name], strict=True):
            torch.testing.assert_close(mine, other, atol=2e-5, rtol=0)
    torch.testing.assert_close(image_embeds, embeds(theirs.get_image_features(pixel_values)), atol=1e-5, rtol=0)
    torch.testing.assert_close(text_embeds, embeds(theirs.get_text_features(input_ids)), atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.logit_scale, theirs.logit_scale.exp())


@torch.no_grad()
@pytest.mark.slow
def test_b32_equals_transformers_at_full_size(tmp_path: Path, clip_vocabulary: Path):
    torch.manual_seed(0)
    theirs = CLIPModel(CLIPConfig()).eval()
    theirs.save_pretrained(tmp_path)
    ours = load_checkpoint(tmp_path, vocabulary=clip_vocabulary)
    pixel_values = torch.randn(2, 3, 224, 224)
    input_ids = ours.tokenize(["a dog", "a very long caption " * 40])
    out = theirs(input_ids=input_ids, pixel_values=pixel_values)
    torch.testing.assert_close(ours.model.encode_image(pixel_values), out.image_embeds, atol=1e-4, rtol=0)
    torch.testing.assert_close(ours.model.encode_text(input_ids), out.text_embeds, atol=1e-4, rtol=0)
    torch.testing.assert_close(ours.model(pixel_values, input_ids), out.logits_per_image, atol=1e-3, rtol=0)
