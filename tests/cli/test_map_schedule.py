"""elision map with a listing, as a person at the command line meets it."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from elision.accelerators.spatial.schedule import read
from elision.cli import main as cli
from elision.native.shared_object import unavailable

Run = Callable[[str], tuple[int, str, str]]

WRONG = (
    "size M = 8, N = 8, K = 8\nloop i < M, j < N, k < K\n"
    "C[i, j] += A[i, k] * B[k, j]\nunroll(j, i)\nforward(A, {0,1})\n"
)


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """elision map in an empty folder: its exit status, output and complaint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.app, "config", cli.app.config)
    (tmp_path / "wrong.t2s").write_text(WRONG)

    def call(line: str) -> tuple[int, str, str]:
        status = 0
        try:
            cli.main(["map", *line.split()])
        except SystemExit as end:
            status = int(end.code or 0)
        out, complaint = capsys.readouterr()
        return status, out, complaint.strip()

    return call


def test_a_listing_gives_tables_a_figure_and_code(run: Run, tmp_path: Path) -> None:
    line = (
        "--schedule gemm.t2s --sizes 64,48,130 --code python --clock-mhz 200 --out made"
    )
    status, out, complaint = run(line)
    assert (status, complaint) == (0, "")
    design = read("gemm.t2s", {"M": 64, "N": 48, "K": 130}).design()
    assert f"{design.cycles:,} cycles: " in out
    assert f"{design.gflops(200):.4g} GFLOP/s" in out
    made = tmp_path / "made"
    names = {"gemm-map.csv", "gemm-network.csv", "gemm-buffers.csv", "gemm-tensors.csv"}
    assert {p.name for p in made.iterdir()} == names | {"gemm.svg", "gemm.py"}
    compile((made / "gemm.py").read_text("utf-8"), "gemm.py", "exec")
    drawn = ElementTree.fromstring((made / "gemm.svg").read_text("utf-8"))
    words = {text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert {"A_feeder", "B_loader", "C_drainer", "memory: A"} <= words


def test_code_is_printed_without_a_folder(run: Run) -> None:
    status, out, _ = run("--schedule gemm.t2s --code cpp")
    assert status == 0
    assert "#pragma omp parallel for collapse(2)" in out


def test_a_schedule_is_proved(run: Run) -> None:
    pytest.importorskip("islpy")
    status, out, _ = run("--schedule conv.t2s --verify")
    assert status == 0
    assert "recurrence at T=1: proved for all sizes, sums in the same order" in out


def test_without_isl_is_said_what_is_lost(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "islpy" else find(name),
    )
    status, out, _ = run("--schedule gemm.t2s --sizes 3,4,5 --verify")
    assert status == 0
    assert "unknown: islpy is not installed" in out
    assert "nothing is said about other sizes" in out


def test_a_refuted_program_fails_with_its_witness(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from elision.accelerators.spatial.schedule import code

    right = code.mapped_program

    def wrong(schedule, buffers=True):
        return right(schedule, buffers).replace("kk in range(128)", "kk in range(127)")

    monkeypatch.setattr(code, "mapped_program", wrong)
    status, _, complaint = run("--schedule gemm.t2s --verify")
    assert status == 1
    assert "the mapped program is refuted: " in complaint
    assert "A[" in complaint


def test_python_runs_beside_torch(run: Run) -> None:
    status, out, _ = run(
        "--schedule gemm.t2s --sizes 7,17,129 --run --code python --out o"
    )
    assert status == 0
    assert "python beside torch" in out
    assert "einsum" in out


@pytest.mark.skipif(unavailable() is not None, reason="no compiler")
def test_cpp_runs_beside_torch(run: Run) -> None:
    status, out, _ = run("--schedule gemm.t2s --sizes 7,17,129 --run")
    assert status == 0
    assert "cpp beside torch" in out


def test_a_network_gives_a_row_a_layer(run: Run) -> None:
    status, out, _ = run("--schedule conv.t2s --model resnet18 --input 16 --out o")
    assert status == 0
    assert "layer2.0.downsample.0" in out
    assert "Left out: fc is a matrix product, the listing a convolution." in out
    rows = Path("o/conv-resnet18.csv").read_text("utf-8").splitlines()
    assert rows[-1].startswith("all,")
    status, out, _ = run("--schedule gemm-two-level.t2s --model resnet18 --input 16")
    assert status == 0
    assert "M=1 N=10 K=512" in out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--schedule gem.t2s", "no listing 'gem.t2s'"),
        (
            "--schedule wrong.t2s",
            "wrong.t2s:5:1: forward(A,{0,1}): i indexes A, it is no",
        ),
        (
            "--schedule gemm.t2s --array 4x4",
            "needs 6 rows and 16 columns, the array has 4",
        ),
        (
            "--schedule gemm.t2s --sizes Q=3",
            "unknown size of gemm.t2s 'Q'; known: M, N, K",
        ),
        ("--schedule gemm.t2s --sizes 1,2,3,4", "gemm.t2s has 3 sizes: M, N, K"),
        (
            "--schedule gemm.t2s --sizes big",
            "write numbers in the order of M, N, K, or NA",
        ),
        (
            "--schedule gemm.t2s --sizes 0,1,1",
            "loop i has 0 iterations; it needs 1 or more",
        ),
        (
            "--schedule gemm.t2s --code ada",
            "unknown language of --code 'ada'; known: cpp",
        ),
        (
            "--schedule gemm.t2s --clock-mhz 0",
            "map(clock_mhz=0.0): must be a number > 0",
        ),
        ("--schedule gemm.t2s --search", "--search would be ignored: a schedule says"),
        (
            "--schedule gemm.t2s --model resnet18 --run",
            "--run would be ignored: a network",
        ),
        ("--code cpp", "--code cpp would be ignored: it is of --schedule"),
        ("--verify", "--verify would be ignored: it is of --schedule"),
    ],
)
def test_what_cannot_be_is_one_line(run: Run, line: str, said: str) -> None:
    status, _, complaint = run(line)
    assert status == 2
    assert said in complaint
    assert "\n" not in complaint
