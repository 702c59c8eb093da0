"""The command line: ``elision VERB``, its configuration file and its exit status.

Exit status: 0, 1 (the work failed or was interrupted), 2 (the arguments are wrong) or 143
(ended by SIGTERM), with one clear line.
The verbs are in :mod:`elision.cli`.
"""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError
from cyclopts.config import Dict

from elision import __version__
from elision.cli import COMMANDS
from elision.cli.parameters import epilogue
from elision.cli.signals import Ended, requests_kept
from elision.common.names import lookup
from elision.common.printable import printable
from elision.common.toml import from_toml

__all__ = ["app", "main"]

_PACKAGE = Path(__file__).parents[1]

app = App(
    name="elision",
    version=__version__,
    help="Make neural-network training cheaper by leaving out work, and prove what "
    "that is worth.",
    # The list of commands has no Markdown, whose reader takes long to import.
    help_format="plaintext",
)
# An interruption is handled by main.
app.suppress_keyboard_interrupt = app.meta.suppress_keyboard_interrupt = False
app.register_install_completion_command(
    help="Have this shell (bash, zsh or fish) complete commands and flags."
)
for order, command in enumerate(COMMANDS):
    if isinstance(command, App):
        command.sort_key, command.help_format = order, "markdown"
        app.command(command)
    else:
        app.command(
            command,
            sort_key=order,
            help_epilogue=epilogue(command),
            help_format="markdown",
        )


@app.meta.default
def _with_config(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Annotated[
        Path | None, Parameter(help="TOML file with a table per command.")
    ] = None,
) -> None:
    # Of this call alone: a program may call main again.
    app.config = (Dict(_tables(config), source=str(config)),) if config else ()
    app(tokens, exit_on_error=False, print_error=False)


def _tables(path: Path) -> dict[str, Any]:
    """The tables of a configuration file, by command.

    A table ``[workload]`` is what ``study`` and ``train`` train where theirs name none.

    Raises:
        ValueError: no such file, not TOML, or a table of no command; the message has the
            file's name.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such configuration file")
    try:
        tables = from_toml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not readable as TOML: {error}") from error
    if "layout" in tables:
        raise ValueError(
            f"{path}: is a run folder's own record; give its workload.toml, which runs it "
            "once more"
        )
    commands = [name for name in app if not name.startswith("-")]
    for name, table in tables.items():
        lookup(f"table of {path}:", name, dict.fromkeys([*commands, "workload"]))
        if not isinstance(table, dict):
            raise ValueError(f"{path}: {name} must be a table, [{name}]")
    if tables.pop("workload", None) is not None:
        for command in ("study", "train"):
            tables[command] = {"workload": str(path), **tables.get(command, {})}
    return tables


def _run(arguments: Sequence[str]) -> None:
    """Run a command, and write out what it printed while errors are still handled."""
    with _notices():
        try:
            app.meta(arguments, exit_on_error=False, print_error=False)
        finally:
            sys.stdout.flush()


@contextlib.contextmanager
def _notices() -> Iterator[None]:
    """Context in which the library's log and warnings are lines of standard error."""
    log, handler = logging.getLogger("elision"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("elision: %(message)s"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    written = warnings.formatwarning

    def line(
        message: Warning | str, category: type[Warning], file: str, *rest: Any
    ) -> str:
        if Path(file).is_relative_to(_PACKAGE):
            return f"elision: {message}\n"
        return written(message, category, file, *rest)

    warnings.formatwarning = line
    try:
        yield
    finally:
        warnings.formatwarning = written
        log.setLevel(level)
        log.removeHandler(handler)


#: Exit status after SIGTERM, as shells say it: 128 and the signal.
_BY_SIGTERM = 143

#: Longest message, in characters; a file can hold a name of any length.
_LONGEST = 2000


def _line(error: Exception) -> str:
    """An error as text for a terminal: nothing in it moves the cursor, none is endless."""
    said = str(error)
    if isinstance(error, OSError) and error.strerror:  # without the error's number
        named = "" if error.filename is None else f"{error.filename}: "
        said = named + error.strerror
    text = printable(said, keep="\n\t")
    if len(text) > _LONGEST:
        half = _LONGEST // 2
        text = f"{text[:half]} ... {text[-half:]}"
    return f"elision: {text}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status.

    Args:
        arguments: words of the command line; None: those of this process.
    """
    given = sys.argv[1:] if arguments is None else arguments
    # Read when torch is loaded: its profiler, which counts allocations, would write a
    # line to standard error whenever it starts and stops.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    try:
        with requests_kept():
            _run(given)
    except UnusedCliTokensError as error:
        verb = " ".join(["elision", *(error.command_chain or ())])
        unused = " ".join(error.unused_tokens or ())
        print(
            f"elision: {verb} takes no {unused!r}; `{verb} --help` lists what it takes",
            file=sys.stderr,
        )
        sys.exit(2)
    except (CycloptsError, ValueError, FileNotFoundError, ModuleNotFoundError) as error:
        print(_line(error), file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough: what is left to write goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (RuntimeError, OSError) as error:
        print(_line(error), file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("elision: interrupted; the same command continues", file=sys.stderr)
        sys.exit(1)
    except Ended:
        print("elision: ended by SIGTERM; the same command continues", file=sys.stderr)
        sys.exit(_BY_SIGTERM)
