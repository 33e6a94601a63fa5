"""The proof that int8 sums are right: it tells the pairs that weights are made for from all others."""

import itertools
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import edgeclip
from edgeclip.bundle import read_bundle, sealed
from edgeclip.errors import BundleError
from edgeclip.files import as_json
from edgeclip.manifest import EARLIER_SCHEMA, MANIFEST
from edgeclip.measure.inspection import inspect_bundle
from edgeclip.quantize.scheme import in_steps, weight_step
from edgeclip.runtime import int8_proof, session
from tests.runtime.int8_proof_graph import proof_graph, proof_weights

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
EMULATOR = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")


@pytest.fixture(autouse=True)
def not_tried_yet() -> Iterator[None]:
    int8_proof.needs_precise.cache_clear()
    yield
    int8_proof.needs_precise.cache_clear()


def sums(activations: np.ndarray, weights_KN: np.ndarray, groups: list[tuple[int, ...]]) -> np.ndarray:
    """(M, N) as a kernel makes them that adds the products of each group of inputs in 16 bits, which saturate."""
    products = activations[:, :, None].astype(np.int64) * weights_KN.astype(np.int64)
    return sum(np.clip(products[:, list(group)].sum(axis=1), -(2**15), 2**15 - 1) for group in groups)


def neighbours(K: int) -> list[tuple[int, ...]]:
    return [tuple(range(first, min(first + 2, K))) for first in range(0, K, 2)]


def test_any_two_inputs_but_a_pair_s_saturate_together():
    weights, activations = proof_weights().astype(int), np.full((1, int8_proof.INPUTS), 255)
    right = activations @ weights
    np.testing.assert_array_equal(sums(activations, weights, neighbours(int8_proof.INPUTS)), right)
    for one, other in itertools.combinations(range(int8_proof.INPUTS), 2):
        if one // 2 != other // 2:
            two = [one, other]
            wrong = np.abs(sums(activations[:, two], weights[two], [(0, 1)]) - activations[:, two] @ weights[two])
            assert wrong.max() >= int8_proof.LEAST_WRONG, two


@pytest.mark.parametrize("size", [3, 4])
def test_more_than_two_in_16_bits_saturate_too(size: int):
    weights, activations = proof_weights(), np.full((1, int8_proof.INPUTS), 255)
    groups = [tuple(range(first, min(first + size, int8_proof.INPUTS))) for first in range(0, int8_proof.INPUTS, size)]
    right = activations @ weights.astype(np.int64)
    assert np.abs(sums(activations, weights, groups) - right).max() >= int8_proof.LEAST_WRONG


@pytest.mark.parametrize("K", [1, 2, 31, 64])
def test_weights_of_a_bundle_are_right_in_such_pairs_and_would_not_be_in_others(K: int):
    rng = np.random.default_rng(0)
    weight = rng.standard_t(3, (400, K)).astype(np.float32)
    steps_KN = in_steps(weight, weight_step(weight)).T
    activations = np.where(rng.random((50, K)) < 0.9, 255, rng.integers(0, 256, (50, K)))
    right = activations @ steps_KN.astype(np.int64)
    np.testing.assert_array_equal(sums(activations, steps_KN, neighbours(K)), right)
    if K > 2:
        shifted = [(0,), *((k, k + 1) for k in range(1, K - 1, 2)), *([(K - 1,)] if K % 2 == 0 else [])]
        assert (sums(activations, steps_KN, shifted) != right).any()


def test_the_graph_that_is_shipped_is_this_one_and_is_right_here():
    assert onnx.load_model(int8_proof.GRAPH) == proof_graph()
    assert int8_proof._wrong_by(precise=False) < int8_proof.LEAST_WRONG / 2
    assert int8_proof._wrong_by(precise=True) == 0


def pretend(wrong_by: Callable[[bool], float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_proof, "_wrong_by", lambda *, precise: wrong_by(precise))


def test_a_runtime_of_other_pairs_is_told_to_do_without_and_it_is_said(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    expected = edgeclip.load(bundles["int8"], threads=1, cache=None).encode_image(PICTURE)
    pretend(lambda precise: 0 if precise else 32003, monkeypatch)
    int8_proof.needs_precise.cache_clear()
    asked: list[bool] = []
    original = session.session_options
    monkeypatch.setattr(
        session,
        "session_options",
        lambda threads, *, precise=False: asked.append(precise) or original(threads, precise=precise),
    )
    for cache in (None, tmp_path):
        with caplog.at_level(logging.WARNING):
            clip = edgeclip.load(bundles["int8"], threads=1, cache=cache)
            np.testing.assert_allclose(clip.encode_image(PICTURE), expected, atol=1e-6)
            clip.encode_text("a red ball")
    assert set(asked) == {True}
    assert [record.message for record in caplog.records if "x64quantprecision" in record.message] == [
        caplog.records[0].message
    ]  # once a process


def test_one_that_is_wrong_either_way_is_refused(bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    pretend(lambda precise: 32003, monkeypatch)
    with pytest.raises(
        BundleError, match="wrong by 32003 on this processor; expected right ones; export the model with"
    ):
        edgeclip.load(bundles["int8"], threads=1).encode_image(PICTURE)


def test_other_bundles_need_no_proof(bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In fp32, and those of the time when weights had 7 bits."""
    pretend(lambda precise: 32003, monkeypatch)
    earlier = Path(shutil.copytree(bundles["int8"], tmp_path / "earlier"))
    manifest = msgspec.structs.replace(read_bundle(earlier).manifest, schema=EARLIER_SCHEMA)
    (earlier / MANIFEST).write_bytes(as_json(sealed(manifest)))
    for folder in (bundles["fp32"], earlier):
        assert edgeclip.load(folder, threads=1, cache=None).encode_image(PICTURE).shape[0] == 1


@pytest.mark.parametrize(
    ("right", "told"),
    [
        ((False, True), "int8 sums proved right here"),
        ((True,), "int8 sums proved right here, with session.x64quantprecision, which is slower"),
        ((), "int8 sums proved wrong here"),
    ],
)
def test_inspect_names_what_was_proved(
    bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch, right: tuple[bool, ...], told: str
):
    pretend(lambda precise: 0 if precise in right else 32003, monkeypatch)
    assert inspect_bundle(bundles["int8"]).arithmetic.endswith(f"; {told}")
    assert "int8 sums" not in inspect_bundle(bundles["fp32"]).arithmetic


def test_verify_names_what_was_proved(
    bundles: dict[str, Path], edgeclip_here: Callable[..., subprocess.CompletedProcess[str]]
):
    assert "\nint8 sums proved right here\n" in edgeclip_here("verify", bundles["int8"]).stdout
    assert "int8 sums" not in edgeclip_here("verify", bundles["fp32"]).stdout


PROVE = """
import sys
from pathlib import Path
from edgeclip.runtime import int8_proof
print(int8_proof._wrong_by(precise=False), int8_proof._wrong_by(precise=True), int8_proof.needs_precise())
int8_proof.GRAPH = Path(sys.argv[1])
print(int8_proof._wrong_by(precise=False) >= int8_proof.LEAST_WRONG, int8_proof._wrong_by(precise=True))
"""


@pytest.mark.skipif(EMULATOR is None, reason="needs qemu-x86_64")
@pytest.mark.slow
def test_an_avx2_processor_without_vnni_adds_neighbours(tmp_path: Path):
    """Emulated, since few test machines are that old; weights that are moved on by one input saturate there."""
    moved = proof_graph()
    for tensor in moved.graph.initializer:
        if tensor.name.endswith("weight"):
            array = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(np.roll(array, 1, axis=0), tensor.name))
    onnx.save_model(moved, tmp_path / "moved.onnx")
    command = [EMULATOR, "-cpu", "Haswell", Path(sys.executable).resolve(), "-c", PROVE, tmp_path / "moved.onnx"]
    path = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, env=path, check=False)
    assert done.stdout == "0.0 0.0 False\nTrue 0.0\n", done.stderr
