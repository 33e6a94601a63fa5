"""Changed at random, a bundle works or ends in one typed line; `make hostile` tries two thousand."""

from pathlib import Path

from edgeclip.bundle import find_bundle
from tests.hostile.bundles import attempt, mutated_bundles


def test_mutated_bundles(tmp_path: Path):
    builtin = find_bundle("builtin:tabletop")
    assert attempt(builtin)
    outcomes = [attempt(place) for _, place in mutated_bundles(builtin, tmp_path / "bundle", seed=0, count=150)]
    assert outcomes.count(False) > 100
    assert any(outcomes)


def test_standard_output_is_the_user_s(tmp_path: Path, capfd):
    for _ in mutated_bundles(find_bundle("builtin:tabletop"), tmp_path / "bundle", seed=3, count=40):
        attempt(tmp_path / "bundle")
    assert capfd.readouterr().out == ""
