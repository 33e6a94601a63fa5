"""Every layout of image-caption sets, made here as it is published."""

import io
import json
import re
import socket
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import webdataset
from PIL import Image

from edgeclip.data.data_settings import DataOptions
from edgeclip.data.load_data import load_data
from edgeclip.errors import DataError, HubError
from edgeclip.image import open_rgb


def load(source: Path | str, *, training: bool = False, **options: str):
    return load_data(str(source), samples=10, seed=0, options=DataOptions(**options), training=training)


def jpeg(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (12, 10), (value, 0, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


def assert_readable(captions, *, count: int):
    assert len(captions) == count
    for index in range(count):
        assert open_rgb(captions.records[index].image.read()).size == (12, 10)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for index in range(3):
        (tmp_path / f"{index}.jpg").write_bytes(jpeg(index))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("captions.csv", 'image,caption\n0.jpg,"one, with a comma"\n0.jpg,two\n1.jpg,three\n'),
        ("captions.txt", '\ufeffimage,caption\n0.jpg,"one, with a comma"\n0.jpg,two\n1.jpg,three\n'),
        (
            "results.csv",
            "image_name| comment_number| comment\n0.jpg| 0| one, with a comma\n0.jpg| 1| two\n1.jpg| 0| three\n",
        ),
        ("captions.tsv", "filepath\ttitle\n0.jpg\tone, with a comma\n0.jpg\ttwo\n1.jpg\tthree\n"),
        ("anything.csv", 'text,file_name\n"one, with a comma",0.jpg\ntwo,0.jpg\n\nthree,1.jpg\n'),
    ],
)
def test_tables(pictures: Path, name: str, text: str):
    (pictures / name).write_text(text, encoding="utf-8")
    captions = load(pictures)
    assert [record.captions for record in captions.records] == [("one, with a comma", "two"), ("three",)]
    assert_readable(captions, count=2)


def test_kaggle_layout(captioned_folder: Path):
    captions = load(captioned_folder)
    assert len(captions) == 24
    assert captions.records[3].captions == ("picture, number 3", "the 3th picture")
    assert load(captioned_folder / "captions.csv").records == captions.records


def test_quoted_line_breaks_and_odd_separators_stay_in_the_caption(pictures: Path):
    (pictures / "captions.csv").write_text(
        'image,caption\n0.jpg,"a dog\nruns"\n1.jpg,a cat\u2028on a mat\n2.jpg,a\x0cb\n'
    )
    assert [r.captions for r in load(pictures).records] == [("a dog\nruns",), ("a cat\u2028on a mat",), ("a\x0cb",)]


def test_named_columns(pictures: Path):
    (pictures / "captions.csv").write_text("which,words\n0.jpg,one\n")
    with pytest.raises(DataError, match=r"columns which, words.*`image_column`"):
        load(pictures)
    assert load(pictures, image_column="which", caption_column="words").records[0].captions == ("one",)
    with pytest.raises(DataError, match="`split` train of"):
        load(pictures, image_column="which", caption_column="words", split="train")
    with pytest.raises(DataError, match="'other'"):
        load(pictures, image_column="which", caption_column="other")


@pytest.mark.parametrize("text", ["", "image,caption\n", "image,caption\n0.jpg,\n"])
def test_tables_without_rows(pictures: Path, text: str):
    (pictures / "captions.csv").write_text(text)
    with pytest.raises(DataError, match=r"captions\.csv"):
        load(pictures)


def test_coco(tmp_path: Path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").mkdir()
    for index in range(2):
        (tmp_path / "val2017" / f"{index:012d}.jpg").write_bytes(jpeg(index))
    annotations = {
        "info": {"year": 2017},
        "images": [{"id": i, "file_name": f"{i:012d}.jpg", "width": 12} for i in range(2)]
        + [{"id": 9, "file_name": "x.jpg"}, {"id": 1, "file_name": "000000000001.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 1, "caption": " one "},
            {"id": 2, "image_id": 0, "caption": "zero"},
            {"id": 3, "image_id": 1, "caption": "uno"},
        ],
    }
    file = tmp_path / "annotations" / "captions_val2017.json"
    file.write_text(json.dumps(annotations))
    for source in (tmp_path, file):
        captions = load(source)
        assert [record.captions for record in captions.records] == [("zero",), ("one", "uno")]
        assert_readable(captions, count=2)
    file.write_text('{"images": 3}')
    with pytest.raises(DataError, match=r"captions_val2017\.json"):
        load(file)


def test_webdataset_shards(tmp_path: Path):
    for shard in range(2):
        with webdataset.TarWriter(str(tmp_path / f"{shard:05d}.tar")) as writer:
            for index in range(2):
                sample = {"__key__": f"{shard}{index}", "jpg": jpeg(80 * index + 40 * shard)}
                sample |= {"txt": "one\ntwo"} if shard else {"json": {"caption": f"json {index}"}}
                writer.write(sample)
            writer.write({"__key__": "lonely", "jpg": jpeg(9)})
    captions = load(tmp_path)
    assert [record.captions for record in captions.records] == [
        ("json 0",),
        ("json 1",),
        ("one", "two"),
        ("one", "two"),
    ]
    assert_readable(captions, count=4)
    assert len(load(tmp_path / "00001.tar")) == 2
    (tmp_path / "00001.tar").write_bytes((tmp_path / "00001.tar").read_bytes()[:700] + b"rubbish" * 200)
    with pytest.raises(DataError, match=r"00001\.tar"):
        load(tmp_path / "00001.tar")


def test_shards_with_a_sample_for_each_caption(tmp_path: Path):
    """As a table with a line for each, they have one image for all of its captions, in whichever shards they are."""
    for shard in range(2):
        with webdataset.TarWriter(str(tmp_path / f"{shard}.tar")) as writer:
            for index in range(2):
                writer.write({"__key__": f"{shard}{index}", "jpg": jpeg(index * 90), "txt": f"{shard} of {index}"})
    captions = load(tmp_path)
    assert [(r.name, r.captions) for r in captions.records] == [
        ("00", ("0 of 0", "1 of 0")),
        ("01", ("0 of 1", "1 of 1")),
    ]
    assert_readable(captions, count=2)


def test_a_shard_without_captions(tmp_path: Path):
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        writer.write({"__key__": "a", "jpg": jpeg(1)})
    with pytest.raises(DataError, match="has a caption"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("splits", "evaluated", "trained"), [("train test", "test", "train"), ("one two", "one", "one")]
)
def test_what_is_trained_on_is_not_the_test_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, splits: str, evaluated: str, trained: str
):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    (tmp_path / "hub" / "data").mkdir(parents=True)
    (tmp_path / "coco").mkdir()
    for split in splits.split():
        rows = {"image": [{"bytes": jpeg(0), "path": None}], "text": [split]}
        file = tmp_path / "hub" / "data" / f"{split}-00000-of-00001.parquet"
        datasets.Dataset.from_dict(rows, features=features).to_parquet(str(file))
    for training, expected in ((False, evaluated), (True, trained)):
        assert load(tmp_path / "hub", training=training).records[0].captions == (expected,)
    if "train" in splits:
        assert load(tmp_path / "hub", split="test", training=True).records[0].captions == ("test",)
    for part, caption in (("train2017", "train"), ("val2017", "val")):
        content = {
            "images": [{"id": 1, "file_name": "1.jpg"}],
            "annotations": [{"id": 1, "image_id": 1, "caption": caption}],
        }
        (tmp_path / "coco" / f"captions_{part}.json").write_text(json.dumps(content))
    assert load(tmp_path / "coco").records[0].captions == ("val",)
    assert load(tmp_path / "coco", training=True).records[0].captions == ("train",)
    (tmp_path / "coco" / "val2017").mkdir()  # whose images alone were downloaded
    assert load(tmp_path / "coco", training=True).records[0].captions == ("val",)


def test_hugging_face_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    rows = {
        "image": [{"bytes": jpeg(i * 80), "path": None} for i in range(3)],
        "caption": [[f"a {i}", f"b {i}"] for i in range(3)],
        "cocoid": [1, 2, 3],
    }
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "caption": datasets.Sequence(datasets.Value("string")),
            "cocoid": datasets.Value("int64"),
        }
    )
    folder = tmp_path / "set"
    (folder / "data").mkdir(parents=True)
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(folder / "data" / "test-00000-of-00001.parquet"))
    captions = load(folder)
    assert captions.records[2].captions == ("a 2", "b 2")
    assert_readable(captions, count=3)
    with pytest.raises(DataError, match="splits test"):
        load(folder, split="train")
    with pytest.raises(DataError, match="image columns image"):
        load(folder, image_column="cocoid")
    with pytest.raises(DataError, match="`caption_column`"):
        load(folder, caption_column="words")


def write_parquet(file: Path, caption: str) -> None:
    """Without the features that `datasets` notes in a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = pyarrow.array([{"bytes": jpeg(0), "path": None}], pyarrow.struct({"bytes": "binary", "path": "string"}))
    pyarrow.parquet.write_table(pyarrow.table({"image": image, "caption": [caption]}), file)


@pytest.mark.parametrize(
    ("files", "split", "expected"),
    [
        (["train.parquet", "test.parquet"], None, "test"),
        (["data/train-00000-of-00001.parquet", "data/val-00000-of-00001.parquet"], None, "val"),
        (["data/restval-00000-of-00001-0abc.parquet", "data/dev-00000-of-00001.parquet"], "restval", "restval"),
        (["TEST/0000.parquet", "train/0001.parquet"], None, "TEST"),
        (["part-1.parquet", ".hidden/test.parquet"], None, "part"),
    ],
)
def test_parquet_files_tell_their_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str], split: str | None, expected: str
):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for name in files:
        write_parquet(tmp_path / "set" / name, re.split("[^a-zA-Z]+", name.removeprefix("data/"))[0])
    (tmp_path / "set" / "README.md").write_text("---\nconfigs: [{data_files: nothing}]\n---\n")  # which is not read
    assert [record.captions for record in load(tmp_path / "set", split=split).records] == [(expected,)]


def test_several_data_sets_in_one_folder(tmp_path: Path):
    for name in ("de", "en"):
        write_parquet(tmp_path / "set" / name / "test-00000-of-00001.parquet", name)
    with pytest.raises(DataError, match=r"test-00000-of-00001\.parquet in .*expected one data set; give \S*set/de"):
        load(tmp_path / "set")


def test_parquet_with_a_row_for_each_caption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The same picture in several rows is one image, or it would be its own rival and cross the split."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    rows = {
        "image": [{"bytes": jpeg(i // 2 * 90), "path": None} for i in range(6)] + [None],
        "text": ["a", "b", "c", None, "e", "f", "g"],
    }
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "set" / "train.parquet"))
    captions = load(tmp_path / "set")
    assert [record.captions for record in captions.records] == [("a", "b"), ("c",), ("e", "f")]


def test_a_hub_id_without_a_network(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="someone/captions"):
        load("someone/captions")


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    asked = []

    def unknown(host: object, *args: object, **kwargs: object) -> None:
        asked.append(host)
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(HubError, match="someone/captions"):
        load("someone/captions")
    assert len(asked) == 1
    assert not datasets.config.HF_HUB_OFFLINE
    assert capfd.readouterr() == ("", "")


def test_what_isnt_there(tmp_path: Path):
    with pytest.raises(DataError, match="unknown data set"):
        load(tmp_path / "none")
    with pytest.raises(DataError, match="an empty folder"):
        load(tmp_path)
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    with pytest.raises(DataError, match="without captions"):
        load(tmp_path)


def test_flickr_photographs(flickr: Path):
    captions = load(flickr)
    assert len(captions) == 1000
    assert {len(record.captions) for record in captions.records} == {5}
    assert np.asarray(open_rgb(captions.records[17].image.read())).shape == (224, 224, 3)
