"""Settings: their ranges and errors, however they are made."""

import pytest

from edgeclip.compress.distill_settings import DistillSettings
from edgeclip.errors import ConfigError
from edgeclip.export.export_settings import ExportSettings
from edgeclip.measure.evaluation_settings import EvaluationSettings
from edgeclip.reproduce import Settings
from edgeclip.settings import decode_settings, field_hints, metas


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("alpha", 1.5),
        ("alpha", -0.1),
        ("sweep_alpha", [0.1, 2.0]),
        ("temperature", 0.0),
        ("temperature", float("nan")),
        ("epochs", 0),
        ("lr", -1.0),
        ("lr", float("inf")),
        ("threads", 0),
        ("workers", -1),
        ("samples", 0),
        ("samples", 100_001),
        ("engine", "tpu"),
        ("normalize", "none"),
        ("on_bad_image", "ignore"),
        ("test_image", "/no/such/picture.jpg"),
    ],
)
def test_settings_out_of_range_are_user_errors(option: str, value: object):
    with pytest.raises(ConfigError, match=option):
        decode_settings({option: value}, Settings)


def test_the_settings_of_python_are_checked_too():
    with pytest.raises(ConfigError, match="`samples` 1; expected 2 to 100000; use 2"):
        Settings(samples=1)
    with pytest.raises(ConfigError, match="`threads` 257; expected 1 to 256; use 256"):
        EvaluationSettings(model="m", threads=257)


def test_an_unknown_setting_is_named_with_those_that_there_are():
    with pytest.raises(ConfigError, match=r"smaples_.*settings among .*samples"):
        decode_settings({"model": "m", "smaples_": 3}, ExportSettings)


@pytest.mark.parametrize("type_", [Settings, ExportSettings, EvaluationSettings, DistillSettings])
def test_every_setting_says_what_it_is_for(type_: type):
    for name, hint in field_hints(type_).items():
        assert any(meta.description for meta in metas(hint)), name
