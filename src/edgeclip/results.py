"""Measured results as typed records, and results.json, their file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from edgeclip.config import ClipConfig, Config, OneTowerConfig, PreprocessConfig
from edgeclip.errors import MALFORMED, ConfigError
from edgeclip.files import as_json, read_whole, write_atomically

SCHEMA = 1
RESULTS, REPORT = "results.json", "report.html"
"""Names of the files that a run leaves."""


class Interval(Config, frozen=True, kw_only=True):
    """A value in per cent with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


class Recalls(Config, frozen=True, kw_only=True):
    """Recall at 1, 5 and 10."""

    r1: Interval
    r5: Interval
    r10: Interval


class Percentiles(Config, frozen=True, kw_only=True):
    """Milliseconds: median and 95th percentile."""

    p50: float
    p95: float


class Latency(Config, frozen=True, kw_only=True):
    """At batch 1: encoding an image, a text, and a whole query in each direction."""

    image: Percentiles
    text: Percentiles
    i2t: Percentiles
    t2i: Percentiles


class Standard(Config, frozen=True, kw_only=True):
    """Recalls by the standard protocol: all captions are candidates and queries, any caption of an image counts."""

    captions: int
    i2t: Recalls
    t2i: Recalls


class Row(Config, frozen=True, kw_only=True):
    """One model. `size_mb` and `peak_rss_mb` in 10^6 bytes; `i2t` and `t2i` by the paper's protocol."""

    name: str
    variant: str
    precision: str
    params: int
    size_mb: float
    peak_rss_mb: float
    i2t: Recalls
    t2i: Recalls
    latency_ms: Latency
    caption: str
    standard: Standard | None = None


class DataInfo(Config, frozen=True, kw_only=True):
    """What was measured on: `pairs` were sampled, of which `validation` were the candidates."""

    name: str
    pairs: int
    seed: int
    train: int
    validation: int
    bad_images: list[str] = []


class TestImage(Config, frozen=True, kw_only=True):
    """The image of the paper's table 3, as JPEG in base64, and its own captions where it has any."""

    __test__ = False  # not a test, whatever pytest thinks of the name

    name: str
    jpeg_base64: str
    captions: list[str]


class SweepPoint(Config, frozen=True, kw_only=True):
    """Recall at 1 of the distilled student for one alpha."""

    alpha: float
    i2t_r1: float
    t2i_r1: float


class EngineTime(Config, frozen=True, kw_only=True):
    """Median milliseconds of one Linear layer of the model on one engine ("float" for fp32)."""

    engine: str
    rows: int
    inputs: int
    outputs: int
    milliseconds: float


class GradientReach(Config, frozen=True, kw_only=True):
    """Which parameters a student can train. Cosines compare its gradient with the float student's on the same batch."""

    variant: str
    tensors: int
    parameters: int
    reached: list[str]
    reached_parameters: int
    gradient_cosine: float | None
    drift_cosine: float


class Findings(Config, frozen=True, kw_only=True):
    """What explains the table, measured in the same run."""

    engines: list[EngineTime]
    gradients: list[GradientReach]
    int8_layers: int
    int8_parameters: int
    float_parameters: int


class Results(Config, frozen=True, kw_only=True):
    """The content of results.json."""

    schema: int
    environment: dict[str, Any]
    settings: dict[str, Any]
    data: DataInfo
    rows: list[Row]
    losses: dict[str, list[float]] = {}
    sweep: list[SweepPoint] = []
    test_image: TestImage | None = None
    findings: Findings | None = None


class Evaluation(Config, frozen=True, kw_only=True):
    """What `edgeclip evaluate` gives: `i2t` and `t2i` by the paper's protocol (the first caption of each image)."""

    schema: int
    model: str
    data: str
    seed: int
    images: int
    i2t: Recalls
    t2i: Recalls
    standard: Standard
    bad_images: list[str]
    environment: dict[str, Any]


class Part(Config, frozen=True, kw_only=True):
    """Parameters of one part of a model, and how many of them are int8."""

    name: str
    parameters: int
    int8: int


class Inspection(Config, frozen=True, kw_only=True):
    """What `edgeclip inspect` gives. Sizes in bytes; `disk_bytes` is None for what is no local path.

    One tower alone has no logit scale, and one of texts no preprocessing. `origins` says where what the tensors can't
    tell was read: a file's name, or what in the weights' file shows it.
    """

    name: str
    layout: str
    stored_dtype: str
    origins: dict[str, str]
    config: ClipConfig | OneTowerConfig
    preprocess: PreprocessConfig | None
    logit_scale: float | None
    logit_bias: float | None
    parts: list[Part]
    fp32_bytes: int
    disk_bytes: int | None
    int8_layers: list[str]
    float_tensors: list[str]


def write_results(results: Results, path: Path) -> None:
    """Write results.json whole or not at all."""
    write_atomically(path, as_json(results))


def read_results(path: Path) -> Results:
    """Read results.json strictly.

    Raises:
        ConfigError: it is missing, malformed, or of another schema.
    """
    try:
        results = msgspec.json.decode(read_whole(path), type=Results)
    except (OSError, *MALFORMED) as error:
        raise ConfigError(f"{path} ({error})", expected="results of this version", fix="measure again") from error
    if results.schema != SCHEMA:
        raise ConfigError(f"{path} of schema {results.schema}", expected=f"schema {SCHEMA}", fix="measure again")
    return results
