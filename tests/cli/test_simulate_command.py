"""simulate and shapes as a person at the command line meets them."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from elision.accelerators import Ant, Cost, InterGrad, Scnn
from elision.accelerators.step import step_cost, training_products
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
    rows = [line for line in lines if line.startswith("net ")]
    assert len(rows) == 2 * 4
    cost = Cost()
    layers = read_topology(tmp_path / "net.csv")
    for product in training_products(synthetic_products(layers, 0.8)):
        cost += Ant(group=2).cost(product)
    assert rows[-1].split()[:6] == [
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
        # Of both layers the three products, less the first input gradient, and the sum.
        assert len(list(csv.DictReader(file))) == (2 * 3 - 1 + 1) * len(machines)
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
        ("--trace misfit.safetensors", "weight has shape (1, 1, 3, 3), its geometry"),
        ("--accelerator antt", "did you mean 'ant'"),
        ("--accelerator ant:windw=3", "did you mean 'window'"),
        ("--accelerator ant:energy=mine.toml", "no price for the action 'compare'"),
        ("--accelerator ant --k 0", "Ant(window=0): must be an integer >= 1"),
        ("--accelerator scnn --elements -3", "elements=-3): must be an integer >= 1"),
        ("--accelerator dense --k 4", "unknown parameter of dense 'window'"),
        ("--startup-cycles -1", "startup_cycles=-1"),
        ("--sparsity 1.5", "sparsity=1.5): must be a number in [0, 1)"),
        ("--sparsity nan", "sparsity=nan): must be a number in [0, 1)"),
        ("--sparsity 0.9 many", "--sparsity many: write a number in [0, 1), or one"),
        ("--sparsity weight=0.5,weight=0.9", "or one for each operand once"),
        (
            "--sparsity weights=0.9",
            "unknown operand 'weights' (did you mean 'weight'?)",
        ),
        ("--sparsity weight=1", "sparsity=1.0): must be a number in [0, 1)"),
        ("--seed -1", "simulate(seed=-1): must be an integer >= 0"),
        ("--workers -1", "simulate(workers=-1): must be an integer >= 1"),
        ("--workers 0", "simulate(workers=0): must be an integer >= 1"),
        (
            "--accelerator dense --n 2",
            "multipliers=2 would be ignored: dense lacks it or",
        ),
        ("--accelerator ant:window=8 --k 4", "window=4 would be ignored: ant lacks it"),
        ("--energy none", "unknown energy table 'none'; known: aladdin-40nm"),
        ("--energy typo.toml", "typo.toml: unknown action in [energy_pj] 'multipy'"),
        ("--out other", "other: is a folder; name a file for the rows"),
        ("--sparsity", "parameter --sparsity requires at least 1 element"),
        ("--n --k 4", "parameter --n requires at least 1 element"),
        ("--plot p.png", "p.png: the name of a plot must end in .svg"),
        ("--topology net.csv --batch 4", "--batch 4: net.csv has sizes of its own"),
        ("--topology net.csv --input 64", "--input 64: net.csv has sizes of its own"),
        (
            "--trace whole.safetensors --sparsity 0.5",
            "--sparsity: a trace brings its own",
        ),
        ("--trace whole.safetensors --seed 1", "--seed: a trace brings its own"),
        ("--trace whole.safetensors --first-input-grad", "--first-input-grad: a trace"),
        ("--trace whole.safetensors --batch 2", "--batch 2: there is no model by name"),
        (
            "--trace net.safetensors --topology net.csv",
            "a trace and a network are called",
        ),
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
    for name in ("whole", "net"):
        Trace.of([product]).save(tmp_path / f"{name}.safetensors")
    (tmp_path / "typo.toml").write_text(TABLE.replace("multiply", "multipy"))
    misfit = Trace.of([product])
    record = misfit._records[0]
    object.__setattr__(record, "geometry", Conv2dGeometry(1, 1, 4, 4, 1, 2))
    misfit.save(tmp_path / "misfit.safetensors")
    image[0, 0, 0, 0] = np.nan
    Trace.of([product]).save(tmp_path / "nan.safetensors")
    if not command.startswith(("--model", "--trace", "--topology")):
        command = "--model cnn " + command
    before = {path.name for path in tmp_path.iterdir()}
    status, lines, complaint = run(f"simulate {command}")
    assert (status, lines) == (2, [])
    assert {path.name for path in tmp_path.iterdir()} == before
    assert message in complaint
    assert len(complaint.splitlines()) == 1


def cells(lines: list[str]) -> list[dict[str, str]]:
    """The printed table: its rows by heading, below which the cells stand."""
    starts = {
        found.group(): found.start() for found in re.finditer(r"\S+( \S+)*", lines[0])
    }
    ends = [*[*starts.values()][1:], None]
    return [
        {
            name: line[start:end].strip()
            for (name, start), end in zip(starts.items(), ends, strict=True)
        }
        for line in lines[1:]
        if line.startswith("net ")
    ]


def test_an_edited_topology_gives_its_own_numbers(
    run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command = "simulate --topology net.csv --accelerator ant scnn"
    run(f"{command} --out s.csv")
    reshaped = HEADER + LINES.replace("first,18,18,3,3,3,8", "first,10,34,3,3,3,8")
    (tmp_path / "net.csv").write_text(reshaped)
    status, lines, _ = run(f"{command} --out s.csv")
    assert "its rows of net were counted from something else" in caplog.text
    caplog.clear()
    expected = run(command)[1]
    assert (status, lines[: len(expected)]) == (0, expected)
    assert run(f"{command} --out s.csv") == (0, lines, "")
    assert not caplog.records
    (tmp_path / "net.csv").write_text(HEADER + LINES.replace(",8,1", ",16,1"))
    assert "its rows of 'net' are of other layers" in run(f"{command} --out s.csv")[2]


def test_an_edited_energy_table_gives_its_own_numbers(run, tmp_path: Path) -> None:
    status, lines, _ = run("data energy")
    assert status == 0
    text = "\n".join(lines)
    command = "simulate --topology net.csv --energy mine.toml --out s.json"
    energies = []
    for price in ("3.7", "7.4"):
        (tmp_path / "mine.toml").write_text(text.replace("ply = 3.7", f"ply = {price}"))
        status, lines, _ = run(command)
        assert status == 0
        (heading,) = re.findall(r"energy on chip, .J", lines[0])
        energies.append([row[heading] for row in cells(lines)])
        assert len(energies[-1]) == 12
    assert all(map(str.__ne__, *energies))
    rows = json.loads((tmp_path / "s.json").read_text())
    assert {row["parameter_energy"] for row in rows} == {"mine.toml"}
    assert {row["layer"] for row in rows} == {"first", "second", "all"}


def test_quantities_have_one_unit_and_cycles_are_over_those_of_the_dense_array(
    run, tmp_path: Path
) -> None:
    (tmp_path / "net.csv").write_text(
        HEADER + "a,130,130,3,3,64,64,1,\nb,34,34,3,3,64,64,1,\n"
    )
    command = (
        "simulate --topology net.csv --accelerator scnn dense intergrad --out s.csv"
    )
    status, lines, _ = run(command)
    assert status == 0
    rows = cells(lines)
    kept = [
        row
        for row in csv.DictReader((tmp_path / "s.csv").read_text().splitlines())
        if row["layer"] == "all"
    ]
    sums = {row["machine"]: int(row["cycles"]) for row in kept}
    totals = {row["machine"]: row for row in rows if row["product"] == "all"}
    assert list(totals) == ["scnn", "dense", "intergrad"]
    (heading,) = re.findall(r"cycles, [kM]", lines[0])
    factor = {"k": 1e-3, "M": 1e-6}[heading[-1]]
    for machine, cycles in sums.items():
        shown = float(totals[machine][heading].replace(",", ""))
        assert shown == pytest.approx(cycles * factor, rel=1e-3)
        ratio = float(totals[machine]["over dense"].removesuffix("x"))
        assert ratio == pytest.approx(cycles / sums["dense"], rel=1e-2)
    by_product = {
        r["product"]: r["over dense"] for r in rows if r["machine"] == "intergrad"
    }
    assert [name for name, ratio in by_product.items() if not ratio] == [
        "weight_grad",
        "input_grad+weight_grad",
    ]


def test_rows_are_never_doubled(run, tmp_path: Path) -> None:
    command = "simulate --topology net.csv --accelerator ant ant:window=16 --out s.csv"
    run(f"{command} --sparsity 0.9 0.90 .9 input=0.9,weight=0.9,grad_output=0.90")
    rows = list(csv.DictReader((tmp_path / "s.csv").read_text().splitlines()))
    assert len(rows) == 6
    run(f"{command} --sparsity 0.90 --n 4 4")
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 1 + 2 * 6


def test_energy_compares_equal_scopes(run) -> None:
    status, lines, _ = run("simulate --topology net.csv --accelerator ant systolic")
    assert status == 0
    rows = cells(lines)
    assert "No total energy: no DRAM is modelled for ant. Compare on chip." in lines
    assert "energy in all" not in lines[0]
    assert [bool(row.get("DRAM, µJ")) for row in rows] == 4 * [False] + 4 * [True]
    status, lines, _ = run(
        "simulate --topology net.csv --accelerator systolic intergrad"
    )
    assert not any("No total energy" in line for line in lines)
    for row in cells(lines):
        on_chip, off_chip, total = (
            float(row[f"{scope}, µJ"].replace(",", ""))
            for scope in ("energy on chip", "DRAM", "energy in all")
        )
        assert total == pytest.approx(on_chip + off_chip, rel=1e-3)
    assert "DRAM" not in run("simulate --topology net.csv")[1][0]


def test_the_first_input_gradient_has_one_rule(run, tmp_path: Path) -> None:
    """simulate, size and timeline cost the same step, and say of what it is."""
    for flag, words in (("", "without the"), ("--first-input-grad", "with an")):
        at = f"--topology net.csv --accelerator intergrad {flag}"
        found = []
        for command in ("simulate", "size", "timeline --out t.json"):
            status, lines, complaint = run(f"{command} {at}")
            assert (status, complaint) == (0, "")
            assert any(f"{words} input gradient of the first layer" in x for x in lines)
            found.append("\n".join(lines))
        cost = step_cost(InterGrad(), read_topology(tmp_path / "net.csv"), bool(flag))
        assert all(f" {cost.cycles:,} " in text for text in found)


def test_elements_compare_equal_multipliers(run) -> None:
    names = "ant scnn systolic dense intergrad"
    command = f"simulate --topology net.csv --accelerator {names} --elements 16 64"
    lines = run(f"{command} --sparsity 0.5 0.9 --workers 1")[1]
    counts = {row["machine"]: row["multipliers"] for row in cells(lines)}
    assert list(counts.values()) == 5 * ["256", "1,024"]


def test_a_sweep_is_drawn(run, tmp_path: Path) -> None:
    command = "simulate --topology net.csv --accelerator ant dense --plot p.svg"
    for more, said in (
        ("", ">cycles<"),
        ("--elements 16 64", ">multipliers<"),
        ("--sparsity 0.5 0.9 --workers 1", ">zeros, %<"),
    ):
        status, lines, _ = run(f"{command} {more}")
        assert (status, lines[-1]) == (0, "plot: p.svg")
        picture = (tmp_path / "p.svg").read_text()
        assert said in picture
        assert ">ant<" in picture
        assert ">net<" in picture


@pytest.mark.parametrize(
    "command",
    [
        "simulate --model cnn --accelerator dense",
        "data",
        "size --model cnn --accelerator systolic:rows=4,columns=4 --out sized",
    ],
)
def test_a_reader_that_stops_early_is_no_error(command: str, tmp_path: Path) -> None:
    """As `elision ... | head -1` does: not a word, and the files are there."""
    with subprocess.Popen(
        [sys.executable, "-m", "elision", *command.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.close()
        assert run.stderr.read() == b""
        assert run.wait() == 1
    assert (tmp_path / "sized").exists() == command.startswith("size")


def test_what_a_machine_says_of_its_figures_stands_below_them(run) -> None:
    command = "simulate --model cnn --accelerator scnn:mapping=planar"
    said = [line for line in run(command)[1] if line.startswith("scnn:mapping=planar:")]
    assert len(said) == 1
    assert "folds a fully connected layer" in said[0]
