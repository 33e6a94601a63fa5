"""Nothing reports home: the switches of dependencies that otherwise would, set before any of them is imported."""

from __future__ import annotations

import os

SWITCHES = {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0"}
"""ONNX Runtime (from 1.29 on it keeps a device id and sends events), the hub's client with its transfer library, and
`datasets`, which counts each use of its reader of parquet files, local ones too, at a server."""


def switch_off() -> None:
    """Set each switch that is not set, for this process and those that it starts."""
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
