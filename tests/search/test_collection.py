"""An index copied to a Qdrant collection, by the client's own local mode, and what is said of servers that are none."""

from __future__ import annotations

import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from edgeclip.errors import ConfigError, DataError, InputError
from edgeclip.runtime import ClipRuntime
from edgeclip.search import Collection, Filters, Index, collection, copying, points
from edgeclip.search.qdrant import Address, address_of
from tests.search.conftest import caption, draw

TO = "qdrant://localhost/photos"
Client = Callable[[], QdrantClient]
pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    """In place of a server, a folder, to which one client at a time connects."""

    def connect(*_: object) -> QdrantClient:
        return QdrantClient(path=str(tmp_path / "qdrant"))

    for module in (copying, collection):
        monkeypatch.setattr(module, "connected", connect)
    return connect


def paths(client: Client) -> list[str]:
    with closing(client()) as opened:
        return sorted(point.payload["path"] for point in opened.scroll("photos", limit=1000)[0])


def test_results_are_those_of_the_index(index: Index, client: Client, clip: ClipRuntime, scenes: Path):
    added = index.add(scenes, to=TO)
    assert (added.encoded, added.written, added.withdrawn) == (24, 24, 0)
    queries = [caption(3), scenes / "even" / "02.png", [(2.0, scenes / "odd" / "03.png"), (-1.0, "a red mug")]]
    with Collection.open(TO, clip) as there:
        for query in queries:
            for filters in (Filters(), Filters(in_=[str(scenes / "odd")], ext=[".PNG"], after="2020")):
                expected, found = (store.search(query, k=24, filters=filters).results for store in (index, there))
                assert [result.path for result in found] == [result.path for result in expected]
                np.testing.assert_allclose([r.score for r in found], [r.score for r in expected], atol=1e-3)
                assert [(r.taken, r.width, r.height) for r in found] == [(r.taken, r.width, r.height) for r in expected]
        for nothing in (Filters(ext=["jpg"]), Filters(before="1990"), Filters(in_=[str(scenes / "od")])):
            assert there.search(caption(3), filters=nothing).results == ()


def test_what_a_point_says(index: Index, client: Client, clip: ClipRuntime, tmp_path: Path):
    path = draw(tmp_path / "a" / "é.PNG", 1)
    index.add(tmp_path / "a", to=TO)
    with closing(client()) as opened:
        (point,) = opened.scroll("photos", with_vectors=True)[0]
    ((content,),) = index._database.rows("SELECT lower(hex(hash)) FROM vectors")
    payload = point.payload
    assert len(payload.pop("source")) == 32
    assert payload == {
        "path": str(path),
        "size": path.stat().st_size,
        "mtime_ns": path.stat().st_mtime_ns,
        "hash": content,
        "taken": path.stat().st_mtime_ns / 1e9,
        "width": 224,
        "height": 224,
        "folders": [str(folder) for folder in path.parents],
        "suffix": "png",
        "fingerprint": clip.bundle.manifest.fingerprint,
        "bundle": str(clip.bundle.folder.resolve()),
    }
    np.testing.assert_allclose(point.vector, clip.encode_image(path)[0], atol=1e-3)


def test_only_what_has_changed_is_sent(index: Index, client: Client, encoded: list[int], tmp_path: Path):
    folder = tmp_path / "pictures"
    for number in range(6):
        draw(folder / f"{number}.png", number)
    index.add(folder, to=TO)
    added = index.add(folder, to=TO)
    assert (len(encoded), added.written, added.withdrawn) == (6, 0, 0)
    (folder / "0.png").rename(folder / "moved.png")  # its row follows it
    (folder / "1.png").unlink()
    draw(folder / "6.png", 6)
    added = index.add(folder, to=TO)
    assert (len(encoded), added.written, added.withdrawn) == (7, 2, 1)
    index.prune()
    added = index.add(folder, to=TO)
    assert (len(encoded), added.written, added.withdrawn) == (7, 0, 1)
    assert paths(client) == sorted(str(path) for path in folder.iterdir())


def test_a_copy_that_was_interrupted_goes_on(
    index: Index, client: Client, scenes: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(copying, "BATCH", 10)
    write = points.Points.write
    calls: list[int] = []

    def killed(*arguments: object) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(points.Points, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        index.add(scenes, to=TO)
    assert len(paths(client)) == 10
    assert index.add(scenes, to=TO).written == 14
    assert index.add(scenes, to=TO).written == 0
    with closing(client()) as opened:
        opened.delete("photos", models.Filter())  # lost there
    assert index.add(scenes, to=TO).written == 24


def test_indexes_of_several_machines_share_a_collection(
    client: Client, clip: ClipRuntime, scenes: Path, tmp_path: Path
):
    for half in ("even", "odd"):
        with Index.open(tmp_path / f"{half}.db", clip) as index:
            assert index.add(scenes / half, to=TO).written == 12
    with Index.open(tmp_path / "even.db", clip) as index:
        assert index.add(scenes / "even", to=TO).withdrawn == 0
    with Collection.open(TO, clip) as there:
        answer = there.search(caption(3), k=24)
    assert {result.path for result in answer.results} == {str(path) for path in scenes.rglob("*.png")}
    assert answer.is_match


def test_an_index_that_was_made_anew_has_its_points_still(
    client: Client, clip: ClipRuntime, scenes: Path, tmp_path: Path
):
    with Index.open(tmp_path / "photos.db", clip) as index:
        index.add(scenes, to=TO)
    Index.reindex(tmp_path / "photos.db", clip)
    with Index.open(tmp_path / "photos.db", clip) as index:
        added = index.add(scenes, to=TO)
    assert (added.written, added.withdrawn, len(paths(client))) == (0, 0, 24)


def test_copies_are_one_result(index: Index, client: Client, clip: ClipRuntime, tmp_path: Path):
    for name in ("c.png", "a.png", "b.png"):
        draw(tmp_path / "copies" / name, 1)
    draw(tmp_path / "copies" / "other.png", 2)
    index.add(tmp_path / "copies", to=TO)
    with Collection.open(TO, clip) as there:
        first, second = there.search(caption(1)).results
        assert [Path(path).name for path in (first.path, *first.alike)] == ["a.png", "b.png", "c.png"]
        assert second.path.endswith("other.png")
        assert len(there.search(caption(1), collapse=False).results) == 4


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        (models.VectorParams(size=8, distance=models.Distance.DOT), "vectors of 8; expected 256"),
        (models.VectorParams(size=256, distance=models.Distance.EUCLID), "another distance than Dot and Cosine"),
        ({"image": models.VectorParams(size=256, distance=models.Distance.DOT)}, "named vectors"),
    ],
)
def test_a_collection_of_other_vectors_is_refused_before_the_work(
    index: Index, client: Client, encoded: list[int], scenes: Path, vectors: object, said: str
):
    with closing(client()) as opened:
        opened.create_collection("photos", vectors_config=vectors)
    with pytest.raises(DataError, match=said):
        index.add(scenes, to=TO)
    assert encoded == []


def test_another_bundle_is_refused(index: Index, client: Client, clip: ClipRuntime, scenes: Path):
    index.add(scenes / "odd", to=TO)
    with closing(client()) as opened:
        opened.set_payload("photos", {"fingerprint": "f00"}, points=[opened.scroll("photos", limit=1)[0][0].id])
    with pytest.raises(DataError, match=f"fingerprint f00; expected {clip.bundle.manifest.fingerprint}"):
        index.add(scenes / "odd", to=TO)
    with pytest.raises(DataError, match="fingerprint f00"):
        Collection.open(TO, clip)


def test_a_collection_that_is_not_there_is_not_made_by_a_search(client: Client, clip: ClipRuntime):
    with pytest.raises(DataError, match="no collection qdrant://localhost:6333/photos"):
        Collection.open(TO, clip)
    with closing(client()) as opened:
        assert opened.get_collections().collections == []
        opened.create_collection(
            "photos", vectors_config=models.VectorParams(size=256, distance=models.Distance.COSINE)
        )
    with pytest.raises(DataError, match="an empty collection"):
        Collection.open(TO, clip)


def test_the_command_line(edgeclip_here, mistake, client: Client, scenes: Path, tmp_path: Path):
    db = tmp_path / "photos.db"
    done = edgeclip_here("index", scenes, "--db", db, "--bundle", "builtin:tabletop", "--to", TO)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{TO}  24 points written, 0 removed"
    shown = [edgeclip_here("search", caption(3), "--db", place, "-k", 3).stdout for place in (db, TO)]
    assert shown[0] == shown[1] != ""
    for command in (["status"], ["prune"], ["dupes"], ["reindex"], ["index", scenes, "--bundle", "builtin:tabletop"]):
        assert "expected the SQLite file" in mistake(*command, "--db", TO)
    assert "expected the SQLite file" in mistake("serve", "builtin:tabletop", "--db", TO)
    assert not Path("qdrant:").exists()


def test_a_bundle_that_is_elsewhere_here(edgeclip_here, clip: ClipRuntime, scenes: Path, tmp_path: Path):
    with Index.open(tmp_path / "photos.db", clip) as index:
        index.add(scenes)
        index._database.insert("UPDATE meta SET value = ? WHERE key = 'bundle'", [("/nowhere/bundle",)])
    search = ("search", caption(3), "--db", tmp_path / "photos.db")
    assert edgeclip_here(*search).returncode == 2
    assert edgeclip_here(*search, "--bundle", "builtin:tabletop").returncode == 0
    assert edgeclip_here("search", "x", "--db", tmp_path / "no.db", "--bundle", "builtin:tabletop").returncode == 2
    assert not (tmp_path / "no.db").exists()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("qdrant://nas/photos", Address("qdrant", "nas", 6333, "photos")),
        ("qdrants://nas.example:443/my.photos-1", Address("qdrants", "nas.example", 443, "my.photos-1")),
        ("qdrant://[::1]:7000/photos", Address("qdrant", "::1", 7000, "photos")),
    ],
)
def test_addresses(text: str, address: Address):
    assert address_of(text, "`to`") == address
    assert address_of(str(address), "`to`") == address


@pytest.mark.parametrize(
    "text",
    [
        "http://nas/p",
        "qdrant://nas",
        "qdrant://nas/",
        "qdrant:///p",
        "qdrant://nas/a/b",
        "qdrant://nas/a|b",
        "qdrant://nas:port/p",
        "qdrant://nas:99999/p",
        "qdrant://[::1/p",
        "photos",
    ],
)
def test_what_is_no_address(text: str):
    with pytest.raises(ConfigError, match="`to`"):
        address_of(text, "`to`")


def test_what_is_no_text(index: Index, scenes: Path, clip: ClipRuntime):
    for call in (lambda: index.add(scenes, to=Path("qdrant")), lambda: Collection.open(b"qdrant://nas/photos", clip)):
        with pytest.raises(InputError, match="expected a string"):
            call()


@pytest.mark.parametrize(
    "text",
    [
        "qdrant://me:s3cret@nas/p",
        "qdrant://s3cret@nas/p",
        "qdrant://nas/p?api_key=s3cret",
        "qdrant://me:s3cret@nas:x/p",
        "qdrant://nas/p#s3cret",
        "nas/p?api_key=s3cret",
        "qdrant://nas:x/p?api_key=s3cret",
    ],
)
def test_a_key_in_an_address_is_not_repeated(text: str):
    with pytest.raises(ConfigError) as caught:
        address_of(text, "`to`")
    assert "s3cret" not in str(caught.value)


class Server(HTTPServer):
    """Answers everything alike, and remembers the API keys."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status, self.body, self.keys = status, body, []  # type: int, bytes, list[str | None]
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        return f"qdrant://127.0.0.1:{self.server_address[1]}/photos"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.keys.append(self.headers["api-key"])
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served() -> Iterator[Callable[[int, bytes], Server]]:
    servers: list[Server] = []

    def serve(status: int, body: bytes) -> Server:
        servers.append(Server(status, body))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return servers[-1]

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, b"Must provide an API key", "answers 401 without a key that it accepts"),
        (403, b'{"status":{"error":"forbidden"}}', "answers 403 without"),
        (500, b'{"status":{"error":"no space left"}}', "answers 500: .*no space left"),
        (429, b"slow down", "answers"),
        (200, b"<html>hello</html>", "no answer of Qdrant"),
        (200, b"{}", "no answer of Qdrant"),
        (404, b"not here", "answers 404"),
    ],
)
def test_servers_that_refuse_or_are_something_else(
    served: Callable[[int, bytes], Server], mistake, scenes: Path, tmp_path: Path, status: int, body: bytes, said: str
):
    address = served(status, body).address
    line = mistake("index", scenes, "--db", tmp_path / "photos.db", "--bundle", "builtin:tabletop", "--to", address)
    assert re.search(said, line)
    assert re.search(said, mistake("search", "a mug", "--db", address))


def test_no_server(mistake, scenes: Path, tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    line = mistake("search", "a mug", "--db", f"qdrant://127.0.0.1:{port}/photos")
    assert f"no answer of Qdrant at qdrant://127.0.0.1:{port}/photos" in line


def test_the_key_is_of_the_environment_or_a_file(
    served: Callable[[int, bytes], Server], mistake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    server = served(401, b"")
    monkeypatch.setenv("QDRANT_API_KEY", "s3cret")
    assert "s3cret" not in mistake("search", "a mug", "--db", server.address)
    (tmp_path / "key").write_text("fil3\n")
    monkeypatch.setenv("QDRANT_API_KEY_FILE", str(tmp_path / "key"))
    mistake("search", "a mug", "--db", server.address)
    assert server.keys == ["s3cret", "fil3"]
    (tmp_path / "key").write_text("\n")
    assert "QDRANT_API_KEY_FILE" in mistake("search", "a mug", "--db", server.address)


@pytest.mark.parametrize("module", ["copying", "collection"])
def test_what_is_missing_names_its_extra(
    mistake, edgeclip_here, index: Index, scenes: Path, monkeypatch: pytest.MonkeyPatch, module: str
):
    for name in [name for name in sys.modules if name.startswith("qdrant_client")]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("qdrant", "points", "copying", "collection"):
        monkeypatch.delitem(sys.modules, f"edgeclip.search.{name}")
    commands = {"copying": ("index", scenes, "--db", index.path, "--to", TO), "collection": ("search", "x", "--db", TO)}
    assert "pip install 'edgeclip[scale]'" in mistake(*commands[module])
    assert index.status().photos == 0
    index.add(scenes)
    assert edgeclip_here("search", "a mug", "--db", index.path).returncode == 0  # needs no extra
