"""Verdicts of summaries that were made for it: who wins, and how sure that is."""

import math
from typing import Any

import pytest

from elision.study.costed import CostKind, StepSeconds, cost_kinds
from elision.study.verdict import Verdict, standings
from elision.workloads import Metric

ACCURACY = Metric("test_accuracy", percent=True)
PERPLEXITY = Metric("test_perplexity", higher_is_better=False)


def summary(
    metric: Metric = ACCURACY, cycles: dict[str, Any] | None = None, **recipes: Any
) -> dict[str, Any]:
    """Of recipes given as scores and share of work; cycles by machine and recipe."""
    found = {}
    for spec, (scores, work) in recipes.items():
        found[spec] = {
            metric.name: sum(scores) / len(scores),
            "training_macs_ratio": work,
        }
        if len(scores) > 1:
            found[spec][f"{metric.name}_by_seed"] = list(scores)
    machines = {
        machine: {
            spec: {"total": {"cycles": count, "energy_on_chip_pj": 2.0 * count}}
            for spec, count in of_recipes.items()
        }
        for machine, of_recipes in (cycles or {}).items()
    }
    return {"recipes": found, "accelerators": machines}


def verdict_of(
    facts: dict[str, Any], metric: Metric = ACCURACY, **more: Any
) -> Verdict:
    costs = cost_kinds(facts, "dense", **more)
    return Verdict(metric, "dense", standings(facts, metric, "dense"), costs)


def by_key(verdict: Verdict, key: str) -> CostKind:
    (cost,) = (cost for cost in verdict.costs if cost.key == key)
    return cost


def test_the_sentence_says_what_is_lost_and_gained() -> None:
    facts = summary(
        dense=([0.84], 1.0),
        swat=([0.813], 0.12),
        cycles={
            "dense": {"dense": 100, "swat": 100},
            "scnn": {"dense": 900, "swat": 300},
            "ant": {"dense": 150, "swat": 24},
        },
    )
    step = StepSeconds(
        "processor seconds", {"dense": 1.0, "swat": 1 / 3.1}, masked=False
    )
    verdict = verdict_of(facts, step=step)
    assert verdict.answer(by_key(verdict, "work"), allowed=0.03) == (
        "swat: 2.7 points less, 88 % of the work left out, 3.1x faster on this machine, "
        "4.2x fewer cycles on ant than dense on the dense array."
    )
    # What ran with its zeros multiplied is no gain, however short it was.
    masked = StepSeconds("processor seconds", step.ratios, masked=True)
    verdict = verdict_of(facts, step=masked)
    assert "faster" not in verdict.answer(by_key(verdict, "work"), allowed=0.03)


def test_the_gain_is_over_the_dense_array_not_over_the_first_machine() -> None:
    facts = summary(
        dense=([0.8], 1.0),
        cycles={"scnn": {"dense": 900}, "dense:rows=8": {"dense": 100}},
    )
    kinds = {cost.key: cost for cost in cost_kinds(facts, "dense")}
    assert kinds["cycles:scnn"].ratios == {"dense": 9.0}
    assert kinds["cycles:dense:rows=8"].ratios == {"dense": 1.0}
    del facts["accelerators"]["dense:rows=8"]
    alone = {cost.key: cost for cost in cost_kinds(facts, "dense")}
    assert alone["cycles:scnn"].ratios == {"dense": 1.0}
    assert alone["cycles:scnn"].of == "dense on scnn"


def test_nobody_wins_who_loses_more_than_is_allowed() -> None:
    verdict = verdict_of(
        summary(dense=([0.84], 1.0), rigl=([0.82], 0.2), swat=([0.80], 0.1))
    )
    cost = by_key(verdict, "work")
    winners = [verdict.winner(cost, allowed) for allowed in (0, 0.0201, 0.041)]
    assert [w and w.recipe for w in winners] == ["dense", "rigl", "swat"]
    steps = verdict.steps(cost)
    assert [step.standing.recipe for step in steps] == ["dense", "rigl", "swat"]
    assert [step.allowed for step in steps] == pytest.approx([0, 0.02, 0.04])
    said = verdict.answer(cost)
    assert said.startswith("dense, 84.0 % test accuracy, stays")
    assert "Nearest is rigl: 2.0 points less, 80 % of the work left out." in said


def test_seeds_decide_what_counts_as_worse() -> None:
    near = verdict_of(
        summary(dense=([0.80, 0.82, 0.81], 1.0), swat=([0.80, 0.81, 0.81], 0.1))
    )
    far = verdict_of(
        summary(dense=([0.80, 0.82, 0.81], 1.0), swat=([0.70, 0.72, 0.71], 0.1))
    )
    cost = by_key(near, "work")
    found = [verdict.winner(cost) for verdict in (near, far)]
    assert [w and w.recipe for w in found] == ["swat", "dense"]
    swat = near.standings[1]
    # Differences 0, 0.01 and 0 have a standard error of a third of 0.01.
    assert swat.loss_error == pytest.approx(0.01 / 3)
    # The t quantile of two degrees of freedom at 95 % is 2.92 (tables of Student's t).
    assert swat.sure_loss == pytest.approx(0.01 / 3 * (1 - 2.92), rel=1e-3)
    assert "0.3 ± 0.3 points less" in near.answer(cost)
    assert "3 seeds" in near.sureness()
    assert "One seed" in verdict_of(summary(dense=([0.8], 1.0))).sureness()


def test_the_spread_of_its_seeds_is_no_merit_of_a_recipe() -> None:
    wild = [0.82, 0.60, 0.80]  # not significantly worse, only because it is so unsteady
    facts = summary(
        dense=([0.80, 0.82, 0.81], 1.0),
        wild=(wild, 0.5),
        swat=([0.78, 0.80, 0.79], 0.1),
    )
    verdict = verdict_of(facts)
    cost = by_key(verdict, "work")
    assert verdict.standings[1].sure_loss < 0 < verdict.standings[2].sure_loss
    wins = verdict.winner(cost)
    assert wins is not None
    assert wins.recipe == "dense"
    del facts["recipes"]["swat"]
    alone = verdict_of(facts)
    said = alone.answer(by_key(alone, "work"))
    assert said.startswith("wild: 7.0 ")
    assert "3 seeds do not show that it loses more than is allowed" in said


def test_a_lower_perplexity_is_better() -> None:
    facts = summary(PERPLEXITY, dense=([20.0], 1.0), swat=([18.5], 0.3))
    verdict = verdict_of(facts, PERPLEXITY)
    cost = by_key(verdict, "work")
    assert verdict.front(cost) == ["swat"]
    assert verdict.answer(cost).startswith("swat: test perplexity lower by 1.5, 70 %")


def test_the_front_has_what_nothing_beats() -> None:
    verdict = verdict_of(
        summary(
            dense=([0.84], 1.0),
            rigl=([0.82], 0.2),
            meprop=([0.79], 0.4),
            swat=([0.80], 0.1),
        )
    )
    assert verdict.front(by_key(verdict, "work")) == ["swat", "rigl", "dense"]


def test_what_diverged_is_no_candidate() -> None:
    facts = summary(dense=([0.8], 1.0), swat=([0.9], 0.1))
    facts["recipes"]["swat"] |= {"test_accuracy": None, "training_macs_ratio": None}
    verdict = verdict_of(facts)
    cost = by_key(verdict, "work")
    assert set(cost.ratios) == {"dense"}
    assert [s.recipe for s in verdict.standings] == ["dense"]
    facts["recipes"]["dense"]["test_accuracy"] = None
    lost = verdict_of(facts)
    assert not lost.standings
    assert "diverged" in lost.answer(cost)


def test_a_recipe_alone_is_compared_with_nothing() -> None:
    verdict = verdict_of(summary(dense=([0.8], 1.0)))
    said = verdict.answer(by_key(verdict, "work"))
    assert said.startswith("dense: 80.0 % test accuracy. No other recipe")
    assert "order" not in verdict.sureness()


def test_bytes_kept_are_over_those_of_plain_autograd() -> None:
    facts = summary(dense=([0.8], 1.0), swat=([0.8], 0.1))
    facts["recipes"]["dense"]["saved_bytes"] = {"logical": 400, "stored": 100}
    facts["recipes"]["swat"]["saved_bytes"] = {"logical": 400, "stored": 50}
    cost = by_key(verdict_of(facts), "bytes")
    assert cost.ratios == {"dense": 0.25, "swat": 0.125}
    assert cost.words("swat") == "8.0x fewer bytes kept for the backward pass"
    assert math.isclose(by_key(verdict_of(facts), "work").ratios["swat"], 0.1)
