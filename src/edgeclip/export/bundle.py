"""Make a bundle from a checkpoint."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgeclip import __version__
from edgeclip.bundle import (
    GRAPHS,
    JOINT_GRAPHS,
    MANIFEST,
    SCHEMA,
    Bundle,
    Golden,
    Manifest,
    Precision,
    entries,
    fingerprint,
)
from edgeclip.checkpoint import Loaded
from edgeclip.checkpoint.save import write_model_files
from edgeclip.export.graph import quantize_graph, write_image_graph, write_text_graph
from edgeclip.export.joint import write_joint_graph
from edgeclip.export.surgery import end_texts
from edgeclip.files import folder_written_atomically
from edgeclip.runtime.clip import ClipRuntime
from edgeclip.runtime.selftest import GOLDEN_TEXT, test_card


def export_bundle(
    loaded: Loaded, out: Path, *, precision: Precision, threads: int, joint_graph: bool = False
) -> Manifest:
    """Write a bundle, whole or not at all.

    Args:
        loaded: the checkpoint.
        out: the bundle's folder; an earlier one is replaced.
        precision: fp32, or int8 with per-channel weights and dynamic activations.
        threads: for the golden embeddings.
        joint_graph: also write both towers in one graph with the logits.

    Raises:
        ConfigError: the joint graph would be too large.
    """
    with folder_written_atomically(out) as folder:
        write_model_files(loaded.model, loaded.preprocess_config, loaded.tokenizer, folder)
        (folder / "onnx").mkdir()
        for name, write in zip(GRAPHS[precision], (write_image_graph, write_text_graph), strict=True):
            write(loaded.model, folder / name)
            if precision == "int8":
                whole = (folder / name).rename(folder / f"{name}.fp32")
                quantize_graph(whole, folder / name)
                whole.unlink()
        image, text = (folder / name for name in GRAPHS[precision])
        end_texts(text, loaded.tokenizer.eos_token_id)
        if joint_graph:
            write_joint_graph(image, text, loaded.model.logit_scale.item(), folder / JOINT_GRAPHS[precision])
        manifest = _manifest(loaded, folder, precision, threads)
        (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    return manifest


def _manifest(loaded: Loaded, folder: Path, precision: Precision, threads: int) -> Manifest:
    files = entries(folder)
    draft = Manifest(
        schema=SCHEMA,
        edgeclip=__version__,
        teacher=loaded.name,
        precision=precision,
        logit_scale=loaded.model.logit_scale.item(),
        fingerprint=fingerprint(files),
        golden=Golden(text=GOLDEN_TEXT, image_embeds=[], text_embeds=[]),
        files=files,
    )
    clip = ClipRuntime(
        Bundle(folder, draft, loaded.model.config, loaded.preprocess_config, loaded.tokenizer), threads=threads
    )
    golden = Golden(
        text=GOLDEN_TEXT,
        image_embeds=clip.encode_image([test_card(loaded.model.config.vision.image_size)])[0].tolist(),
        text_embeds=clip.encode_text([GOLDEN_TEXT])[0].tolist(),
    )
    return msgspec.structs.replace(draft, golden=golden)
