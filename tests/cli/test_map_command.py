"""elision map as a person at the command line meets it."""

import csv
import sys
from xml.etree import ElementTree

import pytest

from elision.accelerators import SpatialArray
from elision.accelerators.step import step_cost
from elision.cli.main import main
from elision.workloads.shapes import read_topology

# The arguments are those of the process, which is what the command line reads.
pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without")

NETWORK = (
    "Layer name,IFMAP Height,IFMAP Width,Filter Height,Filter Width,Channels,"
    "Num Filter,Strides,\n"
    "first,10,10,3,3,3,8,1,\nsecond,8,8,3,3,8,16,2,\n"
)


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs a command in a folder of its own: exit status, output, complaint."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.csv").write_text(NETWORK)

    def call(command):
        monkeypatch.setattr(sys, "argv", ["elision", "map", *command.split()])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
        out, complaint = capsys.readouterr()
        return status, out, complaint.strip()

    return call


def rows_of(path):
    return list(csv.DictReader(path.read_text("utf-8").splitlines()))


@pytest.mark.parametrize("keep", ["input", "weight", "grad_output", "output"])
def test_a_network_on_an_array(run, tmp_path, keep) -> None:
    status, shown, complaint = run(
        f"--topology net.csv --array 8x4 --keep {keep} --out drawn"
    )
    assert (status, complaint) == (0, "")
    layers = read_topology(tmp_path / "net.csv")
    expected = step_cost(SpatialArray(rows=8, columns=4, keep=keep), layers)
    table = rows_of(tmp_path / "drawn" / "net.csv")
    assert [row["product"] for row in table][-1] == "step"
    assert int(table[-1]["cycles"]) == expected.cycles
    assert f"{expected.cycles:,}" in shown
    assert float(table[-1]["energy_pj"]) == pytest.approx(expected.energy_pj)
    by_layer = rows_of(tmp_path / "drawn" / "net-layers.csv")
    assert sum(int(row["cycles"]) for row in by_layer) == expected.cycles
    links = rows_of(tmp_path / "drawn" / "net-links.csv")
    assert len(links) == 9
    assert "stationary" in {row["way"] for row in links}
    drawn = tmp_path / "drawn" / "net-array.svg"
    ElementTree.parse(drawn)
    # Forward products write outputs; the nest has one name for them and their gradients.
    assert {row["tensor"] for row in links[:3]} == {
        "input",
        "weight",
        "output (written)",
    }
    assert "output: " in drawn.read_text("utf-8")
    assert "grad_output" not in drawn.read_text("utf-8")


def test_a_search_of_a_layer(run, tmp_path) -> None:
    status, shown, complaint = run(
        "--topology net.csv --layer second --search --objective cycles --pes 8 "
        "--sram 48 --out found"
    )
    assert (status, complaint) == (0, "")
    assert "Pareto front of cycles and energy" in shown
    every = rows_of(tmp_path / "found" / "net-second-all.csv")
    front = rows_of(tmp_path / "found" / "net-second-front.csv")
    least = min(int(row["cycles"]) for row in every)
    assert int(every[0]["cycles"]) == int(front[0]["cycles"]) == least
    ElementTree.parse(tmp_path / "found" / "net-second-search.svg")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--array 8", "--array 8: write ROWSxCOLUMNS, such as 32x32"),
        ("--array 0x8", "SpatialArray(rows=0): must be an integer >= 1"),
        ("--keep A", "unknown tensor to keep 'A'; known: input, weight, grad_output"),
        ("--folds all", "unknown way of folding 'all'; known: pipelined"),
        ("--form im2col", "unknown form of the nest 'im2col'; known: lowered, direct"),
        ("--layer third", "unknown layer of net 'third'; known: first, second"),
        ("--folds none --array 4x4", "smaller than the unrolled loops k, j"),
        ("--pes 64", "--pes 64 would be ignored: it is a limit of --search"),
        ("--search --objective area", "unknown objective 'area'; known: energy"),
        ("--search --pes 0", "search(pes=0): must be an integer >= 1"),
        ("--search --buffers 8", "a search sizes them; limit them by --sram"),
        ("--energy none", "unknown energy table 'none'"),
    ],
)
def test_wrong_arguments_give_one_line_and_status_2(run, tmp_path, line, said) -> None:
    status, _, complaint = run(f"--topology net.csv {line} --out made")
    assert said in complaint
    assert len(complaint.splitlines()) == 1
    assert status == 2
    assert not (tmp_path / "made").exists()
