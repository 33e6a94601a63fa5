"""Any source as an encoder: a bundle, a checkpoint, or a student that a reproduction has saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeclip.bundle import is_own_layout
from edgeclip.evaluate.encoder import Encoder
from edgeclip.files import present
from edgeclip.graph_model import Kind
from edgeclip.hf_preprocess import read_preprocess
from edgeclip.runtime import load
from edgeclip.runtime.foreign import at_hand, foreign_graphs
from edgeclip.runtime.joined import joins_graphs
from edgeclip.tokenizer_files import load_tokenizer

if TYPE_CHECKING:
    from edgeclip.checkpoint import Checkpoint
    from edgeclip.config import PreprocessConfig


def is_bundle(source: str | Path) -> bool:
    """Whether a source is a bundle's folder."""
    return is_own_layout(present(Path(source)))


def load_encoder(
    source: str | Path,
    *,
    threads: int,
    vocabulary: str | Path | None = None,
    model_config: str | Path | None = None,
) -> tuple[Encoder, PreprocessConfig]:
    """Load anything that can be measured, and how its images are cropped. PyTorch is only imported for what needs it.

    Raises:
        EdgeclipError: it can't be loaded.
    """
    source = at_hand(source)
    if is_bundle(source) or foreign_graphs(source) is not None or joins_graphs(source):
        clip = load(source, threads=threads, cache=None)  # what is measured is the bundle
        both: tuple[Kind, ...] = ("image", "text")
        for kind in both:
            if kind not in clip.towers:
                raise clip.bundle.without(kind)
        return clip, clip.bundle.preprocess
    import torch

    torch.set_num_threads(threads)
    checkpoint = load_checkpoint_or_student(source, vocabulary, model_config)
    return checkpoint, checkpoint.preprocess_config


def load_checkpoint_or_student(
    source: str | Path, vocabulary: str | Path | None = None, model_config: str | Path | None = None
) -> Checkpoint:
    """A checkpoint as `load_checkpoint` takes it, or a student's folder, which is encoded one item at a time.

    Raises:
        EdgeclipError: it can't be loaded.
    """
    from edgeclip.checkpoint import load_checkpoint

    student = load_student(Path(source))
    return student or load_checkpoint(source, vocabulary=vocabulary, model_config=model_config)


def load_student(folder: Path) -> Checkpoint | None:
    """A student that a reproduction has saved; None where there is something else.

    Raises:
        EdgeclipError: it can't be loaded.
    """
    from edgeclip.checkpoint import Checkpoint
    from edgeclip.quantize.paper import is_student, read_student

    if not is_student(folder):
        return None
    model = read_student(folder)
    text = model.config.text
    return Checkpoint(
        name=str(folder),
        layout="edgeclip student, dynamic int8",
        stored_dtype="int8/float32",
        model=model,
        preprocess_config=read_preprocess(folder, model.config.vision.image_size),
        tokenizer_or_reason=load_tokenizer(folder, text.context_length, fixed_length=text.sees_padding),
        batch_size=1,
    )
