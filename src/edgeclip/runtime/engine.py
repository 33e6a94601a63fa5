"""What runs graphs here: ONNX Runtime, or OpenVINO where that is asked for or was chosen."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from msgspec import UNSET, UnsetType

from edgeclip.cpu import cpu_flags
from edgeclip.errors import ConfigError
from edgeclip.manifest import Engine

VNNI = {"avx512_vnni", "avx_vnni", "amx_int8"}
"""Any of these adds int8 products in 32 bits. What OpenVINO does without has not been proved, see `int8_proof`."""

logger = logging.getLogger(__name__)


def why_not_openvino() -> str | None:
    """Why OpenVINO can't be used here; None where it can."""
    if find_spec("openvino") is None:
        return 'it is not installed: pip install "edgeclip[openvino]"'
    if not VNNI & cpu_flags():
        return "this processor has no VNNI, without which its int8 sums are not proved"
    return None


def usable_engine(asked: Engine | None, chosen: Engine | UnsetType, source: str | Path) -> Engine:
    """The engine that is asked for, else the one that was chosen, where it can be used; else ONNX Runtime.

    Args:
        asked: by the caller.
        chosen: by `edgeclip compress`.
        source: whose graphs it is to run.

    Raises:
        ConfigError: what is asked for is none, or can't be used here.
    """
    if asked not in (None, *get_args(Engine)):
        raise ConfigError(f"`engine` {asked!r}", expected=" or ".join(get_args(Engine)), fix="leave out `engine`")
    wanted = asked or ("onnxruntime" if chosen is UNSET else chosen)
    if wanted == "onnxruntime" or (reason := why_not_openvino()) is None:
        return wanted
    if asked is not None:
        raise ConfigError(
            f"`engine` openvino ({reason})", expected="one that can be used here", fix="give `engine` onnxruntime"
        )
    logger.warning("%s was chosen for OpenVINO and runs in ONNX Runtime, since %s", source, reason)
    return "onnxruntime"
