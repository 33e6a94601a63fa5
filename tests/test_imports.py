"""The base package runs where torch is not installed, where a system lacks what only Unix has, and starts at once."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ["torch", "transformers", "safetensors", "jinja2", "datasets", "huggingface_hub", "pillow_heif", "rawpy"]
UNIX = ["fcntl", "resource"]
IMPORT = """
import importlib, pkgutil, sys
blocked, rooms = sys.argv[1].split(), sys.argv[2].split()
sys.modules.update(dict.fromkeys(blocked))
for room in map(importlib.import_module, rooms):
    for module in pkgutil.walk_packages(getattr(room, "__path__", []), room.__name__ + "."):
        importlib.import_module(module.name)
print([name for name in blocked if sys.modules.get(name)])
"""


@pytest.fixture
def base() -> list[str]:
    """The rooms that may not import torch, and the command line."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (rooms,) = (c["source_modules"] for c in contracts if c["name"] == "only these rooms import torch")
    return ["edgeclip.cli", *rooms]


def run(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("blocked", [EXTRAS, UNIX], ids=["extras", "unix"])
def test_base_modules_and_the_command_line_import_without(blocked: list[str], base: list[str]):
    assert run(IMPORT, " ".join(blocked), " ".join(base)) == "[]"


def test_importing_the_package_imports_neither_a_runtime_nor_numpy():
    assert run("import sys, edgeclip; print({'numpy', 'onnxruntime'} & set(sys.modules))") == "set()"
