"""A bundle's page on the Hugging Face hub: README.md with its metadata, and recalls where the hub looks for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeclip.bundle import Bundle, read_bundle
from edgeclip.errors import BundleError, ConfigError
from edgeclip.files import write_atomically
from edgeclip.manifest import COMPRESS_CARD, Card
from edgeclip.names import BUILTIN, is_hub_id
from edgeclip.report.compressed import sentences
from edgeclip.results import Recalls
from edgeclip.tune.record import Student, read_card

EVAL_RESULTS = ".eval_results/edgeclip.yaml"
TAGS = ["clip", "onnx", "edge", "cpu", "feature-extraction", "image-search"]
TASK = "zero-shot-image-classification"
README = """---
{metadata}---
# {name}

{teacher} as a bundle for CPU-only devices, {precision}, {size:.1f} MB, made with
[edgeclip](https://pypi.org/project/edgeclip/) {version}. It runs without PyTorch:

```python
import edgeclip

clip = edgeclip.load("{name}")
clip.classify(["photo.jpg"], ["cat", "dog", "sofa"])
```

The ONNX files are named as transformers.js looks for them.

## What it keeps of its teacher

On {measured_on}, that nothing was calibrated or chosen on, recall in per cent with 95 % intervals:

| | R@1 | R@5 | R@10 |
|---|---|---|---|
{rows}

Mean cosine with the teacher's embeddings: {image_cosine:.4f} of images, {text_cosine:.4f} of texts.
{chosen}"""


def write_model_card(folder: Path, *, name: str | None, licence: str | None) -> list[Path]:
    """Write README.md, and `.eval_results` where the data is a data set of the hub, into a bundle's folder.

    Args:
        folder: the bundle.
        name: what it is called on the hub; by default the folder's name.
        licence: of the base model, as the hub writes it (mit, apache-2.0); None where the base model tells.

    Raises:
        ConfigError: the licence is not known.
        BundleError: it is no bundle.
        HubError: the base model is one of the hub, whose licence can't be read there.
    """
    from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]

    bundle = read_bundle(folder)
    card = bundle.manifest.card
    if card is None:
        raise BundleError(
            f"{folder}, one tower alone",
            expected="a bundle with a release card",
            fix="export a model with both towers, or two of one each as IMAGE+TEXT",
        )
    called = name or folder.resolve().name
    metadata = _metadata(bundle, card, called, licence or licence_of(bundle.manifest.teacher))
    written = [folder / "README.md"]
    write_atomically(written[0], _readme(bundle, card, called, yaml_dump(metadata)).encode())
    if _is_recall_on_the_hub(card):
        written.append(folder / EVAL_RESULTS)
        written[1].parent.mkdir(exist_ok=True)
        write_atomically(written[1], yaml_dump(_eval_results(card)).encode())
    return written


def licence_of(teacher: str) -> str:
    """The licence that the base model's own card names.

    Raises:
        ConfigError: it names none, or there is no card.
        HubError: it can't be fetched.
    """
    from huggingface_hub import ModelCardData
    from huggingface_hub.repocard import metadata_load

    from edgeclip.hub import snapshot

    if teacher == BUILTIN:
        return "apache-2.0"
    folder = Path(teacher) if Path(teacher).is_dir() or not is_hub_id(teacher) else snapshot(teacher, ["README.md"])
    path = folder / "README.md"
    found = ModelCardData(**(metadata_load(path) or {}), ignore_metadata_errors=True) if path.is_file() else None
    if found is None or not isinstance(found.license, str):
        raise ConfigError(
            f"{teacher}, whose licence is not known here", expected="the base model's", fix="give it: `license` mit"
        )
    return found.license


def _student_of(bundle: Bundle) -> Student | None:
    """What was distilled, where it is not the base model itself that was made smaller."""
    return read_card(bundle.folder).student if COMPRESS_CARD in bundle.manifest.files else None


def _metadata(bundle: Bundle, card: Card, name: str, licence: str) -> dict[str, Any]:
    """What stands at the head of README.md, with recalls by captions once more as older readers of it want them."""
    relation = "finetune" if _student_of(bundle) else "quantized"
    base = {"base_model": bundle.manifest.teacher, "base_model_relation": relation}
    return {
        **(base if is_hub_id(bundle.manifest.teacher) else {}),
        "library_name": "edgeclip",
        "license": licence,
        "pipeline_tag": TASK,
        "tags": TAGS,
        **({} if card.truth else {"model-index": [{"name": name, "results": [_result(card)]}]}),
    }


def _result(card: Card) -> dict[str, Any]:
    metrics = [
        {"type": metric, "name": words, "value": value}
        for metric, words, value in (
            ("recall_at_1_i2t", "image to text R@1", card.i2t.r1.value),
            ("recall_at_1_t2i", "text to image R@1", card.t2i.r1.value),
        )
    ]
    return {"task": {"type": TASK}, "dataset": {"name": card.data, "type": card.data}, "metrics": metrics}


def _is_recall_on_the_hub(card: Card) -> bool:
    """Whether others could compare it: agreement with the teacher is no recall of a data set."""
    return not card.truth and is_hub_id(card.data)


def _eval_results(card: Card) -> list[dict[str, Any]]:
    said = f"{card.pairs} pairs, seed {card.seed}, one caption an image, ties against the model"
    return [
        {"dataset": {"id": card.data, "task_id": task}, "value": value, "notes": said}
        for task, value in (("image_to_text_r1", card.i2t.r1.value), ("text_to_image_r1", card.t2i.r1.value))
    ]


def _readme(bundle: Bundle, card: Card, name: str, metadata: str) -> str:
    manifest = bundle.manifest
    rows = (
        ("teacher, image to text", card.teacher_i2t),
        ("bundle, image to text", card.i2t),
        ("teacher, text to image", card.teacher_t2i),
        ("bundle, text to image", card.t2i),
    )
    chosen = ""
    if COMPRESS_CARD in manifest.files:
        compressed = read_card(bundle.folder)
        processor = compressed.environment["processor"]
        lines = "\n".join(f"- {line}" for line in sentences(compressed))
        chosen = (
            f"\n## How it was chosen\n\nOn {processor}, by measuring {len(compressed.tried)} candidates:\n\n{lines}\n"
        )
    return README.format(
        metadata=metadata,
        name=name,
        teacher=manifest.teacher,
        precision=manifest.precisions,
        size=sum(entry.bytes for entry in manifest.files.values()) / 1e6,
        version=manifest.edgeclip,
        measured_on=card.measured_on,
        rows="\n".join(f"| {words} | {_cells(recalls)} |" for words, recalls in rows),
        image_cosine=card.image_cosine.mean,
        text_cosine=card.text_cosine.mean,
        chosen=chosen,
    )


def _cells(recalls: Recalls) -> str:
    return " | ".join(f"{r.value:.1f} ({r.low:.1f} to {r.high:.1f})" for r in (recalls.r1, recalls.r5, recalls.r10))
