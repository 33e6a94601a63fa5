"""The hub's real client over a cache that is made here, and against a server of this test's own."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub.utils import filter_repo_objects

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


@pytest.mark.parametrize(
    ("wanted", "others"),
    [
        (  # sentence-transformers/clip-ViT-B-32-multilingual-v1
            "modules.json config.json model.safetensors vocab.txt tokenizer.json 1_Pooling/config.json "
            "2_Dense/config.json 2_Dense/model.safetensors 2_Dense/pytorch_model.bin",
            "README.md pytorch_model.bin onnx/model.onnx",
        ),
        (  # sentence-transformers/clip-ViT-B-32
            "modules.json 0_CLIPModel/config.json 0_CLIPModel/merges.txt 0_CLIPModel/vocab.json "
            "0_CLIPModel/model.safetensors",
            "0_CLIPModel/pytorch_model.bin openvino/openvino_model.bin",
        ),
    ],
)
def test_files_of_sentence_transformers_are_fetched(
    wanted: str, others: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def snapshot(hub_id: str, patterns: list[str]) -> Path:
        for name in filter_repo_objects(f"{wanted} {others}".split(), allow_patterns=patterns):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"")
        return tmp_path

    monkeypatch.setattr(hub, "snapshot", snapshot)
    hub.download_checkpoint("a/b")
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} == {
        *wanted.split()
    }


class Hub(ThreadingHTTPServer):
    """The parts of the hub's protocol that its client needs to fetch a repository; counts what it is asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        files = {p.relative_to(self.server.folder).as_posix(): p for p in self.server.folder.rglob("*") if p.is_file()}
        name = path.partition("/resolve/")[2].partition("/")[2]
        if path.startswith("/api/models/someone/tiny") and "/tree/" in path:
            tree = [{"type": "file", "path": n, "size": p.stat().st_size, "oid": "0" * 40} for n, p in files.items()]
            data = json.dumps(tree).encode()
        elif path.startswith("/api/models/someone/tiny"):
            siblings = [{"rfilename": file} for file in files]
            data = json.dumps({"id": "someone/tiny", "sha": COMMIT, "siblings": siblings}).encode()
        elif name in files:
            data = files[name].read_bytes()
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        pass


LOAD = """
import json, sys, edgeclip
from contextlib import contextmanager
from edgeclip.progress import observe
class Recorder:
    told = {}
    @contextmanager
    def task(self, description, total, unit):
        def advance(n=1, note=None):
            self.told[description] = self.told.get(description, 0) + n
        yield advance
with observe(Recorder()):
    try:
        clip = edgeclip.load(sys.argv[1], threads=1)
    except edgeclip.EdgeclipError as error:
        sys.exit(f"{type(error).__name__}: {error}")
print(json.dumps({"shape": clip.encode_text(["a"]).shape, "told": Recorder.told}))
"""


@pytest.fixture
def hub_with_a_bundle(bundles: dict[str, Path]) -> Iterator[Hub]:
    with Hub(bundles["int8"]) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def load(
    source: str, home: Path, hub: str, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """In a process of its own, since the client reads its endpoint when it is imported."""
    env = os.environ | {"HF_HOME": str(home), "HF_ENDPOINT": hub, "HF_HUB_DISABLE_TELEMETRY": "1"} | environment
    return subprocess.run([sys.executable, "-c", LOAD, source], capture_output=True, text=True, env=env, cwd=cwd)


def test_a_bundle_of_the_hub_is_downloaded_once_and_then_taken_from_the_cache(
    hub_with_a_bundle: Hub, tmp_path: Path, bundles: dict[str, Path]
):
    address = f"http://127.0.0.1:{hub_with_a_bundle.server_port}"
    first = load("someone/tiny", tmp_path, address)
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    told = json.loads(first.stdout)
    assert told["shape"] == [1, 16]
    size = sum(path.stat().st_size for path in bundles["int8"].rglob("*") if path.is_file())
    assert told["told"]["downloading someone/tiny"] == size
    hub_with_a_bundle.asked.clear()
    again = load("someone/tiny", tmp_path, address)
    assert again.returncode == 0, again.stderr
    assert not [line for line in hub_with_a_bundle.asked if line.startswith("GET") and "/resolve/" in line]
    hub_with_a_bundle.asked.clear()
    offline = load("someone/tiny", tmp_path, address, HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr
    assert hub_with_a_bundle.asked == []


def test_what_the_hub_does_not_have_is_one_line(hub_with_a_bundle: Hub, tmp_path: Path):
    address = f"http://127.0.0.1:{hub_with_a_bundle.server_port}"
    for source, url, words in (
        ("someone/else", address, "HubError: someone/else, which the hub doesn't have"),
        ("someone/tiny", "http://127.0.0.1:9", "HubError: someone/tiny is no local folder"),
    ):
        done = load(source, tmp_path / url[-1], url)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith(words)


def test_a_checkpoint_of_the_hub_is_no_bundle(hub_with_a_bundle: Hub, tmp_path: Path, mini_checkpoint: Path):
    hub_with_a_bundle.folder = mini_checkpoint
    done = load("someone/tiny", tmp_path, f"http://127.0.0.1:{hub_with_a_bundle.server_port}")
    assert "BundleError: someone/tiny on the hub, without edgeclip.json" in done.stderr
    assert "edgeclip export someone/tiny --out tiny" in done.stderr


def test_a_folder_of_that_name_wins(tmp_path: Path, bundles: dict[str, Path]):
    shutil.copytree(bundles["fp32"], tmp_path / "someone" / "tiny")
    done = load("someone/tiny", tmp_path, "http://127.0.0.1:9", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
