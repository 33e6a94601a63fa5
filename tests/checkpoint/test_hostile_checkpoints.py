"""Changed at random, a checkpoint loads or ends in one typed line; `make hostile` tries a thousand."""

from pathlib import Path

from edgeclip.tokenizer import ClipTokenizer
from tests.hostile.checkpoints import attempt, make_layouts, mutated_checkpoints


def test_mutated_checkpoints(tmp_path: Path, tokenizer: ClipTokenizer):
    layouts = make_layouts(tmp_path, tokenizer)
    assert all(map(attempt, layouts))
    outcomes = [attempt(path) for _, path in mutated_checkpoints(layouts, tmp_path / "mutated", seed=0, count=120)]
    assert outcomes.count(False) > 40
