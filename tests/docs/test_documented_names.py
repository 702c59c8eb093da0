"""Every name of the library that the documentation mentions is there to be imported."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = (*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md")
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
NAMES = sorted(set(re.findall(r"(?<![\w./-])elision(?:\.[a-zA-Z]\w*)+", TEXT)))
IMPORTS = sorted(set(re.findall(r"`(from elision[\w.]* import [^`]+)`", TEXT)))


def resolve(name: str) -> object:
    """The module or the member of one; whether a part is a module is tried out."""
    module, _, member = name.rpartition(".")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("elision"):
            pytest.skip(f"{error.name} is not installed")
        return getattr(resolve(module), member)


@pytest.mark.parametrize("name", NAMES)
def test_a_dotted_name_is_there(name: str) -> None:
    assert resolve(name) is not None


@pytest.mark.parametrize("line", IMPORTS)
def test_an_import_in_the_text_runs(line: str) -> None:
    try:
        exec(line, {})
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("elision"):
            raise
        pytest.skip(f"{error.name} is not installed")


def test_names_are_found() -> None:
    assert len(NAMES) > 20
    assert len(IMPORTS) >= 3
