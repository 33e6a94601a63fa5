from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from edgeclip.errors import ConfigError
from edgeclip.runtime import ClipRuntime
from tests.serve.conftest import Served

TOKEN = "fKq9-x_2"
TEXT = {"input": "a red ball"}


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    return file


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": f"Bearer {TOKEN}x"}, 401),
        ({"Authorization": f"Basic {TOKEN}"}, 401),
        ({"Authorization": "Bearer ä".encode("latin-1")}, 401),
        ({"Cookie": "edgeclip_token=other"}, 401),
        ({"Cookie": "=;;;\x01"}, 401),
        ({"Authorization": f"Bearer {TOKEN}"}, 200),
        ({"Authorization": f"bearer {TOKEN}"}, 200),
        ({"Cookie": f"theme=dark; edgeclip_token={TOKEN}"}, 200),
    ],
)
def test_only_who_has_the_token_is_served(served: Served, token_file: Path, headers: dict[str, str], status: int):
    answer = served(token_file=token_file).post("/v1/embeddings", json=TEXT, headers=headers)
    assert answer.status_code == status
    assert ("www-authenticate" in answer.headers) == (status == 401)


def test_a_token_of_the_environment(served: Served, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EDGECLIP_TOKEN", TOKEN)
    client = served()
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert [client.get(path).status_code for path in ("/healthz", "/readyz", "/ping")] == [200, 200, 200]


@pytest.mark.parametrize("content", ["", " \n", "two words", "sch\u00f6n"])
def test_a_token_that_no_header_can_hold_is_refused(served: Served, tmp_path: Path, content: str):
    (tmp_path / "token").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match="token_urlsafe"):
        served(token_file=tmp_path / "token")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(("localhost:8000", 200), ("127.0.0.1", 200), ("[::1]:8000", 200), ("LOCALHOST", 200)),
        *(("photos.example", 421), ("photos.example:8000", 421), ("", 421), ("127.0.0.1.example", 421)),
    ],
)
def test_a_name_that_was_made_to_lead_here_is_refused(served: Served, host: str, status: int):
    assert served().get("/healthz", headers={"Host": host}).status_code == status


def test_other_machines_use_whatever_name_where_they_may_come_at_all(served: Served):
    assert served(host="0.0.0.0").get("/healthz", headers={"Host": "pi.lan:8000"}).status_code == 200  # noqa: S104


def test_bodies_end(served: Served):
    client = served(max_body_mb=1)
    assert client.post("/v1/embeddings", content=b"x" * 1_000_001).status_code == 413
    pieces = client.post("/v1/embeddings", content=(b"x" * 100_000 for _ in range(11)))
    assert (pieces.status_code, pieces.json()["title"]) == (413, "Request Entity Too Large")


def test_what_takes_too_long_is_given_up(served: Served, monkeypatch: pytest.MonkeyPatch):
    go_on = threading.Event()
    encode = ClipRuntime.encode_text
    monkeypatch.setattr(ClipRuntime, "encode_text", lambda *given, **named: go_on.wait() and encode(*given, **named))
    client = served(timeout=1)
    answer = client.post("/v1/embeddings", json=TEXT)
    go_on.set()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert client.post("/v1/embeddings", json=TEXT).status_code == 200


def test_one_more_than_there_is_room_for_is_told_to_come_back(served: Served, monkeypatch: pytest.MonkeyPatch):
    begun, go_on = threading.Event(), threading.Event()
    encode = ClipRuntime.encode_text

    def slow(*given: object, **named: object) -> object:
        begun.set()
        go_on.wait()
        return encode(*given, **named)

    monkeypatch.setattr(ClipRuntime, "encode_text", slow)
    client = served(queue=1)
    first: list[int] = []
    thread = threading.Thread(target=lambda: first.append(client.post("/v1/embeddings", json=TEXT).status_code))
    thread.start()
    begun.wait()
    busy = client.post("/v1/embeddings", json=TEXT)
    assert (busy.status_code, busy.headers["retry-after"]) == (429, "1")
    assert (client.get("/readyz").status_code, client.get("/healthz").status_code) == (503, 200)
    go_on.set()
    thread.join()
    assert first == [200]


def test_nothing_of_a_page_elsewhere_is_allowed(served: Served):
    headers = served().get("/nowhere").headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/a%0Ab", 404), ("GET", "/predict", 405)])
def test_routes_that_are_not_there_are_problems(served: Served, method: str, path: str, status: int):
    answer = served().request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_figures_and_the_log_tell_of_each_request(served: Served, caplog: pytest.LogCaptureFixture):
    client = served()
    with caplog.at_level(logging.INFO, "edgeclip.serve"):
        client.post("/v1/embeddings", json={"input": ["a secret", "b"]})
        client.get("/no%0Awhere?a=secret")
    figures = client.get("/metrics").text
    assert 'edgeclip_requests_total{route="/v1/embeddings",status="200"} 1.0' in figures
    assert 'edgeclip_requests_total{route="none",status="404"} 1.0' in figures
    assert 'edgeclip_encode_seconds_count{tower="text"} 2.0' in figures
    assert len(caplog.messages) == 2
    assert "POST '/v1/embeddings' 200" in caplog.messages[0]
    assert not any("secret" in message or "\n" in message for message in caplog.messages)


def test_openapi_names_what_is_taken(served: Served):
    document = served().get("/openapi.json").json()
    assert {"/v1/embeddings", "/v1/classify", "/v2/embed", "/predict", "/metrics"} <= set(document["paths"])
    body = document["paths"]["/v1/embeddings"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["$ref"].rsplit("/", 1)[1] in document["components"]["schemas"]
