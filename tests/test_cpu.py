"""The processors to use, and words for each kind of them."""

import pytest

from edgeclip import cpu
from edgeclip.cpu import processors
from edgeclip.errors import ConfigError


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
    monkeypatch.setattr(cpu, "cpu_flags", lambda: flags)
    assert word in cpu.int8_arithmetic()


def test_processes_share_the_processors(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert processors() == 8
    for started, share in ((3, 2), (16, 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(started))
        assert processors() == share
    for wrong in ("abc", "0", ""):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", wrong)
        with pytest.raises(ConfigError, match=f"LOCAL_WORLD_SIZE={wrong};"):
            processors()
