from __future__ import annotations

import numpy as np

from edgeclip.runtime import ClipRuntime
from tests.serve.conftest import Served


def test_texts_are_embedded_as_the_runtime_does(served: Served, clip: ClipRuntime):
    answer = served().post("/v1/embeddings", json={"model": "x", "input": ["a red ball", "a box"]}).json()
    assert [row["index"] for row in answer["data"]] == [0, 1]
    given = np.array([row["embedding"] for row in answer["data"]])
    np.testing.assert_allclose(given, clip.encode_text(["a red ball", "a box"]), atol=1e-6)
