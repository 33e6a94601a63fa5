"""Small random checkpoints of other families than CLIP, exactly as transformers and their publishers write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import MetaClip2Config, MetaClip2Model, SiglipConfig, SiglipModel

SENTENCES = [
    "a photo of a cat on the table",
    "two dogs run on the beach",
    "ein Hund läuft über die Straße",
    "une photo d'un chat très mignon",
    "кошка лежит на столе",
    "μια γάτα πάνω στο τραπέζι",
    "一只猫在桌子上",
    "猫がテーブルの上にいます",
    "고양이가 탁자 위에 있다",
    "قطة على الطاولة",
    "חתול על השולחן",
    "बिल्ली मेज पर है",
    "แมวบนโต๊ะ",
]
"""In ten scripts and more."""
HARD = [
    *SENTENCES,
    *(text.upper() for text in SENTENCES),
    *(f"  {text},  {text}! (№ 7) " for text in SENTENCES),
    *(text.title() + "…" for text in SENTENCES),
    *(
        "",
        " ",
        "\t\n",
        "!?",
        "_",
        "ΟΔΥΣΣΕΥΣ ΣΑΣ",
        "İstanbul",
        "ﬁne",
        "\uff26\uff35\uff2c",
        "🙂👍🏽",
        "e\u0301t\u00e9",
        "\u200bzero",
        "a\u00a0b",
    ),
    *("word " * 80, "x" * 300, "一" * 90, "<eos>", "</s> and <pad>", "▁under▁score"),
]
TOWER = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 80}
WORDS = 420


def gemma(sentences: list[str] = SENTENCES) -> Tokenizer:
    """A small vocabulary built as Gemma's is: byte-pair encoding that falls back to bytes, the end of text appended."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(sentences * 5, trainers.BpeTrainer(vocab_size=WORDS, special_tokens=tokens))
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < len(special)]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    _ends_with(tokenizer, "<eos>")
    return tokenizer


def pieces(*, roberta: bool = False) -> Tokenizer:
    """A small vocabulary of SentencePiece's unigram kind, as T5's in SigLIP, or XLM-RoBERTa's in MetaCLIP 2."""
    special = ["<s>", "<pad>", "</s>", "<unk>"] if roberta else ["<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.Unigram())
    metaspace = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
    trainer = trainers.UnigramTrainer(vocab_size=WORDS - 1, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(SENTENCES * 5, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.decoder = decoders.Metaspace()
    if roberta:
        ids = {token: tokenizer.token_to_id(token) for token in ("<s>", "</s>")}
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=list(ids.items())
        )
    else:
        _ends_with(tokenizer, "</s>")
    return tokenizer


def _ends_with(tokenizer: Tokenizer, token: str) -> None:
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {token}", pair=f"$A {token} $B {token}", special_tokens=[(token, tokenizer.token_to_id(token))]
    )


def siglip() -> SiglipModel:
    """SigLIP and SigLIP 2 of a fixed resolution, which differ in the tokenizer."""
    torch.manual_seed(0)
    text = {**TOWER, "vocab_size": WORDS, "max_position_embeddings": 64, "projection_size": 64}
    vision = {**TOWER, "image_size": 32, "patch_size": 8}
    return _varied(SiglipModel(SiglipConfig(text_config=text, vision_config=vision)))


def metaclip2(eos_token_id: int = 2) -> MetaClip2Model:
    """MetaCLIP 2, whose text tower pools the first token 2."""
    torch.manual_seed(0)
    text = {**TOWER, "vocab_size": WORDS, "max_position_embeddings": 77, "eos_token_id": eos_token_id}
    vision = {**TOWER, "image_size": 32, "patch_size": 8}
    return _varied(MetaClip2Model(MetaClip2Config(text_config=text, vision_config=vision, projection_dim=48)))


def _varied(model: Any) -> Any:
    """Random positions, scales and biases too: at their initial values they would hide mistakes."""
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.eval()


def write(model: Any, tokenizer: Tokenizer, folder: Path, *, tokenizer_class: str, **tokenizer_config: Any) -> Path:
    """Weights, configuration, preprocessing and tokenizer, as they lie on the hub."""
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": tokenizer_class, **tokenizer_config}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    is_siglip = model.config.model_type == "siglip"
    size = {"height": 32, "width": 32} if is_siglip else {"shortest_edge": 32}
    preprocessor = {
        "do_convert_rgb": None,
        **dict.fromkeys(("do_normalize", "do_rescale", "do_resize"), True),
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "SiglipImageProcessor" if is_siglip else "CLIPImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "resample": 2,
        "rescale_factor": 0.00392156862745098,
        "size": size,
        **({} if is_siglip else {"do_center_crop": True, "crop_size": {"height": 32, "width": 32}}),
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


GEMMA_CONFIG = {
    **{"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"},
    **{"add_bos_token": False, "add_eos_token": True, "padding_side": "right", "model_max_length": 64},
}
PIECES_CONFIG = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>", "model_max_length": 64}
ROBERTA_CONFIG = {
    **{"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>"},
    **{"sep_token": "</s>", "mask_token": "<mask>", "model_max_length": 77},
}


def write_siglip2(folder: Path, tokenizer_class: str = "GemmaTokenizerFast", **changes: Any) -> Path:
    """As google/siglip2-base-patch16-224, whose model_type is siglip."""
    return write(siglip(), gemma(), folder, tokenizer_class=tokenizer_class, **{**GEMMA_CONFIG, **changes})


def write_siglip(folder: Path) -> Path:
    """As google/siglip-base-patch16-224."""
    return write(siglip(), pieces(), folder, tokenizer_class="SiglipTokenizer", **PIECES_CONFIG)


def write_metaclip2(folder: Path) -> Path:
    """As facebook/metaclip-2-worldwide-huge-quickgelu."""
    return write(metaclip2(), pieces(roberta=True), folder, tokenizer_class="XLMRobertaTokenizerFast", **ROBERTA_CONFIG)
