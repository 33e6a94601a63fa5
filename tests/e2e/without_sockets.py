"""A command in a process that the kernel ends with SIGSYS where it, or one that it starts, opens an internet socket.

A seccomp filter sees what no Python hook does: libraries in C, and their threads.
"""

import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CALLS = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""The kernel's names of an architecture and of its call `socket`."""
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, KILL_PROCESS = 0x7FFF0000, 0x80000000
NO_NEW_PRIVILEGES, SET_SECCOMP, FILTER_MODE = 38, 22, 2
NUMBER, ARCHITECTURE, FAMILY = 0, 4, 16
"""Where these are in what the kernel shows to a filter."""
IPV4, IPV6 = 2, 10


class Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32)]


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(Instruction))]


def forbid_sockets() -> None:
    """Install the filter in this process."""
    architecture, call = CALLS[platform.machine()]
    steps = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 0, 6, architecture),
        (LOAD, 0, 0, NUMBER),
        (EQUAL, 0, 4, call),
        (LOAD, 0, 0, FAMILY),
        (EQUAL, 1, 0, IPV4),
        (EQUAL, 0, 1, IPV6),
        (RETURN, 0, 0, KILL_PROCESS),
        (RETURN, 0, 0, ALLOW),
    ]
    program = Program(len(steps), (Instruction * len(steps))(*(Instruction(*step) for step in steps)))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((NO_NEW_PRIVILEGES, 1, 0, 0, 0), (SET_SECCOMP, FILTER_MODE, ctypes.byref(program), 0, 0)):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "prctl")


def run(code: str, *arguments: object, home: Path) -> subprocess.CompletedProcess[str]:
    """Run Python code without internet sockets, in a home of its own and an environment that switches nothing off."""
    kept = {"PATH", "LANG", "PYTHONPATH", "OMP_NUM_THREADS"}
    environment = {name: value for name, value in os.environ.items() if name in kept} | {"HOME": str(home)}
    command = [sys.executable, "-m", "tests.e2e.without_sockets", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


if __name__ == "__main__":
    forbid_sockets()
    code = sys.argv.pop(1)
    exec(code)  # noqa: S102
