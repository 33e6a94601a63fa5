import io
import itertools
import os
import subprocess
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from edgeclip.bulk.images import open_list
from edgeclip.bulk.listing import check_paths, find_images, image_suffixes, in_words, read_list, read_texts
from edgeclip.errors import ConfigError, DataError, EdgeclipError
from edgeclip.runtime.stream import FLUSH

UNICODE = ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jpg", "A.PNG", "note.txt", ".hidden.jpg", "z/c.webp", "z/d/e.tiff", "a/f.gif", ".git/g.jpg"):
        path = tmp_path / "pics" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "pics" / "link").symlink_to(tmp_path / "pics")
    return tmp_path / "pics"


def listed(data: bytes) -> list[bytes]:
    return [item for item in read_list(io.BytesIO(data)) if item is not FLUSH]


def test_a_folder_gives_its_images_in_order(folder: Path):
    found = list(find_images([str(folder)], io.BytesIO()))
    assert found == [str(folder / name) for name in ("A.PNG", "b.jpg", "a/f.gif", "z/c.webp", "z/d/e.tiff")]


def test_what_is_skipped_in_folders_is_counted_by_suffix(folder: Path):
    for name in ("1.PSD", "2.psd", "z/3.mov", "z/4.mpo", "5", "z/6.xcf", "7.psd", ".hidden.psd"):
        (folder / name).write_bytes(b"")
    skipped: Counter[str] = Counter()
    found = list(find_images([str(folder), str(folder / "1.PSD")], io.BytesIO(), skipped))
    assert str(folder / "z/4.mpo") in found
    assert found[-1] == str(folder / "1.PSD")  # named, and so it is tried
    assert skipped == {".psd": 3, ".mov": 1, ".xcf": 1, ".txt": 1, "without suffix": 1, "linked folder": 1}
    assert in_words(skipped).startswith("3 .psd, 1 ")
    many = Counter({f".{n}": 20 - n for n in range(10)})
    assert in_words(many).endswith("13 .7 and 2 other kinds")
    assert in_words(Counter({"linked folder": 0})) == ""


def test_named_files_are_taken_whatever_they_are_called(folder: Path):
    assert list(find_images([str(folder / "note.txt")], io.BytesIO())) == [str(folder / "note.txt")]


def test_a_list_names_files_folders_and_what_is_missing(folder: Path):
    data = f"{folder / 'b.jpg'}\n\n{folder / 'z'}\nmissing.jpg\n".encode()
    found = [path for path in find_images(["-"], io.BytesIO(data)) if path]
    assert found == [*(str(folder / name) for name in ("b.jpg", "z/c.webp", "z/d/e.tiff")), "missing.jpg"]


@pytest.mark.parametrize("arguments", [[], ["/nothing/here.jpg"]])
def test_no_paths_and_paths_to_nothing(arguments: list[str]):
    with pytest.raises(ConfigError, match=r"no paths|nothing at '/nothing/here\.jpg'"):
        check_paths(arguments)


def test_every_suffix_is_of_a_format_that_can_be_decoded(tmp_path: Path):
    assert {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".mpo"} <= image_suffixes()
    assert not {".mpg", ".eps", ".pdf", ".h5"} & image_suffixes()
    for suffix in image_suffixes() & {suffix for suffix, name in Image.EXTENSION.items() if name in Image.SAVE}:
        try:
            Image.new("RGB", (32, 32)).save(tmp_path / f"x{suffix}")
        except (OSError, ValueError):
            continue  # a format that cannot hold RGB
        assert Image.open(tmp_path / f"x{suffix}").convert("RGB").mode == "RGB"


@pytest.mark.parametrize(
    ("data", "items"),
    [
        (b"", []),
        (b"a", [b"a"]),
        (b"a\nb\r\n\nc", [b"a", b"b", b"", b"c"]),
        (b"\xef\xbb\xbfa\n", [b"a"]),
        (b"a\nb\0c\r\0", [b"a\nb", b"c\r"]),
        (b"a\n\xff\xfe\n", [b"a", b"\xff\xfe"]),
        (b"a\rb\r", [b"a", b"b"]),
        (b"x\0y\0longer\0z\0and longer\0", [b"x", b"y", b"longer", b"z", b"and longer"]),
        *(
            ("\ufeffa\r\n\u4e2d\U0001f600\n".encode(encoding), [b"a", "\u4e2d\U0001f600".encode()])
            for encoding in UNICODE
        ),
    ],
)
def test_lists(data: bytes, items: list[bytes]):
    assert listed(data) == items


@pytest.mark.parametrize("encoding", ["utf-8", *UNICODE])
def test_lists_that_come_byte_by_byte(encoding: str):
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(1)

    data = "\ufeffa\n\U0001f600\n\n\u4e2d".encode(encoding)
    assert [text for text in read_texts(Slow(data)) if text is not FLUSH] == ["a", "\U0001f600", "", "\u4e2d"]


def test_texts_keep_their_empty_lines():
    assert [text for text in read_texts(io.BytesIO(b"a\n\n\xc3\xa9\n")) if text is not FLUSH] == ["a", "", "é"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a\nété\n".encode("latin-1"), "`texts`, line 2, which is no UTF-8"),
        ("one\ntwo\n".encode("utf-16-le"), "UTF-16 without"),
        ("one\ntwo\n".encode("utf-16-be"), "UTF-16 without"),
        ("one, and \u4e2d\u6587 too\n".encode("utf-16-le"), "UTF-16 without"),
        (b"\xff\xfea", "no UTF-16"),
        (b"\xff\xfe\x00\xdca\x00", "no UTF-16"),
        (bytes(1 << 16), "UTF-16 without"),
    ],
)
def test_texts_in_another_encoding_are_refused(data: bytes, message: str):
    with pytest.raises(EdgeclipError, match=message):
        list(read_texts(io.BytesIO(data)))


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom", "/dev/null", "/dev/full"])
def test_devices_are_no_lists(device: str):
    with pytest.raises(ConfigError, match=f"{device}, a device"):
        open_list(device)
    with open(device, "rb", buffering=0) as file, suppress(EdgeclipError):  # noqa: PTH123
        assert list(itertools.islice((text for text in read_texts(file) if text is not FLUSH), 10)) == []


def test_a_folder_and_nothing_are_no_lists(tmp_path: Path):
    for path, message in ((tmp_path, "Is a directory"), (tmp_path / "none", "No such file")):
        with pytest.raises(DataError, match=message):
            open_list(str(path))


def test_a_list_of_one_endless_line_is_refused():
    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return b"x" * size

    items = itertools.islice(read_list(Endless()), 10)
    with pytest.raises(ConfigError, match="without ends of lines"):
        list(items)


def test_what_has_come_through_a_pipe_is_given_before_the_rest_is_waited_for():
    read_end, write_end = os.pipe()
    with open(read_end, "rb", buffering=0) as file, open(write_end, "wb", buffering=0) as writer:  # noqa: PTH123
        items = read_list(file)
        writer.write(b"a\nb\nhal")
        assert [next(items) for _ in range(3)] == [b"a", b"b", FLUSH]
        writer.write(b"f\n")
        assert next(items) == b"half"
        assert next(items) is FLUSH
        writer.close()
        assert list(items) == []


def test_find_print0_is_understood(folder: Path):
    odd = folder / "new\nline.jpg"
    odd.write_bytes(b"")
    command = ["find", str(folder), "-maxdepth", "1", "-name", "*.jpg", "-print0"]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    assert str(odd) in list(find_images(["-"], io.BytesIO(data)))
