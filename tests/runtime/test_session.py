import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

PEAK = """
import sys
import numpy as np
from pathlib import Path
from edgeclip.evaluate.footprint import peak_rss_mb
from edgeclip.runtime.session import LazySession
np.ones(2**24, np.uint8)  # freed at once: from now on glibc takes blocks of this size from the heap
session = LazySession(Path(sys.argv[1]), 1)
before = peak_rss_mb()
session.run(np.ones((1, 1024), np.uint8))
print(peak_rss_mb() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's way of keeping memory")
@pytest.mark.slow
def test_an_opened_graph_takes_little_more_memory_than_its_weights(tmp_path: Path):
    layers, size = 50, 1024
    rng = np.random.default_rng(0)
    nodes, weights = [], []
    for i in range(layers):
        weights.append(numpy_helper.from_array(rng.integers(-64, 65, (size, size), np.int8), f"w{i}"))
        nodes.append(helper.make_node("MatMulInteger", [f"x{i}", f"w{i}"], [f"y{i}"]))
        nodes.append(helper.make_node("Cast", [f"y{i}"], [f"x{i + 1}"], to=TensorProto.UINT8))
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("x0", TensorProto.UINT8, [1, size])],
        [helper.make_tensor_value_info(f"x{layers}", TensorProto.UINT8, [1, size])],
        weights,
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), tmp_path / "layers.onnx")
    done = subprocess.run(
        [sys.executable, "-c", PEAK, tmp_path / "layers.onnx"], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 1.25 * layers * size * size / 1e6
