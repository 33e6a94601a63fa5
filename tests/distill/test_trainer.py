from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from edgeclip.distill.batches import Sampler
from edgeclip.distill.metrics import StepMetrics
from edgeclip.distill.train_config import TrainConfig
from edgeclip.distill.trainer import RunFiles, fit, learning_rate, make_optimizer, start_accelerator
from edgeclip.errors import ConfigError, DataError, TrainingError

CONFIG = TrainConfig(epochs=1, batch_size=4, lr=1e-2, checkpoint_every=5)
STEPS = 20


def batches(steps: range) -> Iterator[Tensor]:
    return (torch.randn(4, 3, generator=torch.Generator().manual_seed(step)) for step in steps)


def new_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Linear(8, 1))


def train(model: nn.Module, **options: object) -> list[float]:
    target = with_files({"steps": STEPS, **options})
    return fit(model, batches, lambda x: ((model(x) - x.sum(dim=1, keepdim=True)) ** 2).mean(), CONFIG, **target)


def with_files(options: dict[str, object]) -> dict[str, object]:
    """Options of `fit`, of which those that `RunFiles` has are put into one."""
    kept = {name: value for name, value in options.items() if name in RunFiles.__dataclass_fields__}
    return {name: value for name, value in options.items() if name not in kept} | {"files": RunFiles(**kept)}


def test_it_learns():
    losses = train(new_model(), steps=200)
    assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:20])


class KilledError(Exception):
    pass


@pytest.mark.parametrize("killed_at", [5, 7, 13])
@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path, killed_at: int):
    whole = new_model()
    losses = train(whole)

    def stop(step: int, loss: float) -> None:
        if step == killed_at:
            raise KilledError

    interrupted = new_model()
    with pytest.raises(KilledError):
        train(interrupted, state=tmp_path / "state.pt", on_step=stop)
    # State is kept every 5 steps, after on_step: killed at 5, nothing is there yet.
    if killed_at == 5:
        with pytest.raises(TrainingError, match="earlier run"):
            train(interrupted, state=tmp_path / "state.pt", resume=True)
        return
    resumed = new_model()
    assert train(resumed, state=tmp_path / "state.pt", resume=True) == losses
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), atol=0, rtol=0)


def test_a_new_run_discards_the_state_of_an_earlier_one(tmp_path: Path):
    train(new_model(), state=tmp_path / "state.pt")

    def stop(step: int, loss: float) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        train(new_model(), state=tmp_path / "state.pt", on_step=stop)
    assert not (tmp_path / "state.pt").exists()


def test_a_finished_run_resumes_to_itself(tmp_path: Path):
    model = new_model()
    losses = train(model, state=tmp_path / "state.pt")
    again = new_model()
    assert train(again, state=tmp_path / "state.pt", resume=True) == losses
    torch.testing.assert_close(again.state_dict(), model.state_dict(), atol=0, rtol=0)


@pytest.mark.slow
def test_state_of_another_run_is_refused(tmp_path: Path):
    file = tmp_path / "state.pt"
    train(new_model(), state=file, identity={"data": "a"})
    with pytest.raises(TrainingError, match="another steps and another data;"):
        train(new_model(), state=file, resume=True, steps=30)
    with pytest.raises(TrainingError, match="another seed and another data;"):
        train(new_model(), state=file, resume=True, identity={"seed": 1})
    torch.manual_seed(1)
    other = nn.Sequential(nn.Linear(3, 9), nn.GELU(), nn.Linear(9, 1))
    with pytest.raises(TrainingError, match="another model"):
        train(other, state=file, resume=True)
    config = msgspec.structs.replace(CONFIG, beta2=0.5)
    with pytest.raises(TrainingError, match="another model and another config and another data;"):
        fit(other, batches, other, config, steps=STEPS, files=RunFiles(file, resume=True))


def test_the_rate_and_how_often_a_state_is_kept_may_change(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """What a run that diverged is told to do must be possible."""
    file, model = tmp_path / "state.pt", new_model()
    losses = train(model, state=file)
    config = msgspec.structs.replace(CONFIG, checkpoint_every=3, lr=1e-3)
    files = RunFiles(file, resume=True)
    assert fit(new_model(), batches, lambda x: pytest.fail("done"), config, steps=STEPS, files=files) == losses
    assert caplog.messages == [f"{file} was trained at the rate 0.01, not 0.001"]


@pytest.mark.parametrize(
    "changed",
    [
        {"identity": None},
        {"tensors": {}},
        {"losses": None},
        {"losses": ["a"]},
        {"optimizer": {}},
        {"rng": []},
        b"rubbish",
        b"garbage",
        b"PK",
    ],
)
def test_a_state_that_is_damaged_is_a_user_error(tmp_path: Path, changed: dict[str, object] | bytes):
    file = tmp_path / "state.pt"
    train(new_model(), state=file)
    if isinstance(changed, bytes):
        file.write_bytes(changed)
    else:
        torch.save(torch.load(file, weights_only=True) | changed, file)
    with pytest.raises(TrainingError, match=r"state\.pt cannot be read"):
        train(new_model(), state=file, resume=True)


def test_a_loss_that_is_not_finite_names_the_step_and_keeps_the_last_good_state(tmp_path: Path):
    model = new_model()

    def loss_of(x: Tensor) -> Tensor:
        bad = seen.append(1) or len(seen) == 8
        return model(x).mean() * (float("nan") if bad else 1.0)

    seen: list[int] = []
    with pytest.raises(TrainingError, match=r"nan at step 8 of 20.*lower .*state\.pt, the last good state"):
        fit(model, batches, loss_of, CONFIG, steps=STEPS, files=RunFiles(tmp_path / "state.pt"))
    kept = torch.load(tmp_path / "state.pt", weights_only=True)
    assert len(kept["losses"]) == 5
    assert all(tensor.isfinite().all() for tensor in kept["tensors"].values())


def test_weights_that_diverge_do_not_replace_the_last_good_state(tmp_path: Path):
    """The step that ruins them has a finite loss yet; the state after it is written, and never taken."""
    model = new_model()

    def ruin(step: int, loss: float) -> None:
        if step == 10:
            model[2].weight.data.fill_(3e38)

    config = msgspec.structs.replace(CONFIG, checkpoint_every=1)
    file = tmp_path / "state.pt"
    with pytest.raises(TrainingError, match=r"at step 11 of 20"):
        fit(model, batches, lambda x: model(x).square().mean(), config, steps=STEPS, on_step=ruin, files=RunFiles(file))
    kept = torch.load(tmp_path / "state.pt", weights_only=True)
    assert len(kept["losses"]) == 9
    assert kept["tensors"]["2.weight"].abs().max() < 1
    train(new_model(), state=file)
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


@pytest.mark.parametrize("checkpoint_every", [5, 50])
def test_weights_of_the_last_step_are_proved_too(tmp_path: Path, checkpoint_every: int):
    model, file = new_model(), tmp_path / "state.pt"

    def ruin(step: int, loss: float) -> None:
        if step == STEPS:
            model[2].weight.data.fill_(3e38)

    config = msgspec.structs.replace(CONFIG, checkpoint_every=checkpoint_every)
    with pytest.raises(TrainingError, match=r"a loss of (inf|nan) after the last step, 20;") as error:
        fit(model, batches, lambda x: model(x).square().mean(), config, steps=STEPS, on_step=ruin, files=RunFiles(file))
    assert ("the last good state" in str(error.value)) == file.exists() == (checkpoint_every == 5)
    if file.exists():
        assert len(torch.load(file, weights_only=True)["losses"]) == 15


@pytest.mark.parametrize(("saved", "advice"), [(0, "run it again"), (2, "go on with `resume`")])
def test_a_full_disk_is_one_error_and_leaves_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: int, advice: str
):
    whole, left = torch.save, [saved]

    def save(state: object, file: BinaryIO) -> None:
        if left[0]:
            left[0] -= 1
            return whole(state, file)
        file.write(b"half of it")
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0\nand more")

    monkeypatch.setattr(torch, "save", save)
    reason = r"cannot write .*state\.pt \(not all of it was written\); expected room on the disk; make some, and "
    with pytest.raises(TrainingError, match=reason + advice):
        train(new_model(), state=tmp_path / "state.pt")
    assert [path.name for path in tmp_path.iterdir()] == (["state.pt"] if saved else [])


def test_half_of_a_state_is_never_taken(tmp_path: Path):
    losses = train(new_model(), state=tmp_path / "state.pt")
    (tmp_path / "state.pt.part").write_bytes(b"half of it")
    done: list[int] = []
    options = {"state": tmp_path / "state.pt", "resume": True}
    assert train(new_model(), on_step=lambda step, loss: done.append(step), **options) == losses
    assert done == [*range(1, STEPS + 1)]  # a bar shows what is done already
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_the_schedule():
    config = msgspec.structs.replace(CONFIG, warmup_fraction=0.1)
    rates = [learning_rate(step, 100, config) for step in range(100)]
    assert rates[0] == pytest.approx(1e-3)
    assert max(rates) == rates[9] == pytest.approx(1e-2)
    assert rates[55] == pytest.approx(0.5e-2)
    assert 0 < rates[-1] < 1e-5


def test_only_matrices_decay():
    model = new_model()
    groups = make_optimizer(dict(model.named_parameters()), CONFIG).param_groups
    assert [(group["weight_decay"], sorted(p.ndim for p in group["params"])) for group in groups] == [
        (0.1, [2, 2]),
        (0.0, [1, 1]),
    ]


def test_gradients_of_before_do_not_count():
    clean, used = new_model(), new_model()
    used(torch.ones(1, 3)).sum().backward()
    assert train(used) == train(clean)


def test_frozen_parameters_stay():
    model = new_model()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    train(model)
    assert torch.equal(model[0].weight, before)


def test_batches_cover_an_epoch_once_and_depend_on_the_step_alone():
    sampler = Sampler(total=10, batch_size=3, seed=5)
    epoch = np.concatenate([sampler.indices(step) for step in range(3)])
    assert len(set(epoch.tolist())) == 9
    np.testing.assert_array_equal(sampler.indices(7), Sampler(10, 3, 5).indices(7))
    assert not np.array_equal(sampler.indices(0), sampler.indices(3))


def test_records_that_are_left_out_are_in_no_batch():
    sampler = Sampler(total=10, batch_size=4, seed=5, left_out=(2, 9))
    for epoch in range(3):
        steps = range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
        seen = np.concatenate([sampler.indices(step) for step in steps])
        assert sorted(seen.tolist()) == [0, 1, 3, 4, 5, 6, 7, 8]
    with pytest.raises(DataError, match="batch size 9 for 8"):
        Sampler(total=10, batch_size=9, seed=5, left_out=(2, 9))


def test_a_batch_larger_than_the_set_is_refused():
    with pytest.raises(DataError, match="batch size 32 for 10"):
        Sampler(total=10, batch_size=32, seed=0)


def test_training_settings_are_checked():
    for wrong in ({"lr": float("nan")}, {"lr": 1e38}, {"lr": 0.0}, {"epochs": 10**400}, {"batch_size": 0}):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))} .*; expected"):
            TrainConfig(**{"epochs": 1, "batch_size": 2, "lr": 1e-3} | wrong)


def test_a_gradient_that_is_not_finite_is_never_applied(tmp_path: Path):
    """The square root has a finite value and an infinite slope at 0."""
    model = new_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(
        TrainingError, match=r"a loss of 0 with a gradient of norm (inf|nan) at step 1 of 20.*check model"
    ):
        fit(model, batches, lambda x: (model(x) * 0).abs().sum().sqrt(), CONFIG, steps=STEPS)
    torch.testing.assert_close(model.state_dict(), before, atol=0, rtol=0)


def test_the_parts_of_a_loss_are_logged(tmp_path: Path):
    def with_parts(x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        parts = {"square": (model(x) ** 2).mean(), "size": model(x).abs().mean()}
        return parts["square"] + 2 * parts["size"], parts

    model = new_model()
    several = fit(model, batches, with_parts, CONFIG, steps=3, files=RunFiles(metrics=tmp_path / "metrics.jsonl"))
    lines = [msgspec.json.decode(line, type=StepMetrics) for line in (tmp_path / "metrics.jsonl").open("rb")]
    assert [line.step for line in lines] == [1, 2, 3]
    assert [line.loss for line in lines] == several
    assert [set(line.parts) for line in lines] == [{"square", "size"}] * 3
    assert lines[0].loss == pytest.approx(lines[0].parts["square"] + 2 * lines[0].parts["size"])
    assert lines[1].lr == learning_rate(1, 3, CONFIG)
    model = new_model()
    assert fit(model, batches, lambda x: with_parts(x)[0], CONFIG, steps=3) == pytest.approx(several)


@pytest.mark.parametrize("ending", [b'{"step":6,"lo', b"\x00\x00\n", b'{"step":"6"}\n', b""])
def test_lines_of_steps_that_are_done_again_are_dropped(tmp_path: Path, ending: bytes):
    def stop(step: int, loss: float) -> None:
        if step == 7:
            raise KilledError

    files = {"state": tmp_path / "state.pt", "metrics": tmp_path / "metrics.jsonl"}
    with pytest.raises(KilledError):
        train(new_model(), on_step=stop, **files)
    lines = files["metrics"].read_bytes().splitlines(keepends=True)
    files["metrics"].write_bytes(b"".join(lines[: 5 if ending else 7]) + ending)
    train(new_model(), resume=True, **files)
    steps = [msgspec.json.decode(line)["step"] for line in files["metrics"].open("rb")]
    assert steps == list(range(1, STEPS + 1))


def test_running_statistics_and_random_numbers_are_resumed_too(tmp_path: Path):
    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))

    def stop(step: int, loss: float) -> None:
        if step == 7:
            raise KilledError

    losses = train(model())
    resumed, interrupted = model(), model()
    with pytest.raises(KilledError):
        train(interrupted, state=tmp_path / "state.pt", on_step=stop)
    torch.manual_seed(1)
    assert train(resumed, state=tmp_path / "state.pt", resume=True) == losses


def test_bfloat16_computes_less_exactly_but_keeps_float_weights():
    exact, mixed = new_model(), new_model()
    seen: list[torch.dtype] = []

    def loss_of(x: Tensor) -> Tensor:
        y = mixed(x)
        seen.append(y.dtype)
        return ((y.float() - x.sum(dim=1, keepdim=True)) ** 2).mean()

    losses = fit(mixed, batches, loss_of, CONFIG, steps=STEPS, accelerator=start_accelerator("bf16", cpu=True))
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in mixed.parameters()} == {torch.float32}
    expected = train(exact)
    assert losses != expected
    assert losses == pytest.approx(expected, rel=0.05)


def test_fp16_needs_a_gpu():
    with pytest.raises(ConfigError, match="fp16 on a CPU"):
        start_accelerator("fp16", cpu=True)


def overflowing() -> Accelerator:
    """What accelerate sets up for fp16 on a GPU, here on the CPU, with a scale that overflows at first."""
    accelerator = start_accelerator(cpu=True)
    accelerator.state._mixed_precision, accelerator.native_amp = "fp16", True
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**21, growth_interval=4)
    return accelerator


def test_fp16_leaves_out_steps_that_overflow_and_resumes_its_scale(tmp_path: Path):
    def run(model: nn.Module, scales: list[float], **options: object) -> list[float]:
        def loss_of(x: Tensor) -> Tensor:
            scales.append(accelerator.scaler.get_scale())
            weights.append(model[0].weight.detach().clone())
            return (model(x).float() ** 2).mean()

        accelerator, weights = overflowing(), []
        losses = fit(model, batches, loss_of, CONFIG, steps=STEPS, accelerator=accelerator, **with_files(options))
        for before, after, scale, next_scale in zip(weights, weights[1:], scales, scales[1:], strict=False):
            assert torch.equal(before, after) == (next_scale < scale)
        return losses

    def stop(step: int, loss: float) -> None:
        if step == 17:
            raise KilledError

    scales: list[float] = []
    losses = run(new_model(), scales)
    assert min(scales) < scales[0]
    assert any(after > before for before, after in pairwise(scales))
    assert scales[15] != scales[0]
    with pytest.raises(KilledError):
        run(new_model(), [], state=tmp_path / "state.pt", on_step=stop)
    resumed: list[float] = []
    assert run(new_model(), resumed, state=tmp_path / "state.pt", resume=True) == losses
    assert resumed == scales[15:]
