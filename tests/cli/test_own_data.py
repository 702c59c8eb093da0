"""Own data and network from the command line, folders by default, and adding to a run."""

import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from elision.cli import main as cli

NET = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, num_classes, width=4):
        super().__init__(
            nn.Conv2d(3, width, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(width, num_classes),
        )
"""

MINE = "--dataset folder --data pictures --model my_own.net:Net --batch 8 --lr 0.02"
DIGITS = "--workload digits-mlp --epochs 1"


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with two classes of images and a module with a network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.app, "config", cli.app.config)
    draw = np.random.default_rng(0)
    for level, name in ((80, "dark"), (170, "light")):
        Path("pictures", name).mkdir(parents=True)
        for i in range(20):
            pixels = draw.normal(level, 30, (12, 12, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(f"pictures/{name}/{i}.png")
    Path("my_own").mkdir()
    Path("my_own/net.py").write_text(NET)


def elision(line: str) -> int:
    try:
        cli.main(line.split())
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def summary(run: str) -> dict[str, object]:
    return json.loads(Path(run, "summary.json").read_text(encoding="utf-8"))


def checkpoints(run: str) -> dict[str, int]:
    files = Path(run).glob("recipes/**/checkpoint.safetensors")
    return {str(f): f.stat().st_mtime_ns for f in files}


@pytest.mark.parametrize("command", ["study --recipe dense swat", "train swat"])
def test_a_run_s_workload_file_runs_it_once_more(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    verb = command.split()[0]
    flags = f"{MINE} --epochs 2 --seeds 2 --optimizer adamw --out first"
    assert elision(f"{command} {flags}") == 0
    printed = capsys.readouterr().out
    assert "3x12x12 (as they are" in printed
    assert "all but the test accuracy is of seed 0" in printed
    kept = tomllib.loads(Path("first/workload.toml").read_text(encoding="utf-8"))
    assert kept["workload"]["model"] == "my_own.net:Net"
    assert (kept["workload"]["batch_size"], kept["workload"]["epochs"]) == (8, 2)
    Path("elsewhere").mkdir()
    monkeypatch.chdir(
        "elsewhere"
    )  # the data is found, and the network imported already
    assert elision(f"{verb} --config ../first/workload.toml --out ../second") == 0
    monkeypatch.chdir("..")
    for name in ("summary.json", "metrics.jsonl", "tables/work.csv"):
        assert Path("first", name).read_bytes() == Path("second", name).read_bytes()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--dataset folder --model mlp", "'folder' needs a path"),
        ("--dataset folder --data nowhere", "nowhere is not a folder"),
        ("--dataset folders", "did you mean 'folder'"),
        ("--dataset digits --data pictures", "takes no path"),
        ("--model my_own.net:Nte", "did you mean 'Net'"),
        (
            "--dataset digits --model my_own.net:Net",
            "my_own.net:Net' on Dataset('digits'",
        ),
        (
            "--dataset folder(channels=1) --data pictures --model my_own.net:Net",
            "to have 3 channels, but got 1 channels instead; folder(side=..., channels=",
        ),
        ("--batch 0", "batch_size=0"),
        ("--optimizer adam", "adam"),
        ("--seeds 1 1", "must be different seeds"),
        ("--seeds 1 5 --seed 2", "is not the first of seeds (1, 5)"),
    ],
)
@pytest.mark.parametrize("command", ["study", "train"])
def test_what_cannot_be_trained_is_one_line_and_no_folder(
    command: str, flags: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert elision(f"{command} {flags}") == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert len(error.splitlines()) == 1
    assert not Path("runs").exists()


def test_a_default_folder_that_holds_another_run_is_numbered() -> None:
    plain = f"study {DIGITS} --recipe dense --accelerator none"
    for line in (plain, f"{plain} --seed 1", f"{plain} --lr 0.01", plain):
        assert elision(line) == 0
    assert sorted(p.name for p in Path("runs").iterdir()) == [
        "study-digits-mlp",
        "study-digits-mlp-2",
        "study-digits-mlp-learning-rate-0.01",
    ]
    before = checkpoints("runs/study-digits-mlp")
    Path("runs/train-digits-mlp-dense").mkdir()
    Path("runs/train-digits-mlp-dense/thesis.tex").write_text("mine")
    assert elision(f"train dense {DIGITS}") == 0
    assert Path("runs/train-digits-mlp-dense-2/summary.json").is_file()
    assert checkpoints("runs/study-digits-mlp") == before


@pytest.mark.parametrize("resumed", [False, True])
def test_a_finished_run_is_given_more_and_trains_nothing_again(resumed: bool) -> None:
    plain = f"study {DIGITS} --recipe dense --accelerator dense --out run"
    assert elision(plain) == 0
    before = checkpoints("run")
    if resumed:
        more = "study --resume run --recipe swat --accelerator ant --seeds 0 2"
    else:
        more = f"{plain} --recipe swat --accelerator ant --seeds 0 2"
    assert elision(f"{more} --probe memory") == 0
    after = checkpoints("run")
    assert len(after) == 4
    assert before.items() <= after.items()
    assert Path("run/recipes/dense/probe-memory.json").is_file()
    assert elision(f"{more} --probe memory --out whole".replace("--out run", "")) == (
        2 if resumed else 0
    )
    if not resumed:
        assert summary("run") == summary("whole")


def test_less_or_other_than_a_run_holds_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert elision(f"study {DIGITS} --recipe dense --accelerator dense --out run") == 0
    before = Path("run/config.toml").read_bytes()
    run = f"study {DIGITS} --out run"
    for line, said in (
        (f"{run} --recipe swat", "the recipes dense as well"),
        (f"{run} --recipe dense --accelerator ant", "the accelerators dense as well"),
        (f"{run} --recipe swat dense --accelerator dense", "whose first recipe"),
        (f"{run} --recipe dense --accelerator dense --lr 1", "another workload"),
        ("study --resume run --epochs 3", "leave out the other flags"),
        ("study --resume run --batch 3", "leave out the other flags"),
        ("study --resume run --accelerator ants", "did you mean 'ant'"),
        ("study --resume nothing --accelerator ant", "nothing: not a run folder"),
    ):
        capsys.readouterr()
        assert elision(line) == 2
        assert said in capsys.readouterr().err
        assert Path("run/config.toml").read_bytes() == before


def test_lists_of_seeds() -> None:
    few = "--recipe dense --accelerator none"
    assert elision(f"study {DIGITS} {few} --seeds 3 8 --out list") == 0
    assert elision(f"study {DIGITS} {few} --seed 8 --out eight") == 0
    recipe = summary("list")["recipes"]["dense"]  # pyright: ignore[reportIndexIssue]
    eight = summary("eight")["recipes"]["dense"]  # pyright: ignore[reportIndexIssue]
    assert recipe["test_accuracy_by_seed"][1] == eight["test_accuracy"]
    assert summary("list")["all_seeds"] == [3, 8]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[studdy]", "unknown table of bad.toml: 'studdy' (did you mean 'study'?)"),
        ("epochs = 3", "unknown table of bad.toml: 'epochs'"),
        ("layout = 1\n[study]", "give its workload.toml"),
        ("study = 3", "study must be a table, [study]"),
        ("[workload]\nmodel = 'mlp'", "workload file bad.toml: workload: dataset is"),
        ("[study]\nlrate = 3", "bad.toml"),
    ],
)
def test_no_line_of_a_configuration_is_passed_over(
    content: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.toml").write_text(content)
    assert elision("study --config bad.toml") == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("changed", ["data", "network"])
def test_a_run_is_not_given_more_of_other_data_or_another_network(
    capsys: pytest.CaptureFixture[str], changed: str
) -> None:
    run = f"study {MINE} --epochs 1 --recipe dense --accelerator dense --out run"
    assert elision(run) == 0
    before = {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()}
    if changed == "data":
        name = next(Path("pictures").rglob("*.png"))
        Image.fromarray(255 - np.asarray(Image.open(name))).save(name)
    else:
        source = Path("my_own/net.py")
        source.write_text(source.read_text() + "\n# other code\n")
        sys.modules.pop("my_own.net", None)
    capsys.readouterr()
    assert elision("study --resume run --seeds 2") == 2
    said = capsys.readouterr().err
    assert f"run: holds a run with another {changed}, which has changed since" in said
    assert {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()} == before
