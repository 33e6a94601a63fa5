"""Requests as Immich's server makes them; those of a real Node are in tests/e2e/test_serve.py."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from edgeclip.errors import ConfigError
from edgeclip.runtime import ClipRuntime
from edgeclip.serve.immich import clean_name
from tests.serve.conftest import Served

NAME = "ViT-B-32__openai"
TEXT = {"clip": {"textual": {"modelName": NAME, "options": {"language": "en-null"}}}}
IMAGE = {"clip": {"visual": {"modelName": NAME}}}
FACES = {
    "facial-recognition": {
        "detection": {"modelName": "buffalo_l", "options": {"minScore": 0.7}},
        "recognition": {"modelName": "buffalo_l"},
    }
}
OCR = {"ocr": {"detection": {"modelName": "PP"}, "recognition": {"modelName": "PP", "options": {"minScore": 0.5}}}}
BOUNDARY = "----formdata-undici-0123"


def preview(kind: str = "WEBP") -> bytes:
    file = io.BytesIO()
    Image.effect_noise((40, 30), 80).convert("RGB").save(file, kind)
    return file.getvalue()


def form(entries: Any, *, text: str | None = None, image: bytes | None = None, head: str = "") -> dict[str, Any]:
    """A form as Node's FormData writes it, or, without `head`, with a picture that has neither name nor type."""
    parts = [("entries", "", (entries if isinstance(entries, str) else json.dumps(entries)).encode())]
    parts += [("text", "", text.encode())] if text is not None else []
    parts += [("image", head, image)] if image is not None else []
    body = b"".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value + b"\r\n"
        for name, more, value in parts
    )
    content_type = f"multipart/form-data; boundary={BOUNDARY}"
    return {"content": body + f"--{BOUNDARY}--\r\n".encode(), "headers": {"Content-Type": content_type}}


@pytest.fixture
def immich(served: Served) -> TestClient:
    return served(immich_name=NAME)


def test_ping(immich: TestClient):
    answer = immich.get("/ping")
    assert (answer.text, answer.headers["content-type"].split(";")[0]) == ("pong", "text/plain")


def test_a_text_is_a_string_of_json(immich: TestClient, clip: ClipRuntime):
    answer = immich.post("/predict", **form(TEXT, text="a rød ball")).json()
    assert set(answer) == {"clip"}
    assert isinstance(answer["clip"], str)
    np.testing.assert_allclose(json.loads(answer["clip"]), clip.encode_text("a rød ball")[0], atol=1e-6)


@pytest.mark.parametrize(
    "head", ["", '; filename="blob"\r\nContent-Type: application/octet-stream'], ids=["bare", "node"]
)
@pytest.mark.parametrize("kind", ["WEBP", "JPEG"])
def test_a_picture_has_its_size_beside_it(immich: TestClient, clip: ClipRuntime, head: str, kind: str):
    answer = immich.post("/predict", **form(IMAGE, image=preview(kind), head=head)).json()
    assert (answer["imageHeight"], answer["imageWidth"]) == (30, 40)
    assert np.linalg.norm(json.loads(answer["clip"])) == pytest.approx(1, abs=1e-5)
    assert len(json.loads(answer["clip"])) == clip.embedding_size


@pytest.mark.parametrize("name", ["ViT-L-14__openai", "", "ViT-B-32"])
def test_another_models_name_is_refused(immich: TestClient, caplog: pytest.LogCaptureFixture, name: str):
    answer = immich.post("/predict", **form({"clip": {"textual": {"modelName": name}}}, text="a"))
    assert answer.status_code == 404
    assert NAME in answer.json()["detail"]
    assert "Smart Search" in caplog.text


def test_without_a_name_nothing_is_answered_for(served: Served):
    assert served().post("/predict", **form(TEXT, text="a")).status_code == 404


def test_names_are_cleaned_as_immich_does():
    assert clean_name("immich-app/XLM-Roberta.Large:Vit\\B") == "XLM-RobertaLarge_Vit_B"


def test_a_cleaned_name_is_the_same(served: Served):
    client = served(immich_name="immich-app/ViT-B-16.x__a:b")
    entries = {"clip": {"textual": {"modelName": "ViT-B-16x__a_b"}}}
    assert client.post("/predict", **form(entries, text="a")).status_code == 200


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        (FACES, {"facial-recognition": []}),
        (OCR, {"ocr": {"text": [], "box": [], "boxScore": [], "textScore": []}}),
    ],
    ids=["faces", "ocr"],
)
def test_faces_and_texts_are_not_found_and_said_once(
    immich: TestClient, caplog: pytest.LogCaptureFixture, entries: Any, found: Any
):
    for _ in range(2):
        answer = immich.post("/predict", **form(entries, image=preview()))
        assert (answer.status_code, answer.json()) == (200, found | {"imageHeight": 30, "imageWidth": 40})
    assert sum("disable" in message for message in caplog.messages) == 1


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (form("{"), 422),
        (form("[]"), 422),
        (form("{}"), 422),
        (form({"clip": {}}, text="a"), 422),
        (form({"clip": {"textual": {}}}, text="a"), 422),
        (form({"clip": {"textual": {"modelName": 3}}}, text="a"), 422),
        (form({"sound": {"x": {"modelName": "a"}}}, text="a"), 422),
        (form(TEXT), 400),
        (form(IMAGE, image=b""), 400),
        (form(IMAGE, image=b"no picture"), 400),
        ({"content": b"", "headers": {"Content-Type": "multipart/form-data"}}, 422),
        ({"content": b"junk", "headers": {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}}, 422),
        ({"content": b"junk", "headers": {"Content-Type": b"\xff"}}, 422),
        ({"content": b"entries=%7B%7D", "headers": {"Content-Type": "application/x-www-form-urlencoded"}}, 422),
        ({"content": b"junk", "headers": {"Content-Type": "application/octet-stream"}}, 422),
        ({"json": TEXT}, 422),
        (
            {
                "content": f"--{BOUNDARY}\r\nContent-Disposition: form-data\r\n\r\nx\r\n--{BOUNDARY}--\r\n".encode(),
                "headers": {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"},
            },
            422,
        ),
    ],
)
def test_what_is_no_request(immich: TestClient, given: dict[str, Any], status: int):
    answer = immich.post("/predict", **given)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


@pytest.fixture
def upstream() -> Iterator[tuple[str, list[bytes]]]:
    """Immich's own server, which answers 418 to OCR; its URL, and the bodies that it gets."""
    got: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(418 if b'"ocr"' in got[-1] else 200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b'{"facial-recognition":[1]}')

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", got
    server.shutdown()
    thread.join()
    server.server_close()


def test_other_tasks_are_passed_on_byte_for_byte(served: Served, upstream: tuple[str, list[bytes]]):
    url, got = upstream
    client = served(immich_name=NAME, immich_upstream=url)
    given = form(FACES, image=preview())
    answer = client.post("/predict", **given)
    assert (answer.status_code, answer.content) == (200, b'{"facial-recognition":[1]}')
    assert got == [given["content"]]
    assert client.post("/predict", **form(OCR, image=preview())).status_code == 418
    assert client.post("/predict", **form(TEXT, text="a")).status_code == 200
    assert len(got) == 2


def test_an_upstream_that_is_not_there(served: Served):
    client = served(immich_name=NAME, immich_upstream="http://127.0.0.1:9")
    assert client.post("/predict", **form(FACES, image=preview())).status_code == 502
    with pytest.raises(ConfigError, match="immich_upstream"):
        served(immich_upstream="file:///etc/passwd")
