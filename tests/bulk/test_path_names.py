import os
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclip.bulk.path_names import path_from_text, path_to_text


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (b"photos/a b.jpg", "photos/a b.jpg"),
        ("Zürich/100 %.jpg".encode(), "Zürich/100 %.jpg"),
        (b"photos/\xe9t\xe9 %.jpg", "file:photos/%E9t%E9%20%25.jpg"),
        (b"file:a.jpg", "file:file%3Aa.jpg"),
    ],
)
def test_by_hand(path: bytes, text: str):
    assert path_to_text(os.fsdecode(path)) == text


@given(st.binary(max_size=40))
def test_every_path_comes_back_and_is_unicode(path: bytes):
    text = path_to_text(os.fsdecode(path))
    assert os.fsencode(path_from_text(text)) == path
    text.encode()  # no surrogates
    if text != os.fsdecode(path):
        assert unquote_to_bytes(text.removeprefix("file:")) == path
