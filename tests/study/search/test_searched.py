"""search: the stages together, resumed, refused, and its budget met."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from elision.methods import recipe_from_toml
from elision.study.search import SearchConfig, search, searched
from elision.study.search import searched as module_function
from elision.study.search.costs import Costs
from elision.study.search.searched import _Search
from elision.workloads import Workload

WORKLOAD = Workload(
    name="small",
    dataset="digits",
    model="mlp",
    epochs=3,
    batch_size=16,
    train_images=320,
    model_options={"width": 16},
)
SPECS = tuple(f"swat:sparsity={s},dense=()" for s in (0.5, 0.8, 0.95))
CONFIG = SearchConfig(
    workload=WORKLOAD,
    choices={"*": ("dense", *SPECS)},
    budget=0.3,
    sensitivities=("fisher",),
    examples=32,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("search") / "run"
    found = searched(replace(CONFIG, neighbours=2), folder)
    assert found.recipe == recipe_from_toml((folder / "recipe.toml").read_text())
    return folder, found.summary()


def test_the_budget_is_met_and_verified(run: tuple[Path, dict[str, Any]]) -> None:
    _, summary = run
    cost = summary["cost"]
    assert cost["whole"] <= cost["budget"]
    assert cost["predicted"] == pytest.approx(cost["whole"], rel=0.02)
    # The share of the work that the verified training really did.
    verified = summary["verified"]
    ratio = verified["done_macs"] / verified["dense_macs"]
    assert ratio == pytest.approx(cost["whole"] / cost["dense"], rel=0.1)
    assert len(verified["scores"]) == WORKLOAD.epochs


def test_the_search_spends_at_most_five_trainings(
    run: tuple[Path, dict[str, Any]],
) -> None:
    _, summary = run
    spent = summary["full_trainings"]
    assert 2 < spent["all"] <= 5
    assert spent["all"] == spent["trainings"] + spent["measurements"]


def test_the_front_falls(run: tuple[Path, dict[str, Any]]) -> None:
    points = run[1]["front"]
    assert [c for c, _ in points] == sorted({c for c, _ in points})
    assert [x for _, x in points] == sorted((x for _, x in points), reverse=True)


def test_an_interrupted_search_ends_with_the_same_answer(
    run: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = replace(CONFIG, neighbours=2), tmp_path / "run"

    class Killed(Exception):
        pass

    def killed(*_: object) -> None:
        raise Killed

    # Killed before each stage in turn: what the folder has by then is not made again.
    for stage in ("_losses", "_costs", "_refined", "_rows"):
        with monkeypatch.context() as patched:
            patched.setattr(_Search, stage, killed)
            with pytest.raises(Killed):
                searched(config, folder)
    made = {p.name: p.stat().st_mtime_ns for p in folder.glob("*.json")}
    found = searched(config, folder)
    assert found.summary() == run[1]
    for path in folder.glob("sensitivity-*.json"):
        assert path.stat().st_mtime_ns == made[path.name]
    assert json.loads((folder / "summary.json").read_text()) == json.loads(
        (run[0] / "summary.json").read_text()
    )
    # What the trainings cost, which no result depends on.
    for place in (run[0], folder):
        account = json.loads((place / "energy.json").read_text())
        assert account["total"]["energy"]["cpu_seconds"] > 0


def test_a_folder_of_another_search_is_refused(
    run: tuple[Path, dict[str, Any]],
) -> None:
    with pytest.raises(ValueError, match="another"):
        searched(replace(CONFIG, budget=0.5, neighbours=2), run[0])


def test_a_budget_that_nothing_meets_says_the_least(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"least possible .* \(0\.06\d* of dense\)"):
        searched(replace(CONFIG, budget=0.01), tmp_path / "run")


def test_a_pattern_that_matches_nothing_trains_nothing(tmp_path: Path) -> None:
    config = replace(CONFIG, choices={"conv*": SPECS})
    with pytest.raises(ValueError, match="pattern 'conv\\*' selects no layer"):
        searched(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"budget": None}, "give a budget"),
        ({"limit": 3.0}, "one of them"),
        ({"budget": 0.0}, "budget=0.0"),
        ({"cost": "mac"}, "unknown cost 'mac'"),
        ({"cost": "cycles:antt"}, "unknown accelerator 'antt'"),
        ({"sensitivities": ("losss",)}, "unknown sensitivity 'losss'"),
        ({"sensitivities": ()}, "name a sensitivity"),
        ({"full_trainings": 2.0}, "full_trainings=2.0"),
        ({"engine": "cuda"}, "unknown engine"),
        ({"held_out": 1.0}, "held_out=1.0"),
    ],
)
def test_bad_settings(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(CONFIG, **settings)


COSTS = Costs(
    "seconds",
    "s",
    "measured here",
    [[4.0, 3.0, 2.0, 1.0]] * 6,
    fixed=3.0,
    dense=27.0,
)
LOST = [[0.0, 1.0 + 0.1 * n, 2.5, 5.0] for n in range(6)]


class _Timed(_Search):
    """A search whose recipes take ``off`` beyond the sum of their parts."""

    def __init__(self, off: float, left: float = math.inf) -> None:
        super().__init__(CONFIG, Path(), None, 1, None)
        self.off, self.left, self.asked = off, left, []

    def _whole(self, subject: Any, costs: Costs, space: Any, chosen: Any) -> float:
        del subject, space
        self.left -= 1
        self.asked.append(costs.predicted(chosen) + self.off)
        return self.asked[-1]

    def _left(self) -> float:
        return self.left

    def _of_whole(self, subject: Any) -> int:
        del subject
        return 1

    def answer(self, budget: float) -> tuple[int, ...]:
        nothing: Any = None
        return self._answer(nothing, nothing, COSTS, budget, LOST)


def test_a_measured_cost_is_corrected_until_it_is_met() -> None:
    """The additive model says too little by what is no layer's."""
    made = _Timed(3.0)
    chosen = made.answer(20.0)
    assert abs(COSTS.predicted(chosen) + 3.0 - 20.0) <= 0.05 * 20.0
    assert len(made.asked) > 1


def test_a_measured_budget_that_no_recipe_meets_says_the_least_reached() -> None:
    made = _Timed(9.0)
    with pytest.raises(ValueError, match="least reached is") as caught:
        made.answer(12.0)
    assert f"least reached is {min(made.asked):.6g} " in str(caught.value)
    assert min(made.asked) > 12.0 * 1.05
    assert "0.4444 of dense" in str(caught.value)


def test_corrections_end_where_the_work_does() -> None:
    many, few = _Timed(3.0), _Timed(3.0, left=2.0)
    many.answer(20.0)
    with pytest.raises(ValueError, match="none of 1 recipes"):
        few.answer(20.0)
    assert len(many.asked) > len(few.asked) == 1


def test_measurements_that_would_pass_the_cap_are_refused(tmp_path: Path) -> None:
    """Of three epochs of 256 examples, a hundredth is 23 passes; a loss takes 32."""
    config = replace(CONFIG, full_trainings=2.01)
    with pytest.raises(ValueError, match=r"full_trainings=2\.01: .* 23 passes"):
        searched(config, tmp_path / "run")
    assert not list((tmp_path / "run").glob("sensitivity-*.json"))
    with pytest.raises(ValueError, match="another"):
        searched(replace(config, full_trainings=5), tmp_path / "run")


def test_timings_of_layers_count_and_are_refused_past_the_cap(tmp_path: Path) -> None:
    config = replace(CONFIG, cost="seconds", budget=2.0, full_trainings=2.5)
    with pytest.raises(ValueError, match=r"costs would pass full_trainings=2\.5"):
        searched(config, tmp_path / "run")


def test_a_search_of_seconds_stays_within_the_cap(tmp_path: Path) -> None:
    config = replace(CONFIG, cost="seconds", budget=2.0, examples=8, full_trainings=4)
    found = searched(config, tmp_path / "run")
    assert 2 < found.spent.full_trainings + found.measuring <= 4


def test_search_returns_the_recipe() -> None:
    assert module_function is searched
    recipe = search(
        replace(WORKLOAD, epochs=1),
        limit=3.0,
        cost="weight-bits",
        sensitivities=("weights",),
        examples=16,
        choices={":last": ("8",), "*": ("2", "3", "4")},
    )
    assert len(recipe.overrides) == 3
