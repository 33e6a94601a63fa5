"""What a command or a caller in Python can set: each setting's default, range and help, said once.

A setting is an annotated field of a `Settings` struct. Its annotation carries the help (`description`), the range (`ge`
and `le`), and for the command line other flags than its name (`extra={"flags": ...}`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from edgeclip.config import Config, check_range
from edgeclip.cpu import processors
from edgeclip.errors import ConfigError
from edgeclip.files import printable

T = TypeVar("T", bound=Config)

Seed = Annotated[
    int, Meta(ge=0, le=2**63 - 1, description="Which sample and split, and which scenes of the built-in world.")
]
MOST_PAIRS = 100_000
"""That may be asked for at once: they are decoded into memory, and take 150 KB each at 224 pixels."""
Threads = Annotated[int, Meta(ge=1, le=256, description="Threads that run the model; all processors by default.")]
Workers = Annotated[int, Meta(ge=0, le=256, description="Processes that decode images; 0 decodes in this one.")]
Vocabulary = Annotated[
    str | None,
    Meta(
        description="bpe_simple_vocab_16e6.txt.gz, for checkpoints without a tokenizer.",
        extra={"flags": ("--vocab", "--vocabulary")},
    ),
]
ModelConfig = Annotated[
    str | None,
    Meta(description="For weights alone: a configuration's file, or an architecture such as ViT-B-32-quickgelu."),
]
ForeignPrecision = Annotated[
    str | None,
    Meta(description="Which of another program's graphs: fp32, fp16, q8, int8, ...; the most exact by default."),
]
LogitScale = Annotated[
    Annotated[float, Meta(ge=0.001, le=1000)] | None,
    Meta(description="The factor on cosines, for another program's graphs whose files don't tell it; often 100."),
]
KeepWords = Annotated[
    list[str],
    Meta(description="Keep the words of these texts (a file) or scripts (latin, han, ...) alone; can be given again."),
]
LogitBias = Annotated[
    Annotated[float, Meta(ge=-1000, le=1000)] | None,
    Meta(description="What is added to the logits of another program's SigLIP whose files don't tell it."),
]
Repeats = Annotated[int, Meta(ge=1, le=100_000, description="Timed calls of each kind, model and round.")]
OnBadImage = Annotated[Literal["skip", "fail"], Meta(description="skip (counted and named) or fail.")]
default_threads = msgspec.field(default_factory=processors)
"""The default of `Threads`."""


class Settings(Config, frozen=True, kw_only=True):
    """Settings whose ranges are checked however they are made."""

    def __post_init__(self) -> None:
        for name, hint in field_hints(type(self)).items():
            _check(name, getattr(self, name), hint)


def _check(name: str, value: Any, hint: Any) -> None:
    """Refuse a number, or one of several, that is out of its range."""
    ranges = [(meta.ge, meta.le) for meta in metas(hint)]
    for number in value if isinstance(value, list | tuple) else () if value is None else (value,):
        for low, high in ranges:
            if low is not None and high is not None:
                check_range(f"`{name}`", number, low, high)


def _is_numeric(value: object) -> bool:
    return all(isinstance(part, int | float) for part in (value if isinstance(value, list | tuple) else (value,)))


@cache
def field_hints(type_: type[Config]) -> dict[str, Any]:
    """The annotation of every field, in order."""
    hints = get_type_hints(type_, include_extras=True)
    return {field.name: hints[field.name] for field in msgspec.structs.fields(type_)}


def metas(hint: Any) -> Iterator[Meta]:
    """All that an annotation says beside the type, of the members of a union too."""
    if get_origin(hint) is Annotated:
        inner, *said = get_args(hint)
        yield from (meta for meta in said if isinstance(meta, Meta))
        yield from metas(inner)
    elif get_origin(hint) is not None:
        for member in get_args(hint):
            yield from metas(member)


def decode_settings(given: Mapping[str, object], type_: type[T]) -> T:
    """Check settings by name strictly as `type_`; those that are None were not given.

    Raises:
        ConfigError: a setting is unknown or missing, or its value is of the wrong type or not among those allowed.
    """
    present = {key: value for key, value in given.items() if value is not None}
    try:
        return msgspec.convert(present, type_)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$.")
        name = path.rstrip("`").split("[")[0]
        if not name:
            names = ", ".join(field.name for field in msgspec.structs.fields(type_))
            raise ConfigError(message, expected=f"settings among {names}", fix="leave it out") from error
        if _is_numeric(value := present.get(name)):
            _check(name, value, field_hints(type_)[name])
        allowed = _allowed(type_, name)
        raise ConfigError(
            f"`{name}` {present.get(name)!r} ({message})", expected=" or ".join(allowed), fix=f"give {allowed[0]}"
        ) from error


def shown_settings(settings: Settings) -> dict[str, Any]:
    """The values by name, for a report."""
    return {key: printable(v) if isinstance(v, str) else v for key, v in msgspec.to_builtins(settings).items()}


def _allowed(type_: type[Config], name: str) -> list[str]:
    """What a setting can be, in words."""
    hint = get_type_hints(type_).get(name)
    members = [member for member in (get_args(hint) or (hint,)) if member is not type(None)]
    if get_origin(hint) is Literal:
        return [str(member) for member in members]
    limits = next((m for m in metas(field_hints(type_).get(name)) if m.ge is not None or m.le is not None), None)
    kind = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}.get(members[0], "values")
    return [kind + (f" from {limits.ge} to {limits.le}" if limits else "")]
