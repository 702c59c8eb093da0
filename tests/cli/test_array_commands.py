"""size and timeline as a person at the command line meets them."""

import csv
import gzip
import json
import sys

import pytest

from elision.accelerators import InterGrad, Systolic
from elision.accelerators.step import step_cost
from elision.cli.main import main
from elision.products import Trace, synthetic_products
from elision.workloads.shapes import read_topology

# The arguments are those of the process, which is what the command line reads.
pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without")

NETWORK = (
    "Layer name,IFMAP Height,IFMAP Width,Filter Height,Filter Width,Channels,"
    "Num Filter,Strides,\n"
    "first,18,18,3,3,3,8,1,\nsecond,16,16,3,3,8,8,2,\n"
)


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs a command in a folder of its own: exit status, output, complaint."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.csv").write_text(NETWORK)

    def call(command):
        monkeypatch.setattr(sys, "argv", ["elision", *command.split()])
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


def events(path):
    data = path.read_bytes()
    text = gzip.decompress(data) if path.suffix == ".gz" else data
    return json.loads(text)["traceEvents"]


def test_buffers_and_shapes_are_shown_and_kept(run, tmp_path):
    status, shown, complaint = run(
        "size --topology net.csv --accelerator systolic:rows=8,columns=4 "
        "--bandwidth 1000 --out sized"
    )
    assert (status, complaint) == (0, "")
    (row,) = rows_of(tmp_path / "sized" / "buffers.csv")
    array = Systolic(8, 4)
    cycles = step_cost(array, read_topology(tmp_path / "net.csv")).cycles
    assert int(row["cycles"]) == cycles
    assert f"{cycles:,}" in shown
    assert row["stall cycles"] == row["unavoidable"] == "0"
    shapes = rows_of(tmp_path / "sized" / "shapes.csv")
    assert [int(shape["rows"]) for shape in shapes] == [1, 2, 4, 8, 16, 32]
    (figure,) = (tmp_path / "sized").glob("*.svg")
    fewest = min(shapes, key=lambda shape: int(shape["cycles"]))
    assert f"best {fewest['rows']}×{fewest['columns']}" in figure.read_text()


def test_a_timeline_has_a_process_per_machine_and_ends_with_its_cost(run, tmp_path):
    command = (
        "timeline --topology net.csv --accelerator systolic intergrad --out t.json"
    )
    status, _, complaint = run(command)
    assert (status, complaint) == (0, "")
    layers = read_topology(tmp_path / "net.csv")
    found = events(tmp_path / "t.json")
    for pid, machine in enumerate((Systolic(), InterGrad()), start=1):
        track = next(
            e["tid"]
            for e in found
            if (e["pid"], e["args"]["name"] if e["ph"] == "M" else "")
            == (pid, "product")
        )
        products = [
            e for e in found if e["ph"] == "X" and (e["pid"], e["tid"]) == (pid, track)
        ]
        end = max(event["ts"] + event["dur"] for event in products)
        assert end == step_cost(machine, layers).cycles
    run(command + ".gz")
    assert events(tmp_path / "t.json.gz") == found
    status, _, _ = run(command.replace("t.json", "t.svg") + " --layer second")
    assert status == 0
    picture = (tmp_path / "t.svg").read_text()
    assert "second input_grad + weight_grad" in picture
    assert "first" not in picture


def test_a_timeline_of_a_trace_is_that_of_its_last_step(run, tmp_path):
    layers = read_topology(tmp_path / "net.csv")
    trace = Trace.of(synthetic_products(layers, 0.5))
    trace.save(tmp_path / "t.safetensors")
    status, shown, _ = run("timeline --trace t.safetensors --accelerator ant")
    assert status == 0
    assert shown.split()[4:6] == ["ant", "6"]


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("size --accelerator scnn", "'scnn' has no array to size"),
        ("size --accelerator intergrad:zero_gating=true", "gates no zeros"),
        ("size --topology net.csv --tolerance -1", "must be a number >= 0"),
        ("size --topology net.csv --bandwidth 0", "must be a number in (0, inf]"),
        ("size --accelerator systolic:rows=0", "rows=0): must be an integer >= 1"),
        ("size --accelerator systolic:buffers=4", "needs at least 8 KiB"),
        ("timeline --topology net.csv --out t.png", ".json, .json.gz, .svg"),
        ("timeline --topology net.csv --layer third", "unknown layer 'third'"),
        ("timeline --topology net.csv --folds 0", "must be an integer >= 1"),
        ("timeline --trace none", "no such trace file"),
    ],
)
def test_mistakes_are_answered_with_one_line(run, command, complaint):
    status, _, said = run(command)
    assert status == 2
    assert complaint in said
    assert "\n" not in said
