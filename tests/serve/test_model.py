from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from edgeclip.errors import BundleError, ConfigError
from edgeclip.runtime import ClipRuntime
from edgeclip.serve.model import Model
from edgeclip.serve.run import listening
from edgeclip.serve.serve_settings import ServeSettings
from edgeclip.serve.systemd import unit
from tests.serve.conftest import Served

TEXT = {"input": "a red ball"}


def test_graphs_are_given_back_when_idle_and_opened_again(served: Served, clip: ClipRuntime):
    client = served(idle_unload=1)
    before = client.post("/v1/embeddings", json=TEXT).json()
    model: Model = client.app.state.model  # type: ignore[attr-defined]
    while model.clip.open_graphs:  # the text's, until it is idle for so long
        time.sleep(0.05)
    assert not model.clip.closed
    assert client.post("/v1/embeddings", json=TEXT).json() == before


def test_labels_are_encoded_once(served: Served):
    client = served()
    for _ in range(3):
        client.post("/v1/classify", json={"input": ["a red ball"], "labels": ["ball", "box"], "template": "{}"})
    assert 'edgeclip_encode_seconds_count{tower="text"} 3.0' in client.get("/metrics").text


def test_a_bundle_that_breaks_is_the_servers_mistake(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def broken(*_: object, **__: object) -> None:
        raise BundleError("/home/someone/bundle", expected="a graph", fix="copy it again")

    client = served()
    monkeypatch.setattr(ClipRuntime, "encode_text", broken)
    answer = client.post("/v1/embeddings", json=TEXT)
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "someone" not in answer.text
    assert "someone" in caplog.text


def test_a_bug_is_no_traceback(served: Served, monkeypatch: pytest.MonkeyPatch):
    client = served()
    monkeypatch.setattr(ClipRuntime, "encode_text", lambda *_, **__: 1 // 0)
    answer = client.post("/v1/embeddings", json=TEXT)
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "division" not in answer.text
    assert client.get("/healthz").status_code == 200


def test_frigate_finds_the_model_and_its_marker(served: Served, clip: ClipRuntime):
    client = served()
    (model,) = client.get("/v1/models").json()["data"]
    assert {model["id"], *model["aliases"]} == {"builtin:tabletop", "edgeclip"}
    assert "image" in model["architecture"]["input_modalities"]
    assert model["meta"] == {"n_ctx": clip.bundle.config.text.context_length, "n_embd": clip.embedding_size}
    props = client.get("/props", params={"model": "edgeclip"}).json()
    assert props["modalities"]["vision"]
    assert props["media_marker"] == "<__media__>"


def test_a_systemd_unit_repeats_the_options(tmp_path: Path):
    settings = ServeSettings(
        bundle="builtin:tabletop", db=tmp_path / "my 100%.db", token_file=tmp_path / "$token", port=9000, timeout=30
    )
    lines = unit(settings).splitlines()
    (command,) = [line for line in lines if line.startswith("ExecStart=")]
    assert command.endswith(
        f'serve builtin:tabletop --db "{tmp_path}/my 100%%.db" --port 9000 --timeout 30 --token-file %d/token'
    )
    assert f"LoadCredential=token:{tmp_path}/$token" in lines
    assert f"ReadWritePaths={tmp_path}" in lines
    assert "TimeoutStopSec=40" in lines
    assert "DynamicUser=yes" not in lines
    assert "DynamicUser=yes" in unit(ServeSettings(bundle="builtin:tabletop")).splitlines()


def test_answers_leave_at_once():
    with listening(ServeSettings(bundle="builtin:tabletop", port=0)) as server:
        assert server.proto == socket.IPPROTO_TCP  # which asyncio asks for, to switch Nagle's algorithm off
        with pytest.raises(ConfigError, match="`port`"):
            listening(ServeSettings(bundle="builtin:tabletop", port=server.getsockname()[1]))
    with pytest.raises(ConfigError, match="`host`"):
        listening(ServeSettings(bundle="builtin:tabletop", host="192.0.2.1"))
