from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgeclip.runtime import ClipRuntime
from edgeclip.search import Index

COMMAND = """
import sys
sys.modules.update(dict.fromkeys(sys.argv.pop(1).split()))
from edgeclip.cli.main import main
main()
"""


@pytest.mark.parametrize(("extra", "blocked"), [("serve", "uvicorn fastapi"), ("mcp", "mcp")])
def test_what_is_missing_names_its_extra(extra: str, blocked: str, tmp_path: Path, clip: ClipRuntime):
    Index.open(tmp_path / "photos.db", clip).close()
    bundle = ["builtin:tabletop"] if extra == "serve" else []
    command = [sys.executable, "-c", COMMAND, blocked, extra, *bundle, "--db", str(tmp_path / "photos.db")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert f"pip install 'edgeclip[{extra}]'" in done.stderr


def test_serving_never_imports_torch():
    code = "import sys, edgeclip.serve.run, edgeclip.serve.mcp_tools; print({'torch', 'onnx'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
