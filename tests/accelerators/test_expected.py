"""Closed forms of random matrix products against the mean of many draws."""

import numpy as np
import pytest
from accelerator_oracles import KINDS, ceil_div
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.accelerators import ACCELERATORS, Ant, Intersection, OneSided, Scnn
from elision.accelerators.expected import expected_cycles, expected_vectors
from elision.products import LayerProduct, MatmulGeometry, Product

#: One element, so that cycles are not rounded and no time is that of the longest pair.
ONE = {"elements": 1}
MACHINES = {
    "one-sided": OneSided(side="first", lanes=3, **ONE),
    "intersection": Intersection(lanes=2, chunk=5, **ONE),
    "scnn": Scnn(grid=(1, 1), startup_cycles=3, skip_empty_pairs=True),
    "scnn in tiles": Scnn(grid=(1, 1), matmul_tile=5),
    "ant": Ant(window=3, **ONE),
    "ant in tiles": Ant(matmul_tile=5, startup_cycles=2, **ONE),
    "ant in small groups": Ant(matmul_tile=6, group=2, **ONE),
    "ant in large groups": Ant(matmul_tile=6, group=8, **ONE),
}


def draws(kind, geometry, densities, number):
    rng = np.random.default_rng(7)
    shapes = [geometry.shape_of(operand) for operand in kind.operands]
    for _ in range(number):
        masks = (rng.random(s) < d for s, d in zip(shapes, densities, strict=True))
        yield LayerProduct(kind, geometry, *masks)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MACHINES)
def test_the_mean_of_many_draws(name, kind):
    """Two tiles and a rest on either side."""
    machine, geometry = MACHINES[name], MatmulGeometry(24, 26, 23, batch=2)
    densities = (0.3, 0.2)
    found = [machine.cost(p).cycles for p in draws(kind, geometry, densities, 200)]
    expected = expected_cycles(machine, kind, geometry, densities)
    error = np.std(found) / np.sqrt(len(found))
    # The last group of a plane is not full: one of 12, of 24 or of 6 here.
    slack = {"ant in tiles": 0.02, "ant in small groups": 0.02}.get(name, 0.0)
    slack = 0.15 if name == "ant in large groups" else slack
    assert abs(np.mean(found) - expected) < 4 * error + slack * expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("densities", [(1.0, 1.0), (0.0, 0.5), (0.5, 0.0), (0.0, 0.0)])
def test_full_and_empty_operands_leave_nothing_to_chance(kind, densities):
    geometry = MatmulGeometry(12, 8, 20, batch=3)
    (product,) = draws(kind, geometry, densities, 1)
    machines = MACHINES | {name: kind() for name, kind in ACCELERATORS.items()}
    for name, machine in machines.items():
        if densities != (1.0, 1.0) and name == "one-sided":
            continue  # the other operand's zeros are multiplied
        expected = expected_cycles(machine, kind, geometry, densities)
        found = machine.cost(product).cycles
        # Cycles of several elements are whole; the closed form is not.
        assert found == ceil_div(round(expected * 1e6), 1_000_000), (name, expected)


@settings(max_examples=50, deadline=None)
@given(values=st.integers(1, 12), density=st.floats(0, 1), lanes=st.integers(1, 6))
def test_vectors_by_the_binomial_law(values, density, lanes):
    from math import comb

    terms = (
        comb(values, b)
        * density**b
        * (1 - density) ** (values - b)
        * ceil_div(b, lanes)
        for b in range(values + 1)
    )
    assert expected_vectors(values, density, lanes) == pytest.approx(sum(terms))


def test_what_has_no_closed_form_is_said():
    layer = MatmulGeometry(2, 3, 4)
    planar = Scnn(mapping="planar")
    with pytest.raises(ValueError, match="no closed form"):
        expected_cycles(planar, Product.FORWARD, layer, (0.5, 0.5))
    with pytest.raises(ValueError, match="densities"):
        expected_cycles(Scnn(), Product.FORWARD, layer, (0.5, 1.5))
