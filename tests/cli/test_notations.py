"""Both notations of names with parameters, through the command line."""

import csv
import tomllib
from pathlib import Path

import pytest

from elision.cli import main as cli


def run(line: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(line)
    assert not end.value.code


def costs(folder: Path) -> list[list[str]]:
    """Rows of a run's table of costs, without the names of recipe and machine."""
    with (folder / "tables/costs.csv").open() as file:
        return [row[2:] for row in csv.reader(file)]


def test_a_study_takes_recipes_machines_and_policies_in_either_notation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.app, "config", cli.app.config)
    folders = []
    for recipe, machine, policy in (
        ("swat(sparsity=0.8)", "ant(window=8)", "bits:average=4"),
        ("swat:sparsity=0.8", "ant:window=8", "bits(4)"),
    ):
        folder = tmp_path / str(len(folders))
        line = ["study", "--workload", "digits-cnn", "--epochs", "1", "--samples", "1"]
        line += ["--recipe", recipe, "--accelerator", machine, "--memory", policy]
        line += ["--probe", f"memory:policy={policy}"]
        run([*line, "--out", str(folder)])
        folders.append(folder)
        config = tomllib.loads((folder / "config.toml").read_text())["study"]
        assert config["recipes"] == [recipe]
        assert config["memory"] == policy
        assert config["probes"] == [f"memory:policy={policy}"]
    first, second = map(costs, folders)
    assert first
    assert first == second


def test_machines_are_swept_in_either_notation(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tables = []
    for machine in ("ant(window=8)", "ant:window=8"):
        run(["simulate", "--model", "cnn", "--batch", "1", "--accelerator", machine])
        tables.append(capsys.readouterr().out)
    assert "window=8" in tables[0]
    assert tables[0] == tables[1]
