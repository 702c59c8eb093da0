"""Sections of the report about single layers: what they draw, and when."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest

from elision.accelerators import Ant, Cost, Dense, InterGrad
from elision.accelerators.simulate import simulate
from elision.products import Conv2dGeometry, Product, synthetic_products
from elision.report.layer_figures import utilisation_map
from elision.report.recipe_dots import recipe_dots
from elision.report.style import marks_of
from elision.study.page.sections.multiplier_array import multiplier_array

# The package gives the function of the same name.
section = importlib.import_module("elision.study.page.sections.layers")

LAYERS = [
    ("first", Conv2dGeometry(1, 2, 8, 8, 3, 3, 1, 1)),
    ("second", Conv2dGeometry(1, 3, 8, 8, 4, 3, 2, 1)),
]
MACHINES = {"dense": Dense(), "ant:window=4": Ant(window=4)}


def outcome(*specs):
    """Two recorded steps; the first layer has no input gradient."""
    products = [
        product
        for seed in (0, 1)
        for product in synthetic_products(LAYERS, 0.7, seed)
        if (product.name, product.kind) != ("first", Product.INPUT_GRAD)
    ]
    machines = {spec: MACHINES[spec] for spec in specs}
    recipe = SimpleNamespace(spec="swat", costs=list(simulate(products, machines)))
    config = SimpleNamespace(accelerators=specs, recipes=("swat",))
    return SimpleNamespace(config=config, outcomes=[recipe]), products


def test_dots_and_map_show_the_costs(monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        section, "recipe_dots", lambda *args, **_: drawn.update(dots=args)
    )
    monkeypatch.setattr(
        section, "utilisation_map", lambda *args: drawn.update(map=args)
    )
    study, products = outcome(*MACHINES)
    section.layers(study)

    def cost(machine, layer, *kinds):
        chosen = [p for p in products if p.name == layer and p.kind in kinds]
        return sum((MACHINES[machine].cost(p) for p in chosen), Cost())

    names, machines, dots, _ = drawn["dots"]
    assert (names, machines) == (["first", "second"], list(MACHINES))
    expected = [[cost(m, name, *Product).cycles for name in names] for m in machines]
    assert dots["swat"].tolist() == expected
    names, columns, maps = drawn["map"]
    assert columns[:3] == [("dense", "Y"), ("dense", "dX"), ("dense", "dW")]
    found = dict(zip(columns, maps["swat"].T, strict=True))
    assert np.isnan(found["dense", "dX"][0])
    last = cost("ant:window=4", "second", Product.WEIGHT_GRAD).utilisation
    assert found["ant:window=4", "dW"][1] == last


def test_gradients_that_run_together_have_a_column(monkeypatch):
    monkeypatch.setitem(MACHINES, "intergrad", InterGrad(rows=8, columns=8))
    drawn = {}
    monkeypatch.setattr(
        section, "recipe_dots", lambda *args, **_: drawn.update(dots=args)
    )
    monkeypatch.setattr(
        section, "utilisation_map", lambda *args: drawn.update(map=args)
    )
    study, _ = outcome("intergrad")
    section.layers(study)
    costs = study.outcomes[0].costs
    assert np.nansum(drawn["dots"][2]["swat"]) == sum(row.cost.cycles for row in costs)
    assert drawn["map"][1] == [("intergrad", p) for p in ("Y", "dW", "dX, dW")]


@pytest.mark.parametrize("recipes", [1, 3])
def test_figures_name_everything(recipes):
    rng = np.random.default_rng(0)
    specs = [f"recipe{i}" for i in range(recipes)]
    cycles = {spec: rng.random((2, 3)) * 100 for spec in specs}
    shares = {spec: rng.random((3, 4)) for spec in specs}
    names = ["conv1", "conv2", "fc"]
    columns = [(machine, product) for machine in ("dense", "ant") for product in "YX"]
    machines = ["dense", "ant"]
    dots = recipe_dots(
        names, machines, cycles, marks_of(specs), unit="cycles", scale="count"
    )
    for drawing in (dots, utilisation_map(names, columns, shares)):
        assert drawing.startswith("<svg")
        assert all(f">{label}<" in drawing for label in (*names, *machines, *specs))
    assert dots.count('class="point"') == 6 * recipes


def test_nothing_is_shown_without_machines():
    study, _ = outcome()
    assert section.layers(study) is None
    assert multiplier_array(study) is None
    assert multiplier_array(outcome("dense")[0]) is None


def test_the_array_is_shown_with_and_without_anticipation():
    shown = multiplier_array(outcome("ant:window=4")[0])
    assert shown is not None
    for sheet, redundant in zip(shown.sheets, ([1, 3], [1, 1]), strict=True):
        assert sheet.count("<svg") == 2
        for step, count in enumerate(redundant, 1):
            assert f"step {step} of 2: " in sheet
            assert f"{3 if step == 1 else 1} valid, {count} redundant" in sheet
