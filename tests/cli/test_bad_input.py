"""What a person sees who asks for something that cannot be: one line, and no debris."""

import tomllib
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from small_disk import largest_file

from elision.cli import main as cli
from elision.common.files import is_partial, write_text
from elision.products import MatmulGeometry, Trace, synthetic_products
from elision.workloads import presets

Run = Callable[[str], tuple[int, str]]
DIGITS = (
    "study --workload digits-cnn --epochs 1 --recipe swat --accelerator dense --out run"
)


@pytest.fixture
def elision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """The command line in an empty folder: its exit status and what it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.app, "config", cli.app.config)

    def run(line: str) -> tuple[int, str]:
        status = 0
        try:
            cli.main(line.split())
        except SystemExit as end:
            status = int(end.code or 0)
        return status, capsys.readouterr().err.strip()

    return run


def files() -> set[str]:
    return {str(p) for p in Path().rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("simulate --batch 2.5", '--batch: unable to convert "2.5" into int'),
        ("study --epochs 2.0", '--epochs: unable to convert "2.0" into int'),
        ("study --seeds 0 1.5", '--seeds: unable to convert "1.5" into int'),
        ("simulate --n 4 2.5", '--n: unable to convert "2.5" into int'),
        ("reproduce scnn --seed 0.5", '--seed: unable to convert "0.5" into int'),
        ("study --workload digit-cnn", "(did you mean 'digits-cnn'?); known: photo-"),
        ("study --recipe swatt", "(did you mean 'swat'?); known: dense, swat"),
        ("study --accelerator ants", "(did you mean 'ant'?); known: ant, dense"),
        ("study --probe nothing", "unknown probe 'nothing'"),
        ("study --recipe swat:sparsty=0.9", "(did you mean 'sparsity'?); known: "),
        ("study --recipe swat:sparsity=1.0", "must be a number in [0, 1)"),
        ("study --recipe swat:sparsity=-0.1", "must be a number in [0, 1)"),
        ("study --recipe swat:sparsity=many", "must be a number in [0, 1)"),
        ("study --recipe resprop:reuse=1", "must be a number in [0, 1)"),
        ("study --recipe meprop:keep=0", "a count >= 1 or a share in (0, 1]"),
        ("study --recipe swat:sparsity", "write swat:parameter=value"),
        ("study --recipe swat(sparsity=0.9", "a parenthesis is not closed"),
        ("study --recipe swat(0.9,sparsity=0.9)", "'sparsity' is given twice"),
        ("study --recipe swat:sparsity=0.9,sparsity=0.8", "'sparsity' is given twice"),
        ("study --recipe dense(1)", "without a name may stand for no parameter"),
        ("study --accelerator systolic(rows=32,rows=16)", "'rows' is given twice"),
        ("study --accelerator ant(windw=8)", "(did you mean 'window'?); known: "),
        ("simulate --accelerator ant(windw=8)", "(did you mean 'window'?); known: "),
        ("study --memory bits:averag=4", "(did you mean 'average'?); known: average"),
        ("study --memory bits(4", "a parenthesis is not closed"),
        ("study --recipe dense dense", "one is given twice"),
        ("study --recipe swat:sparsity=0.9 swat(0.9)", "one is given twice"),
        ("study --accelerator ant:window=8 ant(window=8)", "one is given twice"),
        ("study --probe speed speed()", "one is given twice"),
        ("study --accelerator ant:window=0", "Ant(window=0)"),
        ("study --epochs 0", "Workload(epochs=0): must be an integer >= 1"),
        ("study --epochs many", 'unable to convert "many" into int'),
        ("study --epoch 3", "Did you mean --epochs?"),
        ("studdy", 'Unknown command "studdy"'),
        ("study --workload cifar10-resnet18", "data_batch_1.bin"),
        (
            "study --workload cifar10-resnet18 --data nowhere",
            "no data_batch_1 in nowhere",
        ),
        ("train nothing", "unknown recipe 'nothing'"),
        ("simulate --model nothing", "unknown model 'nothing'; known: cnn"),
        ("simulate --accelerator nothing", "unknown accelerator 'nothing'; known: ant"),
        ("simulate --sparsity 1.0", "sparsity=1.0): must be a number in [0, 1)"),
        ("simulate --sparsity -0.1", "sparsity=-0.1): must be a number in [0, 1)"),
        ("simulate --input 0", "input must be >= 1, got 0"),
        ("simulate --trace nothing", "nothing: no such trace file"),
        ("simulate net.csv", "elision simulate takes no 'net.csv'; `elision simulate"),
        ("trace nothing", "nothing: not a run folder"),
        ("trace --model cnn --sparsity 2", "sparsity=2.0): must be a number in [0, 1)"),
        ("compare nothing", "nothing: no such run folder"),
        ("report nothing", "nothing: not a run folder (it has no config.toml)"),
        ("serve nothing", "nothing: no such folder"),
        ("serve . --port 1.5", '--port: unable to convert "1.5" into int'),
        ("reproduce nothing", 'Unknown command "nothing"'),
        ("study --config nothing.toml", "nothing.toml: no such configuration file"),
    ],
)
def test_wrong_arguments_give_one_line_and_status_2(
    elision: Run, line: str, said: str
) -> None:
    status, error = elision(line)
    assert said in error
    assert len(error.splitlines()) == 1
    assert error.startswith("elision: ")
    assert status == 2
    assert not files()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[study", "bad.toml: not readable as TOML"),
        ('[study]\nworkload = "nothing"', "unknown workload 'nothing'"),
        ("[study]\nepoch = 3", "bad.toml. Did you mean --epochs?"),
        ("[study]\nepochs = 'many'", 'unable to convert "many" into int'),
    ],
)
def test_a_wrong_configuration_names_its_place(
    elision: Run, content: str, said: str
) -> None:
    write_text(Path("bad.toml"), content)
    status, error = elision("study --config bad.toml")
    assert (status, len(error.splitlines())) == (2, 1)
    assert said in error
    assert files() == {"bad.toml"}


def test_an_energy_table_that_lacks_prices_is_found_before_training(
    elision: Run,
) -> None:
    table = 'name = "mine"\nnode_nm = 7\nsource = "none"\n[energy_pj]\nmultiply = 1\n'
    write_text(Path("mine.toml"), table)
    machine = "--accelerator systolic:energy=mine.toml ant:energy=mine.toml"
    status, error = elision(f"study --workload digits-cnn {machine}")
    assert (status, len(error.splitlines())) == (2, 1)
    for gap in ("'add', 'add_int32', 'compare'", "SRAM", "DRAM", "register"):
        assert gap in error
    assert files() == {"mine.toml"}


def test_a_configuration_and_flags_say_the_same(elision: Run) -> None:
    flags = DIGITS.replace("--out run", "--out one")
    assert elision(flags)[0] == 0
    text = """[study]
    workload = "digits-cnn"
    epochs = 1
    recipe = ["swat"]
    accelerator = ["dense"]
    """
    write_text(Path("study.toml"), text)
    assert elision("study --config study.toml --out two")[0] == 0
    for name in ("summary.json", "config.toml", "trace.safetensors"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda run: run.write_text("mine"), "run: is a file"),
        (lambda run: claim(run, "thesis.tex", "mine"), "run: not empty and not a run"),
        (
            lambda run: claim(run, "config.toml", "layout = 99"),
            "run folder of layout 99",
        ),
        (lambda run: claim(run, "config.toml", "[study]"), "run folder of layout None"),
        (lambda run: claim(run, "config.toml", "layout ="), "not readable as TOML"),
        (
            lambda run: claim(run, "config.toml", "layout = 1\n[study]\nseed = 5"),
            "holds a run with another seed",
        ),
    ],
)
def test_a_folder_of_something_else_is_left_alone(
    elision: Run, prepare: Callable[[Path], None], said: str
) -> None:
    prepare(Path("run"))
    before = {name: Path(name).read_bytes() for name in files()}
    status, error = elision(DIGITS)
    assert (status, len(error.splitlines())) == (2, 1)
    assert said in error
    assert {name: Path(name).read_bytes() for name in files()} == before


def claim(run: Path, name: str, content: str) -> None:
    run.mkdir()
    (run / name).write_text(content)


def test_a_layer_that_does_not_fit_is_named(elision: Run) -> None:
    header = (
        "Layer, IFMAP H, IFMAP W, Filter H, Filter W, Channels, Num Filter, Strides,"
    )
    write_text(Path("net.csv"), f"{header}\nfirst, 5, 5, 9, 9, 3, 8, 1,\n")
    status, error = elision("simulate --topology net.csv")
    assert (status, len(error.splitlines())) == (2, 1)
    assert "net.csv, line 2: Conv2dGeometry: kernel (9, 9)" in error
    assert "does not fit the input 5x5 padded by (0, 0)" in error


@pytest.mark.parametrize("cut", [0, 9, 200, -1])
def test_a_cut_trace_is_named(elision: Run, cut: int) -> None:
    path = Path("t.safetensors")
    Trace.of(synthetic_products([("fc", MatmulGeometry(3, 4, 5))], 0.5)).save(path)
    assert elision(f"simulate --trace {path} --accelerator ant")[0] == 0
    path.write_bytes(path.read_bytes()[:cut])
    for line in (f"simulate --trace {path}", f"trace {path}"):
        status, error = elision(line)
        assert (status, len(error.splitlines())) == (2, 1)
        assert "t.safetensors: not a complete trace file" in error


def test_a_loss_that_is_no_number_names_step_and_layer(
    elision: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    wild = replace(presets.WORKLOADS["digits-cnn"], learning_rate=1e30)
    monkeypatch.setitem(presets.WORKLOADS, "digits-cnn", wild)
    status, error = elision(DIGITS)
    assert status == 1
    assert "the loss is nan at step " in error.splitlines()[-1]
    assert "layer '" in error
    assert not [name for name in files() if name.endswith((".safetensors", ".html"))]


def test_a_full_disk_leaves_a_run_that_goes_on(elision: Run) -> None:
    full_at = {
        0: "config.toml",
        160: "env.json",
        20_000: "trace-1.safetensors",
        120_000: "checkpoint.safetensors",
    }
    for size, stopped in full_at.items():
        with largest_file(size):
            status, error = elision(DIGITS)
        assert status == 1
        last = error.splitlines()[-1]
        assert last.startswith("elision: run")
        assert f"{stopped}: could not be written: " in last
        assert not [name for name in files() if is_partial(Path(name))]
    assert elision(DIGITS)[0] == 0
    assert elision(DIGITS.replace("--out run", "--out whole"))[0] == 0
    for name in ("summary.json", "metrics.jsonl", "config.toml"):
        assert Path("run", name).read_bytes() == Path("whole", name).read_bytes()
    assert tomllib.loads(Path("run/config.toml").read_text())["layout"] == 1


def test_a_study_under_torchrun_is_refused(
    elision: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    status, error = elision(DIGITS)
    assert status == 2
    assert "`elision train` under torchrun" in error
    assert not files()


def test_an_interruption_says_how_it_goes_on(
    elision: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("elision.study.study", interrupted)
    assert elision(DIGITS) == (1, "elision: interrupted; the same command continues")


def test_a_warning_of_the_library_is_one_line_and_others_keep_their_place() -> None:
    usual = warnings.formatwarning
    with cli._notices():
        own = warnings.formatwarning("it wraps", UserWarning, cli.__file__, 1)
        other = warnings.formatwarning("it wraps", UserWarning, "model.py", 1)
    assert own == "elision: it wraps\n"
    assert other == usual("it wraps", UserWarning, "model.py", 1)
    assert warnings.formatwarning is usual
