from __future__ import annotations

import base64
import io
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from edgeclip.data.tabletop import describe, render, sample_scene
from edgeclip.errors import DataError
from edgeclip.runtime import ClipRuntime
from edgeclip.search import Index
from edgeclip.serve.lane import Lane
from edgeclip.serve.searching import text_terms
from tests.serve.conftest import Served

COUNT = 12


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Pictures of the built-in world, in two folders."""
    for number in range(COUNT):
        path = tmp_path / "photos" / ("odd" if number % 2 else "even") / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(render(sample_scene("serve", 0, number))).save(path, compress_level=1)
    return tmp_path / "photos"


@pytest.fixture
def db(photos: Path, tmp_path: Path, clip: ClipRuntime) -> Path:
    with Index.open(tmp_path / "photos.db", clip) as index:
        index.add(photos, workers=0)
    return tmp_path / "photos.db"


@pytest.fixture
def client(served: Served, db: Path) -> TestClient:
    return served(db=db)


def found(client: TestClient, **body: Any) -> list[dict[str, Any]]:
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


def uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def test_each_part_of_a_query_has_a_turn_of_its_own(client: TestClient, photos: Path, monkeypatch: pytest.MonkeyPatch):
    turns: list[list[str]] = []
    run = Lane.run

    async def noted(lane: Lane, kind: str, work: Callable[[], Any]) -> Any:
        def in_turn() -> Any:
            turns.append([kind])
            return work()

        return await run(lane, kind, in_turn)

    def noting(name: str) -> Callable[..., Any]:
        encode = getattr(ClipRuntime, name)

        def encoded(*arguments: Any, **options: Any) -> Any:
            turns[-1].append(name)
            return encode(*arguments, **options)

        return encoded

    monkeypatch.setattr(Lane, "run", noted)
    for name in ("encode_text", "encode_image"):
        monkeypatch.setattr(ClipRuntime, name, noting(name))
    pictures = [{"image": uri(photos / "even" / f"0{number}.png"), "weight": 0.5} for number in (0, 2)]
    found(client, terms=[*pictures, {"text": "mug"}, {"text": "snow"}])
    assert turns == [["image", "encode_image"]] * 2 + [["text", "encode_text"]] * 2 + [["text"]]


def test_a_sentence_is_searched_as_the_index_does(client: TestClient, db: Path, clip: ClipRuntime):
    caption = describe(sample_scene("serve", 0, 3))[0]
    results = found(client, query=caption, k=5)
    with Index.open(db, clip) as index:
        expected = index.search(caption, k=5).results
    assert [row["path"] for row in results] == [row.path for row in expected]
    assert [row["score"] for row in results] == pytest.approx([row.score for row in expected], abs=1e-5)
    assert set(results[0]) == {"id", "path", "score", "taken", "width", "height", "alike"}


def test_a_picture_finds_itself_and_an_indexed_one_its_like(client: TestClient, photos: Path):
    path = photos / "odd" / "03.png"
    first, *others = found(client, image=uri(path))
    assert first["path"] == str(path)
    assert first["score"] > 0.99
    alike = found(client, similar=first["id"], k=3)
    assert str(path) not in [row["path"] for row in alike]
    assert alike[0]["path"] == others[0]["path"]


def test_parts_with_weights(client: TestClient, photos: Path):
    picture = uri(photos / "even" / "04.png")
    (first,) = found(client, terms=[{"image": picture, "weight": 2}, {"text": "a ball", "weight": -0.1}], k=1)
    assert first["path"].endswith("04.png")


def test_filters(client: TestClient, photos: Path):
    within = {"in": [str(photos / "odd")], "k": 100, "collapse": False}
    assert {Path(row["path"]).parent.name for row in found(client, query="a ball", **within)} == {"odd"}
    assert found(client, query="a ball", ext=["jpg"]) == []
    assert found(client, query="a ball", after="2999-01-01") == []


@pytest.mark.parametrize(
    ("query", "terms"),
    [
        ("horse + stripes", [(1, "horse"), (1, "stripes")]),
        ("apple - fruit", [(1, "apple"), (-1, "fruit")]),
        ("2:golden retriever - 0.5:pool", [(2, "golden retriever"), (-0.5, "pool")]),
        ("- fruit", [(-1, "fruit")]),
        ("black-and-white", [(1, "black-and-white")]),
        ("/etc/passwd + ./a.png", [(1, "/etc/passwd"), (1, "./a.png")]),
    ],
)
def test_words_are_never_files(query: str, terms: list[tuple[float, str]]):
    assert text_terms(query) == terms


MISTAKES: dict[str, Any] = {
    "nothing": ({}, 400),
    "empty": ({"query": ""}, 400),
    "blank": ({"query": " \t"}, 400),
    "an operator alone": ({"query": "+"}, 400),
    "two at once": ({"query": "a", "similar": 1}, 400),
    "no such picture": ({"similar": 10**9}, 404),
    "a number beyond all": ({"similar": 2**70}, 404),
    "a negative one": ({"similar": -1}, 404),
    "no results wanted": ({"query": "a", "k": 0}, 422),
    "too many": ({"query": "a", "k": 10**6}, 422),
    "no date": ({"query": "a", "after": "soon"}, 400),
    "a folder that is none": ({"query": "a", "in": ["\0"]}, 400),
    "no weight": ({"terms": [{"text": "a", "weight": 0}]}, 400),
    "an endless query": ({"query": "a" * 50_000}, 400),
    "endless parts": ({"query": "a + " * 5000 + "a"}, 400),
    "a URL": ({"image": "http://127.0.0.1/a.png"}, 400),
    "no picture": ({"image": "aGVsbG8="}, 400),
}


@pytest.mark.parametrize(("body", "status"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(client: TestClient, body: dict[str, Any], status: int):
    answer = client.post("/v1/search", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_without_an_index_there_is_no_search(served: Served):
    client = served()
    assert client.post("/v1/search", json={"query": "a"}).status_code == 404
    assert client.get("/v1/photos/1/thumbnail").status_code == 404
    assert client.get("/").json() == {"message": "Immich ML"}


def test_an_index_that_is_not_there_is_not_made(served: Served, tmp_path: Path):
    with pytest.raises(DataError, match="no index"):
        served(db=tmp_path / "other.db")
    assert not (tmp_path / "other.db").exists()


def test_thumbnails_are_small_upright_without_metadata_and_kept(client: TestClient, db: Path, tmp_path: Path):
    path = tmp_path / "photos" / "large.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    exif[0x010E] = "a private note"
    Image.effect_noise((1000, 500), 40).convert("RGB").save(path, exif=exif)
    with Index.open(db) as index:
        index.add(tmp_path / "photos", workers=0)
    (row,) = [row for row in found(client, query="a ball", k=100, collapse=False) if row["path"] == str(path)]
    answer = client.get(f"/v1/photos/{row['id']}/thumbnail")
    assert answer.headers["content-type"] == "image/jpeg"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert (image.size, len(image.getexif())) == ((200, 400), 0)
    assert b"private" not in answer.content
    kept = list((tmp_path / "photos.db.thumbnails").iterdir())
    assert [file.read_bytes() for file in kept] == [answer.content]
    path.unlink()
    assert client.get(f"/v1/photos/{row['id']}/thumbnail").status_code == 404


def test_a_picture_whose_name_leads_elsewhere_by_now_is_not_served(client: TestClient, photos: Path, tmp_path: Path):
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    row = found(client, query="a ball", k=1)[0]
    Path(row["path"]).unlink()
    Path(row["path"]).symlink_to(secret)
    assert client.get(f"/v1/photos/{row['id']}/preview").status_code == 404
    folder = Path(row["path"]).parent
    (other,) = found(
        client, query="a ball", k=1, **{"in": [str(photos / ("odd" if folder.name == "even" else "even"))]}
    )
    moved = tmp_path / "moved"
    Path(other["path"]).parent.rename(moved)
    Path(other["path"]).parent.symlink_to(moved)
    assert client.get(f"/v1/photos/{other['id']}/thumbnail").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/photos/0", "/v1/photos/-1", "/v1/photos/1.0", "/v1/photos/\u0661", f"/v1/photos/{'9' * 5000}"),
        *("/v1/photos/1/original", "/v1/photos/..%2f..%2fetc%2fpasswd/thumbnail", "/v1/photos/%2e%2e/thumbnail"),
        *("/static/../app.py", "/static/%2e%2e%2fapp.py", "/static/..%5capp.py", "/static//etc/passwd", "/static/"),
        *("/etc/passwd", "//etc/passwd", "/photos.db"),
    ],
)
def test_what_is_not_served_is_not_there(client: TestClient, path: str):
    assert client.get(path).status_code == 404


def test_the_page_loads_nothing_from_elsewhere(client: TestClient):
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "script-src 'self'" in page.headers["content-security-policy"]
    for name in ("page.js", "page.css", "icon.svg"):
        file = client.get(f"/static/{name}")
        assert (file.status_code, "http" in file.text.replace("http://www.w3.org", "")) == (200, False)
    assert "http" not in page.text


def test_what_is_in_the_index(client: TestClient, photos: Path):
    about = client.get("/v1/index").json()
    assert (about["photos"], about["roots"], about["model"]) == (COUNT, [str(photos)], "builtin:tabletop")


def test_an_index_that_grows_or_is_made_anew_meanwhile_is_followed(client: TestClient, db: Path, photos: Path):
    caption = describe(sample_scene("serve", 0, 3))[0]
    before = [row["path"] for row in found(client, query=caption, k=5)]
    Image.fromarray(render(sample_scene("serve", 0, COUNT))).save(photos / "new.png")
    with Index.open(db) as index:
        index.add(photos, workers=0)
    new = found(client, query=describe(sample_scene("serve", 0, COUNT))[0], k=1)
    assert new[0]["path"] == str(photos / "new.png")
    (photos / "new.png").unlink()
    with Index.open(db) as index:
        index.prune()
    Index.reindex(db, workers=0)
    rows = found(client, query=caption, k=5)
    assert [row["path"] for row in rows] == before
    assert client.get(f"/v1/photos/{rows[0]['id']}/thumbnail").status_code == 200
    assert found(client, similar=rows[0]["id"], k=1)


@pytest.mark.parametrize(("route", "body"), [("/v1/search", {"query": "a ball"}), ("/v1/index", None)])
def test_an_index_of_another_bundle_by_now_is_one_problem(
    client: TestClient, db: Path, route: str, body: dict[str, Any] | None
):
    with closing(sqlite3.connect(db)) as connection, connection:
        connection.execute("UPDATE meta SET value = 'ffff' WHERE key = 'fingerprint'")
        connection.execute("UPDATE meta SET value = 'ffff' WHERE key = 'uuid'")
    answer = client.post(route, json=body) if body else client.get(route)
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert answer.json()["fix"] == "start the server again, with the index's bundle"
    assert str(db) not in answer.text
    assert client.post("/v1/embeddings", json={"input": "a ball"}).status_code == 200


def test_thumbnails_of_what_is_gone_or_has_changed_go_with_prune(client: TestClient, db: Path, tmp_path: Path):
    rows = found(client, query="a ball", k=3, collapse=False)
    for row in rows:
        client.get(f"/v1/photos/{row['id']}/thumbnail")
    kept = tmp_path / "photos.db.thumbnails"
    (kept / "notes.txt").write_text("not ours")
    assert len(list(kept.glob("*.jpg"))) == 3
    Path(rows[0]["path"]).unlink()
    Image.new("RGB", (9, 9)).save(rows[1]["path"])
    with Index.open(db) as index:
        index.add(tmp_path / "photos", workers=0)
        index.prune()
    (left,) = kept.glob("*.jpg")
    assert left.read_bytes() == client.get(f"/v1/photos/{rows[2]['id']}/thumbnail").content
    assert (kept / "notes.txt").exists()
