"""A server process, and the clients that others wrote: OpenAI's, Node's fetch as Immich calls it, a browser."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgeclip as library
from edgeclip.data.tabletop import describe, render, sample_scene
from tests.e2e.step_by_step import untraced

ROOT = Path(__file__).parents[2]
NODE = ROOT / "tests" / "node"
NAME, TOKEN = "ViT-B-32__openai", "a-token-of-this-test"
SCENES = 30
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def serving(
    *arguments: object, bundle: Sequence[str] = ("builtin:tabletop", "--port", "0", "--log-json"), **variables: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server on a free port: its URL, and its process, which is ended here."""
    command = [sys.executable, "-m", "edgeclip", "serve", *bundle, *map(str, arguments)]
    environment = untraced() | variables
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            lines = iter(process.stderr.readline, "")
            url = next(found[0] for line in lines if (found := re.search(r"http://[\d.]+:\d+", line)))
            yield url, process
        finally:
            process.terminate()
            process.stderr.read()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(SCENES):
        path = folder / ("odd" if number % 2 else "even") / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(render(sample_scene("serve", 0, number))).save(path, compress_level=1)
    return folder


@pytest.fixture(scope="module")
def server(edgeclip: Callable[..., Any], photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    db = tmp_path_factory.mktemp("index") / "photos.db"
    done = edgeclip("index", photos, "--db", db, "--bundle", "builtin:tabletop")
    assert done.returncode == 0, done.stderr
    with serving("--db", db, "--immich-name", NAME) as (url, _):
        yield url


def test_openais_client(server: str):
    openai = pytest.importorskip("openai")
    texts = ["a red ball", "two blue boxes on the grass"]
    expected = library.load("builtin:tabletop", threads=1).encode_text(texts)
    with openai.OpenAI(base_url=f"{server}/v1", api_key="none") as client:
        for options in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
            answer = client.embeddings.create(model="clip", input=texts, **options)
            rows = [row.embedding for row in answer.data]
            if options.get("encoding_format") != "base64":
                np.testing.assert_allclose(rows, expected, atol=1e-6)
        assert len(client.embeddings.create(model="clip", input="a", dimensions=32).data[0].embedding) == 32
        assert [model.id for model in client.models.list()] == ["builtin:tabletop"]
        with pytest.raises(openai.BadRequestError, match="dimensions"):
            client.embeddings.create(model="clip", input="a", dimensions=10_000)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_immich_by_nodes_fetch(server: str, photos: Path):
    images = sorted(photos.rglob("*.png"))[:3]
    request = {"url": server, "name": NAME, "images": list(map(str, images)), "texts": ["a red ball", "ein Bär 🐻"]}
    done = subprocess.run(
        ["node", "immich.mjs"], input=json.dumps(request), capture_output=True, text=True, cwd=NODE, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["ping"] == {"ok": True, "text": "pong"}
    clip = library.load("builtin:tabletop", threads=1)
    for given, expected in (
        (answer["images"], clip.encode_image(images)),
        (answer["texts"], clip.encode_text(request["texts"])),
    ):
        assert [row["status"] for row in given] == [200] * len(expected)
        np.testing.assert_allclose([json.loads(row["body"]["clip"]) for row in given], expected, atol=1e-6)
    assert {(row["body"]["imageHeight"], row["body"]["imageWidth"]) for row in answer["images"]} == {(224, 224)}
    assert (answer["faces"]["status"], answer["faces"]["body"]["facial-recognition"]) == (200, [])
    assert answer["other"]["status"] == 404


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_page_in_a_browser(server: str, photos: Path):
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 700})
        trouble: list[str] = []
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("console", lambda said: trouble.append(said.text) if said.type == "error" else None)
        page.on("request", lambda asked: None if asked.url.startswith((server, "blob:")) else trouble.append(asked.url))
        page.goto(server)
        page.get_by_text(f"{SCENES} pictures").wait_for()
        page.keyboard.type(describe(sample_scene("serve", 0, 3))[0])
        page.keyboard.press("Enter")
        page.locator("#grid button").first.wait_for()
        assert page.locator("#grid img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") == 224

        page.keyboard.press("Tab")
        page.locator("#grid button").first.focus()
        page.keyboard.press("ArrowRight")
        second = page.evaluate("document.activeElement.title")
        page.keyboard.press("Enter")
        assert page.locator("#name").inner_text() == Path(second).name
        assert page.locator("#place").inner_text() == str(Path(second).parent)
        page.keyboard.press("m")
        page.get_by_text("More like this picture").wait_for()
        page.wait_for_function(
            "title => ![...document.querySelectorAll('#grid button')].some(b => b.title === title)", arg=second
        )

        page.set_input_files("#file", photos / "odd" / "05.png")
        page.get_by_text("Like the picture you gave").wait_for()
        page.wait_for_function("() => document.querySelector('#grid button')?.title.endsWith('odd/05.png')")
        page.go_back()
        page.get_by_text("More like this picture").wait_for()
        page.goto(f"{server}/#q=ball&ext=gif")
        page.get_by_text("No pictures").wait_for()
        browser.close()
    assert trouble == []


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_page_asks_for_the_token(photos: Path, edgeclip: Callable[..., Any], tmp_path: Path):
    playwright = pytest.importorskip("playwright.sync_api")
    edgeclip("index", photos / "odd", "--db", tmp_path / "photos.db", "--bundle", "builtin:tabletop")
    with (
        serving("--db", tmp_path / "photos.db", EDGECLIP_TOKEN=TOKEN) as (url, _),
        playwright.sync_playwright() as tools,
    ):
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{url}/#q=a+red+ball+on+the+table")
        for token in ("wrong", TOKEN):
            page.locator("#login[open] #token").fill(token)
            page.keyboard.press("Enter")
        image = page.locator("#grid img, #state button").first
        image.wait_for()
        page.goto(f"{url}/#q=a+ball")
        assert page.evaluate("fetch('/v1/photos/1/thumbnail').then(answer => answer.status)") == 200
        browser.close()


def test_what_was_accepted_is_finished():
    body = json.dumps({"input": ["a red ball on the table"] * 1500}).encode()
    with serving("--threads", 1) as (url, process):
        answers: list[int] = []

        def ask() -> None:
            with urllib.request.urlopen(f"{url}/v1/embeddings", body) as answer:  # noqa: S310
                answers.append(len(json.load(answer)["data"]))

        asking = threading.Thread(target=ask)
        asking.start()
        while asking.is_alive():
            with urllib.request.urlopen(f"{url}/metrics") as figures:  # noqa: S310
                if b"edgeclip_requests_at_work 1.0" in figures.read():
                    break
        process.send_signal(signal.SIGTERM)
        asking.join()
        assert answers == [1500]
        assert process.wait() == 0


def test_the_containers_commands():
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    said = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines if line and not line.startswith("#")}
    assert said["USER"] not in ("root", "0")
    _, _, *arguments = json.loads(said["ENTRYPOINT"]) + json.loads(said["CMD"])
    assert arguments[arguments.index("--port") + 1] == said["EXPOSE"]
    arguments[arguments.index("--port") + 1] = "0"
    _, program, code = json.loads(re.search(r"\[.*\]", said["HEALTHCHECK"])[0])
    with serving(*arguments, bundle=()) as (url, _):
        health = [sys.executable, program, code.replace(f"127.0.0.1:{said['EXPOSE']}", url.removeprefix("http://"))]
        assert subprocess.run(health, check=False).returncode == 0
    assert subprocess.run(health, capture_output=True, check=False).returncode == 1


def test_an_address_in_use_is_one_line(server: str, edgeclip: Callable[..., Any]):
    done = edgeclip("serve", "builtin:tabletop", "--port", server.rpartition(":")[2])
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "--port" in done.stderr
