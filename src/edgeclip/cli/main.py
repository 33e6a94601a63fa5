"""Entry point of `edgeclip`: commands, and errors as one line with exit code 2."""

from __future__ import annotations

import errno
import os
import sys

import typer

from edgeclip import __version__
from edgeclip.cli import classify, distill, embed, evaluate, export, inspect, reproduce, train, verify
from edgeclip.errors import EdgeclipError

app = typer.Typer(
    name="edgeclip",
    help="Any CLIP checkpoint in; smaller, faster and as accurate out, for CPU-only devices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("reproduce")(reproduce.command)
app.command("evaluate")(evaluate.command)
app.command("inspect")(inspect.command)
app.command("train")(train.command)
app.command("distill")(distill.command)
app.command("export")(export.command)
app.command("embed")(embed.command)
app.command("classify")(classify.command)
app.command("verify")(verify.command)

INTERRUPTED = 130
UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""What typer raises for unknown options and values; its own name for it has moved between versions."""


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"edgeclip {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Show the version."),
) -> None:
    """Options of edgeclip itself."""


def main() -> None:
    """Run a command; a user's mistake ends with one line on stderr and exit code 2, Ctrl-C with 130."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        code = app(standalone_mode=False)
    except EdgeclipError as error:
        _fail(str(error), 2)
    except UsageError as error:
        _fail(f"{' '.join(error.format_message().split()).rstrip('.')}; see edgeclip --help", 2)  # type: ignore[attr-defined]
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (OSError, UnicodeError) as error:
        _fail(_system_error(error), 2)
    except MemoryError:
        _fail("out of memory; expected a machine with more, or less to do at once; lower --batch-size or --samples", 2)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED  # which typer itself returns where it sees Ctrl-C first
    except ModuleNotFoundError as error:
        extra = "data" if error.name == "datasets" else "compress"
        _fail(f"the package {error.name} is missing; expected the {extra} extra; pip install 'edgeclip[{extra}]'", 2)
    if code == INTERRUPTED:
        _fail("interrupted; nothing half-written is left; run it again, with --resume where it has that", INTERRUPTED)
    sys.exit(code or 0)


def _system_error(error: OSError | UnicodeError) -> str:
    """What the operating system refused, where nothing closer to it has put it better."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" for {str(error.filename)!r}" if error.filename is not None else ""
        return f"no room on the disk{where}; expected some; make room and run it again, with --resume where it has that"
    if isinstance(error, OSError) and error.filename is not None:
        name = str(error.filename)
        shown = name if len(name) <= 80 else name[:77] + "..."
        return f"{shown!r} ({error.strerror}); expected a path that can be used; check it"
    return f"{' '.join(str(error).split())}; expected names and files that can be used; check them"


def _fail(message: str, code: int) -> None:
    print(f"edgeclip: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
