"""Paths and imports that the documentation names are there."""

import ast
import doctest
import importlib
import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "elision"
PAGES = sorted(
    path for path in (*ROOT.glob("docs/*.md"), ROOT / "README.md") if path.is_file()
)
#: A file or folder of the repository, in backticks.
PATH = re.compile(
    r"`((?:src|tests|docs|benchmarks|records)/[^`\s]*|[a-z_/]+\.(?:py|[ch]pp))`"
)
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def exists(name: str) -> bool:
    """Whether a path exists, and defines the test after its ``::``, if there is one."""
    path, _, test = name.partition("::")
    if test:
        file = ROOT / path
        return file.is_file() and f"def {test}(" in file.read_text(encoding="utf-8")
    return any(
        (folder / path).exists() for folder in (ROOT, PACKAGE, ROOT / "benchmarks")
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_is_one_of_the_repository(page: Path) -> None:
    named = set(PATH.findall(page.read_text(encoding="utf-8")))
    assert {name for name in named if "<" not in name and not exists(name)} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_import_works(page: Path) -> None:
    for _, block in BLOCK.findall(page.read_text(encoding="utf-8")):
        code = textwrap.dedent(block)
        if code.startswith(">>>"):
            code = doctest.script_from_examples(code)
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module:
                if node.module.partition(".")[0] != "elision":
                    continue
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{node.module}.{alias.name}"
