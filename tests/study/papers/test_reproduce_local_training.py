"""Local training: a small study, its resumption, and rows made by hand."""

import json
from pathlib import Path

import pytest

from elision.study.papers.local_training.diloco import Case, cases, trained
from elision.study.papers.local_training.fedavg import CASES, WIRE, rounds_row
from elision.study.papers.local_training.paper import LocalTraining

SMALL = {
    "seeds": 1,
    "target": 0.2,
    "rounds": 2,
    "wire_rounds": 1,
    "clients": 5,
    "width": 4,
    "every": (2, 4),
    "steps": 4,
    "batch": 4,
    "channels": 2,
    "images": 100,
}


def test_a_small_study_is_written_beside_the_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper = LocalTraining(**SMALL)  # pyright: ignore[reportArgumentType]
    claims, rounds, wire, losses = paper.run(tmp_path)
    assert [row["value"] for row in claims.rows] == [f.value for f in paper.published]
    assert len(rounds.rows) == 2 * len(CASES)
    assert rounds.figure.startswith("<svg")
    assert [row["clients do"] for row in wire.rows] == list(WIRE)
    saved = {row["clients do"]: row["fewer bytes"] for row in wire.rows}
    assert saved["dense"] == saved["SWAT, 80 % sparse"] == "1.00x"
    written = json.loads((tmp_path / "local-training.json").read_text())
    found = {row["case"]: row for row in written["diloco"]}
    assert found["4 workers, DiLoCo every 4"]["less"] == 4
    assert found["4 workers, DiLoCo every 4, 4 fragments"]["less"] == 4
    assert found["4 workers, DiLoCo every 4, int8"]["less"] > 12
    assert found["1 worker"]["less"] is None

    def trained_again(*args: object, **kwargs: object) -> None:
        raise AssertionError("a finished run was trained again")

    for name in ("fedavg.to_target", "fedavg.wire", "diloco.trained"):
        monkeypatch.setattr(
            f"elision.study.papers.local_training.{name}", trained_again
        )
    again = paper.run(tmp_path)
    assert [table.rows for table in again[1:]] == [
        table.rows for table in (rounds, wire, losses)
    ]


def test_rounds_are_means_over_seeds_that_all_reach_the_target() -> None:
    base = [{"rounds": r, "bytes": 1} for r in (40, 60)]
    found = [{"rounds": r, "bytes": 2_000_000} for r in (4, 6)]
    row = rounds_row("FedAvg", "IID", found, base)
    assert (row.rounds, row.gain, row.megabytes) == (5, 10, 2)
    short = rounds_row("FedAvg", "IID", [*found, {"rounds": None, "bytes": 0}], base)
    assert (short.rounds, short.gain, short.reached) == (None, None, "2 of 3")


def test_synchronous_training_is_diloco_s_limit() -> None:
    """One step a period, outer rate 1 and no momentum: what every worker starts from."""
    settings = {
        "seed": 0,
        "steps": 1,
        "batch": 8,
        "width": 2,
        "rate": 0.01,
        "images": 80,
    }
    case = Case(1, "diloco:every=1,rate=1.0,momentum=0.0")
    alone = trained(Case(1), **settings)  # pyright: ignore[reportArgumentType]
    same = trained(case, **settings)  # pyright: ignore[reportArgumentType]
    assert same["loss"] == pytest.approx(alone["loss"], rel=1e-5)
    assert next(iter(cases(3, [2]))) == "3 workers, synchronous"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"part": ("fedavgg",)}, "did you mean 'fedavg'"),
        ({"every": (500,)}, "every=500"),
        ({"workers": 1}, "workers=1"),
        ({"target": 0.0}, "target=0.0"),
    ],
)
def test_what_has_no_meaning_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LocalTraining(**options)  # pyright: ignore[reportArgumentType]
