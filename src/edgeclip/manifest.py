"""What edgeclip.json says of a bundle, and the names of its files."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from edgeclip.config import Config, Fusion
from edgeclip.results import Recalls

MANIFEST = "edgeclip.json"
SCHEMA = 3
EARLIER_SCHEMA = 2
"""Still read: its int8 weights have 7 bits, and no proof is needed for them."""
CONFIGURATIONS = "*config.json"
CARD_MAX_LOSS = 1.0
CARD_MIN_COSINE = 0.995
GraphPrecision = Literal["fp32", "fp16", "int8", "int4"]
"""What most weights of a graph are stored as; fp16 is multiplied in float32."""
Engine = Literal["onnxruntime", "openvino"]
"""What runs graphs."""
GRAPHS: dict[str, tuple[str, str]] = {
    "fp32": ("onnx/vision_model.onnx", "onnx/text_model.onnx"),
    "fp16": ("onnx/vision_model_fp16.onnx", "onnx/text_model_fp16.onnx"),
    "int8": ("onnx/vision_model_quantized.onnx", "onnx/text_model_quantized.onnx"),
    "int4": ("onnx/vision_model_q4.onnx", "onnx/text_model_q4.onnx"),
}
"""Names of the image and text graph by precision, as transformers.js looks for them."""
COMPRESS_CARD = "card.json"
"""How `edgeclip compress` came to a bundle, by a name of its own; see `tune.record`."""
LOST_WORDS = "lost_words.json.gz"
"""What tells which words of a text a bundle with fewer words than its teacher has lost; see `runtime.lost_words`."""
ABOUT = ("card.html", "README.md", ".eval_results/edgeclip.yaml")
"""What may be written about a bundle into its folder later; the manifest does not list them."""
COMBINED_GRAPHS = {"fp32": "onnx/model.onnx", "int8": "onnx/model_quantized.onnx"}
"""Names of the graph with both towers and the logits, which the runtime does not use."""


class FileEntry(Config, frozen=True, kw_only=True):
    """A file's hash and size."""

    sha256: str
    bytes: int


class Golden(Config, frozen=True, kw_only=True):
    """What the graphs gave where they were made: for the test card `runtime.selftest.test_card`, and for `text`."""

    text: str
    image_embeds: list[float]
    text_embeds: list[float]


class Closeness(Config, frozen=True, kw_only=True):
    """Cosines between the teacher's and the bundle's embeddings."""

    mean: float
    smallest: float

    @property
    def keeps_accuracy(self) -> bool:
        """The gate of one tower alone: embeddings that point where the teacher's do."""
        return self.mean >= CARD_MIN_COSINE

    @property
    def summary(self) -> str:
        """In one line."""
        return f"one tower alone, mean cosine {self.mean:.4f} to its embeddings in float, smallest {self.smallest:.4f}"


Truth = Literal["captions", "teacher"]
"""What is taken for right: a picture's own caption, or, of pictures without any, the teacher's own ranking of them for
built-in texts; see `evaluate.judge`."""


def measured_on(pairs: int, data: str, truth: Truth) -> str:
    """On what recalls were measured, in words."""
    if truth == "captions":
        return f"{pairs} pairs of {data}"
    return f"{pairs} pictures of {data} without captions, by the teacher's own ranking for {pairs} built-in texts"


class Card(Config, frozen=True, kw_only=True):
    """The release card: the bundle beside its own teacher on the same pairs, by the paper's protocol.

    `truth` is there where it is not captions: recalls are then of what the teacher finds, and its own are 100.
    """

    data: str
    seed: int
    pairs: int
    teacher_i2t: Recalls
    teacher_t2i: Recalls
    i2t: Recalls
    t2i: Recalls
    image_cosine: Closeness
    text_cosine: Closeness
    truth: Truth | UnsetType = UNSET

    @property
    def measured_on(self) -> str:
        """On what, in words."""
        return measured_on(self.pairs, self.data, self.truth or "captions")

    @property
    def keeps_accuracy(self) -> bool:
        """The gate: at most a point of R@1 lost either way, and embeddings that point where the teacher's do."""
        return self.lost_r1 <= CARD_MAX_LOSS and self.is_close

    @property
    def lost_r1(self) -> float:
        """Points of R@1 lost, in the worse direction."""
        return max(self.teacher_i2t.r1.value - self.i2t.r1.value, self.teacher_t2i.r1.value - self.t2i.r1.value)

    @property
    def is_close(self) -> bool:
        """Whether the embeddings point where the teacher's do."""
        return min(self.image_cosine.mean, self.text_cosine.mean) >= CARD_MIN_COSINE

    @property
    def summary(self) -> str:
        """In one line."""
        return (
            f"R@1 {self.i2t.r1.value:.1f} / {self.t2i.r1.value:.1f} (teacher {self.teacher_i2t.r1.value:.1f} / "
            f"{self.teacher_t2i.r1.value:.1f}) on {self.measured_on}, mean cosine "
            f"{self.image_cosine.mean:.4f} of images, {self.text_cosine.mean:.4f} of texts"
        )


class KeptWords(Config, frozen=True, kw_only=True):
    """How many of the teacher's tokens are kept, and what they were chosen by: so many texts, and scripts."""

    tokens: int
    of: int
    texts: int
    scripts: list[str]


class Manifest(Config, frozen=True, kw_only=True):
    """The content of edgeclip.json.

    `precision` is the image graph's, and the text graph's too unless there is a `text_precision`. `threads` is what the
    bundle was chosen for, where it was, and so is `engine` where it is another than ONNX Runtime. `card` is None only
    while it is being measured; `float_layers` are Linear layers that int8 would have cost too much, as "image: name" or
    "text: name", and `int4_layers` those of int8 graphs that have weights of 4 bits; `logit_bias` is there where the
    model is `sigmoid`, see `ClipConfig`; `tower` where there is one alone, which has no logit scale, and in place of a
    card the `closeness` of its embeddings to those in float; `fusion` where the image tower fuses tokens; `words` where
    it has not all of its teacher's; `files` by path within the bundle, all but edgeclip.json itself and what is `ABOUT`
    it; `seal` is the hash of all other fields.
    """

    schema: int
    edgeclip: str
    teacher: str
    precision: GraphPrecision
    float_layers: list[str]
    logit_scale: float | UnsetType = UNSET
    logit_bias: float | UnsetType = UNSET
    fingerprint: str
    golden: Golden
    card: Card | None
    files: dict[str, FileEntry]
    fusion: Fusion | UnsetType = UNSET  # the seals of manifests without it are of what they say
    seal: str = ""
    text_precision: GraphPrecision | UnsetType = UNSET
    tower: Literal["image", "text"] | UnsetType = UNSET
    closeness: Closeness | UnsetType = UNSET
    threads: Annotated[int, Meta(ge=1, le=256)] | UnsetType = UNSET
    words: KeptWords | UnsetType = UNSET
    int4_layers: list[str] | UnsetType = UNSET
    engine: Engine | UnsetType = UNSET

    @property
    def graphs(self) -> dict[str, str]:
        """The names of the image graph and the text graph, of those that are there."""
        text = self.precision if self.text_precision is UNSET else self.text_precision
        both = {"image": GRAPHS[self.precision][0], "text": GRAPHS[text][1]}
        return {kind: name for kind, name in both.items() if self.tower in (UNSET, kind)}

    @property
    def precisions(self) -> str:
        """In words: "int8", "int8 for images, fp32 for texts", or "int8, in OpenVINO"."""
        text = self.text_precision
        words = self.precision if text is UNSET else f"{self.precision} for images, {text} for texts"
        return f"{words}, in OpenVINO" if self.engine == "openvino" else words
