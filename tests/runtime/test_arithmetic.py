"""Words for each kind of processor, from its features."""

import pytest

from edgeclip.runtime import arithmetic


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        ({"avx2", "fma"}, "vpmaddubsw"),
        ({"avx2", "avx512f"}, "vpmaddubsw"),
        ({"avx2", "avx512f", "avx512_vnni"}, "AVX-512 VNNI"),
        ({"avx2", "avx_vnni"}, "AVX VNNI"),
        ({"asimd", "asimddp"}, "sdot"),
        ({"asimd"}, "NEON"),
        (set(), "compiler"),
    ],
)
def test_the_fastest_kind_is_named(flags: set[str], word: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(arithmetic, "cpu_flags", lambda: flags)
    assert word in arithmetic.int8_arithmetic()
