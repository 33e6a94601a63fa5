"""The base package runs where torch is not installed."""

import subprocess
import sys

BASE = ["edgeclip", "edgeclip.image", "edgeclip.tokenizer", "edgeclip.config", "edgeclip.results", "edgeclip.cli.main"]
BLOCKED = ["torch", "transformers", "safetensors", "jinja2", "datasets", "huggingface_hub"]


def test_base_modules_import_none_of_the_extras():
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({BLOCKED!r}))\n"
        f"import {', '.join(BASE)}\n"
        f"print([m for m in {BLOCKED!r} if sys.modules.get(m)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
