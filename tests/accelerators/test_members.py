"""Machines answer for themselves: pairs, timing, and parameters of sweeps."""

import re
from dataclasses import asdict
from typing import Any

import numpy as np
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
from elision.common.specs import build
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
    assert kinds == ["intergrad", "spatial", "systolic", "systolic-mixed"]
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


@pytest.mark.parametrize("name", ACCELERATORS)
def test_the_multipliers_of_a_machine_are_those_that_it_is_charged_for(
    name: str,
) -> None:
    machine = ACCELERATORS[name]()
    ones = np.ones((6, 5), np.float32), np.ones((7, 5), np.float32)
    cost = machine.cost(LayerProduct(Product.FORWARD, GEOMETRY, *ones))
    assert cost.multiplier_slots == cost.cycles * machine.multiplier_count
    assert machine.multiplier_count == 1024  # the defaults are alike


def test_costs_of_two_machines_do_not_add() -> None:
    product = PAIR[0]
    small, large = Dense(multipliers=4), Dense(multipliers=8)
    for one, other in (
        (small, large),
        (small, Systolic(4, 4)),
        (Systolic(4, 4), InterGrad(4, 4)),
    ):
        with pytest.raises(ValueError, match="costs of two machines do not add: "):
            _ = one.cost(product) + other.cost(product)
    twice = small.cost(product) + Dense(multipliers=4).cost(product)
    assert twice.cycles == 2 * small.cost(product).cycles
    assert Cost() + small.cost(product) == small.cost(product)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("systolic:zero_gating=maybe", "zero_gating='maybe'): must be yes or no"),
        ("systolic:rows=2.5", "rows=2.5): must be an integer"),
        ("systolic:rows=32,rows=16", "'rows' is given twice"),
        ("systolic:rows=-4", "rows=-4): must be an integer >= 1"),
        ("systolic:preload=2", "preload=2): must be yes or no"),
        ("scnn:grid=8", "grid=8): must be 2 integers, such as 8x4"),
        ("scnn:grid=0x4", "grid=(0, 4)): must be two integers >= 1"),
        ("scnn:buffer_kib=inf", "buffer_kib=inf): must be a number in (0, inf)"),
        ("ant:global_kib=nan", "global_kib=nan): must be a number in (0, inf)"),
        ("ant:accumulator_kib=0", "accumulator_kib=0.0): must be a number in (0, inf)"),
        ("ant:skip_empty_pairs=1", "skip_empty_pairs=1): must be yes or no"),
        ("ant:group=1.5", "group=1.5): must be an integer or none"),
        ("dense:buffer_kib=-1", "buffer_kib=-1.0): must be a number in (0, inf)"),
        ("one-sided:buffer_kib=big", "buffer_kib='big'): must be a number"),
        ("intersection:lanes=true", "lanes=True): must be an integer"),
        ("intergrad:pe_area_ratio=0.5", "pe_area_ratio=0.5): must be a number >= 1"),
        ("dense:energy=45", "energy=45): must be text"),
        ("dense:multiplier=4", "did you mean 'multipliers'?"),
    ],
)
def test_a_parameter_is_of_its_type_and_in_its_range(spec: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        build("accelerator", spec, ACCELERATORS)
    assert said in str(error.value)
    with pytest.raises(ValueError, match=r"."):
        machines([spec])


def test_words_and_numpy_numbers_mean_what_they_say() -> None:
    for word in ("no", "off", "false"):
        assert (
            build("accelerator", f"systolic:zero_gating={word}", ACCELERATORS)
            == Systolic()
        )
    assert (
        build("accelerator", "systolic:zero_gating=on", ACCELERATORS).value_blind
        is False
    )
    given: dict[str, Any] = {
        "rows": np.int64(4),
        "columns": np.int32(8),
        "preload": "yes",
    }
    machine = Systolic(**given)
    assert machine == Systolic(4, 8, preload=True)
    assert repr(machine) == repr(Systolic(4, 8, preload=True))
    refused: list[tuple[Any, str, Any, str]] = [
        (Scnn, "grid", 8, "Scnn(grid=8): must be 2 integers, such as 8x4"),
        (Dense, "multipliers", 2.5, "Dense(multipliers=2.5): must be an integer"),
        (Systolic, "zero_gating", 0, "Systolic(zero_gating=0): must be yes or no"),
    ]
    for kind, name, value, said in refused:
        with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
            kind(**{name: value})
