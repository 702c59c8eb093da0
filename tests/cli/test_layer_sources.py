"""Where the layers of a command come from, and the arguments that each source takes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from elision.cli.main import main

# The arguments are given here, not read from the process.
pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without")

Run = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Run:
    """Runs a command in a folder of its own: exit status, output, complaint."""
    monkeypatch.chdir(tmp_path)
    Path("net.csv").write_text("Layer,M,N,K,\nfc,4,5,6,\n")

    def call(command: str) -> tuple[int, str, str]:
        status = 0
        try:
            main(command.split())
        except SystemExit as end:
            status = int(end.code or 0)
        out, complaint = capsys.readouterr()
        return status, out, complaint

    return call


def write_graph(path: str, open_size: str = "N", unknown: bool = False) -> None:
    onnx = pytest.importorskip("onnx")
    make = onnx.helper.make_node
    nodes = [make("MatMul", ["x", "w"], ["y"], "fc")]
    if unknown:
        nodes.append(make("Fused", ["x"], ["z"], domain="own"))
    graph = onnx.helper.make_graph(
        nodes,
        "graph",
        [onnx.helper.make_tensor_value_info("x", 1, [open_size, 3, 4])],
        [onnx.helper.make_tensor_value_info("y", 1, None)],
        [onnx.helper.make_tensor("w", 1, [4, 5], bytes(80), raw=True)],
    )
    onnx.save(onnx.helper.make_model(graph), path)


def test_an_onnx_graph_takes_its_sizes_by_name(run: Run) -> None:
    write_graph("a.onnx")
    write_graph("b.onnx", "M")
    assert run("shapes --onnx a.onnx --dim N=7")[1].split()[-1] == f"{7 * 3 * 4 * 5}"
    status, shown, _ = run("shapes --onnx a.onnx b.onnx --dim N=7 M=2")
    assert status == 0
    assert [line.split()[-1] for line in shown.splitlines()[1:]] == ["420", "120"]


def test_a_template_takes_its_sizes_by_name(run: Run) -> None:
    Path("lstm.csv").write_text("Layer,M,N,K,\ngates,B,H,H,\n")
    write_graph("a.onnx", "B")
    status, shown, _ = run("shapes --topology lstm.csv --onnx a.onnx --dim B=2 H=3")
    assert status == 0
    assert [line.split()[-1] for line in shown.splitlines()[1:]] == ["18", "120"]
    status, _, said = run("shapes --topology lstm.csv --dim B=2")
    assert status == 2
    assert "line 2: N must be an integer >= 1, got 'H'; if the file is a" in said
    assert "--dim H=SIZE" in said


def test_what_was_not_read_goes_to_standard_error(run: Run) -> None:
    write_graph("a.onnx", unknown=True)
    status, shown, said = run("shapes --onnx a.onnx --dim N=7")
    assert (status, len(shown.splitlines())) == (0, 2)
    assert said == "elision: a.onnx: not read: own:Fused (1)\n"


@pytest.mark.parametrize("command", ["shapes", "simulate", "size", "timeline"])
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--onnx a.onnx", "a size: N; give dims={'N': SIZE, ...}, or --dim N=SIZE"),
        (
            "--onnx a.onnx --dim M=2",
            "--dim M: no file leaves it open; open ones: N, x.0",
        ),
        ("--onnx a.onnx --dim N=x", "--dim N=x: must be NAME=SIZE"),
        ("--onnx a.onnx --dim N", "--dim N: must be NAME=SIZE"),
        ("--onnx a.onnx --dim N=1 N=2", "--dim N=2: must be NAME=SIZE"),
        ("--onnx a.onnx --dim N=0", "a.onnx: no product was read; its"),
        ("--model cnn --dim N=1", "--dim N: there is no file (--onnx, --topology)"),
        ("--topology net.csv --batch 2", "--batch 2: net.csv has sizes of its own"),
        ("--topology net.csv --input 8", "--input 8: net.csv has sizes of its own"),
        ("--onnx a.onnx --batch 2", "--batch 2: a.onnx has sizes of its own"),
        ("--model alexnet --input 64", "published network 'alexnet' has an image size"),
    ],
)
def test_no_argument_is_ignored(
    run: Run, command: str, arguments: str, complaint: str
) -> None:
    write_graph("a.onnx")
    status, shown, said = run(f"{command} {arguments}")
    assert (status, shown) == (2, "")
    assert complaint in said
    assert len(said.splitlines()) == 1


def test_sizes_of_several_graphs_must_be_of_one(run: Run) -> None:
    write_graph("a.onnx")
    write_graph("b.onnx", "M")
    status, _, said = run("shapes --onnx a.onnx b.onnx --dim N=1 M=1 Q=1")
    assert status == 2
    assert "--dim Q: no file leaves it open; open ones: N, x.0, M" in said


def test_the_images_of_a_model_are_32_pixels_and_one_by_default(run: Run) -> None:
    assert run("shapes --model cnn") == run("shapes --model cnn --input 32 --batch 1")


def test_a_network_written_and_read_again_costs_the_same(run: Run) -> None:
    """An MLP's matrix products stay matrix products."""
    assert run("shapes --model mlp --out mlp.csv")[0] == 0
    machines = "--accelerator ant scnn dense systolic --sparsity 0.8"
    direct = run(f"simulate --model mlp {machines}")
    assert direct[0] == 0
    assert run(f"simulate --topology mlp.csv {machines}") == direct
