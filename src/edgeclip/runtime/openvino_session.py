"""A graph in OpenVINO, asked as one in ONNX Runtime is."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from edgeclip.cpu import processors
from edgeclip.telemetry import without_openvinos


class Port(NamedTuple):
    """A named input or output, and its sizes, None where one is free."""

    name: str
    shape: list[int | None]


@functools.cache
def openvino_core() -> tuple[Any, Any]:
    """OpenVINO with its code for processors loaded, and its readers of formats; importing it takes 0.25 s."""
    with without_openvinos():
        import openvino
        from openvino import frontend
    core = openvino.Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")
    return core, frontend


class OpenVinoSession:
    """The part of ONNX Runtime's session that `LazySession` and `Ports` use. Safe to run from several threads."""

    def __init__(self, path: Path, threads: int) -> None:
        """Open a graph.

        Args:
            path: the graph.
            threads: of one call. As many calls at once as there are processors for are run beside each other.

        Raises:
            RuntimeError: the graph is damaged, or has operations that OpenVINO does not know.
        """
        engine, frontend = openvino_core()
        at_once = max(processors() // threads, 1)
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",  # by default bfloat16, where the processor has it
            "NUM_STREAMS": at_once,
            "INFERENCE_NUM_THREADS": at_once * threads,
            "ENABLE_CPU_PINNING": False,  # two sessions, or programs, would be pinned to the same processors
        }
        reader = frontend.FrontEndManager().load_by_framework("onnx")  # `Core` would try every format that it knows
        try:
            self._model = engine.compile_model(reader.convert(reader.load(str(path))), "CPU", options)
        except (
            *(RuntimeError, frontend.GeneralFailure, frontend.InitializationFailure, frontend.NotImplementedFailure),
            *(frontend.OpConversionFailure, frontend.OpValidationFailure),
        ) as error:
            raise _told(error) from error
        self._shapes = {port.name: port.shape for port in self.get_inputs()}
        self._own = threading.local()

    def get_inputs(self) -> list[Port]:
        """What it takes."""
        return [_port(port) for port in self._model.inputs]

    def get_outputs(self) -> list[Port]:
        """What it gives."""
        return [_port(port) for port in self._model.outputs]

    def run(self, outputs: Sequence[str], feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The named outputs for named inputs.

        Raises:
            RuntimeError: it does not take these.
        """
        for name, array in feed.items():  # which OpenVINO leaves to the operations, and a Reshape takes any
            if len(array.shape) != len(self._shapes[name]) or any(
                size not in (None, got) for size, got in zip(self._shapes[name], array.shape, strict=True)
            ):
                raise RuntimeError(f"{name} of shape {array.shape}, not {self._shapes[name]}")
        if not hasattr(self._own, "request"):  # one request is for one thread
            self._own.request = self._model.create_infer_request()
        try:
            found = self._own.request.infer(dict(feed))
        except RuntimeError as error:
            raise _told(error) from error
        return [found[name] for name in outputs]


def _told(error: Exception) -> RuntimeError:
    """With the last line alone: those before it are where in OpenVINO's code it was."""
    return RuntimeError(str(error).strip().splitlines()[-1])


def _port(port: Any) -> Port:
    sizes = port.get_partial_shape()
    return Port(port.any_name, [size.get_length() if size.is_static else None for size in sizes])
