"""Load whatever edgeclip itself can evaluate: a checkpoint, or a student that a reproduction has saved."""

from __future__ import annotations

from pathlib import Path

from edgeclip.checkpoint import Loaded, load_checkpoint
from edgeclip.hf_config import read_preprocess
from edgeclip.quantize.paper import is_student, read_student
from edgeclip.tokenizer import load_tokenizer


def load_any(source: str, vocabulary: Path | None = None) -> Loaded:
    """A checkpoint as `load_checkpoint` takes it, or a student's folder.

    Raises:
        EdgeclipError: it can't be loaded.
    """
    folder = Path(source)
    if not is_student(folder):
        return load_checkpoint(source, vocabulary=vocabulary)
    model = read_student(folder)
    return Loaded(
        name=source,
        layout="edgeclip student, dynamic int8",
        stored_dtype="int8/float32",
        model=model,
        preprocess_config=read_preprocess(folder, model.config.vision.image_size),
        tokenizer_or_reason=load_tokenizer(folder, model.config.text.context_length),
    )
