"""Machines answer for themselves: pairs, timing, and parameters of sweeps."""

from dataclasses import asdict

import pytest

from elision.accelerators import (
    ACCELERATORS,
    Cost,
    Dense,
    InterGrad,
    Scnn,
    Systolic,
    SystolicMixed,
)
from elision.accelerators.base import QUANTITIES
from elision.accelerators.design.grid import Machine, machines
from elision.accelerators.step import job_cost, jobs
from elision.accelerators.systolic.array import SystolicArray
from elision.products import LayerProduct, MatmulGeometry, Product

GEOMETRY = MatmulGeometry(6, 5, 7)
PAIR = (
    LayerProduct(Product.INPUT_GRAD, GEOMETRY, name="fc"),
    LayerProduct(Product.WEIGHT_GRAD, GEOMETRY, name="fc"),
)


def test_only_an_interleaving_machine_runs_pairs() -> None:
    assert [n for n, kind in ACCELERATORS.items() if kind.interleaves] == ["intergrad"]
    assert list(jobs(Dense(), PAIR)) == [(PAIR[0],), (PAIR[1],)]
    assert list(jobs(InterGrad(4, 4), PAIR)) == [PAIR]


def test_a_pair_on_a_plain_machine_is_one_gradient_after_the_other() -> None:
    machine = Systolic(4, 4)
    assert job_cost(machine, PAIR) == sum(map(machine.cost, PAIR))


@pytest.mark.parametrize(
    "machine",
    [
        Dense(),
        Systolic(4, 4),
        Systolic(4, 4, "os", drain="explicit"),
        Systolic(4, 4, "is", preload=True),
        SystolicMixed(4, 4),
        InterGrad(4, 4),
        InterGrad(4, 4, drain="explicit"),
    ],
)
def test_folds_take_the_cycles_that_the_machine_costs(machine) -> None:
    """Every job's folds, one after the other, are its cycles."""
    for job in (*jobs(machine, PAIR), (PAIR[0],), (PAIR[1],)):
        assert machine.timing(job).cycles == job_cost(machine, job).cycles


def test_systolic_arrays_can_be_reshaped() -> None:
    kinds = [n for n, kind in ACCELERATORS.items() if issubclass(kind, SystolicArray)]
    assert kinds == ["intergrad", "systolic", "systolic-mixed"]
    shaped = InterGrad(4, 4, drain="explicit").reshaped(2, 8)
    assert shaped == InterGrad(2, 8, drain="explicit")


def test_a_machine_names_the_parameters_of_its_sweeps() -> None:
    grid = {"multipliers": [2, 4], "elements": [6]}
    found = machines(["dense", "scnn"], grid)
    assert [m.spec for m in found] == [
        "dense:multipliers=24",
        "dense:multipliers=96",
        "scnn:multipliers=2,elements=6",
        "scnn:multipliers=4,elements=6",
    ]
    assert found[2].build() == Scnn(multipliers=2, grid=(2, 3))
    fixed = machines(["scnn:grid=4x4", "scnn"], {"elements": [9]})
    assert [m.build().grid for m in fixed] == [(4, 4), (3, 3)]
    assert Machine("scnn", (("elements", 7),)).build() == Scnn(grid=(1, 7))


def test_every_quantity_of_a_cost_is_a_plain_number() -> None:
    cost = Systolic(4, 4).cost(PAIR[0])
    values = cost.to_dict()
    assert {name: values[name] for name in QUANTITIES} == {
        name: getattr(cost, name) for name in QUANTITIES
    }
    assert QUANTITIES["utilisation"].text(0.5) == "50.0 %"


def test_adding_costs_forgets_no_field() -> None:
    """Every field of a cost is in the sum: counts add, the area stays."""
    prices = {"multiply": 2.0, "buffer.read": 3.0}
    cost = Cost(
        cycles=1,
        multiplies=2,
        valid_multiplies=3,
        redundant_multiplies=4,
        multiplier_slots=5,
        accesses={"buffer.read": 6},
        operations={"multiply": 7},
        details={"stall_cycles": 8},
        prices_pj=prices,
        area_mm2=9.0,
    )
    twice = asdict(cost + cost)
    kept = {"prices_pj": prices, "area_mm2": 9.0}
    assert twice == {
        name: kept[name]
        if name in kept
        else {k: 2 * n for k, n in value.items()}
        if isinstance(value, dict)
        else 2 * value
        for name, value in asdict(cost).items()
    }
