"""Rows that can't be read as they were meant are an error that names the line, or counted and named."""

import csv
import io
import json
import logging
import struct
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclip.data.data_settings import DataOptions
from edgeclip.data.load_data import load_data
from edgeclip.data.records import CaptionSet
from edgeclip.errors import DataError, EdgeclipError


def load(source: Path | str, **options: Any) -> CaptionSet:
    return load_data(str(source), samples=0, seed=0, **options)


def pairs(captions: CaptionSet) -> list[tuple[str, tuple[str, ...]]]:
    return [(record.name, record.captions) for record in captions.records]


def table(folder: Path, text: str, name: str = "captions.csv") -> list[tuple[str, tuple[str, ...]]]:
    (folder / name).write_text(text, "utf-8", newline="")
    return pairs(load(folder / name))


@pytest.mark.parametrize(
    ("name", "header", "delimiter"),
    [("captions.tsv", "filepath\ttitle", "\t"), ("results.csv", "image_name| comment", "| ")],
)
def test_without_quotes_by_format_a_caption_may_begin_with_one(tmp_path: Path, name: str, header: str, delimiter: str):
    captions = ['"Stop" says a sign', '"a dog', 'a "big" dog', 'the end"', '"all of it"', "one, two"]
    rows = [f"{n}.jpg{delimiter}{caption}" for n, caption in enumerate(captions)]
    found = table(tmp_path, "\n".join([header, *rows, ""]), name)
    assert found == [(f"{n}.jpg", (caption,)) for n, caption in enumerate(captions)]


def test_flickr30k_with_its_torn_row(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    text = (
        "image_name| comment_number| comment\n"
        '1.jpg| 0| "Two men" , one with a hat .\n'
        "1.jpg| 1   A dog runs .\n"
        "1.jpg| 2| a | b\n"
        "1.jpg| 3| \n"
        "2.jpg| 0| A cat .\n"
    )
    (tmp_path / "results.csv").write_text(text)
    captions = load(tmp_path)
    assert pairs(captions) == [("1.jpg", ('"Two men" , one with a hat .',)), ("2.jpg", ("A cat .",))]
    assert captions.rows.left_out == {"of too few fields": 1, "of too many fields": 1, "without a caption": 1}
    assert (captions.rows.read, captions.rows.kept) == (5, 2)
    told = caplog.messages[0]
    assert told.endswith(
        "results.csv: 5 rows read, 2 kept; left out: 1 of too few fields (first: line 3), 1 of too many fields "
        "(first: line 4), 1 without a caption (first: line 5)"
    )


def test_flickr8k_as_it_was_published(tmp_path: Path):
    (tmp_path / "Flicker8k_Dataset").mkdir()
    (tmp_path / "Flicker8k_Dataset" / "1_a.jpg").write_bytes(b"")
    text = '1_a.jpg#0\t"Hi" , it says .\n1_a.jpg#1\tA dog .\n2_b.jpg#0\tA cat .\n2_b.jpg#1\n'
    (tmp_path / "Flickr8k.token.txt").write_text(text)
    captions = load(tmp_path)
    assert pairs(captions) == [("1_a.jpg", ('"Hi" , it says .', "A dog .")), ("2_b.jpg", ("A cat .",))]
    assert captions.records[0].image.path == tmp_path / "Flicker8k_Dataset" / "1_a.jpg"
    assert captions.rows.first == {"of too few fields": "line 4"}


def test_a_tab_separated_table_that_was_written_with_quotes(tmp_path: Path):
    by_need = 'image\tcaption\n0.jpg\t"a ""big"" dog"\n1.jpg\ta cat\n'
    assert table(tmp_path, by_need, "a.tsv") == [("0.jpg", ('a "big" dog',)), ("1.jpg", ("a cat",))]
    all_quoted = '"image"\t"caption"\n"0.jpg"\t"a\tdog"\n"1.jpg"\t"a\ncat"\n'
    assert table(tmp_path, all_quoted, "b.tsv") == [("0.jpg", ("a\tdog",)), ("1.jpg", ("a\ncat",))]


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (['0.jpg,a dog\n1.jpg,"Stop" says a sign'], 3),
        (["0.jpg,a dog", '1.jpg,"Stop', "2.jpg,a cat"], 3),
        (["0.jpg,a dog", '1.jpg,"Stop', "2.jpg,a cat", '3.jpg,the end"', "4.jpg,x"], 3),
        (['0.jpg,"a', 'b"', '1.jpg,"Stop', "2.jpg,a cat", '3.jpg,"go" and stop'], 4),
    ],
)
def test_a_quote_that_is_not_closed_is_named_by_its_line(tmp_path: Path, rows: list[str], line: int):
    for newline in ("\n", "\r\n"):
        with pytest.raises(DataError, match=rf"captions\.csv, line {line}[ ,]"):
            table(tmp_path, newline.join(["image,caption", *"\n".join(rows).split("\n"), ""]))


def test_a_quote_never_closed_in_a_large_table_takes_no_field_limit(tmp_path: Path):
    rows = [f"{n}.jpg,caption number {n}" for n in range(20_000)]
    rows[7] = '7.jpg,"Stop'
    with pytest.raises(DataError, match="line 9 "):
        table(tmp_path, "\n".join(["image,caption", *rows]))


def test_line_breaks_in_quotes_are_part_of_the_caption_wherever_it_stands(tmp_path: Path):
    assert table(tmp_path, 'caption,image\n"a dog\nruns, fast",0.jpg\n') == [("0.jpg", ("a dog\nruns, fast",))]


def test_commas_without_quotes(tmp_path: Path):
    found = table(
        tmp_path, 'image,caption\n0.jpg,a dog, running , fast\n1.jpg, "a, b"\n2.jpg,a 5" dog, old\n3.jpg,a,,\n'
    )
    assert found == [
        ("0.jpg", ("a dog, running , fast",)),
        ("1.jpg", ("a, b",)),
        ("2.jpg", ('a 5" dog, old',)),
        ("3.jpg", ("a",)),
    ]
    for text in ("image,caption,split\n0.jpg,a dog, running,test\n", "caption,image\na dog, running,0.jpg\n"):
        with pytest.raises(DataError, match=r"line 2, with [34] fields.*in quotes"):
            table(tmp_path, text)
    with pytest.raises(DataError, match="line 2, with 3 fields"):
        table(tmp_path, 'image,caption\n0.jpg,"a dog", it says\n')


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]) | st.sampled_from('",;|"\' '), min_size=1).map(
    str.strip
)


@given(st.lists(TEXT.filter(bool), min_size=1, max_size=8), st.sampled_from([",", ";"]))
def test_whatever_csv_writes_comes_back(tmp_path_factory: pytest.TempPathFactory, captions: list[str], delimiter: str):
    path = tmp_path_factory.mktemp("table") / "captions.csv"
    captions = [*captions, f"two\nlines{delimiter} of it"]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(
            [["caption", "image"], *([text, f"{n}.jpg"] for n, text in enumerate(captions))]
        )
    assert pairs(load(path)) == [(f"{n}.jpg", (text,)) for n, text in enumerate(captions)]


@given(st.lists(TEXT.filter(lambda text: text and '""' not in text), min_size=1, max_size=8))
def test_whatever_is_written_between_tabs_comes_back(tmp_path_factory: pytest.TempPathFactory, captions: list[str]):
    path = tmp_path_factory.mktemp("table") / "captions.tsv"
    rows = ["image\tcaption", *(f"{n}.jpg\t{text}" for n, text in enumerate(captions))]
    path.write_text("\n".join(rows), "utf-8", newline="")
    assert pairs(load(path)) == [(f"{n}.jpg", (text,)) for n, text in enumerate(captions)]


@given(st.binary(max_size=200) | st.text('image,caption\t|;"\n\r 0.jpg#').map(str.encode))
def test_any_bytes_are_a_table_or_one_error(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    path = tmp_path_factory.mktemp("table") / "captions.csv"
    for start in (b"", b"image,caption\n", b"image\tcaption\n"):
        path.write_bytes(start + data)
        with suppress(EdgeclipError):
            assert load(path).rows.kept >= 1


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_encodings_with_a_byte_order_mark(tmp_path: Path, encoding: str):
    mark = "\ufeff" if encoding.endswith(("le", "be")) else ""
    (tmp_path / "captions.csv").write_bytes((mark + "image,caption\r\n0.jpg,été\r\n").encode(encoding))
    assert pairs(load(tmp_path)) == [("0.jpg", ("été",))]


def test_other_encodings_are_refused(tmp_path: Path):
    (tmp_path / "captions.csv").write_bytes("image,caption\n0.jpg,a\n1.jpg,été\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"captions\.csv, line 3, which is no UTF-8"):
        load(tmp_path)


def test_images_are_found_wherever_they_lie(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """The first is missing, the others lie in several folders, one of them by a name with a folder."""
    for name in ("images/1.jpg", "2.jpg", "images/sub/3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    names = ["0.jpg", "1.jpg", "2.jpg", "sub/3.jpg", str(tmp_path / "2.jpg"), "none/4.jpg", "\0"]
    table(tmp_path, "".join(["image,caption\n", *(f"{name},x\n" for name in names)]))
    captions = load(tmp_path)
    there = [record.image.path.relative_to(tmp_path) for record in captions.records[1:5]]
    assert there == [Path("images/1.jpg"), Path("2.jpg"), Path("images/sub/3.jpg"), Path("2.jpg")]
    assert captions.records[0].image.path == tmp_path / "images" / "0.jpg"
    assert caplog.messages[-1].endswith("captions.csv: 3 of 7 images are not there (first: 0.jpg)")


def test_one_image_under_several_names(tmp_path: Path):
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "1.jpg").write_bytes(b"1")
    rows = "image,caption\nsome/1.jpg,a\n./some/1.jpg,b\nother/../some/1.jpg,c\nsome\\1.jpg,d\n"
    assert table(tmp_path, rows) == [("some/1.jpg", ("a", "b", "c")), ("some\\1.jpg", ("d",))]
    assert [record.image.read() for record in load(tmp_path).records] == [tmp_path / "some" / "1.jpg"] * 2


def test_columns_of_the_same_name(tmp_path: Path):
    with pytest.raises(DataError, match="2 columns caption; expected one; rename"):
        table(tmp_path, "image,caption,caption\n1.jpg,a,b\n")


def coco(folder: Path, images: list, annotations: list) -> CaptionSet:
    content = {
        "images": images,
        "annotations": [dict(zip(("image_id", "caption"), a, strict=True)) for a in annotations],
    }
    (folder / "captions_val2017.json").write_text(json.dumps(content))
    return load(folder)


def test_coco_counts_what_is_no_pair(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    images = [{"id": n, "file_name": f"{n}.jpg"} for n in (1, 2, 3, 4, 1)] + [{"id": 7, "file_name": "2.jpg"}]
    (tmp_path / "val2017").mkdir()
    (tmp_path / "val2017" / "3.jpg").write_bytes(b"")
    (tmp_path / "2.jpg").write_bytes(b"")
    captions = coco(tmp_path, images, [(1, " a "), (9, "b"), (2, " "), (3, "c"), (7, "d"), (3, "e")])
    assert pairs(captions) == [("1.jpg", ("a",)), ("2.jpg", ("d",)), ("3.jpg", ("c", "e"))]
    assert captions.rows.left_out == {"of an image that is not listed": 1, "without a caption": 2}
    assert (captions.rows.read, captions.rows.kept) == (7, 4)
    assert [record.image.path.parent.name for record in captions.records] == ["val2017", tmp_path.name, "val2017"]
    assert "1 of 3 images are not there (first: 1.jpg)" in caplog.messages[-1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "annotations": []}', "id 1 for 'a'"),
        ('{"images": [{"id": 1, "file_name": ""}], "annotations": [{"image_id": 1, "caption": "x"}]}', "a file_name"),
        ('{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "caption": " "}]}', "1 without a"),
        ('{"images": [], "annotations": [], "info": ' + "[" * 100_000, "captions_x"),
        ('{"images": [{"id": 1, "file_name": "\\ud800"}], "annotations": []}', "captions_x"),
        ("\xff", "captions_x"),
    ],
)
def test_coco_that_can_not_be_read_as_it_was_meant(tmp_path: Path, content: str, message: str):
    (tmp_path / "captions_x.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def shard(path: Path, members: dict[str, bytes], **special: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member in special.values():
            archive.addfile(member)
    return path


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def test_shards_count_what_is_no_pair(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    members = {
        "a.jpg": b"a",
        "a.json": b'{"url": "x"}',
        "a.txt": b"one\n\n two \n",  # although a.json comes first and has none
        "b.jpg": b"b",
        "b.json": b'{"caption": " ", "text": ["", 3]}',
        "c.JPG": b"c",
        "c.json": b'{"caption": ["x", " ", "y"]}',
        "d.txt": b"no image",
        "e.jpg": b"e",
        "e.json": b"[" * 100_000,
        "f.jpg": b"f",
        "f.txt": b"\xe9",
        "g.jpg": b"g",
        "g.png": b"g",
        "g.txt": b"which?",
        "h.jpg": b"h",
        "h.txt": b"x" * 1_000_001,
        "i.jpg": b"i",
        "i.txt": "été".encode("utf-16"),
        "a.b/j.jpg": b"j",
        "a.b/j.txt": b"j",
        "k.cls": b"3",
        "../../etc/l.jpg": b"l",
        "../../etc/l.txt": b"l",
        "a.jpeg": b"again",
    }
    path = shard(
        tmp_path / "0.tar",
        members,
        soft=link("m.jpg", "/etc/passwd", tarfile.SYMTYPE),
        hard=link("n.txt", "a.txt", tarfile.LNKTYPE),
    )
    captions = load(path)
    assert pairs(captions) == [
        ("a", ("one", "two")),
        ("c", ("x", "y")),
        ("i", ("été",)),
        ("a.b/j", ("j",)),
        ("../../etc/l", ("l",)),
    ]
    assert captions.rows.left_out == {
        "without a caption": 2,  # b, and the second a
        "without an image": 2,  # d and k
        "with a .json that can't be read": 1,
        "with a .txt that can't be read": 1,
        "with several images": 1,
        "with a member of more than 1 MB": 1,
        "with a link or another special member": 2,
    }
    assert (captions.rows.read, captions.rows.kept) == (15, 5)
    assert "2 without a caption (first: b in 0.tar)" in caplog.messages[0]
    assert captions.records[0].image.read() == b"a"


@pytest.mark.parametrize("size", [-512, -(2**62), 2**62, 2**80, 10**9])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_sizes_that_lie(tmp_path: Path, size: int, kind: bytes):
    path = shard(tmp_path / "0.tar", {"a.jpg": b"a", "a.txt": b"a"})
    member = tarfile.TarInfo("b.jpg")
    member.type = kind
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (size & (1 << 88) - 1 | (0xFF if size < 0 else 0x80) << 88).to_bytes(12, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    data = path.read_bytes()
    for where in (0, 1024, 2048):
        path.write_bytes(data[:where] + bytes(header) + data[where:])
        with pytest.raises(DataError, match=r"0\.tar"):
            load(path)


def test_a_shard_that_is_damaged_or_goes_on_after_its_end_is_not_cut_unseen(tmp_path: Path):
    path = shard(tmp_path / "0.tar", {f"{n}.{ending}": b"x" for n in range(9) for ending in ("jpg", "txt")})
    data = path.read_bytes()
    for damaged in (data[:4096] + b"rubbish!" * 64 + data[4608:], data + data, data[:5000]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="one uncompressed tar shard"):
            load(path)
    path.write_bytes(data[: 18 * 1024])  # its end alone is missing, which some writers leave out
    assert load(path).rows.kept == 9


@given(st.lists(st.tuples(st.integers(0, 10_239), st.integers(0, 255)), max_size=6), st.integers(0, 10_240))
def test_mutated_shards_are_read_or_one_error(tmp_path_factory: pytest.TempPathFactory, changes: list, end: int):
    path = tmp_path_factory.mktemp("shard") / "0.tar"
    shard(path, {"a.jpg": b"a", "a.json": b'{"caption": "x"}', "b.jpg": b"b", "b.txt": b"y"})
    data = bytearray(path.read_bytes())
    for at, value in changes:
        data[at] = value
    path.write_bytes(data[:end] if end % 3 else data)
    with suppress(EdgeclipError):
        assert load(path).rows.kept >= 1


def test_parquet_counts_what_is_no_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    caplog.set_level(logging.INFO, "edgeclip")
    (tmp_path / "there.jpg").write_bytes(b"there")
    images = [b"0", b"1", None, b"0", str(tmp_path / "there.jpg"), str(tmp_path / "not.jpg"), "", b"2"]
    cells = [{"bytes": i} if isinstance(i, bytes | None) else {"path": i} for i in images]
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    rows = {"image": cells, "text": ["a", " ", "c", "d", "e", "f", "g", None]}
    (tmp_path / "set").mkdir()
    file = tmp_path / "set" / "test[1].parquet"
    pyarrow.parquet.write_table(pyarrow.table(rows, schema=features.arrow_schema), file)
    for source in (tmp_path / "set", file):
        captions = load(source)
        assert pairs(captions) == [("row 0", ("a", "d")), ("row 4", ("e",)), ("row 5", ("f",))]
        assert captions.rows.left_out == {"without a caption": 2, "without an image": 2}
        assert captions.records[0].image.read() == b"0"
        assert captions.records[2].image.read() == tmp_path / "not.jpg"
    assert "8 rows read, 4 kept" in caplog.text


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped"])
def test_damaged_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog, capfd, damage: str):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    rows = {"image": [{"bytes": bytes(2000), "path": None}], "text": ["a" * 3000]}
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    file = tmp_path / "test.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(file))
    data = file.read_bytes()
    changed = {
        "cut": data[: len(data) // 2],
        "empty": b"",
        "flipped": data[:8] + struct.pack("40Q", *range(40)) + data[328:],
    }
    file.write_bytes(changed[damage])
    with pytest.raises(DataError, match="cannot be read"):
        load(file)
    assert (caplog.messages, capfd.readouterr().err) == ([], "")


def test_karpathys_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    images = [
        {
            "filename": f"{n}.jpg",
            "filepath": folder,
            "split": split,
            "sentences": [{"raw": r, "tokens": []} for r in raw],
        }
        for n, folder, split, raw in (
            (0, "train2014", "train", ["a"]),
            (1, "val2014", "restval", ["b"]),
            (2, "val2014", "test", [' "c" ', " "]),
            (3, "val2014", "test", []),
            (4, "val2014", "test", ["d", "e"]),
            (5, "val2014", "val", ["f"]),
        )
    ]
    (tmp_path / "images" / "val2014").mkdir(parents=True)
    (tmp_path / "images" / "val2014" / "4.jpg").write_bytes(b"")
    path = tmp_path / "dataset_coco.json"
    path.write_text(json.dumps({"images": images, "dataset": "coco"}))
    for source in (tmp_path, path):
        captions = load(source)
        assert pairs(captions) == [("2.jpg", ('"c"',)), ("4.jpg", ("d", "e"))]
        assert captions.has_training_part
        assert (captions.rows.read, captions.rows.left_out) == (5, {"without a caption": 2})
        assert captions.records[1].image.path == tmp_path / "images" / "val2014" / "4.jpg"
    assert "1 of 2 images are not there (first: 2.jpg)" in caplog.messages[-1]
    assert pairs(load(path, training=True)) == [("0.jpg", ("a",)), ("1.jpg", ("b",))]
    assert pairs(load(path, options=DataOptions(split="val"))) == [("5.jpg", ("f",))]
    with pytest.raises(DataError, match="splits train, test, val"):
        load(path, options=DataOptions(split="other"))
    for content in (
        '{"images": 3, "sentences": 0}',
        '{"sentences": ' + "[" * 100_000,
        '{"images": [], "sentences": 0}',
    ):
        path.write_text(content)
        with pytest.raises(DataError, match=r"dataset_coco\.json"):
            load(path)


def test_captions_beside_each_image(tmp_path: Path):
    folder = tmp_path / "set"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.jpg", "b.PNG", "c.jpg", "d.jpg", "sub/a.jpg", "e.psd"):
        (folder / name).write_bytes(b"")
    texts = {"a": b'"one"\n\ntwo', "c": b" \n", "d": b"\xe9", "lone": b"x", "sub/a": "été".encode("utf-16")}
    for name, data in texts.items():
        (folder / f"{name}.txt").write_bytes(data)
    captions = load(folder)
    assert pairs(captions) == [("a.jpg", ('"one"', "two")), ("sub/a.jpg", ("été",))]
    assert captions.rows.read == 6
    assert captions.rows.left_out == {
        "without a .txt": 1,
        "without a caption": 1,
        "with a .txt that can't be read": 1,
        "without an image": 1,
    }
