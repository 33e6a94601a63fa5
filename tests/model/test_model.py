import math

import numpy as np
import pytest
import torch

from edgeclip.config import PreprocessConfig
from edgeclip.errors import ConfigError
from edgeclip.model import Clip
from edgeclip.model.anatomy import end_of_text_index
from edgeclip.model.encode import encode_images, encode_texts
from edgeclip.model.layers import activation, quick_gelu
from edgeclip.tokenizer import ClipTokenizer


def test_quick_gelu_by_hand():
    assert quick_gelu(torch.tensor(1.0)).item() == pytest.approx(1 / (1 + math.exp(-1.702)))


def test_an_unknown_activation_lists_the_known():
    with pytest.raises(ConfigError, match="quick_gelu"):
        activation("swish2")


def test_embeddings_have_unit_length(clip: Clip):
    image_embeds = clip.encode_image(torch.randn(3, 3, 32, 32))
    assert image_embeds.shape == (3, 16)
    torch.testing.assert_close(image_embeds.norm(dim=-1), torch.ones(3))


def test_unfolded_patches_times_weight_are_the_convolution(clip: Clip):
    pixel_values = torch.randn(2, 3, 32, 32)
    weight = clip.vision.patch_embedding.weight
    convolved = torch.nn.functional.conv2d(pixel_values, weight.reshape(-1, 3, 16, 16), stride=16)
    unfolded = clip.vision.patch_embedding(clip.vision.unfold(pixel_values))
    torch.testing.assert_close(unfolded, convolved.flatten(2).transpose(1, 2), atol=1e-5, rtol=0)


def test_images_of_another_size_are_refused(clip: Clip):
    with pytest.raises(ValueError, match="expected"):
        clip.encode_image(torch.zeros(1, 3, 16, 16))


def test_padding_after_the_end_of_text_changes_nothing(clip: Clip, tokenizer: ClipTokenizer):
    texts = ["a red ball", "two blue boxes on the table"]
    full = clip.encode_text(torch.from_numpy(tokenizer(texts)))
    short = clip.encode_text(torch.from_numpy(tokenizer(texts, pad_to_longest=True)))
    torch.testing.assert_close(full, short, atol=1e-6, rtol=0)


def test_which_token_is_pooled():
    input_ids = torch.tensor([[5, 9, 1, 9], [5, 1, 2, 3]])
    assert end_of_text_index(input_ids, 9).tolist() == [1, 0]
    assert end_of_text_index(input_ids, None).tolist() == [1, 0]
    assert end_of_text_index(torch.tensor([[1, 7, 3]]), 3).tolist() == [2]


def test_the_logit_scale_is_clamped_to_100(clip: Clip):
    clip.log_logit_scale.data.fill_(9.0)
    clip.clamp_logit_scale()
    assert clip.logit_scale.item() == pytest.approx(100, rel=1e-5)


def test_encoding_does_not_depend_on_the_batch_size_in_float(clip: Clip, tokenizer: ClipTokenizer):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    config = PreprocessConfig.clip(32)
    done: list[int] = []
    by_two = encode_images(clip, pixels, config, batch_size=2, advance=done.append)
    np.testing.assert_allclose(by_two, encode_images(clip, pixels, config), atol=1e-6)
    assert done == [2, 2, 1]
    texts = ["a", "two blue boxes", "a red ball on the table"]
    one = encode_texts(clip, texts, tokenizer, batch_size=1)
    np.testing.assert_allclose(one, encode_texts(clip, texts, tokenizer), atol=1e-6)


def test_features_are_the_embeddings_and_every_token_behind_them(clip: Clip, tokenizer: ClipTokenizer):
    pixel_values = torch.randn(2, 3, 32, 32)
    input_ids = torch.from_numpy(tokenizer(["a red ball", "two blue boxes on the table"]))
    image_embeds, patches = clip.image_features(pixel_values)
    text_embeds, words = clip.text_features(input_ids)
    torch.testing.assert_close(image_embeds, clip.encode_image(pixel_values), atol=1e-6, rtol=0)
    torch.testing.assert_close(text_embeds, clip.encode_text(input_ids), atol=1e-6, rtol=0)
    assert patches.embeds.shape == (2, 4 + 1, 16)
    assert words.embeds.shape == (2, 16, 16)
    assert [h.shape for h in patches.hidden_states] == [(2, 5, 32)] * 2
    assert [h.shape for h in words.hidden_states] == [(2, 16, 24)] * 2
    assert patches.mask.all()
    end = (input_ids == clip.config.text.eos_token_id).int().argmax(dim=1)
    assert words.mask.sum(dim=1).tolist() == (end + 1).tolist()
    assert words.mask.gather(1, end[:, None]).all()


def test_hidden_states_are_the_outputs_of_the_blocks(clip: Clip):
    outputs: list[torch.Tensor] = []
    for block in clip.vision.transformer.blocks:
        block.register_forward_hook(lambda module, args, out: outputs.append(out))
    _, tokens = clip.image_features(torch.randn(2, 3, 32, 32))
    assert len(outputs) == 2
    for state, output in zip(tokens.hidden_states, outputs, strict=True):
        assert state is output
