"""Published scaling: what the overheads alone must be, and formulas of compression."""

import json
import math
from pathlib import Path

import pytest
import torch

from elision.study.papers.scaling.overheads import largest_of, laws_of, together
from elision.study.papers.scaling.paper import STRONG, WEAK, Scaling, waits
from elision.study.papers.scaling.ratios import factorised, ratios
from elision.training.parallel.scaling import Cores, Link, StepCosts
from elision.training.parallel.scaling.laws import Usl, amdahl
from elision.training.parallel.scaling.overlap import Bucket

COSTS = StepCosts(
    (0.0, 1.0), (0.0, 2.0), 0.0, tuple(Bucket(8e6, x / 4) for x in range(5))
)


def test_a_small_run_is_written_beside_the_published(tmp_path: Path) -> None:
    paper = Scaling(width=16, vocabulary=50, timed_batches=(1, 2), rounds=1)
    laws, alone, rows, compressed = paper.run(tmp_path)
    by_law = {row["by the laws"]: row for row in laws.rows}
    stock = by_law["and over stock, one node being 2x"]
    # Both meet the published "more than 25x".
    assert [stock[mode] for mode in ("weak", "strong")] == ["25.0x", "25.9x"]
    assert by_law["Amdahl: parallel share"]["strong"] == "0.9844"
    assert by_law["Karp-Flatt: serial share"]["strong"] == "1.56%"
    assert by_law["Gustafson: serial share"]["weak"] == "23.5%"
    first = alone.rows[0]
    assert first["for the weak efficiency"] == f"{1 / WEAK - 1:.1%}" == "28.2%"
    assert first["for the strong one"] == f"{1 / STRONG - 1:.1%}" == "23.5%"
    assert alone.rows[-1]["for the strong one"] == "1.56%"
    assert [rows.rows[0][mode] for mode in ("weak", "strong")] == ["78.0%", "81.0%"]
    assert len(rows.rows) == 1 + 3 * 6
    assert [row["method"][:3] for row in compressed.rows] == ["DGC"] * 2 + ["Pow"] * 3
    written = json.loads((tmp_path / "scaling.json").read_text())
    assert written["parameters"]["ranks"] == 16
    assert all(0 < row["weak"] <= 1 for row in written["together"])


def test_the_needed_value_gives_the_efficiency_back() -> None:
    """An imbalance of 1 / 0.78 alone, on a free link, is 78 %."""
    rows = together(
        COSTS,
        1.0,
        ranks=16,
        batch=4,
        link=Link(),
        cores=Cores(28, 1),
        waits={"waiting": 27 / 28 / WEAK},
    )
    *_, last = rows
    assert last.weak == pytest.approx(WEAK)
    assert last.strong == pytest.approx(WEAK)


def test_the_laws_give_the_efficiencies_back() -> None:
    rows = {row.quantity: row for row in laws_of((WEAK, STRONG), 16, 2.0)}
    for mode, efficiency in (("weak", WEAK), ("strong", STRONG)):
        value = {name: getattr(row, mode) for name, row in rows.items()}
        contention = float(value["USL: contention, if all is"])
        coherency = float(value["USL: coherency, if all is"])
        for law in (Usl(contention, 0.0), Usl(0.0, coherency)):
            assert law.speedup(16) / 16 == pytest.approx(efficiency, abs=1e-3)
        share = float(value["Amdahl: parallel share"])
        assert amdahl(16, share) / 16 == pytest.approx(efficiency, abs=1e-3)


def test_seconds_scale_and_proportions_stay() -> None:
    again = COSTS.lasting(8, 6.0)
    assert again.seconds(8) == pytest.approx(6.0)
    assert again.backward[1] == pytest.approx(2 * again.forward[1])
    assert again.gradients == COSTS.gradients


@pytest.mark.parametrize("count", [1, 3, 16])
def test_largest_of_normals_is_that_of_draws(count: int) -> None:
    random = torch.Generator().manual_seed(0)
    draws = torch.randn(200_000, count, generator=random).amax(1).mean().item()
    assert largest_of(count) == pytest.approx(draws, abs=0.01)


def test_global_buckets_keep_ranks_from_waiting() -> None:
    found = waits(16, 64, seed=0)
    assert 1 <= found["global buckets"] < 1.05
    assert found["each rank's own buckets"] > 1.5


def test_ratios_are_those_of_the_formulas() -> None:
    pairs, short, *factors = ratios(16)
    assert pairs.ratio == pytest.approx(500)
    assert short.ratio == pytest.approx(32 / 57 / 0.001, rel=1e-6)
    # A gathered message travels to 15 ranks; a ring sends 2 * 15 / 16 of the gradients.
    assert pairs.traffic == pytest.approx(500 * 2 / 16)
    assert [row.ratio for row in factors] == sorted(
        (r.ratio for r in factors), reverse=True
    )
    assert factorised([torch.Size((64, 3, 3, 3)), torch.Size((64,))], 1) == 64 + 27 + 64
    assert factorised([torch.Size((2, 2))], 4) == 4
    assert math.isclose(factors[0].traffic, factors[0].ratio)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ranks": 1}, "ranks=1"),
        ({"step_seconds": (0.0,)}, "step_seconds=0.0"),
        ({"comm_cores": 28}, "communicating=28"),
        ({"link": "quick"}, "link 'quick'"),
        ({"timed_batches": (1.5,)}, "timed_batches=1.5"),
    ],
)
def test_what_has_no_meaning_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Scaling(**options)  # pyright: ignore[reportArgumentType]
