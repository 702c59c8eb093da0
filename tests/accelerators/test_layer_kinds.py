"""Batched, transposed and 3-D layers on every machine."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_layers import (
    batched_matmuls,
    convolutions_3d,
    planar_geometries,
    sparse_operands,
    transposed_convolutions,
)

from elision.accelerators import (
    Accelerator,
    Ant,
    Cost,
    Dense,
    InterGrad,
    Intersection,
    OneSided,
    Scnn,
    Systolic,
    SystolicMixed,
)
from elision.accelerators.step import products_cost, step_cost
from elision.products import (
    Conv2dGeometry,
    Conv3dGeometry,
    ConvTranspose2dGeometry,
    Geometry,
    LayerProduct,
    MatmulGeometry,
    Product,
)
from elision.products.canonical import canonical_geometry

COUNTING: dict[str, Accelerator] = {
    "dense": Dense(multipliers=4),
    "intersection": Intersection(elements=3, chunk=4),
    "one-sided": OneSided(elements=3, lanes=2, side="first"),
}
OUTER: dict[str, Accelerator] = {
    "scnn": Scnn(grid=(2, 2), multipliers=2),
    "planar": Scnn(mapping="planar", grid=(2, 2), multipliers=2),
    "ant": Ant(elements=4, multipliers=2, window=4),
}
SYSTOLIC: dict[str, Accelerator] = {
    "systolic": Systolic(3, 2),
    "gated": Systolic(3, 2, "os", zero_gating=True),
    "mixed": SystolicMixed(3, 2),
    "intergrad": InterGrad(3, 2),
}
MACHINES = {**COUNTING, **OUTER, **SYSTOLIC}
kinds = st.sampled_from(list(Product))
patterns = st.sampled_from(["dense", "empty", "half", "slices"])


def product_of(kind: Product, geometry: Geometry, pattern: str) -> LayerProduct:
    drawn = sparse_operands(geometry, pattern, 3)
    first, second = (drawn[name] for name in kind.operands)
    return LayerProduct(kind, geometry, first, second)


def is_matmul(geometry: Geometry) -> bool:
    return isinstance(canonical_geometry(geometry), MatmulGeometry)


def entries_of(product: LayerProduct) -> list[LayerProduct]:
    """The independent products of a batched one."""
    g = product.geometry
    assert isinstance(g, MatmulGeometry)
    one = MatmulGeometry(g.rows, g.inner, g.columns)
    return [
        LayerProduct(product.kind, one, first, second)
        for first, second in zip(product.first, product.second, strict=True)
    ]


@pytest.mark.parametrize("name", MACHINES)
@settings(deadline=None, max_examples=25)
@given(batched_matmuls, kinds, patterns)
def test_a_batch_does_the_work_of_its_products(
    name: str, geometry: MatmulGeometry, kind: Product, pattern: str
) -> None:
    machine = MACHINES[name]
    whole = product_of(kind, geometry, pattern)
    cost = machine.cost(whole)
    parts = sum((machine.cost(part) for part in entries_of(whole)), Cost())
    assert cost.multiplies == parts.multiplies
    assert (
        cost.valid_multiplies
        == parts.valid_multiplies
        == cost.multiplies - (cost.redundant_multiplies)
    )
    assert cost.operations["multiply"] == parts.operations["multiply"]
    # One after the other is never faster: machines share entries out, or do the same.
    assert cost.cycles <= parts.cycles
    if name in SYSTOLIC:
        assert cost.cycles == parts.cycles


@pytest.mark.parametrize("name", [*COUNTING, *OUTER])
@settings(deadline=None, max_examples=25)
@given(transposed_convolutions(), kinds, patterns)
@example(  # depthwise with a channel multiplier
    ConvTranspose2dGeometry(Conv2dGeometry(1, 2, 1, 1, 4, 1, groups=2)),
    Product.INPUT_GRAD,
    "dense",
)
def test_a_transposed_convolution_costs_the_product_it_has_changed_places_with(
    name: str, geometry: ConvTranspose2dGeometry, kind: Product, pattern: str
) -> None:
    machine = MACHINES[name]
    product = product_of(kind, geometry, pattern)
    other = product.as_convolution()
    if name == "one-sided" and kind is Product.WEIGHT_GRAD:
        machine = OneSided(elements=3, lanes=2, side="input")  # by name: exchanged
        other_machine = OneSided(elements=3, lanes=2, side="grad_output")
        assert machine.cost(product) == other_machine.cost(other)
        return
    if kind is Product.WEIGHT_GRAD and is_matmul(geometry):
        # A matrix product and its transpose: the operands change places on the machine.
        assert machine.cost(product).multiplies == machine.cost(other).multiplies
        return
    assert machine.cost(product) == machine.cost(other)
    assert machine.cost(product).valid_multiplies <= product.dense_macs


@settings(deadline=None, max_examples=25)
@given(planar_geometries, kinds, patterns)
def test_valid_products_are_those_counted(
    geometry: Geometry, kind: Product, pattern: str
) -> None:
    product = product_of(kind, geometry, pattern)
    for machine in OUTER.values():
        assert machine.cost(product).valid_multiplies == product.counts.valid
    assert COUNTING["intersection"].cost(product).multiplies == product.counts.valid
    assert SYSTOLIC["gated"].cost(product).multiplies == product.counts.valid


@settings(deadline=None, max_examples=15)
@given(convolutions_3d(), kinds, patterns)
def test_machines_that_count_run_3d_and_others_refuse_it(
    geometry: Conv3dGeometry, kind: Product, pattern: str
) -> None:
    product = product_of(kind, geometry, pattern)
    assert COUNTING["dense"].cost(product).multiplies == geometry.dense_macs
    assert COUNTING["intersection"].cost(product).multiplies == product.counts.valid
    for machine in {**OUTER, **SYSTOLIC}.values():
        if is_matmul(geometry):  # which all machines run
            assert machine.cost(product).cycles >= 0
            continue
        with pytest.raises(ValueError, match=r"Conv3d.*and 2-D convolutions only$"):
            machine.cost(product)


def test_a_step_of_layers_of_every_kind_is_costed() -> None:
    layers: list[tuple[str, Geometry]] = [
        ("up", ConvTranspose2dGeometry.of((2, 3, 4, 4), (3, 2, 3, 3), stride=2)),
        ("heads", MatmulGeometry(4, 3, 5, batch=6)),
    ]
    macs = sum(geometry.dense_macs for _, geometry in layers)
    for machine in (Dense(), SystolicMixed(4, 4), InterGrad(4, 4)):
        assert step_cost(machine, layers, True).multiplies == 3 * macs


def test_gradients_of_a_transposed_convolution_are_paired() -> None:
    layer = ConvTranspose2dGeometry.of((2, 3, 4, 4), (3, 2, 3, 3), stride=2)
    gradients = [
        LayerProduct(kind, layer) for kind in (Product.INPUT_GRAD, Product.WEIGHT_GRAD)
    ]
    machine = InterGrad(4, 4)
    together = products_cost(machine, gradients)
    assert together == machine.cost_pair(*gradients)
    assert together.cycles < sum(machine.cost(p).cycles for p in gradients)
