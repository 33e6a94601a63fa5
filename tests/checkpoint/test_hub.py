"""The hub's real client over a cache that is made here; nothing is fetched."""

from pathlib import Path

import pytest

from edgeclip import hub
from edgeclip.checkpoint import load_checkpoint
from edgeclip.errors import HubError
from edgeclip.names import is_hub_id

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


def test_a_cached_model_loads_offline(cache: Path, mini_checkpoint: Path):
    repository = cache / "models--someone--mini-clip"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for file in mini_checkpoint.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    assert load_checkpoint("someone/mini-clip").model.config.projection_dim == 16


def test_an_uncached_model_offline_says_what_to_do(cache: Path):
    with pytest.raises(HubError, match=r"openai/clip-vit-base-patch32.*connect once"):
        load_checkpoint("openai/clip-vit-base-patch32")


@pytest.mark.parametrize(
    ("name", "is_id"), [("openai/clip", True), ("a/b/c", False), ("./a/b", False), ("model", False), ("/a/b", False)]
)
def test_what_looks_like_a_hub_id(name: str, is_id: bool):
    assert is_hub_id(name) == is_id


def test_pickles_are_fetched_only_without_safetensors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    asked: list[list[str]] = []
    monkeypatch.setattr(hub, "snapshot", lambda hub_id, patterns: asked.append(patterns) or tmp_path)
    hub.download_checkpoint("a/b")
    assert [any(p.endswith(".bin") for p in patterns) for patterns in asked] == [False, False, True, True]
    for name, requests in (("open_clip_model.safetensors", 2), ("model.safetensors", 1)):
        (tmp_path / name).write_bytes(b"")
        asked.clear()
        hub.download_checkpoint("a/b")
        assert len(asked) == requests
