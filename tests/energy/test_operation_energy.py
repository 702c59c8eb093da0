"""Priced operations and bytes against sums worked out another way."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.accelerators import Dense, EnergyTable, energy_table
from elision.energy.operations import (
    OperationEnergy,
    operation_energy,
    table_uncertainty,
    total_operations,
)
from elision.products import (
    Arithmetic,
    Conv2dGeometry,
    LayerProduct,
    MatmulGeometry,
    Product,
)

CONV = Conv2dGeometry(2, 3, 8, 8, 4, (3, 3), (1, 1), (1, 1), (1, 1), 1)


@pytest.mark.parametrize("kind", list(Product))
def test_dense_operations_cost_what_the_dense_machine_says(kind: Product) -> None:
    """The arithmetic of the dense array, which counts on its own, at one price list."""
    product = LayerProduct(kind, CONV)
    cost = Dense().cost(product)
    prices = cost.prices_pj
    own = operation_energy(product)
    arithmetic = sum(n * prices[action] for action, n in cost.operations.items())
    assert own.dense_arithmetic_pj == pytest.approx(arithmetic)
    assert own.done_pj == own.dense_pj


@pytest.mark.parametrize("kind", list(Product))
def test_three_tensors_move_once(kind: Product) -> None:
    values = 2 * 3 * 8 * 8 + 4 * 3 * 3 * 3 + 2 * 4 * 8 * 8
    found = operation_energy(LayerProduct(kind, CONV))
    assert found.dense_bytes == found.done_bytes == 4 * values
    assert found.dense_moved_pj == pytest.approx(650 * values)


@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from(list(Product)))
def test_what_is_left_out_is_neither_multiplied_nor_moved(
    first: float, second: float, kind: Product
) -> None:
    a, b = kind.operands
    geometry = MatmulGeometry(5, 7, 11)
    found = operation_energy(LayerProduct(kind, geometry), {a: first, b: second})
    assert found.done_macs == pytest.approx(5 * 7 * 11 * first * second)
    bits = 32 * math.prod(geometry.shape_of(kind.absent))
    for name, kept in ((a, first), (b, second)):
        size = math.prod(geometry.shape_of(name))
        bits += 32 * kept * size + (size if kept < 1 else 0)
    assert found.done_bytes == pytest.approx(bits / 8)
    assert found.dense_macs == 5 * 7 * 11


def test_narrow_formats_move_fewer_bytes_and_multiply_for_less() -> None:
    shape = MatmulGeometry(4, 4, 4)
    narrow = LayerProduct(Product.FORWARD, shape, arithmetic=Arithmetic("fp16", "fp16"))
    found = operation_energy(narrow)
    table = energy_table("horowitz-45nm").energy_pj
    assert found.done_bytes == 2 * 16 + 2 * 16 + 4 * 16
    assert found.dense_bytes == 3 * 4 * 16
    price = table["multiply_fp16"] + table["add"]
    assert found.done_arithmetic_pj == pytest.approx(64 * price)


def test_parts_add_up() -> None:
    parts = [operation_energy(LayerProduct(kind, CONV)) for kind in Product]
    whole = total_operations(parts)
    assert whole.dense_pj == pytest.approx(sum(p.dense_pj for p in parts))
    assert total_operations([]) == OperationEnergy(*[0.0] * 8)
    assert total_operations([]).ratio == 1


def test_the_range_holds_what_either_shipped_table_says_of_an_integer() -> None:
    tables = [energy_table(n).energy_pj for n in ("horowitz-45nm", "aladdin-40nm")]
    middle = math.sqrt(math.prod(t["multiply_int32"] for t in tables))
    for table in tables:
        assert (
            middle / table_uncertainty() - 1e-9
            <= table["multiply_int32"]
            <= middle * table_uncertainty() + 1e-9
        )


def test_a_table_without_a_price_for_the_memory_is_refused() -> None:
    bare = EnergyTable("bare", 45, "test", {"multiply": 1.0, "add": 1.0}, {}, {})
    with pytest.raises(ValueError, match="'bare' has no DRAM price"):
        operation_energy(LayerProduct(Product.FORWARD, CONV), table=bare)
    with pytest.raises(ValueError, match="unknown energy table 'horovitz'"):
        operation_energy(LayerProduct(Product.FORWARD, CONV), table="horovitz")
