"""Small random checkpoints of other families than CLIP, exactly as transformers and their publishers write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    DistilBertConfig,
    DistilBertModel,
    MetaClip2Config,
    MetaClip2Model,
    RobertaConfig,
    SiglipConfig,
    SiglipModel,
    SiglipTextConfig,
    SiglipTextModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
    XLMRobertaConfig,
)

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


def thousand() -> list[str]:
    """A thousand texts of these words in any order, capitals and punctuation among them."""
    draw = np.random.default_rng(0)
    words = [word for text in SENTENCES for word in text.split()]
    words += [word.upper() for word in words] + [word.title() for word in words]
    marks = ["", "", "", ",", ".", "!", "…", "—", "'s", ")", " 7", "\u00a0", "\t", "。", "؟"]
    return [
        " ".join(f"{draw.choice(words)}{draw.choice(marks)}" for _ in range(draw.integers(1, 12))) for _ in range(1000)
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
    is_siglip = model.config.model_type.startswith("siglip")
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


def wordpieces(sentences: list[str] = SENTENCES) -> Tokenizer:
    """A small vocabulary of BERT's kind, with letters made small."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(sentences * 5, trainers.WordPieceTrainer(vocab_size=WORDS, special_tokens=special))
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def chinese_clip() -> ChineseCLIPModel:
    """CLIP's image tower beside BERT, whose first token is projected."""
    torch.manual_seed(0)
    text = {**TOWER, "vocab_size": WORDS, "max_position_embeddings": 60}
    vision = {**TOWER, "image_size": 32, "patch_size": 8}
    config = ChineseCLIPConfig(text_config=text, vision_config=vision, projection_dim=48)
    return _varied(ChineseCLIPModel(config))


def dual_encoder(kind: str = "xlm-roberta") -> VisionTextDualEncoderModel:
    """CLIP's image tower beside BERT or RoBERTa, whose first token goes through BERT's pooler too."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(**TOWER, image_size=32, patch_size=8)
    classes = {"xlm-roberta": (XLMRobertaConfig, 62), "roberta": (RobertaConfig, 62), "bert": (BertConfig, 60)}
    text_class, rows = classes[kind]
    text = text_class(**TOWER, vocab_size=WORDS, max_position_embeddings=rows)
    config = VisionTextDualEncoderConfig.from_vision_text_configs(vision, text, projection_dim=48)
    return _varied(VisionTextDualEncoderModel(config))


BERT_CONFIG = {
    **{"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]"},
    **{"mask_token": "[MASK]", "do_lower_case": True, "model_max_length": 60},
}


def write_chinese_clip(folder: Path) -> Path:
    """As OFA-Sys/chinese-clip-vit-base-patch16, which has vocab.txt in place of tokenizer.json."""
    tokenizer = wordpieces()
    write(chinese_clip(), tokenizer, folder, tokenizer_class="BertTokenizer", **BERT_CONFIG)
    return as_vocabulary(folder, tokenizer)


def as_vocabulary(folder: Path, tokenizer: Tokenizer) -> Path:
    """The folder with vocab.txt alone for a tokenizer."""
    vocab = tokenizer.get_vocab()
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in sorted(vocab, key=vocab.__getitem__)))
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    return folder


def write_dual_encoder(folder: Path, kind: str = "xlm-roberta") -> Path:
    """As those that transformers' VisionTextDualEncoderModel trains of two towers."""
    if kind == "bert":
        return write(dual_encoder(kind), wordpieces(), folder, tokenizer_class="BertTokenizer", **BERT_CONFIG)
    config = {**ROBERTA_CONFIG, "model_max_length": 60}
    return write(dual_encoder(kind), pieces(roberta=True), folder, tokenizer_class="XLMRobertaTokenizer", **config)


def clip_vision() -> CLIPVisionModelWithProjection:
    """An image tower alone."""
    torch.manual_seed(1)
    return _varied(
        CLIPVisionModelWithProjection(CLIPVisionConfig(**TOWER, image_size=32, patch_size=8, projection_dim=48))
    )


def clip_text() -> CLIPTextModelWithProjection:
    """A text tower alone, to go with a vocabulary of `pieces()`."""
    torch.manual_seed(1)
    config = CLIPTextConfig(**TOWER, vocab_size=WORDS, max_position_embeddings=24, eos_token_id=1, projection_dim=48)
    return _varied(CLIPTextModelWithProjection(config))


def write_sentence_transformers(folder: Path, *, bias: bool = False) -> DistilBertModel:
    """A text tower as clip-ViT-B-32-multilingual-v1: DistilBERT, the mean of its tokens, one layer. Gives the first."""
    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=WORDS, max_position_embeddings=60, dim=64, hidden_dim=80, n_layers=2, n_heads=4
    )
    model = _varied(DistilBertModel(config))
    model.save_pretrained(folder)
    tokenizer = wordpieces()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "DistilBertTokenizer", **BERT_CONFIG}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 40, "do_lower_case": False}))
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    flags = dict.fromkeys(("cls_token", "max_tokens", "mean_sqrt_len_tokens"), False) | {"mean_tokens": True}
    pooling = {"word_embedding_dimension": 64, **{f"pooling_mode_{key}": on for key, on in flags.items()}}
    dense = {"in_features": 64, "out_features": 48, "bias": bias}
    dense["activation_function"] = "torch.nn.modules.linear.Identity"
    weights = {"linear.weight": torch.randn(48, 64), **({"linear.bias": torch.randn(48)} if bias else {})}
    for place, content in (("1_Pooling", pooling), ("2_Dense", dense)):
        (folder / place).mkdir()
        (folder / place / "config.json").write_text(json.dumps(content))
    torch.save(weights, folder / "2_Dense" / "pytorch_model.bin")
    return model


def siglip_vision() -> SiglipVisionModel:
    """SigLIP's image tower alone."""
    torch.manual_seed(1)
    return _varied(SiglipVisionModel(SiglipVisionConfig(**TOWER, image_size=32, patch_size=8)))


def siglip_text() -> SiglipTextModel:
    """SigLIP's text tower alone."""
    torch.manual_seed(1)
    config = SiglipTextConfig(**TOWER, vocab_size=WORDS, max_position_embeddings=16, eos_token_id=1)
    return _varied(SiglipTextModel(config))
