import io
import itertools
import os
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from edgeclip.bulk.listing import check_paths, find_images, image_suffixes, read_list, read_texts
from edgeclip.errors import ConfigError
from edgeclip.runtime.stream import FLUSH


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
    assert {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"} <= image_suffixes()
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
        (b"\xff\xfe\n", [b"\xff\xfe"]),
    ],
)
def test_lists(data: bytes, items: list[bytes]):
    assert listed(data) == items


def test_texts_keep_their_empty_lines_and_bad_bytes_are_replaced():
    assert [text for text in read_texts(io.BytesIO(b"a\n\n\xff\n")) if text is not FLUSH] == ["a", "", "�"]


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
