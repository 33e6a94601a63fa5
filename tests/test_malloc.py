"""What was freed is given back to the system, where malloc is glibc's."""

import ctypes
import platform
import subprocess
import sys

import pytest

from edgeclip import malloc

HOLES = """
import ctypes
from pathlib import Path
from edgeclip.malloc import trim

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
blocks = [libc.malloc(64_000) for _ in range(1000)]
for block in blocks:
    ctypes.memset(block, 1, 64_000)
for block in blocks[:-1]:  # the last lies above them, so that the heap can't shrink
    libc.free(block)
before = resident_mb()
trim()
print(before - resident_mb())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's way of keeping memory")
@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_what_lies_between_blocks_in_use_is_given_back():
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 60


def test_another_malloc_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("a library was opened"))
    malloc.trim()
    with malloc.weights_apart():
        pass
