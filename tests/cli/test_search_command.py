"""elision search: its run folder, its recipe in other commands, and bad input."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from elision.cli import main as cli
from elision.methods import make_recipe

CHOICES = "*=dense;swat:sparsity=0.5,dense=();swat:sparsity=0.95,dense=()"

#: A process that is at work in a folder until it is told to end.
_HOLDING = """
import sys
from pathlib import Path
from elision.common.locking import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def run(line: str, *more: str) -> int:
    try:
        cli.main([*line.split(), *more])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_a_folder_with_a_recipe_and_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    words = "search --workload digits-mlp --epochs 1 --budget 0.3 --sensitivity fisher"
    asked = ["--examples", "32", "--choices", CHOICES, "--out", str(folder)]
    assert run(words, *asked) == 0
    said = capsys.readouterr().out
    assert "spent:" in said
    assert "energy of its trainings:" in said
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["cost"]["whole"] <= summary["cost"]["budget"]
    page = (folder / "report.html").read_text()
    energy = json.loads((folder / "energy.json").read_text())["total"]["energy"]
    assert 0 < energy["low_joules"] <= energy["high_joules"]
    assert "Energy of the search" in page
    for row in summary["chosen"]:
        assert row["layer"] in page
    assert len(list((folder / "tables").glob("*.csv"))) == 5
    recipe = make_recipe(str(folder / "recipe.toml"))
    assert recipe.changes
    before = (folder / "summary.json").read_bytes()
    assert run(words, *asked) == 0  # nothing is trained again
    assert (folder / "summary.json").read_bytes() == before


@pytest.mark.parametrize("method", ["halving", "random"])
def test_a_search_by_training_and_what_its_folder_has(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    words = f"search --workload digits-mlp --epochs 1 --method {method} --count 2"
    asked = [
        *["--budget", "1", "--seed", "1", "--choices"],
        CHOICES,
        "--out",
        str(folder),
    ]
    assert run(words, *asked) == 0
    said = capsys.readouterr().out
    assert "spent: 2.00 full trainings of 2 trials" in said
    assert "energy of its trainings:" in said
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["method"] == method
    assert len(summary["trials"]) == 2
    page = (folder / "report.html").read_text()
    assert "Energy of the search" in page
    for row in summary["trials"]:
        assert row["trial"] in page
    lines = (folder / "tables" / "recipe.csv").read_text().splitlines()[1:]
    assert len(lines) == 3
    for line in lines:  # the layers' choices are those of the best trial, and printed
        layer = line.split(",")[0]
        assert summary["best"][layer] in line
        assert summary["best"][layer] in said
    recipe = make_recipe(str(folder / "recipe.toml"))
    assert recipe.name == summary["best"]["recipe"]
    before = (folder / "summary.json").read_bytes()
    trials = sorted((folder / "trials").glob("*/seconds.jsonl"))
    seconds = [path.read_bytes() for path in trials]
    assert run(words, *asked) == 0  # nothing is trained again
    assert (folder / "summary.json").read_bytes() == before
    assert [path.read_bytes() for path in trials] == seconds
    capsys.readouterr()
    assert run(words.replace("--count 2", "--count 3"), *asked) == 2
    assert "holds a run with another search" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["knapsack", "random"])
def test_one_process_at_a_time(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    words = f"search --workload digits-mlp --epochs 1 --method {method} --out {folder}"
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDING, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin
    assert holder.stdout
    try:
        assert holder.stdout.readline() == "held\n"
        assert run(words, "--choices", CHOICES) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert "another process is at work in it" in said
        assert not list(folder.iterdir())
    finally:
        holder.communicate("done\n", timeout=60)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--choices", "*"), "write PATTERN=CHOICE"),
        (("--choices", "conv*=4;8"), "pattern 'conv*' selects no layer"),
        (("--choices", "*=4;blah"), "choice 'blah'"),
        (("--cost", "mac"), "unknown cost 'mac'"),
        (("--cost", "cycles:antt"), "unknown accelerator"),
        (("--sensitivity", "losss"), "unknown sensitivity"),
        (("--budget", "0.3", "--limit", "3"), "one of them"),
        (("--method", "halvin"), "known: knapsack, halving, hyperband, asha, random"),
        (("--method", "asha", "--cost", "macs"), "--method asha does not take it"),
        (("--method", "hyperband", "--count", "3"), "hyperband does not take it"),
        (("--method", "halving", "--slots", "2"), "those that do: asha, random"),
        (("--method", "random", "--eta", "3"), "those that do: halving, hyperband"),
        (("--method", "halving", "--eta", "1"), "eta=1"),
        (("--method", "random", "--budget", "-1"), "budget=-1.0"),
        (("--ray", "local"), "--method knapsack does not take it"),
        (("--count", "3"), "--method knapsack does not take it"),
    ],
)
def test_bad_input(
    more: tuple[str, ...],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "run"
    assert run("search --workload digits-mlp", *more, "--out", str(folder)) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not folder.exists()
