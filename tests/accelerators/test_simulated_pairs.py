"""Interleaved gradients in ``simulate``: one row a pair, and totals over all rows."""

from elision.accelerators import InterGrad, Systolic
from elision.accelerators.simulate import simulate, total
from elision.accelerators.step import (
    GRADIENT_PAIR,
    blind_products,
    products_cost,
)
from elision.products import MatmulGeometry

LAYERS = [("first", MatmulGeometry(4, 8, 8)), ("second", MatmulGeometry(4, 8, 2))]
MACHINES = {"plain": Systolic(4, 4), "interleaving": InterGrad(4, 4)}


def test_a_pair_is_one_row_and_only_where_the_machine_interleaves():
    rows = list(simulate(blind_products(LAYERS), MACHINES))
    named = [(r.layer, r.product) for r in rows if r.accelerator == "interleaving"]
    assert named == [
        ("first", "forward"),
        ("second", "forward"),
        ("second", GRADIENT_PAIR),
        ("first", "weight_grad"),
    ]
    plain = {(r.layer, r.product) for r in rows if r.accelerator == "plain"}
    assert plain == {
        ("first", "forward"),
        ("first", "weight_grad"),
        ("second", "forward"),
        ("second", "input_grad"),
        ("second", "weight_grad"),
    }


def test_totals_are_the_cost_of_the_step():
    products = blind_products(LAYERS)
    sums = total(simulate(products, MACHINES))
    for name, machine in MACHINES.items():
        assert sums[name]["total"].cycles == products_cost(machine, products).cycles
        parts = [cost.cycles for key, cost in sums[name].items() if key != "total"]
        assert sum(parts) == sums[name]["total"].cycles
    assert list(sums["interleaving"]) == [
        "forward",
        "weight_grad",
        GRADIENT_PAIR,
        "total",
    ]
