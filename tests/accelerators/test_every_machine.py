"""The table that every registered machine passes, whatever its model."""

import inspect
from dataclasses import fields

import numpy as np
import pytest
from accelerator_oracles import GEOMETRIES, KINDS, random_product

from elision.accelerators import ACCELERATORS, Accelerator
from elision.accelerators.simulate import simulate
from elision.products import LayerProduct, MatmulGeometry

CASES = {**GEOMETRIES, "matmul": MatmulGeometry(4, 9, 5)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ACCELERATORS)
def test_counts_of_a_cost_fit_together(name, case, kind) -> None:
    machine = ACCELERATORS[name]()
    product = random_product(np.random.default_rng(3), kind, CASES[case])
    cost = machine.cost(product)
    assert cost == machine.cost(product)
    assert 0 <= cost.valid_multiplies <= cost.multiplies <= cost.multiplier_slots
    assert cost.redundant_multiplies <= cost.multiplies - product.counts.valid
    assert cost.multiplies >= product.counts.valid
    assert cost.cycles > 0
    assert cost.energy_pj > 0
    assert min((*cost.accesses.values(), *cost.operations.values())) >= 0
    assert machine.timing((product,)).cycles == cost.cycles
    twice = cost + cost
    assert twice.cycles == 2 * cost.cycles
    assert twice.energy_pj == pytest.approx(2 * cost.energy_pj)
    assert twice.utilisation == cost.utilisation


@pytest.mark.parametrize("name", ACCELERATORS)
def test_operands_may_be_absent_only_where_values_do_not_matter(name) -> None:
    machine = ACCELERATORS[name]()
    product = LayerProduct(KINDS[0], MatmulGeometry(4, 9, 5))
    if machine.value_blind:
        ones = [np.ones(shape, np.float32) for shape in ((4, 9), (5, 9))]
        dense = LayerProduct(KINDS[0], product.geometry, *ones)
        assert machine.cost(product).cycles == machine.cost(dense).cycles
    else:
        with pytest.raises(ValueError, match="needs the operands"):
            machine.cost(product)


@pytest.mark.parametrize("kind", ACCELERATORS.values(), ids=ACCELERATORS)
def test_every_parameter_is_documented_and_checked(kind: type[Accelerator]) -> None:
    product = random_product(np.random.default_rng(0), KINDS[0], CASES["matmul"])
    text = inspect.getdoc(kind) or ""
    for field in fields(kind()):  # pyright: ignore[reportArgumentType]
        assert field.name in text, field.name
        if field.type == "int" or field.type is int:
            with pytest.raises(ValueError, match=field.name):
                kind(**{field.name: -1})
    with pytest.raises(ValueError, match="unknown energy table"):
        kind(energy="none").cost(product)


@pytest.mark.parametrize("name", ACCELERATORS)
def test_rows_of_a_simulation_have_the_costs_of_their_products(name) -> None:
    machine = ACCELERATORS[name]()
    products = [
        random_product(np.random.default_rng(1), kind, CASES["matmul"])
        for kind in KINDS
    ]
    rows = list(simulate(products, {name: machine}))
    assert sum(row.product.count("+") + 1 for row in rows) == len(products)
    assert all(row.cost.cycles > 0 for row in rows)
