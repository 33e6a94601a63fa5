"""One ONNX Runtime session, opened when it is first used."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgeclip.errors import BundleError


class LazySession:
    """A graph with one input and one output. Safe to run from several threads."""

    def __init__(self, path: Path, threads: int) -> None:
        self._path, self._threads = path, threads
        self._lock = threading.Lock()
        self._session: onnxruntime.InferenceSession | None = None

    @property
    def is_open(self) -> bool:
        """Whether the graph was needed yet."""
        return self._session is not None

    def run(self, batch: NDArray[np.generic]) -> NDArray[np.float32]:
        """Run the graph on one batch.

        Raises:
            BundleError: the graph can't be opened.
        """
        session = self._open()
        return session.run(None, {session.get_inputs()[0].name: batch})[0]

    def _open(self) -> onnxruntime.InferenceSession:
        with self._lock:
            if self._session is None:
                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = self._threads
                options.log_severity_level = 3
                try:
                    self._session = onnxruntime.InferenceSession(
                        str(self._path), options, providers=["CPUExecutionProvider"]
                    )
                except (RuntimeError, ValueError, onnxruntime.capi.onnxruntime_pybind11_state.InvalidProtobuf) as error:
                    raise BundleError(
                        f"{self._path} ({str(error).splitlines()[0]})", expected="an ONNX graph", fix="copy it again"
                    ) from error
            return self._session
