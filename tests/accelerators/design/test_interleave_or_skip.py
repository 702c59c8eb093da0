import pytest
import torch

from elision.accelerators import InterGrad, Systolic
from elision.accelerators.design.interleave_or_skip import (
    interleave_or_skip,
    machines_of_equal_size,
)
from elision.accelerators.step import blind_products
from elision.products import OPERANDS, Conv2dGeometry, LayerProduct, Product

LAYERS = [
    ("first", Conv2dGeometry(1, 3, 12, 12, 8, 3, padding=1)),
    ("second", Conv2dGeometry(1, 8, 12, 12, 8, 3, padding=1)),
]


def sparse_step(density: float) -> list[LayerProduct]:
    generator = torch.Generator().manual_seed(0)
    products = []
    for product in blind_products(LAYERS):
        tensors = {}
        for name in OPERANDS:
            shape = product.geometry.shape_of(name)
            kept = torch.rand(shape, generator=generator) < density
            tensors[name] = torch.randn(shape, generator=generator) * kept
        first, second = (tensors[name] for name in product.kind.operands)
        products.append(
            LayerProduct(product.kind, product.geometry, first, second, product.name)
        )
    return products


def test_every_machine_is_shown_what_it_wastes():
    products = sparse_step(0.3)
    rows = {row.machine: row for row in interleave_or_skip(products)}
    useful = sum(product.counts.valid for product in products)
    for row in rows.values():
        waste = row.zero_multiplies + row.redundant_multiplies
        assert row.multiplies == useful + waste
        assert 0 < row.useful_share <= 1
    systolic, gated = rows["InterGrad"], rows["InterGrad, zeros gated"]
    assert systolic.zero_multiplies > 0 == systolic.redundant_multiplies
    assert gated.cycles == systolic.cycles
    assert gated.energy_on_chip_pj < systolic.energy_on_chip_pj
    assert rows["SCNN"].zero_multiplies == 0 < rows["SCNN"].redundant_multiplies
    assert rows["ANT"].redundant_multiplies < rows["SCNN"].redundant_multiplies
    assert rows["WS"].speed_up == 1


def test_systolic_cycles_do_not_depend_on_the_values():
    machines = {"WS": Systolic(8, 8), "InterGrad": InterGrad(8, 8)}
    dense, sparse = (interleave_or_skip(sparse_step(d), machines) for d in (1, 0.1))
    assert [r.cycles for r in dense] == [r.cycles for r in sparse]
    assert [r.multiplies for r in dense] == [r.multiplies for r in sparse]


def test_all_machines_have_as_many_multipliers():
    product = sparse_step(0.5)[0]
    for machine in machines_of_equal_size().values():
        cost = machine.cost(product)
        assert cost.multiplier_slots == 1024 * cost.cycles


def test_operands_are_needed():
    blind = [LayerProduct(Product.FORWARD, LAYERS[0][1])]
    with pytest.raises(ValueError, match="needs the operands"):
        interleave_or_skip(blind)
