"""elision search: its run folder, its recipe in other commands, and bad input."""

import json
from pathlib import Path

import pytest

from elision.cli import main as cli
from elision.methods import make_recipe

CHOICES = "*=dense;swat:sparsity=0.5,dense=();swat:sparsity=0.95,dense=()"


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
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["cost"]["whole"] <= summary["cost"]["budget"]
    page = (folder / "report.html").read_text()
    for row in summary["chosen"]:
        assert row["layer"] in page
    assert len(list((folder / "tables").glob("*.csv"))) == 5
    recipe = make_recipe(str(folder / "recipe.toml"))
    assert recipe.changes
    before = (folder / "summary.json").read_bytes()
    assert run(words, *asked) == 0  # nothing is trained again
    assert (folder / "summary.json").read_bytes() == before


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
