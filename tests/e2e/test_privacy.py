"""Nothing opens a socket or leaves a file in a user's home that the user did not ask for."""

import platform
import signal
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from edgeclip.manifest import Engine
from edgeclip.runtime.engine import why_not_openvino
from tests.e2e import without_sockets

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in without_sockets.CALLS, reason="the filter is Linux's"
)

COMMAND = "from edgeclip.cli.main import main; main()"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def left_in(home: Path) -> list[str]:
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())


def test_the_filter_sees_a_look_up_in_c(home: Path):
    done = without_sockets.run("import socket; socket.getaddrinfo('example.com', 443)", home=home)
    assert done.returncode == -signal.SIGSYS
    done = without_sockets.run("import socket; socket.socket(socket.AF_UNIX); print('unix')", home=home)
    assert done.stdout == "unix\n"


def test_what_onnxruntime_does_unasked(home: Path):
    """The reason for the switch; where a later ONNX Runtime keeps to itself, this test can go with it."""
    alone = "import sys, time; import onnxruntime; time.sleep(float(sys.argv[1]))"
    done = without_sockets.run(alone, 0.0, home=home)
    assert done.returncode == -signal.SIGSYS or any("onnxruntime" in name for name in left_in(home))


@pytest.mark.parametrize("command", ["embed", "classify", "export", "inspect"])
def test_commands_keep_to_themselves(home: Path, tmp_path: Path, mini_checkpoint: Path, bundle: Path, command: str):
    rng = np.random.default_rng(0)
    picture = tmp_path / "a.ppm"
    picture.write_bytes(b"P6 40 30 255\n" + rng.bytes(40 * 30 * 3))
    arguments = {
        "embed": ["embed", bundle, picture, "--out", tmp_path / "out.npy", "--workers", 2],
        "classify": ["classify", bundle, picture, "--labels", "cat,dog"],
        "export": ["export", mini_checkpoint, "--out", tmp_path / "mini", "--samples", 6, "--threads", 1],
        "inspect": ["inspect", mini_checkpoint],
    }[command]
    done = without_sockets.run(COMMAND, *arguments, home=home)
    assert done.returncode == 0, done.stderr
    assert [name for name in left_in(home) if not name.startswith(".cache/edgeclip/")] == []


@pytest.mark.parametrize("engine", get_args(Engine))
def test_a_program_that_loads_a_bundle_keeps_to_itself(home: Path, engine: Engine):
    if engine == "openvino" and (reason := why_not_openvino()) is not None:
        pytest.skip(f"OpenVINO can't be used here: {reason}")
    code = f"import edgeclip; print(edgeclip.load('builtin:tabletop', engine='{engine}').encode_text(['a']).shape)"
    done = without_sockets.run(code, home=home)
    assert done.returncode == 0, done.stderr
    assert left_in(home) == []


@pytest.mark.parametrize("source", ["set", "set/data/test.parquet"])
def test_parquet_is_read_where_it_lies(home: Path, tmp_path: Path, source: str):
    """Whatever the card beside it names, and without a word to those who count how often data sets are loaded."""
    images = pyarrow.array([{"bytes": b"0", "path": None}], pyarrow.struct({"bytes": "binary", "path": "string"}))
    (tmp_path / "set" / "data").mkdir(parents=True)
    table = pyarrow.table({"image": images, "caption": ["a"]})
    pyarrow.parquet.write_table(table, tmp_path / "set" / "data" / "test.parquet")
    card = "---\nconfigs:\n- config_name: default\n  data_files: hf://datasets/a/b/test.parquet\n---\n"
    (tmp_path / "set" / "README.md").write_text(card)
    load = "from edgeclip.data.load_data import load_data; print(len(load_data(sys.argv[1], samples=0, seed=0)))"
    done = without_sockets.run(f"import sys; {load}", tmp_path / source, home=home)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1\n"
    assert [name for name in left_in(home) if not name.startswith(".cache/huggingface/datasets/")] == []
