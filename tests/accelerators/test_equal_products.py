"""Equal products cost the same on every machine, in whatever notation."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.accelerators import (
    ACCELERATORS,
    Accelerator,
    Ant,
    Cost,
    InterGrad,
    OneSided,
    Scnn,
    Systolic,
)
from elision.products import (
    OPERANDS,
    Conv2dGeometry,
    Conv3dGeometry,
    ConvTranspose2dGeometry,
    Geometry,
    LayerProduct,
    MatmulGeometry,
    Product,
)
from elision.products.canonical import canonical_operand

MACHINES: dict[str, Accelerator] = {
    **{name: kind() for name, kind in ACCELERATORS.items()},
    "ant, scan": Ant(multipliers=2, window=3, startup_cycles=2, method="scan"),
    "scnn, planar": Scnn(mapping="planar", grid=(2, 3), multipliers=2),
    "scnn, planar by groups": Scnn(mapping="planar", barrier="group"),
    "one-sided, by name": OneSided(side="weight", elements=3, lanes=2),
    "systolic, gated": Systolic(3, 2, "os", zero_gating=True),
    "systolic, gathered": Systolic(3, 2, "is", input_grad="gather", preload=True),
    "systolic, as scale-sim": Systolic(4, 4, counting="scalesim"),
    "intergrad, gated": InterGrad(3, 2, zero_gating=True),
}

#: The matrix product of m rows, i summed, n columns and b entries in other notations.
NOTATIONS: dict[str, Callable[[int, int, int, int, int], Geometry]] = {
    "pixels": lambda h, w, i, n, b: Conv2dGeometry(1, b * i, h, w, b * n, 1, groups=b),
    "images": lambda h, w, i, n, b: Conv2dGeometry(
        h * w, b * i, 1, 1, b * n, 1, 3, groups=b
    ),
    "images of pixels": lambda h, w, i, n, b: Conv2dGeometry(
        h, b * i, w, 1, b * n, 1, groups=b
    ),
    "signals": lambda h, w, i, n, b: Conv2dGeometry.of_1d(
        (h, b * i, w), (b * n, i, 1), groups=b
    ),
    "kernels of the images' size": lambda h, w, i, n, b: Conv2dGeometry(
        h * w, b, i, 1, b * n, (i, 1), groups=b
    ),
    "patches": lambda h, w, i, n, b: Conv2dGeometry(
        1, b, h * i, w, b * n, (i, 1), (i, 1), groups=b
    ),
    "voxels": lambda h, w, i, n, b: Conv3dGeometry(
        1, b * i, 1, h, w, b * n, 1, groups=b
    ),
    "transposed pixels": lambda h, w, i, n, b: ConvTranspose2dGeometry.of(
        (1, b * i, h, w), (b * i, n, 1, 1), groups=b
    ),
}


def operands_of(
    matmul: MatmulGeometry, seed: int, density: float
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {o: rng.random(matmul.shape_of(o)) < density for o in OPERANDS}


def written(geometry: Geometry, operand: str, flat: np.ndarray) -> np.ndarray:
    """The operand of the notation whose canonical form is given: places are permuted."""
    shape = geometry.shape_of(operand)
    places = canonical_operand(geometry, operand, np.arange(flat.size).reshape(shape))
    values = np.empty(flat.size, np.float32)
    values[places.reshape(-1)] = flat.reshape(-1)
    return values.reshape(shape)


def figures(cost: Cost) -> dict[str, object]:
    return cost.to_dict()


@pytest.mark.parametrize("notation", NOTATIONS)
@settings(deadline=None, max_examples=20)
@given(
    st.tuples(*[st.integers(1, 4)] * 4, st.integers(1, 2)),
    st.integers(0, 99),
    st.sampled_from([0.0, 0.2, 0.6, 1.0]),
)
def test_every_notation_costs_what_the_matrix_product_costs(
    notation: str, sizes: tuple[int, int, int, int, int], seed: int, density: float
) -> None:
    height, width, inner, columns, batch = sizes
    matmul = MatmulGeometry(height * width, inner, columns, batch)
    geometry = NOTATIONS[notation](*sizes)
    drawn = operands_of(matmul, seed, density)
    own = {o: written(geometry, o, value) for o, value in drawn.items()}
    pairs = []
    for kind in Product:
        first, second = kind.operands
        pairs.append(
            (
                LayerProduct(kind, matmul, drawn[first], drawn[second]),
                LayerProduct(kind, geometry, own[first], own[second]),
            )
        )
    for name, machine in MACHINES.items():
        for flat, other in pairs:
            assert figures(machine.cost(other)) == figures(machine.cost(flat)), name
        (_, (flat_dx, dx), (flat_dw, dw)) = pairs
        assert machine.cost_pair(dx, dw) == machine.cost_pair(flat_dx, flat_dw), name


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 40), st.integers(1, 9), st.integers(1, 9), st.sampled_from(Product)
)
def test_nothing_is_redundant_in_a_matrix_product(
    rows: int, inner: int, columns: int, kind: Product
) -> None:
    """So ANT gains nothing over SCNN there, pixels or not."""
    geometry = Conv2dGeometry(1, inner, rows, 1, columns, 1)
    rng = np.random.default_rng(rows)
    first, second = (rng.random(geometry.shape_of(o)) < 0.4 for o in kind.operands)
    product = LayerProduct(kind, geometry, first, second)
    scnn, ant = Scnn().cost(product), Ant().cost(product)
    assert scnn.redundant_multiplies == ant.redundant_multiplies == 0
    assert scnn.cycles == ant.cycles


@pytest.mark.parametrize(
    "geometry",
    [
        Conv2dGeometry(1, 2, 5, 5, 3, (1, 3), 1, (0, 1), (1, 1)),
        Conv2dGeometry(2, 3, 4, 6, 2, (1, 2), 1, 0, (1, 2)),
    ],
)
@pytest.mark.parametrize("kind", list(Product))
def test_a_dilation_of_a_single_tap_costs_nothing(
    geometry: Conv2dGeometry, kind: Product
) -> None:
    spread = Conv2dGeometry(
        *(geometry.batch, geometry.in_channels, geometry.height, geometry.width),
        *(geometry.out_channels, geometry.kernel, geometry.stride, geometry.padding),
        (3, geometry.dilation[1]),
    )
    rng = np.random.default_rng(0)
    first, second = (rng.random(geometry.shape_of(o)) < 0.5 for o in kind.operands)
    for name, machine in MACHINES.items():
        costs = [
            machine.cost(LayerProduct(kind, g, first, second))
            for g in (geometry, spread)
        ]
        assert costs[0] == costs[1], name
