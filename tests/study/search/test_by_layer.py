"""Choices by layer, searched by training."""

from pathlib import Path

from elision.common.workers import pool
from elision.study.search.by_layer import chosen_at, space_of, trials_of
from elision.study.search.by_training import by_training
from elision.study.search.choices import layer_space
from elision.study.search.trial import Trial
from elision.study.search.trials import Trials
from elision.workloads import Workload

SMALL = Workload(
    name="small",
    dataset="digits",
    model="mlp",
    epochs=2,
    train_images=160,
    model_options={"width": 8},
)


def test_a_limit_on_a_summed_cost_holds_for_every_trained_recipe(
    tmp_path: Path,
) -> None:
    model = SMALL.make_model(SMALL.load_dataset())
    options = ("dense", "swat:sparsity=0.5,dense=()", "swat:sparsity=0.9,dense=()")
    layers = layer_space(model, {"*": options})
    space, make = space_of(layers), trials_of(layers, Trial(workload=SMALL, seed=3))
    assert space.size == 3 ** len(layers.places)
    chosen = {make(p).key: chosen_at(layers, p) for p in space.points(99)}
    assert len(set(chosen.values())) == len(chosen) == space.size

    def cost(trial: Trial) -> float:
        return float(sum((1.0, 0.5, 0.1)[k] for k in chosen[trial.key]))

    with pool(1) as here:
        found = by_training(
            space, make, Trials(tmp_path), here, count=4, cost=cost, limit=1.5, eta=2
        )
    assert found.best is not None
    assert found.best.trial.seed == 3
    assert all(cost(row.trial) == row.cost <= 1.5 for row in found.rows)
    recipe = layers.recipe(chosen[found.best.trial.key])
    assert found.best.trial.recipe == recipe
