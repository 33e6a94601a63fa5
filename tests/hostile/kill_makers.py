"""Kill `export`, `train`, `distill` and `reproduce` at named points: what was made stays, the next run ends the work.

Each run is a fork of a process that has imported what they need, which is most of what they do at this size.
"""

from __future__ import annotations

import functools
import hashlib
import os
import random
import re
import shutil
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from edgeclip.checkpoint import load_checkpoint, save_checkpoint
from edgeclip.cli.main import main
from edgeclip.config import ClipConfig, PreprocessConfig, TextConfig, VisionConfig
from edgeclip.distill.learn_vocabulary import learn_vocabulary
from edgeclip.files import present
from edgeclip.model import Clip
from edgeclip.runtime import load
from tests.e2e.test_commands import RECIPE as TRAIN
from tests.e2e.test_distill import RECIPE as DISTILL
from tests.once import exported_once, made_once_in

POINTS = {  # a function, and the last of its calls after which a run is killed, if it comes to that
    "pathlib:Path.replace": 12,
    "edgeclip.files:_exchange": 1,
    "os:fsync": 20,
    "shutil:rmtree": 6,
    "torch:save": 6,
    "edgeclip.distill.state:TrainState.accept": 8,
    "edgeclip.distill.metrics:MetricsLog.write": 12,
    "edgeclip.export.graph:_export": 2,
    "edgeclip.files:write_atomically": 6,
    "edgeclip.measure.rows:measured_rows": 1,
}
WORDS = ["a red ball on the table", "two blue boxes", "large white mug in the snow"]
SCENES = ("--data", "builtin:tabletop", "--samples", "24", "--threads", "1")


def run(command: str, number: int, seed: int) -> dict[str, object]:
    """Kill so many runs of a command, each at a point that the seed chooses."""
    rng = random.Random(f"{command} {seed}")
    summary: dict[str, object] = {"kills": 0, "ended before": 0, "wrong": []}
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        world = World(command, Path(folder))
        while summary["kills"] < number:
            point, calls = rng.choice(list(POINTS.items()))
            calls = rng.randint(1, calls)
            killed, wrong = world.kill(point, calls, with_earlier=rng.random() < 0.5)
            summary["kills" if killed else "ended before"] += 1
            if wrong:
                summary["wrong"].append(f"{point} {calls}: {wrong}")
    return summary


class World:
    """A small checkpoint, a command on it, and what the command comes to where nobody kills it."""

    def __init__(self, command: str, folder: Path) -> None:
        self._folder, self._out = folder, folder / "place" / "out"
        tokenizer = learn_vocabulary(WORDS, 600, context_length=16)
        tower = {"num_hidden_layers": 2, "intermediate_size": 48, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
        vision = VisionConfig(hidden_size=32, num_attention_heads=2, image_size=32, patch_size=16, **tower)
        sizes = {"vocab_size": tokenizer.vocab_size, "context_length": 16, "eos_token_id": tokenizer.eos_token_id}
        text = TextConfig(hidden_size=24, num_attention_heads=2, **sizes, **tower)
        torch.manual_seed(0)
        model = Clip(ClipConfig(projection_dim=16, vision=vision, text=text)).eval()
        save_checkpoint(model, PreprocessConfig.clip(32), tokenizer, folder / "mini")
        (folder / "train.toml").write_text(TRAIN.format(epochs=2))
        (folder / "distill.toml").write_text(
            re.sub(r"\[shrink\][^\[]*\[[^\[]*\[loss", "[loss", DISTILL).replace("epochs = 10", "epochs = 2")
        )
        mini = str(folder / "mini")
        self._command = {
            "export": ["export", mini, *SCENES],
            "train": ["train", str(folder / "train.toml"), "--workers", "0", "--threads", "1"],
            "distill": ["distill", mini, "--recipe", str(folder / "distill.toml"), *SCENES[:2], *TIMED, "--pairs", "8"],
            "reproduce": ["reproduce", "--model", mini, *SCENES, *TIMED, "--epochs", "1", "--batch-size", "8"],
        }[command]
        torch.onnx.export = exported_once(torch.onnx.export, made_once_in(folder / "once"))
        if self._run():
            raise RuntimeError(f"{command} ends with an error where nobody kills it: {(folder / 'log').read_text()}")
        self._names = self._made()
        shutil.copytree(self._out, folder / "earlier")

    def kill(self, point: str, calls: int, *, with_earlier: bool) -> tuple[bool, str]:
        """Kill a run after some calls of a function; whether it came to that, and what was wrong then or afterwards.

        Args:
            point: the function, as `module:name`.
            calls: how many of its calls are let through.
            with_earlier: whether an earlier, whole run lies in its place.
        """
        shutil.rmtree(self._out.parent)
        self._out.parent.mkdir()
        if with_earlier:
            shutil.copytree(self._folder / "earlier", self._out)
        killed = self._run(lambda: die_after(point, calls)) == signal.SIGKILL
        if with_earlier and not usable(present(self._out)):
            return killed, "what an earlier run had made is gone"
        resume = ["--resume"] if any(self._out.rglob("*.pt")) and not with_earlier else []
        if code := self._run(resume=resume):
            said = (self._folder / "log").read_text().splitlines()[-1:]
            return killed, f"the next run ended with {code}: {' '.join(said)[:300]}"
        made = self._made()
        differing = sorted(name for name in {*made, *self._names} if made.get(name) != self._names.get(name))
        return killed, " ".join(differing)

    def _run(self, prepare: Callable[[], None] | None = None, resume: list[str] | None = None) -> int:
        """Run the command in a fork; its exit code, or the signal that ended it."""
        pid = os.fork()
        if pid == 0:
            os.setsid()
            log = os.open(self._folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            try:
                if prepare:
                    prepare()
                sys.argv = ["edgeclip", *self._command, "--out", str(self._out), *(resume or [])]
                main()
            except SystemExit as ended:
                os._exit(ended.code or 0)  # type: ignore[arg-type]
            finally:
                os._exit(70)
        status = os.waitpid(pid, 0)[1]
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

    def _made(self) -> dict[str, str]:
        """Every file in the place, hidden ones too; of weights and graphs also the content."""
        place = self._out.parent
        files = [path for path in place.rglob("*") if path.is_file()]
        return {
            str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest()
            if path.suffix in (".safetensors", ".onnx")
            else ""
            for path in files
        }


TIMED = ("--repeats", "1", "--workers", "0", "--threads", "1")


def usable(out: Path) -> bool:
    """Whether an earlier run's bundles and checkpoints can still be loaded."""
    bundles = [path.parent for path in out.rglob("edgeclip.json")]
    checkpoints = [path.parent for path in out.rglob("model.safetensors") if (path.parent / "config.json").is_file()]
    for bundle in bundles:
        load(bundle, threads=1).encode_text(["a red ball"])
    for checkpoint in checkpoints:
        if not (checkpoint / "quantization.json").is_file():
            load_checkpoint(checkpoint)
    return bool(bundles or checkpoints)


def die_after(place: str, calls: int) -> None:
    """Have this process and those that it starts killed after some calls of a function."""
    module, _, name = place.partition(":")
    *path, name = name.split(".")
    owner = functools.reduce(getattr, path, import_module(module))
    function, left = getattr(owner, name), calls

    @functools.wraps(function)
    def counted(*arguments: object, **options: object) -> object:
        nonlocal left
        outcome = function(*arguments, **options)
        left -= 1
        if left == 0:
            os.killpg(0, signal.SIGKILL)
        return outcome

    setattr(owner, name, counted)
