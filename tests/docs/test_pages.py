"""The documentation's first pages, executed."""

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from elision.methods import METHODS, Swat

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    found = [b for _, kind, b in BLOCK.findall(text) if kind == language]
    assert found
    return [textwrap.dedent(block) for block in found]


@pytest.mark.parametrize(
    "page", ["the-one-idea.md", "quickstart.md", "add-a-method.md"]
)
def test_the_page_does_what_it_says(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    known = dict(METHODS)
    try:
        for block in blocks(page, "python"):
            exec(compile(block, page, "exec"), names)
    finally:  # a page may add a method
        METHODS.clear()
        METHODS.update(known)


def test_the_table_is_the_one_that_is_printed() -> None:
    assert blocks("the-one-idea.md", "text") == [f"{Swat(sparsity=0.9)}\n"]
