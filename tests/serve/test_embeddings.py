from __future__ import annotations

import base64
import io
import threading
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeclip.data.tabletop import render, sample_scene
from edgeclip.image import extras
from edgeclip.runtime import ClipRuntime
from edgeclip.tokenizer import ClipTokenizer
from tests.hostile.camera_files import heic
from tests.serve.conftest import Served


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(render(sample_scene("serve", 0, 0))).save(file, "PNG")
    return file.getvalue()


BASE64 = base64.b64encode(png()).decode()
URI = f"data:image/png;base64,{BASE64}"
TEXTS: dict[str, Any] = {
    "string": {"input": "a red ball"},
    "list": {"input": ["a red ball"], "model": "any", "user": "unknown fields are other servers'"},
    "jina": {"input": [{"text": "a red ball"}]},
    "infinity": {"input": ["a red ball"], "modality": "text"},
    "vllm": {"messages": [{"role": "user", "content": "a red ball"}]},
    "vllm, parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "a red ball"}]}]},
    "frigate": {"model": "m", "content": [{"prompt_string": "a red ball"}]},
    "llama.cpp": {"content": "a red ball"},
}
PICTURES: dict[str, Any] = {
    "jina, base64": {"input": [{"image": BASE64}]},
    "jina, data URI": {"input": {"image": URI}},
    "infinity": {"input": [URI], "modality": "image"},
    "vllm": {"messages": [{"content": [{"type": "image_url", "image_url": {"url": URI}}]}]},
    "frigate": {"content": [{"prompt_string": "<__media__>\n", "multimodal_data": [BASE64]}]},
    "llama.cpp": {"input": [{"type": "image", "image_url": {"url": URI}}]},
}
COHERE: dict[str, Any] = {
    "v1, texts": ("/v1/embed", {"texts": ["a red ball"], "input_type": "search_query"}, "text"),
    "v1, images": ("/v1/embed", {"images": [URI], "input_type": "image"}, "image"),
    "v2, texts": ("/v2/embed", {"texts": ["a red ball"], "embedding_types": ["float"]}, "text"),
    "v2, inputs": (
        "/v2/embed",
        {"inputs": [{"content": [{"type": "image_url", "image_url": {"url": URI}}]}], "embedding_types": ["float"]},
        "image",
    ),
}


@pytest.mark.parametrize("body", TEXTS.values(), ids=TEXTS)
def test_a_text_in_each_servers_shape(served: Served, clip: ClipRuntime, body: dict[str, Any]):
    answer = served().post("/v1/embeddings", json=body).json()
    assert (answer["object"], answer["model"]) == ("list", "builtin:tabletop")
    (row,) = answer["data"]
    np.testing.assert_allclose(row["embedding"], clip.encode_text("a red ball")[0], atol=1e-6)
    tokens = len(clip.bundle.tokenizer.token_ids(["a red ball"])[0])
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


@pytest.mark.parametrize("body", PICTURES.values(), ids=PICTURES)
def test_a_picture_in_each_servers_shape(served: Served, clip: ClipRuntime, body: dict[str, Any]):
    (row,) = served().post("/embeddings", json=body).json()["data"]
    np.testing.assert_allclose(row["embedding"], clip.encode_image(png())[0], atol=1e-6)


@pytest.mark.parametrize(("route", "body", "kind"), COHERE.values(), ids=COHERE)
def test_cohere(served: Served, clip: ClipRuntime, route: str, body: dict[str, Any], kind: str):
    answer = served().post(route, json=body).json()
    rows = answer["embeddings"] if route == "/v1/embed" else answer["embeddings"]["float"]
    expected = clip.encode_text("a red ball") if kind == "text" else clip.encode_image(png())
    np.testing.assert_allclose(rows, expected, atol=1e-6)


def test_texts_and_pictures_keep_their_order(served: Served, clip: ClipRuntime):
    answer = served().post("/v1/embeddings", json={"input": ["a", {"image": BASE64}, "b"]}).json()
    assert [row["index"] for row in answer["data"]] == [0, 1, 2]
    given = np.array([row["embedding"] for row in answer["data"]])
    expected = np.concatenate([clip.encode_text("a"), clip.encode_image(png()), clip.encode_text("b")])
    np.testing.assert_allclose(given, expected, atol=1e-6)


def test_base64_holds_little_endian_float32(served: Served, clip: ClipRuntime):
    body = {"input": "a red ball", "encoding_format": "base64"}
    (row,) = served().post("/v1/embeddings", json=body).json()["data"]
    given = np.frombuffer(base64.b64decode(row["embedding"]), "<f4")
    np.testing.assert_allclose(given, clip.encode_text("a red ball")[0], atol=1e-6)


def test_dimensions_keep_the_first_and_normalise_again(served: Served, clip: ClipRuntime):
    (row,) = served().post("/v1/embeddings", json={"input": "a red ball", "dimensions": 16}).json()["data"]
    cut = clip.encode_text("a red ball")[0, :16]
    np.testing.assert_allclose(row["embedding"], cut / np.linalg.norm(cut), atol=1e-6)


def test_labels_of_a_picture_sum_to_one(served: Served, clip: ClipRuntime):
    labels = ["ball", "box", "mug"]
    answer = served().post("/v1/classify", json={"input": [{"image": BASE64}], "labels": labels}).json()
    (expected,) = clip.classify(png(), labels)
    assert [row["label"] for row in answer["data"][0]["predictions"]] == [label.name for label in expected]
    assert answer["data"][0]["score"] == pytest.approx(expected[0].probability, abs=1e-5)
    assert sum(row["score"] for row in answer["data"][0]["predictions"]) == pytest.approx(1, abs=1e-5)


MISTAKES: dict[str, Any] = {
    "a URL": ({"input": [{"image": "http://127.0.0.1/a.jpg"}]}, 400, "fetches nothing"),
    "a file's URL": ({"input": ["file:///etc/passwd"], "modality": "image"}, 400, "fetches nothing"),
    "no base64": ({"input": [{"image": "!!!"}]}, 400, "no base64"),
    "no picture": ({"input": [{"image": base64.b64encode(b"text").decode()}]}, 400, "cannot be decoded"),
    "an empty picture": ({"input": [{"image": ""}]}, 400, "cannot be decoded"),
    "half a picture": ({"input": [{"image": BASE64[: len(BASE64) // 8 * 4]}]}, 400, "cannot be decoded"),
    "tokens": ({"input": [[1, 2, 3]]}, 422, "Expected"),
    "nothing": ({}, 400, "0 of"),
    "no inputs": ({"input": []}, 400, "0 inputs"),
    "an empty part": ({"input": [{}]}, 400, "0 texts and 0 pictures"),
    "both at once": ({"input": [{"text": "a", "image": BASE64}]}, 400, "1 texts and 1 pictures"),
    "text beside llama.cpp's picture": (
        {"content": [{"prompt_string": "<__media__> a cat", "multimodal_data": [BASE64]}]},
        400,
        "1 texts and 1 pictures",
    ),
    "too many dimensions": ({"input": "a", "dimensions": 100_000}, 400, "dimensions"),
    "negative dimensions": ({"input": "a", "dimensions": -1}, 400, "dimensions"),
    "an endless text": ({"input": "a" * 200_000}, 400, "200000 letters"),
    "too many": ({"input": ["a"] * 9}, 400, "9 inputs"),
    "another encoding": ({"input": "a", "encoding_format": "int3"}, 422, "int3"),
}


@pytest.mark.parametrize(("body", "status", "words"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_problems_of_one_line(served: Served, body: dict[str, Any], status: int, words: str):
    answer = served(max_inputs=8).post("/v1/embeddings", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    problem = answer.json()
    assert problem["status"] == status
    assert words in problem["detail"]
    assert problem["expected"]
    assert problem["fix"]
    assert len(problem["detail"].splitlines()) == 1
    assert "Traceback" not in answer.text


BODIES = {
    "no JSON": b"{",
    "no UTF-8": b'{"input": "\xff"}',
    "half a surrogate": b'{"input": "\\ud800"}',
    "deep": b'{"input": ' + b"[" * 100_000,
    "a list": b"[]",
    "nothing": b"",
    "not a number": b'{"input": "a", "dimensions": NaN}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_bodies_that_are_no_request(served: Served, body: bytes):
    assert served().post("/v1/embeddings", content=body).status_code in (400, 422)


def test_pictures_of_phones_are_read_where_the_extra_is_there(served: Served, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("pillow_heif")
    body = {"input": [{"image": base64.b64encode(heic(Image.new("RGB", (64, 48), "red"))).decode()}]}
    client = served()
    assert client.post("/v1/embeddings", json=body).status_code == 200
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    answer = client.post("/v1/embeddings", json=body)
    assert (answer.status_code, answer.json()["fix"]) == (400, "pip install 'edgeclip[heic]'")


def test_tokens_are_not_counted_where_requests_are_taken(served: Served, monkeypatch: pytest.MonkeyPatch):
    threads: set[str] = set()
    token_ids = ClipTokenizer.token_ids

    def noted(*arguments: object) -> object:
        threads.add(threading.current_thread().name.rpartition("_")[0])
        return token_ids(*arguments)

    client = served()
    monkeypatch.setattr(ClipTokenizer, "token_ids", noted)
    assert client.post("/v1/embeddings", json={"input": ["a red ball"]}).json()["usage"]["total_tokens"] > 3
    assert client.post("/v2/embed", json={"texts": ["a red ball"]}).status_code == 200
    assert client.post("/v1/classify", json={"input": ["a red ball"], "labels": ["ball"]}).status_code == 200
    assert threads == {"edgeclip-lane", "edgeclip-decode"}
