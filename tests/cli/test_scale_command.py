"""elision scale: files, printed sentences, and arguments that have no meaning."""

import json
from pathlib import Path

import pytest

from elision.cli.main import app, main
from elision.cli.scale import _counts


def test_a_table_a_figure_and_what_pays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (
        "scale --workload digits-mlp --ranks 1..1024 --link 1Gbit --rounds 1 --cores 4"
    )
    words += " --comm-cores 1 --compress powersgd:rank=2 --explain --out"
    app([*words.split(), str(tmp_path)], result_action="return_value")
    shown = capsys.readouterr().out
    found = json.loads((tmp_path / "scaling.json").read_text())
    ranks = [row["ranks"] for row in found["rows"]]
    assert ranks == [1, 2, 4, 8, 16, 32, 64]
    assert "4 rank counts are left out: a batch of 64" in shown
    assert f"beyond {found['pays_until']} rank(s) it does not pay" in shown
    assert sum(size for size, _ in found["step"]["gradients"]) > 0
    figure = (tmp_path / "scaling.svg").read_text()
    assert "cores given to communication" in figure
    assert "Buckets of a step" in figure
    assert "Serial share by Karp and Flatt" in figure
    assert "Amdahl, fitted" in figure
    ranks_shown = found["explained_at"]
    assert f"Buckets of a step of {ranks_shown} ranks:" in shown
    assert "break-even, Gbit/s" in shown
    assert f"at {ranks_shown} ranks a step takes" in shown
    (bucket,) = found["explained"]
    assert bucket["size"] == sum(size for size, _ in found["step"]["gradients"])
    assert bucket["coded"] < bucket["dense"]
    assert len((tmp_path / "scaling.csv").read_text().splitlines()) == 1 + len(ranks)


@pytest.mark.parametrize(
    ("texts", "counts"),
    [
        (("1..16",), [1, 2, 4, 8, 16]),
        (("3..20",), [3, 4, 8, 16, 20]),
        (("16,1", "2"), [1, 2, 16]),
    ],
)
def test_rank_counts(texts: tuple[str, ...], counts: list[int]) -> None:
    assert _counts(texts) == counts


def test_under_torchrun_it_measures_or_refuses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as caught:
        main(["scale", "--rounds", "1"])
    assert caught.value.code == 2
    assert "under torchrun give --measure" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--ranks 4..2", "--ranks 4..2: give counts"),
        ("--link 10", "link '10'"),
        ("--comm-cores 2", "give --cores, too"),
        ("--explain", "--explain would be ignored"),
        ("--measure", "start it as torchrun"),
        ("--measure --cores 2", "--cores would be ignored"),
        ("--measure --ranks 2", "--ranks would be ignored"),
        ("--compress topk", "did you mean 'top-k'"),
        ("--cores 2 --comm-cores 2", "communicating=2"),
        ("--workload digit", "digits-cnn"),
        ("--per-node 4", "they belong to 'hierarchical'"),
    ],
)
def test_wrong_arguments_are_one_line(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["scale", *words.split()])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
