"""One ONNX Runtime session, opened when it is first used."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgeclip.errors import BundleError
from edgeclip.malloc import weights_apart
from edgeclip.runtime.ports import Ports, own_ports

_STATE = onnxruntime.capi.onnxruntime_pybind11_state
RUNTIME_ERRORS = (
    *(RuntimeError, ValueError),
    *(_STATE.InvalidProtobuf, _STATE.InvalidArgument, _STATE.InvalidGraph, _STATE.Fail, _STATE.RuntimeException),
    *(_STATE.NotImplemented, _STATE.EPFail, _STATE.NoSuchFile),
)
"""What ONNX Runtime raises; its own errors share no class but Exception."""
KEPT_GRAPH, KEPT_WEIGHTS = "graph.onnx", "weights.bin"
KEEPING = {
    "optimized_model_external_initializers_file_name": KEPT_WEIGHTS,
    "optimized_model_external_initializers_min_size_in_bytes": "1024",
    "save_external_prepacked_constant_initializers": "1",
}
"""How an opened graph is written: its weights, as the processor's kernels want them, in a file that can be mapped."""
Open = Callable[[Path, int], onnxruntime.InferenceSession]
"""What opens a graph with so many threads; a session of another engine has to be asked as this one is."""


def session_options(threads: int, *, precise: bool = False) -> onnxruntime.SessionOptions:
    """How graphs are opened; `benchmarks/peers.py` measures each choice against ONNX Runtime's own.

    With `precise` int8 products are not added in 16 bits, where a processor would: see `int8_proof`.

    By default a session's threads wait by spinning. That costs the other sessions and processes of a small device more
    than waking up costs this one. Small blocks of work, dealt out as threads become free, make up for late wakers.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors are raised
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.dynamic_block_base", "4")
    options.add_session_config_entry("session.x64quantprecision", str(int(precise)))
    return options


def open_graph(
    path: Path, threads: int, *, keep_in: Path | None = None, precise: bool = False
) -> onnxruntime.InferenceSession:
    """Open a graph.

    Args:
        path: the graph.
        threads: of the session.
        keep_in: a folder to write to what becomes of the graph, see `graph_cache`.
        precise: see `session_options`.

    Raises:
        RUNTIME_ERRORS: the graph is damaged, or what is to be kept can't be written.
    """
    options = session_options(threads, precise=precise)
    if keep_in is not None:
        options.optimized_model_filepath = str(keep_in / KEPT_GRAPH)
        for key, value in KEEPING.items():
            options.add_session_config_entry(f"session.{key}", value)
    with weights_apart():
        return onnxruntime.InferenceSession(
            str(path),
            options,
            providers=["CPUExecutionProvider"],
            enable_fallback=0,  # which tells standard output of an error, and tries again
        )


class LazySession:
    """A tower's graph, with the ports of a bundle's own where none are given. Safe to run from several threads.

    It runs the file that was there when it was made, or none: a bundle may be replaced before its graph is needed.
    """

    def __init__(self, path: Path, threads: int, open_: Open = open_graph, ports: Ports | None = None) -> None:
        self._path, self._threads, self._opened, self._ports = path, threads, open_, ports
        self._file = _identity(path)
        self._lock = threading.Lock()
        self._session: onnxruntime.InferenceSession | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    @property
    def is_open(self) -> bool:
        """Whether the graph was needed yet."""
        return self._session is not None

    def close(self) -> None:
        """Give the graph's memory back, once the threads that run it are done; it can't be run again."""
        with self._lock:
            self._session, self._closed = None, True

    def check_not_closed(self) -> None:
        """Refuse to go on with a closed one.

        Raises:
            BundleError: it was closed.
        """
        if self._closed:
            raise BundleError(
                f"{self._path}, whose runtime was closed", expected="an open one", fix="load the bundle again"
            )

    def run(
        self, batch: NDArray[np.generic], mask_NT: NDArray[np.bool_] | None = None, fill: int = 0
    ) -> NDArray[np.float32]:
        """Run the graph on one batch, see `Ports.__call__`.

        Raises:
            BundleError: the graph can't be opened, was closed, or doesn't take the batch.
        """
        session = self._open()
        try:
            return (self._ports or own_ports(session))(session, batch, mask_NT, fill)
        except RUNTIME_ERRORS as error:
            raise BundleError(
                f"{self._path} with a batch of shape {batch.shape} ({str(error).splitlines()[0]})",
                expected="a graph of this bundle",
                fix="export the model again",
            ) from error

    def _open(self) -> onnxruntime.InferenceSession:
        with self._lock:
            self.check_not_closed()
            if self._session is None:
                if _identity(self._path) != self._file:
                    raise BundleError(
                        f"{self._path}, which was replaced since the bundle was loaded",
                        expected="the same file",
                        fix="load the bundle again",
                    )
                try:
                    self._session = self._opened(self._path, self._threads)
                except RUNTIME_ERRORS as error:
                    raise BundleError(
                        f"{self._path} ({str(error).splitlines()[0]})", expected="an ONNX graph", fix="copy it again"
                    ) from error
            return self._session


def _identity(path: Path) -> tuple[int, ...] | None:
    """What tells a file from one that took its place."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
