"""Training in several processes is training in one; a killed run goes on as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from edgeclip.checkpoint import load_checkpoint
from edgeclip.config import PreprocessConfig
from edgeclip.data.load_data import load_data
from edgeclip.distill.batches import Batch, BatchStream, Sampler
from edgeclip.distill.embed import embed_in_chunks, gather
from edgeclip.distill.losses.contrastive import contrastive_loss
from edgeclip.distill.train_config import TrainConfig
from edgeclip.distill.trainer import RunFiles, fit, start_accelerator

CONFIG = TrainConfig(epochs=2, batch_size=7, lr=1e-3, checkpoint_every=2, chunk_size=2)


def train(checkpoint: Path, data: Path, out: Path, *, resume: bool = False, cpu: bool = True) -> None:
    """A few contrastive steps on pictures, in as many processes as there are; the script below calls it."""
    checkpoint, records = load_checkpoint(checkpoint), load_data(str(data), samples=0, seed=0).records
    accelerator = start_accelerator(cpu=cpu)
    model = checkpoint.model
    sampler = Sampler(len(records), CONFIG.batch_size, seed=0)

    share = (accelerator.process_index, accelerator.num_processes)
    options = {"workers": 0, "on_skip": print, "share": share}
    batches = BatchStream(records, sampler, PreprocessConfig.clip(32), checkpoint.tokenizer, **options)

    def loss_of(batch: Batch):
        images = gather(embed_in_chunks(model.encode_image, batch.pixel_values, CONFIG.chunk_size), accelerator)
        texts = gather(embed_in_chunks(model.encode_text, batch.input_ids, CONFIG.chunk_size), accelerator)
        assert len(images) == len(texts)
        return contrastive_loss(model.logit_scale * images @ texts.T)

    def on_step(step: int, loss: float) -> None:
        if accelerator.is_main_process:
            print(f"step {step}", flush=True)

    steps = CONFIG.epochs * sampler.steps_per_epoch
    files = RunFiles(out / "state.pt", out / "metrics.jsonl", resume)
    fit(model, batches, loss_of, CONFIG, steps=steps, files=files, on_step=on_step, accelerator=accelerator)
    assert accelerator.num_processes == int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.is_main_process:
        torch.save(model.state_dict(), out / "weights.pt")
    accelerator.end_training()


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "tests.distill.test_processes", *map(str, arguments)]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(sys.path)}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "weights.pt", weights_only=True)


def without_key_biases(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same vector added to all keys changes no attention: their gradient is rounding alone, which Adam enlarges."""
    for name, tensor in state.items():
        if name.endswith("qkv.bias"):
            tensor.chunk(3)[1].zero_()
    return state


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As the processes have: sums of another number of threads round otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def whole(tmp_path: Path, mini_checkpoint: Path, captioned_folder: Path) -> Path:
    """A run in this process alone, without a break."""
    (tmp_path / "whole").mkdir()
    train(mini_checkpoint, captioned_folder, tmp_path / "whole")
    return tmp_path / "whole"


@pytest.mark.slow
def test_two_processes_end_with_the_weights_of_one(
    whole: Path, tmp_path: Path, mini_checkpoint: Path, captioned_folder: Path
):
    """With a batch that two do not divide, by way of torchrun and gloo."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = [*torchrun, *command(mini_checkpoint, captioned_folder, tmp_path)[1:]]
    subprocess.run(arguments, env=environment(), cwd=Path(__file__).parents[2], check=True)
    torch.testing.assert_close(
        without_key_biases(weights(tmp_path)), without_key_biases(weights(whole)), atol=1e-5, rtol=0
    )
    start = load_checkpoint(mini_checkpoint).model.state_dict()
    assert max((start[name] - value).abs().max().item() for name, value in weights(whole).items()) > 1e-3
    losses = [[json.loads(line)["loss"] for line in (f / "metrics.jsonl").open()] for f in (tmp_path, whole)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.slow
def test_a_run_killed_with_sigkill_ends_with_the_same_weights(
    whole: Path, tmp_path: Path, mini_checkpoint: Path, captioned_folder: Path
):
    arguments = command(mini_checkpoint, captioned_folder, tmp_path)
    with subprocess.Popen(
        arguments, env=environment(), cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if line == "step 3\n":  # the state is that of step 2
                os.kill(process.pid, signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "weights.pt").exists()
    with (tmp_path / "metrics.jsonl").open("ab") as metrics:
        metrics.write(b'{"step":4,"lo')  # as a machine that loses power may leave it
    train(mini_checkpoint, captioned_folder, tmp_path, resume=True)
    torch.testing.assert_close(weights(tmp_path), weights(whole), atol=0, rtol=0)
    lines = [[json.loads(line) for line in (folder / "metrics.jsonl").open()] for folder in (tmp_path, whole)]
    varying = ("time", "images_per_second")
    assert [[line.pop(name) > 0 for name in varying] for line in lines[0] + lines[1]]
    assert lines[0] == lines[1]
    assert [line["step"] for line in lines[0]] == [1, 2, 3, 4, 5, 6]


if __name__ == "__main__":
    train(*map(Path, sys.argv[1:4]), cpu=False)
