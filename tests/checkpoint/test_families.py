"""SigLIP, MetaCLIP 2 and models with text towers of BERT's kind in their published layouts, against transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer, SiglipImageProcessorPil

from edgeclip.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgeclip.errors import CheckpointError, EdgeclipError, TokenizerError
from tests import published

GEMMAS = ("GemmaTokenizerFast", "GemmaTokenizer", "Siglip2Tokenizer")
PIXELS = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(7))
FAMILIES = {
    "siglip": published.write_siglip,
    "siglip 2": published.write_siglip2,
    "metaclip 2": published.write_metaclip2,
    "chinese clip": published.write_chinese_clip,
    **{
        f"dual encoder with {kind}": partial(published.write_dual_encoder, kind=kind)
        for kind in ("bert", "roberta", "xlm-roberta")
    },
}


def seen(checkpoint: Checkpoint, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """What transformers is told of padding, where a model does not see it."""
    bert = checkpoint.model.config.text.bert
    return {} if bert is None else {"attention_mask": (input_ids != bert.pad_token_id).long()}


@pytest.fixture(params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return FAMILIES[request.param](tmp_path / "checkpoint")


def edited(folder: Path, change: Callable[[dict], object], name: str = "config.json") -> Path:
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))
    return folder


@torch.no_grad()
def test_embeddings_and_logits_are_those_of_transformers(folder: Path):
    ours, theirs = load_checkpoint(folder), AutoModel.from_pretrained(folder).eval()
    input_ids = ours.tokenize(published.HARD)
    expected = normalize(theirs.get_image_features(PIXELS).pooler_output, dim=-1)
    torch.testing.assert_close(ours.model.encode_image(PIXELS), expected, atol=1e-5, rtol=0)
    mask = seen(ours, input_ids)
    expected = normalize(theirs.get_text_features(input_ids, **mask).pooler_output, dim=-1)
    torch.testing.assert_close(ours.model.encode_text(input_ids), expected, atol=1e-5, rtol=0)
    logits = theirs(pixel_values=PIXELS, input_ids=input_ids, **mask).logits_per_image
    torch.testing.assert_close(ours.model(PIXELS, input_ids), logits, atol=1e-4, rtol=0)


@torch.no_grad()
def test_every_layer_is_that_of_transformers(folder: Path):
    ours, theirs = load_checkpoint(folder), AutoModel.from_pretrained(folder).eval()
    input_ids = ours.tokenize(published.SENTENCES)
    vision = theirs.vision_model(PIXELS, output_hidden_states=True).hidden_states
    text = theirs.text_model(input_ids, output_hidden_states=True, **seen(ours, input_ids)).hidden_states
    for mine, expected in (
        (ours.model.image_features(PIXELS)[1], vision),
        (ours.model.text_features(input_ids)[1], text),
    ):
        assert len(mine.hidden_states) == len(expected) - 1
        for state, other in zip(mine.hidden_states, expected[1:], strict=True):
            mask_BT = mine.mask if mine.mask.shape == other.shape[:2] else slice(None)
            torch.testing.assert_close(state[mask_BT], other[mask_BT], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "write",
    [
        *(partial(published.write_siglip2, tokenizer_class=kind) for kind in GEMMAS),
        *(FAMILIES[name] for name in FAMILIES if not name.startswith("siglip")),
    ],
)
def test_token_ids_are_those_of_transformers(tmp_path: Path, write: Callable[[Path], Path]):
    folder = write(tmp_path / "m")
    ours = load_checkpoint(folder).tokenizer
    length = ours.context_length
    texts = [*published.HARD, *published.thousand()]
    theirs = AutoTokenizer.from_pretrained(folder)(texts, padding="max_length", truncation=True, max_length=length)
    assert ours(texts).tolist() == theirs["input_ids"]


def test_padding_is_before_the_text_where_transformers_puts_it_there(tmp_path: Path):
    folder = published.write_siglip2(tmp_path / "m", "Siglip2Tokenizer")
    edited(folder, lambda config: config.pop("padding_side"), "tokenizer_config.json")
    ours = load_checkpoint(folder).tokenizer
    theirs = AutoTokenizer.from_pretrained(folder)(["A cat"], padding="max_length", max_length=64)["input_ids"]
    assert ours(["A cat"]).tolist() == theirs
    assert theirs[0][0] == ours.pad_token_id
    ours.save(tmp_path)


def test_siglip_makes_letters_small_and_leaves_punctuation_out(tmp_path: Path):
    """As transformers' SiglipTokenizer.canonicalize_text; it needs sentencepiece to run."""
    tokenizer = load_checkpoint(published.write_siglip(tmp_path / "m")).tokenizer
    (plain, *others) = tokenizer.token_ids(["a photo of a cat", "A Photo, of a  CAT!", " (a) photo_\n of a cat?"])
    assert others == [plain] * 2
    assert tokenizer.token_ids(["don't"]) == tokenizer.token_ids(["dont"])
    assert plain[-1] == tokenizer.eos_token_id


def test_texts_are_padded_to_the_context_whatever_is_asked_for(tmp_path: Path):
    """SigLIP pools the last position, of a text padded to 64."""
    checkpoint = load_checkpoint(published.write_siglip2(tmp_path / "m"))
    assert checkpoint.tokenizer(["a cat"], pad_to_longest=True).shape == (1, 64)
    alone, among = checkpoint.encode_text(["a cat"]), checkpoint.encode_text(["a cat", published.SENTENCES[3] * 3])
    np.testing.assert_allclose(alone[0], among[0], atol=1e-6)


def test_images_are_squashed_as_by_transformers(tmp_path: Path):
    folder = published.write_siglip2(tmp_path / "m")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 90, 3), np.uint8))
    expected = SiglipImageProcessorPil.from_pretrained(folder)(picture, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(load_checkpoint(folder).preprocess(picture), expected, atol=1e-6, rtol=0)
    (folder / "preprocessor_config.json").unlink()
    own = load_checkpoint(folder).preprocess_config
    assert (own.resize_to, own.crop_size, own.mean, own.std) == ((32, 32), None, (0.5,) * 3, (0.5,) * 3)


@torch.no_grad()
def test_what_is_saved_is_what_was_loaded(folder: Path, tmp_path: Path):
    first = load_checkpoint(folder)
    save_checkpoint(first.model, first.preprocess_config, first.tokenizer, tmp_path / "again")
    again = load_checkpoint(tmp_path / "again")
    assert again.model.config == first.model.config
    assert again.tokenizer(published.HARD).tolist() == first.tokenizer(published.HARD).tolist()
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor), name
    theirs = AutoModel.from_pretrained(tmp_path / "again").eval()
    assert theirs.config.model_type == json.loads((folder / "config.json").read_text())["model_type"]
    assert load_file(tmp_path / "again" / "model.safetensors").keys() == load_file(folder / "model.safetensors").keys()
    input_ids = first.tokenize(published.SENTENCES)
    found = normalize(theirs.get_text_features(input_ids, **seen(first, input_ids)).pooler_output, dim=-1)
    torch.testing.assert_close(found, first.model.encode_text(input_ids), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_scale_may_have_an_axis_or_none(folder: Path, shape: tuple[int, ...]):
    weights = load_file(folder / "model.safetensors")
    expected = weights["logit_scale"].exp().item()
    numbers = {name: tensor.reshape(shape) for name, tensor in weights.items() if name.startswith("logit")}
    save_file({**weights, **numbers}, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_checkpoint(folder).logit_scale == pytest.approx(expected)


@torch.no_grad()
def test_metaclip_pools_its_token_2_and_not_the_highest(tmp_path: Path):
    checkpoint: Checkpoint = load_checkpoint(published.write_metaclip2(tmp_path / "m"))
    assert checkpoint.model.config.text.eos_token_id == 2
    assert checkpoint.tokenizer.eos_token_id == 2


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: (c.update(model_type="siglip2"), c["vision_config"].pop("image_size")), "NaFlex"),
        (lambda c: c["vision_config"].update(vision_use_head=False), "vision_use_head"),
        (lambda c: c["text_config"].update(projection_size=48), "without a projection"),
        (lambda c: c.update(model_type="beit"), "model_type 'beit'; expected 'clip' or"),
        (lambda c: c.update(model_type="altclip"), "'altclip', with an XLM-RoBERTa text tower"),
        (lambda c: c.update(model_type="blip_vision_model"), "'blip_vision_model', one tower alone"),
    ],
    ids=["NaFlex", "no head", "widths that differ", "another family", "a known one", "a single tower"],
)
def test_what_is_refused_is_told_in_a_line(tmp_path: Path, change: Callable[[dict], object], expected: str):
    folder = edited(published.write_siglip2(tmp_path / "m"), change)
    with pytest.raises(EdgeclipError, match=expected) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_fixed_resolution_under_the_name_siglip2(tmp_path: Path):
    folder = edited(published.write_siglip2(tmp_path / "m"), lambda config: config.update(model_type="siglip2"))
    assert load_checkpoint(folder).model.config.vision.pooling == "attention"


def test_pieces_without_tokenizer_json(tmp_path: Path):
    folder = published.write_siglip(tmp_path / "m")
    (folder / "tokenizer.json").rename(folder / "spiece.model")
    checkpoint = load_checkpoint(folder)
    with pytest.raises(TokenizerError, match=r"spiece.model without tokenizer.json.*save_pretrained"):
        checkpoint.encode_text(["a"])


def words_alone() -> Tokenizer:
    """A vocabulary of whole words, as large as the others."""
    words = ["a", *map(str, range(published.WORDS - 1))]
    return Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="0"))


def test_a_tokenizer_of_another_model(tmp_path: Path):
    folder = published.write_siglip2(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    name = "text_model.embeddings.token_embedding.weight"
    save_file({**weights, name: weights[name][:100].clone()}, folder / "model.safetensors")
    edited(folder, lambda config: config["text_config"].update(vocab_size=100))
    with pytest.raises(CheckpointError, match="420 tokens; expected 100, the model's"):
        load_checkpoint(folder).encode_text(["a"])


@pytest.mark.parametrize(
    ("write", "tokenizer", "config", "expected"),
    [
        (published.write_siglip, published.wordpieces, published.BERT_CONFIG, "of the kind WordPiece"),
        (
            published.write_siglip,
            words_alone,
            {"eos_token": "a", "pad_token": "a"},
            "of the kind WordLevel",
        ),
        (
            published.write_metaclip2,
            published.pieces,
            published.PIECES_CONFIG,
            "ends texts with another",
        ),
        (
            published.write_dual_encoder,
            published.wordpieces,
            published.BERT_CONFIG,
            "pads with token 0",
        ),
    ],
)
def test_a_tokenizer_of_another_kind(
    tmp_path: Path, write: Callable[[Path], Path], tokenizer: Callable[[], Tokenizer], config: dict, expected: str
):
    folder = write(tmp_path / "m")
    tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=f"{expected}.*; expected .*; copy tokenizer.json"):
        load_checkpoint(folder).require_tokenizer()


def test_a_table_of_many_more_tokens_than_the_tokenizer_s(tmp_path: Path):
    folder = published.write_siglip2(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    name = "text_model.embeddings.token_embedding.weight"
    table = torch.cat([weights[name], torch.zeros(2048, 64)])
    save_file({**weights, name: table}, folder / "model.safetensors")
    edited(folder, lambda config: config["text_config"].update(vocab_size=len(table)))
    with pytest.raises(CheckpointError, match="420 tokens; expected 2468, the model's"):
        load_checkpoint(folder).require_tokenizer()


@torch.no_grad()
def test_padding_and_typed_padding_are_not_seen(tmp_path: Path):
    """RoBERTa counts positions over what is no padding, wherever that stands."""
    checkpoint = load_checkpoint(published.write_dual_encoder(tmp_path / "m"))
    theirs = AutoModel.from_pretrained(tmp_path / "m").eval()
    input_ids = torch.tensor([[0, 9, 1, 30, 31, 2, 1, 1], [0, 9, 40, 30, 31, 17, 5, 2]])
    expected = theirs.get_text_features(input_ids, **seen(checkpoint, input_ids)).pooler_output
    found = checkpoint.model.encode_text(input_ids)
    torch.testing.assert_close(found, normalize(expected, dim=-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(checkpoint.model.encode_text(input_ids[:1, :6]), found[:1], atol=1e-6, rtol=0)


def test_a_tokenizer_that_pads_with_what_the_model_sees(tmp_path: Path):
    folder = published.write_dual_encoder(tmp_path / "m", "bert")
    published.pieces(roberta=True).save(str(folder / "tokenizer.json"))
    edited(folder, lambda config: config.update(published.ROBERTA_CONFIG), "tokenizer_config.json")
    with pytest.raises(CheckpointError, match="whose tokenizer pads with token 1; expected token 0"):
        load_checkpoint(folder).encode_text(["a"])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: c["vision_config"].update(model_type="vit"), "with the image tower 'vit'"),
        (lambda c: c["text_config"].update(model_type="electra"), "with the text tower 'electra'"),
        (lambda c: c["text_config"].update(position_embedding_type="relative_key"), "position_embedding_type"),
        (lambda c: c["text_config"].update(text_head={"pooling": "max"}), "text_head .*'max'"),
        (lambda c: c.update(projection_dim=40), "misshapen tensors .*text_projection.weight"),
    ],
)
def test_other_towers_are_named(tmp_path: Path, change: Callable[[dict], object], expected: str):
    folder = edited(published.write_dual_encoder(tmp_path / "m"), change)
    with pytest.raises(EdgeclipError, match=expected):
        load_checkpoint(folder)
