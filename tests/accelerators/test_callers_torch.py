"""Costs do not depend on the torch that the caller has set up, nor on dtype and layout."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pytest
import torch

from elision.accelerators import (
    ACCELERATORS,
    Accelerator,
    Ant,
    Cost,
    Scnn,
    Systolic,
)
from elision.products import (
    Conv2dGeometry,
    Geometry,
    LayerProduct,
    MatmulGeometry,
    Product,
)

MACHINES: dict[str, Accelerator] = {
    **{name: kind() for name, kind in ACCELERATORS.items()},
    "planar": Scnn(mapping="planar"),
    "scan": Ant(method="scan"),
    "gated": Systolic(4, 4, zero_gating=True),
}
LAYERS: dict[str, Geometry] = {
    "conv": Conv2dGeometry(2, 4, 9, 8, 6, 3, 2, 1, groups=2),
    "matmul": MatmulGeometry(5, 700, 3),  # counts beyond what bf16 holds
}


@contextmanager
def restored(name: str, value: object) -> Iterator[None]:
    """``torch.set_NAME(value)`` within the block."""
    before = {
        "default_dtype": torch.get_default_dtype,
        "default_device": lambda: None,
    }[name]()
    getattr(torch, f"set_{name}")(value)
    try:
        yield
    finally:
        getattr(torch, f"set_{name}")(before)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


MODES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast to fp16": lambda: torch.autocast("cpu", torch.float16),
    "inference": torch.inference_mode,
    "no_grad": torch.no_grad,
    "meta by default": lambda: restored("default_device", "meta"),
    "fp64 by default": lambda: restored("default_dtype", torch.float64),
    "bf16 by default": lambda: restored("default_dtype", torch.bfloat16),
    "fp16 by default": lambda: restored("default_dtype", torch.float16),
    "deterministic": deterministic,
}


def drawn(
    geometry: Geometry, kind: Product, density: float = 0.9
) -> list[torch.Tensor]:
    rng = np.random.default_rng(0)
    return [
        torch.from_numpy(
            (rng.random(geometry.shape_of(o)) < density).astype(np.float32)
        )
        for o in kind.operands
    ]


def costs(products: list[LayerProduct]) -> dict[str, list[Cost]]:
    return {n: [m.cost(p) for p in products] for n, m in MACHINES.items()}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layer", LAYERS)
def test_no_mode_changes_a_cost(layer: str, mode: str) -> None:
    geometry = LAYERS[layer]
    operands = [(kind, drawn(geometry, kind)) for kind in Product]

    def products() -> list[LayerProduct]:
        return [LayerProduct(kind, geometry, x, w) for kind, (x, w) in operands]

    expected = costs(products())
    with MODES[mode]():
        assert costs(products()) == expected


#: The same zeros in other dtypes and layouts.
FORMS: dict[str, Callable[[torch.Tensor], object]] = {
    "needs grad": lambda x: x.clone().requires_grad_(),
    "parameter": torch.nn.Parameter,
    "non-contiguous": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "transposed": lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
    "negative view": lambda x: (x * 1j).conj().imag,
    "numpy": lambda x: x.numpy(),
    "reversed numpy": lambda x: x.numpy()[..., ::-1].copy()[..., ::-1],
    "sparse COO": lambda x: x.to_sparse(),
    "quantised": lambda x: torch.quantize_per_tensor(x, 0.5, 0, torch.qint8),
    "bool": lambda x: x.bool(),
    "complex": lambda x: x * 1j,
    "conjugate": lambda x: (x * 1j).conj(),
    **{
        name: lambda x, name=name: x.to(getattr(torch, name))
        for name in (
            *("int8", "uint8", "int16", "int32", "int64"),
            *("float16", "bfloat16", "float64", "float8_e4m3fn", "float8_e5m2"),
        )
    },
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.filterwarnings("ignore:.*quantize")
def test_no_dtype_or_layout_changes_a_cost(layer: str, form: str) -> None:
    geometry = LAYERS[layer]
    for kind in Product:
        x, w = drawn(geometry, kind)
        plain = costs([LayerProduct(kind, geometry, x, w)])
        first, second = FORMS[form](x), FORMS[form](w)
        assert costs([LayerProduct(kind, geometry, first, second)]) == plain


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_expanded_and_compressed_operands_are_counted() -> None:
    geometry = MatmulGeometry(6, 5, 4)
    row, weight = torch.tensor([[0.0, 1, 0, 2, 0]]), torch.eye(4, 5)
    plain = LayerProduct(Product.FORWARD, geometry, row.repeat(6, 1), weight)
    compressed = weight.to_sparse_csr()
    for first, second in ((row.expand(6, 5), weight), (row.repeat(6, 1), compressed)):
        product = LayerProduct(Product.FORWARD, geometry, first, second)
        assert costs([product]) == costs([plain])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.empty(6, 5, device="meta"), "input is on the meta device"),
        (np.full((6, 5), None), "input has no numbers, its dtype is object"),
        (torch.full((6, 5), float("nan")).to(torch.float8_e4m3fn), "input holds a NaN"),
        (torch.full((6, 5), complex(0, float("inf"))), "input holds a NaN or an inf"),
        (np.full((6, 5), np.inf, np.float16), "input holds a NaN or an infinity"),
    ],
)
def test_what_holds_no_finite_numbers_is_named(value: object, said: str) -> None:
    product = LayerProduct(
        Product.FORWARD, MatmulGeometry(6, 5, 4), value, torch.ones(4, 5)
    )
    for machine in MACHINES.values():
        if machine.value_blind:  # it reads no value
            assert machine.cost(product).multiplies == 120
            continue
        with pytest.raises(ValueError, match=f"forward of layer .*{said}"):
            machine.cost(product)


class Unreadable:
    """An operand of which only the shape may be looked at."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape


@pytest.mark.parametrize("name", [n for n, m in MACHINES.items() if m.value_blind])
@pytest.mark.parametrize("kind", list(Product))
def test_value_blind_machines_look_at_the_shape_alone(name: str, kind: Product) -> None:
    geometry = Conv2dGeometry(1, 3, 1080, 1920, 64, 7, 2, 3)
    blind = LayerProduct(kind, geometry)
    first, second = (Unreadable(geometry.shape_of(o)) for o in kind.operands)
    given = LayerProduct(kind, geometry, first, second)
    machine = MACHINES[name]
    assert machine.cost(given) == machine.cost(blind)
    assert machine.timing((given,)).cycles == machine.cost(blind).cycles


def test_counts_are_exact_integers_beyond_fp32() -> None:
    """2**24 and one more values of a row meet: fp32 would lose the last one."""
    geometry = MatmulGeometry(1, 2**24 + 1, 1)
    ones = np.ones((1, 2**24 + 1), np.int8)
    product = LayerProduct(Product.FORWARD, geometry, ones, ones)
    for name in ("one-sided", "intersection", "scnn", "ant"):
        cost = MACHINES[name].cost(product)
        assert cost.valid_multiplies == 2**24 + 1, name
        assert type(cost.cycles) is type(cost.valid_multiplies) is int


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.bool])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("kind", list(Product))
def test_a_product_of_integers_does_not_wrap(
    layer: str, kind: Product, dtype: torch.dtype
) -> None:
    geometry = LAYERS[layer]
    first, second = (100 * x for x in drawn(geometry, kind))
    exact = LayerProduct(kind, geometry, first.to(dtype), second.to(dtype)).compute()
    x, w = first.to(dtype).double(), second.to(dtype).double()
    assert exact.dtype is torch.int64
    assert torch.equal(exact.double(), LayerProduct(kind, geometry, x, w).compute())


@pytest.mark.parametrize(
    ("form", "result"),
    [
        ("float8_e4m3fn", torch.float32),
        ("float16", torch.float16),
        ("quantised", torch.float32),
        ("sparse COO", torch.float32),
        ("int8", torch.float32),
    ],
)
@pytest.mark.parametrize("kind", list(Product))
@pytest.mark.filterwarnings("ignore:.*quantize")
def test_a_product_is_computed_in_the_wider_of_the_dtypes(
    kind: Product, form: str, result: torch.dtype
) -> None:
    geometry = LAYERS["conv"]
    first, second = drawn(geometry, kind)
    expected = LayerProduct(kind, geometry, first, second).compute()
    other = FORMS[form](first), (FORMS[form](second) if form == "float16" else second)
    found = LayerProduct(kind, geometry, *other).compute()
    assert found.dtype is result
    assert torch.equal(found.float(), expected)


def test_integers_whose_sums_no_fp64_holds_are_refused() -> None:
    big = torch.full((2, 2), 2**30)
    product = LayerProduct(Product.FORWARD, MatmulGeometry(2, 2, 2), big, big)
    with pytest.raises(ValueError, match=r"may pass 2\*\*53"):
        product.compute()
