"""elision reproduce faults at a small size."""

import csv
from pathlib import Path

from elision.study.papers import PAPERS


def test_published_factors_stand_beside_four_measures(tmp_path: Path) -> None:
    paper = PAPERS["faults"](
        epochs=1,
        trials=100,
        rates=(1e-5, 1e-3),
        rate_trials=10,
        examples=40,
        formats=("int8",),
    )
    claims, networks, bits, rates = paper.run(tmp_path)
    assert [row["published"] for row in claims.rows] == ["9x", "27.4x", "108.7x"]
    assert {
        "per flip",
        "per stored bit",
        "per surviving weight",
        "per inference",
    } <= set(claims.rows[0])
    assert [row["network"] for row in networks.rows] == [
        "dense, fp32", "dense, int8", "pruned, fp32", "pruned, int8",
        "ternary, ternary",
    ]  # fmt: skip
    assert "<svg" in bits.figure
    assert len(rates.rows) == 10
    with (tmp_path / "networks.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5
    assert [t.rows for t in paper.run(tmp_path)] == [
        t.rows for t in (claims, networks, bits, rates)
    ]
