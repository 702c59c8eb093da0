"""Pages of the documentation, and what runs of them."""

import re
from collections.abc import Callable
from pathlib import Path

from sybil import Document, Example
from sybil.evaluators.doctest import NUMBER
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

__all__ = ["PAGES", "ROOT", "commands_in", "commands_of", "examples_of"]

ROOT = Path(__file__).parents[2]
PAGES = (*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md")

#: Languages of what a user types into a shell.
SHELLS = ("sh", "bash", "console")


def examples_of(page: Path, run: Callable[[str], None]) -> list[Example]:
    """The page's files, and then its Python and its commands in its order.

    Python with prompts has its output checked; a TOML block that begins with a comment
    is a file of that name.

    Args:
        page: in Markdown.
        run: of one command.
    """

    def typed(example: Example) -> None:
        for command in commands_in(str(example.parsed)):
            run(command)

    def written(example: Example) -> None:
        if name := re.match(r"# ([\w-]+\.toml)\n", str(example.parsed)):
            Path(name[1]).write_text(str(example.parsed), encoding="utf-8")

    code = [CodeBlockParser(shell, typed) for shell in SHELLS]
    return [
        *Document.parse(str(page), CodeBlockParser("toml", written)),
        *Document.parse(str(page), PythonCodeBlockParser((), NUMBER), *code),
    ]


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
