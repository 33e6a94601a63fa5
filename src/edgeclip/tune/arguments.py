"""What can be wrong in the arguments, found before anything takes time. PyTorch is not needed for it."""

from __future__ import annotations

from pathlib import Path

from edgeclip.bundle import check_replaceable
from edgeclip.config import ClipConfig
from edgeclip.data.split import CALIBRATE, Part, to_choose
from edgeclip.errors import ConfigError, DataError
from edgeclip.evaluate.paired import pairs_needed, smallest_drop_shown
from edgeclip.hf_config import MODEL_TYPES, config_from
from edgeclip.hf_json import read_json
from edgeclip.names import BUILTIN
from edgeclip.shrink.plan import count_parameters
from edgeclip.tune.compress_settings import CompressSettings
from edgeclip.tune.device import check_processor, check_room
from edgeclip.tune.trials import check_own, trials_folder

FEWEST_TO_TRAIN, MOST_TO_TRAIN = 256, 32_000
"""Pairs: a few steps of the recipes, and what they ask for."""
ASSET = Path(__file__).parent.parent / "assets" / "tabletop"


def check_arguments(settings: CompressSettings, out: Path) -> None:
    """Refuse what can't come to anything.

    Raises:
        EdgeclipError: naming it.
    """
    _ = settings.time_budget_s
    check_replaceable(out)
    check_own(trials_folder(out))
    model = ASSET if settings.model == BUILTIN else Path(settings.model)
    if model.exists() and out.is_relative_to(model.resolve()):
        raise ConfigError(f"`out` {out}, which is in the teacher", expected="another place", fix=f"use {model}-small")
    check_processor()
    path = model / "config.json"
    if (
        path.is_file() and (raw := read_json(path)).get("model_type") in MODEL_TYPES
    ):  # what another is, its loader tells
        config = config_from(raw, path)
        check_size(settings.max_size_mb, config)
        check_room(out, 4 * count_parameters(config), students=settings.distill)
    check_pairs(settings)


def check_size(max_size_mb: float | None, config: ClipConfig) -> None:
    """Refuse a size that the token embedding alone takes.

    Raises:
        ConfigError: naming its size.
    """
    table_mb = config.text.vocab_size * config.text.hidden_size / 1e6
    if max_size_mb is not None and max_size_mb <= table_mb:
        raise ConfigError(
            f"`max_size_mb` {max_size_mb:g}, and a token embedding of {table_mb:.1f} MB in int8",
            expected="more than that",
            fix=f"give `max_size_mb` {_up(2 * table_mb)}, or distil a student with fewer words: edgeclip distill",
        )


def check_pairs(settings: CompressSettings) -> None:
    """Refuse data on which no bundle could be shown to keep the accuracy.

    Raises:
        DataError: there are too few pairs for `max_drop`, or the data can't be used.
    """
    _, choose, report, train = parts_of(settings)
    if settings.distill and not report.captions.captioned:
        raise DataError(
            f"`distill` on {settings.data}, pictures without captions",
            expected="pairs, which students learn from",
            fix="give `data` with captions, or leave out `distill`",
        )
    if settings.distill and len(train) < FEWEST_TO_TRAIN:
        raise DataError(
            f"`distill` with {len(train)} pairs of {settings.data} left to train on",
            expected=f"at least {FEWEST_TO_TRAIN} that nothing else is done with",
            fix="use more data, or leave out `distill`",
        )
    check_enough(min(len(choose), len(report)), report.captions.things, settings)


def check_enough(pairs: int, things: str, settings: CompressSettings) -> None:
    """Refuse to choose on, and to report on, so few that no loss could be excluded.

    Raises:
        DataError: they are too few for `max_drop`.
    """
    needed = pairs_needed(settings.max_drop)
    if pairs < needed:
        enough = f"`max_drop` {_up(smallest_drop_shown(pairs))}"
        raise DataError(
            f"`max_drop` {settings.max_drop:g} on {pairs} {things} of {settings.data}",
            expected=f"at least {needed} to choose on and as many to report on",
            fix=f"give `pairs` {needed}, or {enough}" if pairs == settings.pairs else f"use more data, or {enough}",
        )


def parts_of(settings: CompressSettings, to_train: int = MOST_TO_TRAIN) -> tuple[Part, Part, Part, Part]:
    """The pairs to calibrate, choose and report on, and at most so many to train students on; see `to_choose`."""
    return to_choose(
        settings.data,
        pairs=settings.pairs,
        calibrate=CALIBRATE,
        train=to_train if settings.distill else 0,
        seed=settings.seed,
        options=settings.data_options,
    )


def _up(value: float) -> str:
    """Rounded up to a tenth."""
    return f"{int(value * 10) / 10 + 0.1:.1f}"
