"""A command from a function and its settings: every option is made of a field, and said nowhere else.

An option's value comes from the command line, else from the command's table in a TOML file (`--config`, or
edgeclip.toml in the current folder), else it is the field's default.
"""

from __future__ import annotations

import errno
import functools
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec
import typer

from edgeclip.cli.console import LOGGER, shown
from edgeclip.config import load_toml
from edgeclip.errors import ConfigError, EdgeclipError
from edgeclip.settings import Settings, decode_settings, field_hints, metas

CONFIG = "edgeclip.toml"
NO_DEFAULT = inspect.Parameter.empty
LARGEST_SHOWN = 100_000
"""Ranges that end beyond are the machine's, and not worth a word."""


class _Option(NamedTuple):
    """One field of the settings, or one parameter of the command's own."""

    name: str
    hint: Any
    default: Any
    is_argument: bool

    @property
    def flags(self) -> tuple[str, ...]:
        """What it is called on the command line, the usual name first."""
        if self.is_argument:
            return (self.name.upper(),)
        given = next((meta.extra["flags"] for meta in metas(self.hint) if meta.extra), None)
        return tuple(given) if given else ("--" + self.name.replace("_", "-"),)

    @property
    def parameter(self) -> inspect.Parameter:
        """As Typer wants it: None where it is not given."""
        choices = get_args(_plain(self.hint)) if get_origin(_plain(self.hint)) is Literal else ()
        info: Any = (
            typer.Argument(metavar=self.name.upper(), help=self.help, show_default=False)
            if self.is_argument
            else typer.Option(
                *self.flags,
                help=self.help,
                show_default=False,
                metavar="LIST" if self._is_tuple else "|".join(choices) or None,
                autocompletion=(lambda: list(choices)) if choices else None,
            )
        )
        type_ = str if self._is_tuple or choices else _plain(self.hint)
        return inspect.Parameter(
            self.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[type_ | None, info]
        )

    @property
    def help(self) -> str:
        """What it is for, its range and its default."""
        said = list(metas(self.hint))
        words = next((meta.description for meta in said if meta.description), "")
        limits = next((f" From {m.ge:g} to {m.le:g}." for m in said if m.le is not None and m.le <= LARGEST_SHOWN), "")
        if self.default is NO_DEFAULT:
            return f"{words}{limits}" + ("" if self.is_argument else " Required.")
        default = "" if self.default in (None, False, (), []) else f" Default: {self.default}."
        return f"{words}{limits}{default}"

    @property
    def _is_tuple(self) -> bool:
        return get_origin(_plain(self.hint)) is tuple

    def read(self, value: Any) -> Any:
        """A value of the command line as one of settings: "0.1,0.3" is a list."""
        if not self._is_tuple or not isinstance(value, str):
            return value
        try:
            return [float(part) for part in value.split(",") if part.strip()]
        except ValueError as error:
            raise ConfigError(
                f"`{self.name}` {value!r}", expected="numbers with commas between", fix=f"give `{self.name}` 0.1,0.3"
            ) from error


def _plain(hint: Any) -> Any:
    """A type without what is said about it, and without None."""
    if get_origin(hint) is Annotated:
        return _plain(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        (member,) = (member for member in get_args(hint) if member is not type(None))
        return _plain(member)
    if get_origin(hint) in (tuple, list):
        return get_origin(hint)[tuple(_plain(a) if a is not ... else a for a in get_args(hint))]
    return hint


class Interrupted(Exception):  # noqa: N818  # which is no mistake
    """Ctrl-C; its text says how to go on."""


def _how_to_go_on(given: Mapping[str, Any], options: Collection[str]) -> str:
    """Run it again: with --resume where a training has left its state."""
    has_state = "resume" in options and "out" in given and any(Path(given["out"]).rglob("*.pt"))
    return "run it again, with --resume" if has_state else "run it again"


def make_command(
    function: Callable[..., None], name: str, *, arguments: tuple[str, ...], commands: Collection[str]
) -> Callable[..., None]:
    """A function whose first parameter is its settings as a Typer command.

    Args:
        function: the command; its other parameters become options too.
        name: of the command, and of its table in a configuration file.
        arguments: the fields that are given by position.
        commands: all names that a configuration file may have tables of.
    """
    first, *_ = inspect.signature(function).parameters
    settings_type: type[Settings] = get_type_hints(function)[first]
    of_settings, own = _settings_options(settings_type, arguments), _own_options(function, arguments)
    options = {option.name: option for option in sorted([*of_settings, *own], key=_place(arguments))}
    flags = {option.name: option.flags[0] for option in options.values()}

    @functools.wraps(function)
    def command(*, config: Path | None, quiet: bool, verbose: bool, log_json: bool, **values: Any) -> None:
        given: dict[str, Any] = {}
        with shown(quiet=quiet, verbose=verbose, log_json=log_json), _explained(given, flags):
            given |= _from_file(config, name, options, commands)
            given |= {key: options[key].read(value) for key, value in values.items() if value not in (None, [])}
            for option in options.values():
                if option.default is NO_DEFAULT and option.name not in given:
                    raise ConfigError(f"no `{option.name}`", expected="one", fix=f"add `{option.name}`, see --help")
            settings, others = ({o.name: given[o.name] for o in part if o.name in given} for part in (of_settings, own))
            function(decode_settings(settings, settings_type), **others)

    command.__signature__ = inspect.Signature([*(o.parameter for o in options.values()), *COMMON])  # type: ignore[attr-defined]
    return command


def _settings_options(settings_type: type[Settings], arguments: Collection[str]) -> list[_Option]:
    hints = field_hints(settings_type)
    return [
        _Option(field.name, hints[field.name], _default(field), field.name in arguments)
        for field in msgspec.structs.fields(settings_type)
    ]


def _own_options(function: Callable[..., None], arguments: Collection[str]) -> list[_Option]:
    """Those of a command's parameters after its settings."""
    hints = get_type_hints(function, include_extras=True)
    _, *others = inspect.signature(function).parameters.values()
    return [_Option(p.name, hints[p.name], p.default, p.name in arguments) for p in others]


@contextmanager
def _explained(given: Mapping[str, Any], flags: Mapping[str, str]) -> Iterator[None]:
    """Errors in the command line's words; what ends a command early says how to go on."""
    try:
        yield
    except EdgeclipError as error:
        raise spoken(error, flags) from error
    except KeyboardInterrupt as error:
        raise Interrupted(_how_to_go_on(given, flags)) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ConfigError(
            f"no room on the disk{f' for {error.filename}' if error.filename else ''}",
            expected="some",
            fix=f"make room and {_how_to_go_on(given, flags)}",
        ) from error


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.required:
        return NO_DEFAULT
    return None if field.default is msgspec.NODEFAULT else field.default


def _place(arguments: tuple[str, ...]) -> Callable[[_Option], tuple[int, bool]]:
    """What is given by position comes first, then what must be given."""

    def place(option: _Option) -> tuple[int, bool]:
        position = arguments.index(option.name) if option.is_argument else len(arguments)
        return position, option.default is not NO_DEFAULT

    return place


COMMON = [
    inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[type_, typer.Option(*flags, help=help_, rich_help_panel="Common options")],
    )
    for name, flags, type_, default, help_ in (
        ("config", ["--config"], Path | None, None, f"A TOML file with options by command; {CONFIG} where it is here."),
        ("quiet", ["-q", "--quiet"], bool, False, "Show errors only."),
        ("verbose", ["-v", "--verbose"], bool, False, "Show details too."),
        ("log_json", ["--log-json"], bool, False, "Show progress and warnings as JSON lines."),
    )
]


def spoken(error: EdgeclipError, flags: Mapping[str, str]) -> EdgeclipError:
    """The same error in the command line's words: `val_fraction` is --val-fraction there."""

    def words(text: str) -> str:
        return re.sub(r"`(\w+)`", lambda match: flags.get(match[1], match[0]), text)

    return type(error)(words(error.got), expected=words(error.expected), fix=words(error.fix))


def _from_file(
    path: Path | None, command: str, options: Mapping[str, _Option], commands: Collection[str]
) -> dict[str, Any]:
    """The command's table of a configuration file, if there is any."""
    if path is None and not Path(CONFIG).is_file():
        return {}
    file = path or Path(CONFIG)
    tables = load_toml(file, dict[str, Any])
    if unknown := sorted(set(tables) - set(commands)):
        raise ConfigError(
            f"{file} with [{unknown[0]}]",
            expected=f"tables among {', '.join(commands)}",
            fix=f"leave [{unknown[0]}] out",
        )
    found = tables.get(command, {})
    if not isinstance(found, dict):
        raise ConfigError(
            f"{file} with {command} = {found!r}",
            expected=f"a table [{command}]",
            fix=f"write [{command}] before its keys",
        )
    LOGGER.debug("%s gives %s", file, ", ".join(found) or "nothing")
    if unknown := sorted(set(found) - set(options)):
        raise ConfigError(
            f"{file} with {unknown[0]} in [{command}]",
            expected=f"keys among {', '.join(options)}",
            fix=f"leave {unknown[0]} out",
        )
    return found
