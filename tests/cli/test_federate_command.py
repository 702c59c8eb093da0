"""elision federate: its folder, its sentences, and that it goes on."""

import json
from pathlib import Path

import pytest

from elision.cli.main import app, main

SMALL = (
    "federate --workload digits-mlp --clients dirichlet:clients=4,alpha=1.0 --rounds 3 "
    "--rule fedavg:every=2 --dropout 0.2 --up int8 --engine torch --model mlp(width=8)"
)


def test_a_folder_that_only_the_same_run_continues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "run")]
    app([*SMALL.split(), *out, "--target", "0.05"], result_action="return_value")
    shown = capsys.readouterr().out
    assert "4 clients with" in shown
    assert "test accuracy of 5.0 %: reached in round 1" in shown
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["rounds"] == 3
    assert 0 < summary["up_bytes"] < summary["down_bytes"] / 3
    assert sum(summary["clients"]) == 1437
    assert len((tmp_path / "run" / "rounds.csv").read_text().splitlines()) == 4
    written = (tmp_path / "run" / "summary.json").read_text()
    app([*SMALL.split(), *out, "--target", "0.05"], result_action="return_value")
    assert (tmp_path / "run" / "summary.json").read_text() == written
    with pytest.raises(ValueError, match="holds a run with another federated"):
        app([*SMALL.split(), *out, "--seed", "1"], result_action="return_value")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--clients iid:client=3", "did you mean 'clients'"),
        ("--rule fedavgg", "did you mean 'fedavg'"),
        ("--up topk", "did you mean 'top-k'"),
        ("--recipe nothing", "unknown recipe 'nothing'"),
        ("--recipe rigl --out OUT", "moves masks"),
        ("--participation 2", "participation=2.0"),
        ("--workload digits-cnn --privacy gaussian --out OUT", "without noise"),
    ],
)
def test_what_has_no_meaning_is_one_line(
    words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("opacus")
    said = words.replace("OUT", str(tmp_path / "run"))
    with pytest.raises(SystemExit) as left:
        main(["federate", *said.split()])
    assert left.value.code == 2
    assert not (tmp_path / "run").exists()
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) <= 6
