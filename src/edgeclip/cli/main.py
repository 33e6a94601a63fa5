"""Entry point of `edgeclip`: commands, and errors as one line with exit code 2."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

import typer

from edgeclip.cli import (
    bench,
    card,
    classify,
    compress,
    distill,
    dupes,
    embed,
    evaluate,
    export,
    index,
    inspect,
    mcp,
    prune,
    push,
    reindex,
    reproduce,
    search,
    serve,
    status,
    train,
    verify,
)
from edgeclip.cli.command import Interrupted, make_command
from edgeclip.cli.console import open_streams
from edgeclip.errors import EdgeclipError
from edgeclip.makers import extras_named
from edgeclip.version import __version__

SEARCH, ON_A_DEVICE, MAKE, MEASURE = (
    "Search your photos",
    "Use a bundle, on any device",
    "Make one",
    "Measure and explain",
)
COMMANDS: dict[str, tuple[Callable[..., None], str, tuple[str, ...]]] = {
    "index": (index.command, SEARCH, ("folders",)),
    "search": (search.command, SEARCH, ("query",)),
    "serve": (serve.command, SEARCH, ("bundle",)),
    "mcp": (mcp.command, SEARCH, ()),
    "status": (status.command, SEARCH, ()),
    "dupes": (dupes.command, SEARCH, ()),
    "prune": (prune.command, SEARCH, ("folders",)),
    "reindex": (reindex.command, SEARCH, ()),
    "classify": (classify.command, ON_A_DEVICE, ("bundle", "paths")),
    "embed": (embed.command, ON_A_DEVICE, ("bundle", "paths")),
    "verify": (verify.command, ON_A_DEVICE, ("bundle",)),
    "inspect": (inspect.command, ON_A_DEVICE, ("model",)),
    "export": (export.command, MAKE, ("model",)),
    "compress": (compress.command, MAKE, ("model",)),
    "card": (card.command, MAKE, ("bundle",)),
    "push": (push.command, MAKE, ("bundle", "name")),
    "distill": (distill.command, MAKE, ("model",)),
    "train": (train.command, MAKE, ("recipe",)),
    "bench": (bench.command, MEASURE, ("bundle",)),
    "evaluate": (evaluate.command, MEASURE, ("model",)),
    "reproduce": (reproduce.command, MEASURE, ()),
}
"""Each command's function, what it is for, and what it is given by position."""

app = typer.Typer(
    name="edgeclip",
    help="Any CLIP checkpoint in; smaller, faster and as accurate out, for CPU-only devices.",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for _name, (_function, _panel, _arguments) in COMMANDS.items():
    app.command(_name, rich_help_panel=_panel)(make_command(_function, _name, arguments=_arguments, commands=COMMANDS))

INTERRUPTED = 130
SHOWN_NAME = 80
ADVICE = {
    errno.ENOENT: ("a file that exists", "give the path of one"),
    errno.EISDIR: ("a file", "give the path of one"),
    errno.ENOTDIR: ("a folder", "give the path of one"),
    errno.EEXIST: ("a name that is free", "give another"),
    errno.ENAMETOOLONG: ("a shorter name", "give one of at most 200 characters"),
    errno.EMFILE: ("room for more open files", "raise the limit with `ulimit -n 4096`"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), ("permission", "change its permissions with chmod, or give another")),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), ("room on the disk", "make some and run it again")),
    errno.EFBIG: ("a smaller file", "write to another file system, or raise the limit with `ulimit -f unlimited`"),
    errno.EROFS: ("a file system that can be written to", "give a path on another"),
}
"""By error of the operating system: what was expected, and what to do."""
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
    open_streams()
    try:
        with extras_named():
            code = app(sys.argv[1:] or ["--help"], prog_name="edgeclip", standalone_mode=False)
        sys.stdout.flush()
    except EdgeclipError as error:
        _fail(str(error), 2)
    except UsageError as error:
        _fail(f"{' '.join(error.format_message().split()).rstrip('.')}; see edgeclip --help", 2)  # type: ignore[attr-defined]
    except BrokenPipeError:
        _drop_output()
        sys.exit(1)
    except (OSError, UnicodeError) as error:
        _fail(_system_error(error), 2)
    except MemoryError:
        _fail("out of memory; expected a machine with more, or less to do at once; lower --batch-size or --samples", 2)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED  # which typer itself returns where it sees Ctrl-C first
    except Interrupted as interrupted:
        _fail(f"interrupted; nothing half-written is left; {interrupted}", INTERRUPTED)
    if code == INTERRUPTED:
        _fail("interrupted; nothing half-written is left; run it again", INTERRUPTED)
    sys.exit(code or 0)


def _system_error(error: OSError | UnicodeError) -> str:
    """What the operating system refused, where nothing closer to it has put it better."""
    if not isinstance(error, OSError):
        return f"{' '.join(str(error).split())}; expected text in UTF-8; set PYTHONUTF8=1"
    name = "" if error.filename is None else str(error.filename)
    shown = f"{(name if len(name) <= SHOWN_NAME else name[: SHOWN_NAME - 3] + '...')!r} ({error.strerror})"
    expected, fix = ADVICE.get(error.errno or 0, ("a path that can be used", "give another"))
    return f"{shown if name else ' '.join(str(error).split())}; expected {expected}; {fix}"


def _fail(message: str, code: int) -> None:
    print(f"edgeclip: {message}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        _drop_output()
    sys.exit(code)


def _drop_output() -> None:
    """Lead nowhere what standard output doesn't take: Python would complain of it as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
