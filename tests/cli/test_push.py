"""Uploading with the hub's own client, whose network is replaced: what is sent, where to, and what is refused first."""

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.utils import _http, close_session

from edgeclip.bundle import read_bundle
from edgeclip.manifest import MANIFEST
from edgeclip.report.model_card import write_model_card

httpx = _http.httpx2 if hasattr(_http, "httpx2") else _http.httpx  # whichever the hub's client uses
COMMIT = "https://huggingface.co/me/small/commit/0123456789abcdef0123456789abcdef01234567"


class Hub:
    """A hub that takes what it is given."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.created: dict[str, object] = {}
        self.files: dict[str, bytes] = {}
        self.refuses = False

    def answer(self, request):
        self.asked.append(f"{request.method} {request.url.path}")
        if self.refuses:
            return httpx.Response(403, json={"error": "not yours"}, request=request)
        if request.url.path == "/api/repos/create":
            self.created = json.loads(request.content)
            return httpx.Response(200, json={"url": "https://huggingface.co/me/small"}, request=request)
        if "/preupload/" in request.url.path:
            paths = [file["path"] for file in json.loads(request.content)["files"]]
            modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
            return httpx.Response(200, json={"files": modes}, request=request)
        if "/commit/" in request.url.path:
            for line in map(json.loads, request.content.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            done = {"commitUrl": COMMIT, "commitOid": COMMIT[-40:], "success": True}
            return httpx.Response(200, json=done, request=request)
        return httpx.Response(200, json={}, request=request)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.set_client_factory(lambda: httpx.Client(transport=httpx.MockTransport(hub.answer)))
    yield hub
    huggingface_hub.set_client_factory(_http.default_client_factory)
    close_session()


@pytest.fixture
def bundle(bundles: dict[str, Path], tmp_path: Path) -> Path:
    shutil.copytree(bundles["int8"], tmp_path / "small")
    return tmp_path / "small"


def test_what_the_manifest_lists_and_the_model_card_are_sent(
    edgeclip_here: Callable[..., object], hub: Hub, bundle: Path
):
    write_model_card(bundle, name="me/small", licence="mit")
    (bundle / "notes.txt").write_text("nobody's business")
    done = edgeclip_here("push", bundle, "me/small", "--private")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == COMMIT
    assert hub.created["name"] == "small"
    assert hub.created["organization"] == "me"
    assert hub.created.get("private") or hub.created.get("visibility") == "private"
    assert hub.files.keys() == {MANIFEST, "README.md", *read_bundle(bundle).manifest.files}
    assert all((bundle / name).read_bytes() == content for name, content in hub.files.items())


def test_nothing_is_sent_of_what_is_no_whole_bundle(mistake: Callable[..., str], hub: Hub, bundle: Path):
    assert "edgeclip card" in mistake("push", bundle, "me/small")
    assert "user/name" in mistake("push", bundle, "small")
    graph = bundle / read_bundle(bundle).manifest.graphs["image"]
    data = bytearray(graph.read_bytes())
    data[-1] ^= 1
    graph.write_bytes(data)
    assert "which was changed" in mistake("push", bundle, "me/small")
    assert hub.asked == []


def test_a_hub_that_refuses_is_one_line(mistake: Callable[..., str], hub: Hub, bundle: Path):
    write_model_card(bundle, name="me/small", licence="mit")
    hub.refuses = True
    assert "me/small, which can't be uploaded" in mistake("push", bundle, "me/small")
