"""Pages of promises: every sentence names the test that holds it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("what-*-promises.md"))
POINTER = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def bullets(text: str) -> list[str]:
    """The points of a page, continued lines joined."""
    joined = re.sub(r"\n {2,}", " ", text)
    return [line for line in joined.splitlines() if line.startswith("- ")]


def test_both_pages_are_there() -> None:
    names = [page.name for page in PAGES]
    assert names == ["what-a-saver-promises.md", "what-elide-promises.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_promise_names_a_test_that_exists(page: Path) -> None:
    found = bullets(page.read_text("utf-8"))
    assert len(found) >= 10
    for promise in found:
        pointers = POINTER.findall(promise)
        assert pointers, f"no test named: {promise}"
        for file, name in pointers:
            tree = ast.parse((ROOT / file).read_text("utf-8"))
            tests = [n.name for n in tree.body if isinstance(n, ast.FunctionDef)]
            assert name in tests, f"{file} has no {name}: {promise}"
