"""Names that a spreadsheet would compute, in files that are read back."""

from pathlib import Path

import pytest

from elision.common.files import to_csv
from elision.products import MatmulGeometry
from elision.workloads.shapes import read_topology, write_topology

FORMULAS = ("=1+1", "+1", "-2+3", "@SUM(1)")


@pytest.mark.parametrize("name", FORMULAS)
def test_a_topology_is_read_back_without_a_formula(tmp_path: Path, name: str) -> None:
    layers = [(name, MatmulGeometry(2, 6, 3))]
    path = write_topology(layers, tmp_path / "net.csv")
    assert path.read_text("utf-8").splitlines()[1].startswith(f"'{name},")
    assert [found for found, _ in read_topology(path)] == [name]


def test_no_control_character_breaks_a_row() -> None:
    text = to_csv([{"layer": "a\rb\x1b[31m", "cycles": 1}])
    assert text == "layer,cycles\na\\rb\\x1b[31m,1\n"
