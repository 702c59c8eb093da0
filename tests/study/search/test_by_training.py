"""Searches by training: one answer, whoever trains, however often it is killed."""

import csv
import io
import json
import math
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from killed import same_files_after_kills

from elision.common.cluster import RayExecutor
from elision.common.workers import pool
from elision.methods import recipe_from_toml
from elision.study.search.by_training import Row, by_training, methods
from elision.study.search.run import TrainedSearch
from elision.study.search.space import Choice, Knob, Space
from elision.study.search.template import Template
from elision.study.search.trial import Trial
from elision.study.search.trials import Trials
from elision.workloads import Workload

SCRIPT = Path(__file__).with_name("killed_search.py")
SMALL = Workload(
    name="small",
    dataset="digits",
    model="mlp",
    epochs=4,
    batch_size=32,
    train_images=240,
    model_options={"width": 16},
)
SPACE = Space(
    (
        Choice(
            "recipe", ("dense", "swat:sparsity=0.8,dense=()", "static:sparsity=0.5")
        ),
        Knob("lr", 0.001, 0.3, log=True),
    )
)
ANSWER = ("summary.json", "tables/trials.csv", "recipe.toml")


def search(method: str, **more: Any) -> TrainedSearch:
    return TrainedSearch(
        template=Template(workload=SMALL), space=SPACE, method=method, **more
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Trials:
    """A store that the tests share, so that nothing is trained twice."""
    return Trials(tmp_path_factory.mktemp("trials"))


def test_killed_at_any_moment_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    names = same_files_after_kills(SCRIPT, tmp_path, least=5)
    whole, part = tmp_path / "whole", tmp_path / "part"
    results = {str(name) for name in names if name.name.startswith("after-")}
    assert len(results) > 6
    for name in (*ANSWER, *results):
        assert (whole / name).read_bytes() == (part / name).read_bytes(), name
    # What was killed was work, too, where an epoch of it was finished.
    spent = [json.loads((run / "spent.json").read_text()) for run in (whole, part)]
    assert spent[0]["full_trainings"] == spent[1]["full_trainings"]
    assert all(s["processor_seconds"] > 0 for s in spent)


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    """Two processes."""
    with pool(2) as executor:
        yield executor


@pytest.mark.parametrize("method", ["asha", "halving", "tpe"])
def test_two_processes_find_what_one_finds(
    method: str, tmp_path: Path, processes: Executor
) -> None:
    if method == "tpe":
        pytest.importorskip("optuna")
    asked = search(method, count=5, slots=3)
    one, _ = asked.run(tmp_path / "one")
    two, _ = asked.run(tmp_path / "two", executor=processes)
    assert one.summary() == two.summary()
    for name in ANSWER:
        assert (tmp_path / "one" / name).read_bytes() == (
            tmp_path / "two" / name
        ).read_bytes()


@pytest.mark.filterwarnings("ignore")  # Ray's own start-up warns
def test_a_cluster_finds_what_one_process_finds(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    asked = search("asha", count=4, slots=2, eta=4)
    one, _ = asked.run(tmp_path / "one")
    with RayExecutor("local", num_cpus=1, include_dashboard=False) as cluster:
        there, spent = asked.run(tmp_path / "there", executor=cluster)
    assert there.summary() == one.summary()
    assert spent.processor_seconds
    for name in ANSWER:
        found = (tmp_path / "there" / name).read_bytes()
        assert found == (tmp_path / "one" / name).read_bytes()


@pytest.mark.parametrize("method", methods())
def test_every_method_answers_with_rows_a_best_and_a_front(
    method: str, store: Trials
) -> None:
    if method in ("tpe", "nsga2"):
        pytest.importorskip("optuna")
    told: list[Row] = []
    count = None if method == "hyperband" else 5
    with pool(1) as here:
        found = by_training(
            SPACE,
            Template(workload=SMALL),
            store,
            here,
            method=method,
            count=count,
            done=told.append,
        )
    assert tuple(told) == found.rows
    assert found.best is not None
    assert found.best.epochs == 4
    assert found.best.score == max(row.score for row in found.furthest)
    assert found.best in found.front or any(
        row.loss == found.best.loss for row in found.front
    )
    costs = [row.cost for row in found.front]
    assert costs == sorted(costs, reverse=True)
    reached = {}
    for row in found.rows:
        reached[row.trial.key] = max(row.epochs, reached.get(row.trial.key, 0))
    assert found.full_trainings == pytest.approx(sum(reached.values()) / 4)
    for row in found.rows:
        assert 0 < row.cost <= 1
        assert (row.cost < 0.9) == row.trial.label.startswith(("swat", "static"))


def test_a_limit_on_a_measured_cost_is_met(store: Trials) -> None:
    with pool(1) as here:
        for method in ("halving", "random"):
            found = by_training(
                SPACE,
                Template(workload=SMALL),
                store,
                here,
                method=method,
                count=5,
                limit=0.8,
            )
            assert found.best is not None
            assert found.best.cost <= 0.8
            assert any(row.cost > 0.8 for row in found.rows)


def test_what_costs_too_much_beforehand_is_not_trained(store: Trials) -> None:
    asked: list[Trial] = []

    def cost(trial: Trial) -> float:
        asked.append(trial)
        return 1.0 if trial.label == "dense" else 0.5

    with pool(1) as here:
        for method in ("halving", "random"):
            found = by_training(
                SPACE,
                Template(workload=SMALL),
                store,
                here,
                method=method,
                count=6,
                cost=cost,
                limit=0.75,
            )
            assert all(row.trial.label != "dense" for row in found.rows if row.epochs)
            assert any(row.epochs for row in found.rows)
        assert any(row.epochs == 0 and math.isinf(row.loss) for row in found.rows)
        with pytest.raises(ValueError, match=r"limit=0.1.*candidates is 0.5"):
            by_training(
                SPACE, Template(workload=SMALL), store, here, cost=cost, limit=0.1
            )


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        (
            {"method": "halving", "count": 9, "full_trainings": 1.0},
            "9 candidates takes",
        ),
        ({"method": "asha", "full_trainings": 0.1}, "first trial takes 0.25"),
        ({"method": "random", "count": 3, "full_trainings": 2.0}, "4 epochs take 3"),
        (
            {"method": "random", "epochs": 5},
            r"epochs=5\): must be an integer in \[1, 4",
        ),
        ({"method": "hyperband", "count": 3}, "hyperband has its own number"),
        ({"method": "halving", "epochs": 2}, "halving has epochs of its own"),
        ({"method": "random", "eta": 3}, "random has no rungs"),
        ({"method": "anneal"}, "unknown search method 'anneal'.*known: halving"),
        ({"limit": -1.0}, r"limit=-1.0\): the least cost of \d candidates is 0\.\d+"),
    ],
)
def test_wrong_searches_say_what_is_right(
    settings: dict[str, Any], least: str, store: Trials
) -> None:
    with pool(1) as here, pytest.raises(ValueError, match=least):
        by_training(SPACE, Template(workload=SMALL), store, here, **settings)


@pytest.mark.parametrize("budget", [1.0, 2.0, 3.25])
def test_whole_trainings_are_a_bound(budget: float, tmp_path: Path) -> None:
    asked = search("halving", full_trainings=budget, eta=2)
    found, spent = asked.run(tmp_path / "run")
    assert spent.full_trainings == pytest.approx(found.full_trainings)
    assert budget - 1 < found.full_trainings <= budget


def test_a_folder_stands_alone_and_is_nobody_elses(tmp_path: Path) -> None:
    asked = search("halving", count=3)
    found, spent = asked.run(tmp_path / "run")
    run = tmp_path / "run"
    assert found.best is not None
    recipe = recipe_from_toml((run / "recipe.toml").read_text())
    assert recipe.name == found.best.trial.label.partition(":")[0]
    rows = list(csv.DictReader(io.StringIO((run / "tables/trials.csv").read_text())))
    assert len(rows) == len(found.rows)
    assert json.loads((run / "spent.json").read_text())["steps"] == spent.steps
    assert not list(run.rglob("*.safetensors"))
    before = (run / "summary.json").read_bytes()
    again, _ = asked.run(run)  # reads what is there
    assert again.summary() == found.summary()
    assert (run / "summary.json").read_bytes() == before
    with pytest.raises(ValueError, match="holds a run with another search"):
        replace(asked, count=4).run(run)


def test_a_template_that_does_not_fit_is_refused() -> None:
    for recipe, dimension, message in (
        ("swat:sparsity={s}", Knob("lr", 0.1, 0.2), r"no dimension fills \{s\}"),
        ("swat:sparsity={s}", Knob("s", 0.5, 2.0), "sparsity=2.0"),
        ("dense", Knob("depth", 1, 2), "unknown setting of a workload 'depth'"),
        ("dense", Knob("epochs", 1, 2, integer=True), "epochs are what a search gives"),
        ("dense", Choice("recipe", ("swatt",)), "unknown recipe 'swatt'"),
    ):
        with pytest.raises(ValueError, match=message):
            TrainedSearch(
                template=Template(workload=SMALL, recipe=recipe),
                space=Space((dimension,)),
            )
