"""Nothing reports home: the switches of dependencies that otherwise would, set before any of them is imported."""

from __future__ import annotations

import os

SWITCHES = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY")
"""ONNX Runtime (from 1.29 on it keeps a device id and sends events), and the hub's client with its transfer library."""


def switch_off() -> None:
    """Set each switch that is not set, for this process and those that it starts."""
    for name in SWITCHES:
        os.environ.setdefault(name, "1")
