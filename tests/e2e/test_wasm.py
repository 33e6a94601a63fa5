"""A bundle's int8 sums in a browser's runtime, WebAssembly, whose products are added in its own way."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import edgeclip
from edgeclip.image import normalize
from edgeclip.runtime import int8_proof
from edgeclip.runtime.selftest import GOLDEN_TEXT, test_card
from tests.e2e.test_transformers_js import NODE

pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="needs node"),
    pytest.mark.skipif(not (NODE / "node_modules" / "onnxruntime-web").is_dir(), reason="needs `make node`"),
]


def in_wasm(graphs: list[tuple[Path, np.ndarray]], folder: Path) -> list[list[float]]:
    """The first output of each graph."""
    asked = []
    for number, (graph, values) in enumerate(graphs):
        file = folder / f"{number}"
        file.write_bytes(values.tobytes())
        described = {"type": str(values.dtype), "dims": values.shape, "values": str(file)}
        asked.append({"graph": str(graph), **described})
    done = subprocess.run(
        ["node", "wasm.mjs"], input=json.dumps(asked), capture_output=True, text=True, cwd=NODE, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_adds_the_pairs_that_weights_are_made_for(tmp_path: Path):
    rows = [np.full((count, int8_proof.INPUTS), 255, np.float32) for count in int8_proof.ROWS]
    assert in_wasm([(int8_proof.GRAPH, x) for x in rows], tmp_path) == [[0], [0]]


def test_it_embeds_as_this_runtime_does(bundles: dict[str, Path], tmp_path: Path):
    clip = edgeclip.load(bundles["int8"], threads=1, cache=None)
    card = test_card(clip.bundle.config.vision.image_size)
    pixel_values = normalize(card[None], clip.bundle.preprocess)
    input_ids = clip.bundle.tokenizer([GOLDEN_TEXT], pad_to_longest=True).astype(np.int64)
    image, text = in_wasm(
        [(clip.bundle.graph("image"), pixel_values), (clip.bundle.graph("text"), input_ids)], tmp_path
    )
    # A value at the border of two levels may fall either way.
    np.testing.assert_allclose(image, clip.encode_image([card])[0], atol=2e-3)
    np.testing.assert_allclose(text, clip.encode_text([GOLDEN_TEXT])[0], atol=2e-3)
