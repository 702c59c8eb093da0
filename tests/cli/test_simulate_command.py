"""simulate and shapes as a person at the command line meets them."""

import csv
import sys

import numpy as np
import pytest

from elision.accelerators import Ant, Cost, Scnn
from elision.cli.main import main
from elision.products import (
    Conv2dGeometry,
    LayerProduct,
    Product,
    Trace,
    synthetic_products,
)
from elision.workloads.shapes import read_topology

# The arguments are those of the process, which is what the command line reads.
pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without")

HEADER = (
    "Layer name,IFMAP Height,IFMAP Width,Filter Height,Filter Width,Channels,"
    "Num Filter,Strides,\n"
)
LINES = "first,18,18,3,3,3,8,1,\nsecond,16,16,3,3,8,8,2,\n"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs a command in a folder of its own: exit status, lines, complaint."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.csv").write_text(HEADER + LINES)

    def call(command):
        monkeypatch.setattr(sys, "argv", ["elision", *command.split()])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
        out, complaint = capsys.readouterr()
        return status, out.splitlines(), complaint.strip()

    return call


def test_one_network_is_shown_by_product(run, tmp_path):
    status, lines, complaint = run(
        "simulate --topology net.csv --sparsity 0.8 --accelerator scnn ant:group=2"
    )
    assert (status, complaint) == (0, "")
    assert len(lines) == 1 + 2 * 4
    cost = Cost()
    for product in synthetic_products(read_topology(tmp_path / "net.csv"), 0.8):
        cost += Ant(group=2).cost(product)
    assert lines[-1].split()[:6] == [
        *("net", "80", "%", "ant:group=2", "all"),
        f"{cost.cycles:,}",
    ]


def test_lists_are_swept_and_kept(run, tmp_path):
    command = (
        "simulate --topology net.csv --sparsity 0.9 0.5 --accelerator scnn ant "
        "--n 2 4 --k 8 --startup-cycles 0 5 --elements 16 --workers 1 --out s.csv"
    )
    status, lines, _ = run(command)
    machines = [line.split()[3] for line in lines if line.startswith("net ")]
    assert status == 0
    assert machines == 2 * [
        f"{name}:multipliers={n},{window}startup_cycles={s},elements=16"
        for name, window in (("scnn", ""), ("ant", "window=8,"))
        for n in (2, 4)
        for s in (0, 5)
    ]
    with (tmp_path / "s.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 4 * len(machines)
    before = (tmp_path / "s.csv").read_bytes()
    again = run(command)
    assert again == (status, lines, "")
    assert (tmp_path / "s.csv").read_bytes() == before


def test_a_trace_brings_its_operands(run, tmp_path):
    layers = [("conv", Conv2dGeometry(1, 2, 8, 8, 3, 3, 1, 1))]
    products = list(synthetic_products(layers, 0.6))
    Trace.of(products).save(tmp_path / "t.safetensors")
    status, lines, _ = run("simulate --trace t.safetensors --accelerator scnn")
    total = sum(Scnn().cost(product).cycles for product in products)
    assert status == 0
    assert lines[-1].split()[:5] == ["t", "recorded", "scnn", "all", f"{total:,}"]


def test_shapes_are_listed_and_written_back(run, tmp_path):
    status, lines, _ = run("shapes --model resnet8 --out r.csv")
    assert status == 0
    assert lines[1].split()[:2] == ["resnet8", "conv1"]
    written = read_topology(tmp_path / "r.csv")
    assert f"{written[0][1].dense_macs:,}" in lines[1]
    assert run("simulate --topology r.csv --accelerator dense")[0] == 0
    status, lines, _ = run("shapes --topology net.csv --out g.csv --matmul")
    assert [g.dense_macs for _, g in read_topology(tmp_path / "g.csv")] == [
        g.dense_macs for _, g in read_topology(tmp_path / "net.csv")
    ]


TABLE = """
name = "mine"
node_nm = 7
source = "made up for this test"
[energy_pj]
multiply = 2.0
add = 1.0
add_int32 = 0.25
[sram_pj]
8 = 4.0
"""


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("--topology bad.csv", "bad.csv, line 3: Filter Width"),
        ("--topology none.csv", "none.csv: no such file"),
        ("--topology net.csv other/net.csv", "two networks are called 'net'"),
        ("--onnx net.csv", "net.csv: not an ONNX graph"),
        ("--model resnet81", "did you mean 'resnet8'"),
        ("--trace net.csv", "net.csv: not a complete trace"),
        ("--trace nan.safetensors", "input holds a NaN or an infinity"),
        ("--trace misfit.safetensors", "weight has shape (1, 1, 3, 3), the geometry"),
        ("--accelerator antt", "did you mean 'ant'"),
        ("--accelerator ant:windw=3", "did you mean 'window'"),
        ("--accelerator ant:energy=mine.toml", "no price for the action 'compare'"),
        ("--accelerator ant --k 0", "Ant(window=0): must be an integer >= 1"),
        ("--accelerator scnn --elements -3", "elements=-3): must be an integer >= 1"),
        ("--accelerator dense --k 4", "unknown parameter of dense 'window'"),
        ("--startup-cycles -1", "startup_cycles=-1"),
        ("--sparsity 1.5", "sparsity=1.5): must be a number in [0, 1)"),
        ("--sparsity nan", "sparsity=nan): must be a number in [0, 1)"),
        ("--input 0", "input must be >= 1, got 0"),
        ("--out net.csv", "net.csv: not a sweep's file"),
    ],
)
def test_mistakes_are_named(run, tmp_path, command, message):
    pytest.importorskip("onnx")
    (tmp_path / "bad.csv").write_text(HEADER + LINES.replace("16,3,3", "16,3,x"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "net.csv").write_text(HEADER + LINES)
    (tmp_path / "mine.toml").write_text(TABLE)
    image, weight = np.ones((1, 1, 4, 4), np.float32), np.ones((1, 1, 3, 3), np.float32)
    geometry = Conv2dGeometry.of(image.shape, weight.shape)
    product = LayerProduct(Product.FORWARD, geometry, image, weight, "conv")
    misfit = Trace.of([product])
    record = misfit._records[0]
    object.__setattr__(record, "geometry", Conv2dGeometry(1, 1, 4, 4, 1, 2))
    misfit.save(tmp_path / "misfit.safetensors")
    image[0, 0, 0, 0] = np.nan
    Trace.of([product]).save(tmp_path / "nan.safetensors")
    if not command.startswith(("--model", "--trace", "--topology")):
        command = "--model cnn " + command
    status, lines, complaint = run(f"simulate {command}")
    assert (status, lines) == (2, [])
    assert message in complaint
    assert len(complaint.splitlines()) == 1
