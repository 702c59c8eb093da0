"""size and timeline as a person at the command line meets them."""

import csv
import gzip
import json
import sys
from pathlib import Path

import pytest

from elision.accelerators import InterGrad, Systolic
from elision.accelerators.step import step_cost
from elision.cli.main import main
from elision.products import Product, Trace, synthetic_products
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
        ("size --topology net.csv --tolerance nan", "must be a number >= 0"),
        ("size --topology net.csv --bandwidth nan", "must be a number in (0, inf]"),
        (
            "size --topology net.csv --batch 2",
            "--batch 2: net.csv has sizes of its own",
        ),
        ("size --topology net.csv --energy none", "unknown energy table 'none'"),
        (
            "size --accelerator systolic:energy=horowitz-45nm --energy aladdin-40nm",
            "energy=aladdin-40nm would be ignored: systolic lacks it or is given its own",
        ),
        ("timeline --model cnn --topology net.csv", "give one of --model, --topology"),
        ("timeline --trace t --onnx x", "give one of --trace, --onnx"),
        ("timeline --trace t --sparsity 0.5", "--sparsity: a trace brings its own"),
        ("timeline --trace t --batch 2", "--batch: a trace brings its own"),
        (
            "timeline --topology net.csv --input 8",
            "--input 8: net.csv has sizes of its",
        ),
        (
            "timeline --topology net.csv --sparsity nan",
            "sparsity=nan): must be a number",
        ),
        ("timeline --topology net.csv --sparsity 2", "sparsity=2.0): must be a number"),
        (
            "timeline --topology net.csv --seed -1",
            "timeline(seed=-1): must be an integ",
        ),
        (
            "trace --model cnn --recipe swat",
            "--recipe swat would be ignored: there is no",
        ),
        (
            "trace --model cnn --samples 3",
            "--samples 3 would be ignored: there is no run",
        ),
        (
            "trace net.csv --sparsity 0.5",
            "--sparsity 0.5 would be ignored: the trace file",
        ),
        ("trace . --model cnn", "--model cnn would be ignored: the run in ."),
        ("trace --model cnn --seed -1", "trace(seed=-1): must be an integer >= 0"),
        ("data energies", "unknown kind of file 'energies' (did you mean 'energy'?)"),
        ("data energy horowitz", "unknown energy table 'horowitz' (did you mean"),
    ],
)
def test_mistakes_are_answered_with_one_line(run, command, complaint):
    before = {path.name for path in Path().iterdir()}
    status, shown, said = run(command)
    assert (status, shown) == (2, "")
    assert {path.name for path in Path().iterdir()} == before
    assert complaint in said
    assert "\n" not in said


def test_a_random_trace_is_the_step_that_simulate_costs(run, tmp_path: Path) -> None:
    status, _, _ = run("trace --model cnn --sparsity weight=0.5 --out t.safetensors")
    assert status == 0
    products = list(Trace.load(tmp_path / "t.safetensors"))
    assert sum(product.kind is Product.INPUT_GRAD for product in products) == 3
    shares = [product.densities for product in products if product.name == "classifier"]
    assert shares[0]["weight"] == pytest.approx(0.5, abs=0.01)
    assert shares[0]["input"] == 1
    _, recorded, _ = run("simulate --trace t.safetensors --accelerator scnn")
    _, drawn, _ = run("simulate --model cnn --sparsity weight=0.5 --accelerator scnn")
    cycles = [text.split(" all ")[1].split()[0] for text in (recorded, drawn)]
    assert cycles[0] == cycles[1]


def test_a_table_to_edit_is_printed_and_read(run, tmp_path: Path) -> None:
    status, text, complaint = run("data energy aladdin-40nm")
    assert (status, complaint) == (0, "")
    (tmp_path / "mine.toml").write_text(text.replace("dram_pj = 650", "dram_pj = 1300"))
    shown = []
    for energy in ("aladdin-40nm", "mine.toml"):
        at = f"--topology net.csv --accelerator systolic --energy {energy}"
        status, table, _ = run(f"size {at}")
        assert status == 0
        assert f"systolic:energy={energy}" in table
        _, table, _ = run(f"simulate {at}")
        shown.append(
            [line.split()[-2:] for line in table.splitlines() if " all " in line]
        )
    (less,), (more,) = shown
    off_chip, total = (float(cell.replace(",", "")) for cell in less)
    dearer, dearer_total = (float(cell.replace(",", "")) for cell in more)
    assert dearer == pytest.approx(2 * off_chip, rel=1e-3)
    assert dearer_total - total == pytest.approx(off_chip, rel=1e-3)
