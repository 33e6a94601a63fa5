"""A text graph that ends texts: rows with an end keep their bits, rows without get the end back."""

import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgeclip.checkpoint import Checkpoint
from edgeclip.export.graph import write_text_graph
from edgeclip.export.surgery import end_texts
from edgeclip.export.towers import ExportedTextTower
from edgeclip.tokenizer import ClipTokenizer


def run(path: Path, input_ids: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"input_ids": input_ids})[0]


@pytest.fixture(scope="module")
def graphs(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """As exported, and with the ends put back."""
    plain = tmp_path_factory.mktemp("texts") / "plain.onnx"
    write_text_graph(ExportedTextTower(checkpoint.model).eval(), plain)
    ended = Path(shutil.copy(plain, plain.with_name("ended.onnx")))
    end_texts(ended, checkpoint.tokenizer.eos_token_id)
    return plain, ended


@pytest.mark.slow
def test_texts_with_an_end_are_left_alone(graphs: tuple[Path, Path], tokenizer: ClipTokenizer):
    plain, ended = graphs
    for texts in ([""], ["a red ball", "two blue boxes on the table", "mug " * 50]):
        for pad_to_longest in (True, False):
            input_ids = tokenizer(texts, pad_to_longest=pad_to_longest)
            np.testing.assert_array_equal(run(ended, input_ids), run(plain, input_ids))


@pytest.mark.slow
def test_texts_that_were_cut_with_their_end_get_it_back(graphs: tuple[Path, Path], tokenizer: ClipTokenizer):
    plain, ended = graphs
    whole = tokenizer(["mug " * 50, "a red ball", "large white mug " * 20])
    cut = whole.copy()
    cut[[0, 2], -1] = whole[[0, 2], -2]  # as transformers.js leaves them: the word that the end replaces elsewhere
    np.testing.assert_array_equal(run(ended, cut), run(plain, whole))
    assert np.abs(run(plain, cut) - run(plain, whole)).max() > 1e-2
    one = np.full((1, 1), 5)
    np.testing.assert_array_equal(run(ended, one), run(plain, np.full((1, 1), tokenizer.eos_token_id)))
