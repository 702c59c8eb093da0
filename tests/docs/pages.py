"""Pages of the documentation, and what runs of them."""

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from sybil import Document, Example
from sybil.evaluators.doctest import NUMBER
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

__all__ = ["PAGES", "ROOT", "commands_in", "commands_of", "examples_of", "printed_as"]

ROOT = Path(__file__).parents[2]
PAGES = (*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md")

#: Languages of what a user types into a shell.
SHELLS = ("sh", "bash", "console")


def examples_of(page: Path, run: Callable[[str], None]) -> list[Example]:
    """The page's files, and then its Python and its commands in its order.

    Python with prompts has its output checked; a text block is compared with what the
    Python or the commands before it printed (see :func:`printed_as`); a TOML block that
    begins with a comment is a file of that name.

    Args:
        page: in Markdown.
        run: of one command, which prints what the command prints.
    """
    printed, evaluate = io.StringIO(), PythonEvaluator()

    def code(example: Example) -> None:
        with _kept(printed):
            evaluate(example)

    def typed(example: Example) -> None:
        with _kept(printed):
            for command in commands_in(str(example.parsed)):
                run(command)

    def shown(example: Example) -> None:
        expected, found = str(example.parsed), printed.getvalue()
        place = f"{page.name}:{example.line}"
        assert found, f"{place}: nothing was printed before this block"
        assert printed_as(expected, found), f"{place}: printed was\n{found}"

    def written(example: Example) -> None:
        if name := re.match(r"# ([\w-]+\.toml)\n", str(example.parsed)):
            Path(name[1]).write_text(str(example.parsed), encoding="utf-8")

    python = PythonCodeBlockParser((), NUMBER)
    python.codeblock_parser = CodeBlockParser("python", code)
    return [
        *Document.parse(str(page), CodeBlockParser("toml", written)),
        *Document.parse(
            str(page),
            python,
            CodeBlockParser("text", shown),
            *(CodeBlockParser(shell, typed) for shell in SHELLS),
        ),
    ]


def printed_as(shown: str, printed: str) -> bool:
    """Whether a page shows what was printed.

    What the page has in ``‹ ›`` stands for anything: what differs from run to run or from
    machine to machine, or is left out.
    """
    *fixed, last = re.split("‹[^›]*›", shown.strip("\n"))
    pattern = "".join(f"{re.escape(text)}(?:.|\n)+?" for text in fixed)
    return bool(re.fullmatch(pattern + re.escape(last), printed.strip("\n")))


@contextlib.contextmanager
def _kept(printed: io.StringIO) -> Iterator[None]:
    """What is printed within, and nothing from before."""
    printed.seek(0)
    printed.truncate()
    with contextlib.redirect_stdout(printed):
        yield


def commands_of(page: Path) -> list[str]:
    """The commands in a page's blocks."""
    found: list[str] = []

    def noted(example: Example) -> None:
        found.extend(commands_in(str(example.parsed)))

    for example in Document.parse(
        str(page), *(CodeBlockParser(shell, noted) for shell in SHELLS)
    ):
        example.evaluate()
    return found


def commands_in(block: str) -> list[str]:
    """The commands of a block; where one has a prompt, lines without are output."""
    lines = block.replace("\\\n", " ").splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    found = [" ".join(line.partition("  #")[0].split()) for line in lines]
    return [line for line in found if line]
