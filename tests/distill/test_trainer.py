from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeclip.distill.batches import Sampler
from edgeclip.distill.trainer import TrainConfig, fit, learning_rate, make_optimizer
from edgeclip.errors import ConfigError, DataError, TrainingError

CONFIG = TrainConfig(epochs=1, batch_size=4, lr=1e-2, checkpoint_every=5)
STEPS = 20


def batches(steps: range) -> Iterator[Tensor]:
    return (torch.randn(4, 3, generator=torch.Generator().manual_seed(step)) for step in steps)


def new_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Linear(8, 1))


def train(model: nn.Module, **options: object) -> list[float]:
    target = {"steps": STEPS, **options}
    return fit(model, batches, lambda x: ((model(x) - x.sum(dim=1, keepdim=True)) ** 2).mean(), CONFIG, **target)


def test_it_learns():
    losses = train(new_model(), steps=200)
    assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:20])


class KilledError(Exception):
    pass


@pytest.mark.parametrize("killed_at", [5, 7, 13])
def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path, killed_at: int):
    whole = new_model()
    losses = train(whole)

    def stop(step: int, loss: float) -> None:
        if step == killed_at:
            raise KilledError

    interrupted = new_model()
    with pytest.raises(KilledError):
        train(interrupted, state_file=tmp_path / "state.pt", on_step=stop)
    # State is kept every 5 steps, after on_step: killed at 5, nothing is there yet.
    if killed_at == 5:
        with pytest.raises(TrainingError, match="earlier run"):
            train(interrupted, state_file=tmp_path / "state.pt", resume=True)
        return
    resumed = new_model()
    assert train(resumed, state_file=tmp_path / "state.pt", resume=True) == losses
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), atol=0, rtol=0)


def test_a_new_run_discards_the_state_of_an_earlier_one(tmp_path: Path):
    train(new_model(), state_file=tmp_path / "state.pt")

    def stop(step: int, loss: float) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        train(new_model(), state_file=tmp_path / "state.pt", on_step=stop)
    assert not (tmp_path / "state.pt").exists()


def test_a_finished_run_resumes_to_itself(tmp_path: Path):
    model = new_model()
    losses = train(model, state_file=tmp_path / "state.pt")
    again = new_model()
    assert train(again, state_file=tmp_path / "state.pt", resume=True) == losses
    torch.testing.assert_close(again.state_dict(), model.state_dict(), atol=0, rtol=0)


def test_state_of_another_run_is_refused(tmp_path: Path):
    train(new_model(), state_file=tmp_path / "state.pt")
    with pytest.raises(TrainingError, match="another steps"):
        train(new_model(), state_file=tmp_path / "state.pt", resume=True, steps=30)
    with pytest.raises(TrainingError, match="another seed"):
        train(new_model(), state_file=tmp_path / "state.pt", resume=True, identity={"seed": 1})
    torch.manual_seed(1)
    other = nn.Sequential(nn.Linear(3, 9), nn.GELU(), nn.Linear(9, 1))
    with pytest.raises(TrainingError, match="another initial weights"):
        train(other, state_file=tmp_path / "state.pt", resume=True)
    torch.save({"something": "else"}, tmp_path / "state.pt")
    with pytest.raises(TrainingError, match="cannot be read"):
        train(new_model(), state_file=tmp_path / "state.pt", resume=True)
    (tmp_path / "state.pt").write_bytes(b"rubbish")
    with pytest.raises(TrainingError, match="cannot be read"):
        train(new_model(), state_file=tmp_path / "state.pt", resume=True)


def test_a_loss_that_is_not_finite_names_the_step_and_keeps_the_last_good_state(tmp_path: Path):
    model = new_model()

    def loss_of(x: Tensor) -> Tensor:
        bad = seen.append(1) or len(seen) == 8
        return model(x).mean() * (float("nan") if bad else 1.0)

    seen: list[int] = []
    with pytest.raises(TrainingError, match=r"nan at step 8 of 20.*state\.pt is the last good state"):
        fit(model, batches, loss_of, CONFIG, steps=STEPS, state_file=tmp_path / "state.pt")
    kept = torch.load(tmp_path / "state.pt", weights_only=True)
    assert len(kept["losses"]) == 5
    assert all(tensor.isfinite().all() for tensor in kept["parameters"].values())


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


def test_a_batch_larger_than_the_set_is_refused():
    with pytest.raises(DataError, match="batch size 32 for 10"):
        Sampler(total=10, batch_size=32, seed=0)


def test_training_settings_are_checked():
    with pytest.raises(ConfigError, match="--lr"):
        TrainConfig(epochs=1, batch_size=2, lr=float("nan"))
