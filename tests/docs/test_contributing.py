"""The table of extension points in CONTRIBUTING: tables and files that exist."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "elision"
PAGE = ROOT / "CONTRIBUTING.md"

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="not a checkout")


def rows() -> list[list[str]]:
    """Cells of the rows: what to add, what to write, where it is named, its tests."""
    if not PAGE.is_file():
        return []
    section = PAGE.read_text(encoding="utf-8").split("## One thing")[1]
    table = re.findall(r"^\| an? .*\|$", section.split("\n- ")[0], re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table]


NOUNS = """method, operand transform, number format, rule, layer type, engine,
accelerator, codec, policy, data set, network, task, workload, probe, section,
published table, command"""


@pytest.mark.parametrize("noun", re.split(r",\s+", NOUNS))
def test_every_extension_point_is_there(noun: str) -> None:
    assert any(noun in cells[0] for cells in rows())


@pytest.mark.parametrize("cells", rows(), ids=lambda cells: cells[0])
def test_a_row_names_a_folder_a_table_and_tests(cells: list[str]) -> None:
    _, write, where, tests = cells
    (written,) = re.findall(r"`([\w/]+\.py)`", write)
    folder = re.sub(r"(FAMILY/)?NAME\.py", "", written)
    assert (PACKAGE / folder).exists()
    named = re.findall(r"`([\w/]+\.py)`", where) or [written]
    (path,) = named
    module = importlib.import_module(
        "elision."
        + path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    )
    for table in re.findall(r"`([A-Z_]+)`", where):
        assert len(getattr(module, table)) > 0
    for path in re.findall(r"`(tests/[\w/.]+)`", tests):
        assert (ROOT / path).exists()
    for table, path in re.findall(r"`([A-Z_]+)` in `(tests/[\w/.]+)`", tests):
        assert re.search(rf"^{table}\b", (ROOT / path).read_text(), re.MULTILINE)
