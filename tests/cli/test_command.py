"""Options made of settings: their flags, lists and defaults, and what a configuration file may say instead."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Annotated, Literal

import pytest
import typer
from msgspec import Meta
from typer.testing import CliRunner

from edgeclip.cli.command import make_command
from edgeclip.cli.main import COMMANDS
from edgeclip.errors import ConfigError
from edgeclip.settings import Settings


class Wanted(Settings, frozen=True, kw_only=True):
    model: Annotated[str, Meta(description="Which model.")]
    samples: Annotated[int, Meta(ge=2, le=50, description="How many.")] = 10
    alphas: Annotated[tuple[float, ...], Meta(description="Which alphas.")] = ()
    dtype: Annotated[Literal["float32", "int8"], Meta(description="Which numbers.")] = "float32"
    vocabulary: Annotated[str | None, Meta(description="A file.", extra={"flags": ("--vocab", "--vocabulary")})] = None
    fast: Annotated[bool, Meta(description="Hurry.")] = False


class Command:
    """A command called `evaluate`, whose name a configuration file may have, and what it was called with."""

    def __init__(self) -> None:
        self.called: list[tuple[Wanted, bool]] = []
        self.app = typer.Typer()

        def command(settings: Wanted, resume: Annotated[bool, Meta(description="Go on.")] = False) -> None:
            self.called.append((settings, resume))

        self.app.command()(make_command(command, "evaluate", arguments=("model",), commands=COMMANDS))

    def __call__(self, *arguments: str) -> tuple[Wanted, bool]:
        result = CliRunner().invoke(self.app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return self.called.pop()

    def help(self) -> str:
        result = CliRunner().invoke(self.app, ["--help"], env={"COLUMNS": "200", "TERM": "dumb"})
        return " ".join(result.output.split())


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """In a folder of its own, which has no configuration."""
    monkeypatch.chdir(tmp_path)
    return Command()


def test_what_is_not_given_is_the_default(command: Command):
    assert command("mini") == (Wanted(model="mini"), False)


def test_options_are_settings(command: Command):
    given = ("--samples", "3", "--alphas", "0.1,0.3,", "--dtype", "int8", "--fast", "--resume")
    expected = Wanted(model="mini", samples=3, alphas=(0.1, 0.3), dtype="int8", fast=True)
    assert command("mini", *given) == (expected, True)
    for flag in ("--vocab", "--vocabulary"):
        assert command("mini", flag, "file")[0].vocabulary == "file"


def test_the_help_tells_ranges_choices_and_defaults(command: Command):
    help_ = command.help()
    for words in ("MODEL", "Which model.", "How many. From 2 to 50. Default: 10.", "float32|int8", "--vocab"):
        assert words in help_


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no MODEL"),
        (["mini", "--samples", "51"], "--samples 51; expected 2 to 50; use 50"),
        (["mini", "--alphas", "a,b"], "--alphas 'a,b'; expected numbers with commas between"),
        (["mini", "--dtype", "int4"], "--dtype 'int4'.*expected float32 or int8"),
    ],
)
def test_a_mistake_speaks_of_flags(command: Command, arguments: list[str], message: str):
    with pytest.raises(ConfigError, match=message):
        command(*arguments)


def test_a_configuration_file_stands_below_the_command_line(command: Command, tmp_path: Path):
    (tmp_path / "edgeclip.toml").write_text("[evaluate]\nsamples = 4\nalphas = [0.5]\nresume = true\n[export]\nx = 1\n")
    assert command("mini") == (Wanted(model="mini", samples=4, alphas=(0.5,)), True)
    assert command("mini", "--samples", "5")[0].samples == 5
    (tmp_path / "other.toml").write_text("[evaluate]\nmodel = 'named here'\n")
    assert command("--config", "other.toml") == (Wanted(model="named here"), False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[measure]\n", r"edgeclip.toml with \[measure\]; expected tables among index, "),
        (
            "[evaluate]\ncolour = 3\n",
            r"edgeclip.toml with colour in \[evaluate\]; expected keys among model, samples",
        ),
        ("[evaluate]\nsamples = 'many'\n", "--samples 'many'"),
        ("samples = 3\n", "edgeclip.toml"),
        ("[evaluate\n", "edgeclip.toml"),
    ],
)
def test_a_configuration_file_is_read_strictly(command: Command, tmp_path: Path, text: str, message: str):
    (tmp_path / "edgeclip.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        command("mini")


def test_a_configuration_file_that_is_named_has_to_be_there(command: Command):
    with pytest.raises(ConfigError, match=r"none\.toml"):
        command("mini", "--config", "none.toml")


def test_without_arguments_it_helps(edgeclip_here: Callable[..., CompletedProcess[str]]):
    bare, asked = edgeclip_here(), edgeclip_here("--help")
    assert (bare.returncode, bare.stderr) == (0, "")
    assert bare.stdout == asked.stdout
    assert "classify" in bare.stdout
