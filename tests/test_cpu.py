"""The processors to use, and words for each kind of them."""

import os
from pathlib import Path

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
    monkeypatch.setattr(cpu, "granted_processors", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert processors() == 8
    for started, share in ((3, 2), (16, 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(started))
        assert processors() == share
    for wrong in ("abc", "0"):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", wrong)
        with pytest.raises(ConfigError, match=f"LOCAL_WORLD_SIZE={wrong};"):
            processors()


def test_the_usual_variable_is_followed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cpu, "granted_processors", lambda: 384)
    for value, threads in (("3", 3), ("4,2", 4), ("100000", 256), ("", 256)):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert processors() == threads
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    with pytest.raises(ConfigError, match=r"OMP_NUM_THREADS=many; .*unset it"):
        processors()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")  # torchrun sets OMP_NUM_THREADS to 1 by itself
    assert processors() == 256


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity here")
def test_affinity_and_quota_bound_the_default(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 3, 5})
    for quota, granted in ((1 << 20, 3), (2.9, 2), (0.5, 1)):
        monkeypatch.setattr(cpu, "cgroup_quota", lambda *_, quota=quota: quota)
        assert cpu.granted_processors() == granted


GROUPS = {
    "version 2": ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, 1.5),
    "version 2, in a container": ("0::/\n", {"cpu.max": "200000 100000"}, 2),
    "version 2, no limit": ("0::/a\n", {"a/cpu.max": "max 100000"}, cpu.UNLIMITED),
    "version 1": (
        "5:memory:/a\n3:cpu,cpuacct:/a\n",
        {"cpu,cpuacct/a/cpu.cfs_quota_us": "50000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"},
        0.5,
    ),
    "version 1, where the path is the host's": (
        "4:cpu,cpuacct:/docker/0123\n",
        {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"},
        3,
    ),
    "version 1, no limit": (
        "3:cpu:/\n",
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
        cpu.UNLIMITED,
    ),
    "both": (
        "3:cpu:/a\n0::/b\n",
        {"cpu/a/cpu.cfs_quota_us": "400000", "cpu/a/cpu.cfs_period_us": "100000", "unified/b/cpu.max": "100000 100000"},
        1,
    ),
    "nothing to read": ("", {}, cpu.UNLIMITED),
    "damaged": ("x\n0::/a\n", {"a/cpu.max": "1 0"}, cpu.UNLIMITED),
}


@pytest.mark.parametrize("name", GROUPS)
def test_control_groups(name: str, tmp_path: Path):
    membership, written, quota = GROUPS[name]
    (tmp_path / "membership").write_text(membership)
    for file, content in written.items():
        path = tmp_path / "mounted" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    assert cpu.cgroup_quota(tmp_path / "mounted", tmp_path / "membership") == quota
