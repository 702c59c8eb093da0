"""The format that suffices: against products that are rounded by hand."""

import json
import math

import pytest
import torch
from torch import Tensor

import elision
from elision.operands import Cast
from elision.precision.sufficient import (
    CANDIDATES,
    COLUMNS,
    OperandError,
    Sufficiency,
    sufficient,
)
from elision.products import LayerProduct, MatmulGeometry, Product

GEOMETRY = MatmulGeometry(64, 96, 32)

#: Each product by hand, and the dimension of its operands that it sums over.
BY_HAND = {
    Product.FORWARD: (lambda x, w: x @ w.T, (1, 1)),
    Product.INPUT_GRAD: (lambda g, w: g @ w, (1, 0)),
    Product.WEIGHT_GRAD: (lambda g, x: g.T @ x, (0, 0)),
}


def operands(kind: Product, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Normal values of sizes that differ by rows and columns, so that an axis matters."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for name in kind.operands:
        rows, columns = GEOMETRY.shape_of(name)
        x = torch.randn(rows, columns, generator=generator)
        made.append(x * torch.logspace(-2, 2, rows)[:, None])
    return made[0], made[1]


def product(kind: Product, *, name: str = "fc", seed: int = 0) -> LayerProduct:
    return LayerProduct(kind, GEOMETRY, *operands(kind, seed), name=name, step=seed)


def errors(found: Sufficiency) -> dict[tuple[str, str], float]:
    return {(e.operand, e.format): e.error for e in found.errors}


@pytest.mark.parametrize("kind", Product)
@pytest.mark.parametrize("format", ["mxfp4", "mxfp8", "bf16"])
def test_errors_are_those_of_a_product_by_hand(kind: Product, format: str) -> None:
    compute, axes = BY_HAND[kind]
    first, second = operands(kind)
    exact = compute(first.double(), second.double())
    found = errors(sufficient([product(kind)], (format,)))
    for i, (name, axis) in enumerate(zip(kind.operands, axes, strict=True)):
        pair = [first, second]
        pair[i] = Cast(format, axis=axis)(pair[i], [], False)
        by_hand = compute(*(x.double() for x in pair))
        error = float((by_hand - exact).norm() / exact.norm())
        assert found[name, format] == pytest.approx(error, rel=1e-9)
        assert error > 0


def test_the_first_that_suffices_wins_and_the_threshold_counts() -> None:
    found = (
        OperandError("fc", "forward", "input", "mxfp4", 4, 0.2),
        OperandError("fc", "forward", "input", "int8", 8, 0.06),
        OperandError("fc", "forward", "input", "bf16", 16, 0.001),
        OperandError("fc", "forward", "weight", "bf16", 16, 0.1),
    )
    at = Sufficiency(found, 0.06)
    assert at.smallest("fc", "forward", "input") == "int8"
    assert Sufficiency(found, 0.05).smallest("fc", "forward", "input") == "bf16"
    assert Sufficiency(found, 0.3).smallest("fc", "forward", "input") == "mxfp4"
    assert at.smallest("fc", "forward", "weight") == ""
    [row] = at.rows()
    assert len(row) == 1 + len(COLUMNS)
    assert row["forward input"] == "int8"
    assert row["forward weight"] == "none"  # recorded, and nothing suffices
    assert row["weight_grad input"] == ""  # not recorded


def test_the_worst_step_counts() -> None:
    once = [sufficient([product(Product.FORWARD, seed=s)], ("int8",)) for s in (1, 2)]
    both = sufficient([product(Product.FORWARD, seed=s) for s in (1, 2)], ("int8",))
    for place, error in errors(both).items():
        assert error == max(errors(each)[place] for each in once)
    assert errors(once[0]) != errors(once[1])


def test_where_values_are_not_finite_nothing_suffices() -> None:
    """Neither alone nor beside a step that is."""
    x, w = operands(Product.FORWARD)
    x[0, 0] = math.nan
    broken = LayerProduct(Product.FORWARD, GEOMETRY, x, w, name="fc")
    for trace in ([broken], [product(Product.FORWARD), broken]):
        found = sufficient(trace, ("bf16", "fp32"), threshold=1.0)
        assert set(errors(found).values()) == {math.inf}
        assert found.rows()[0]["forward weight"] == "none"


def test_operands_of_zeros_need_no_bits() -> None:
    zeros = [torch.zeros(GEOMETRY.shape_of(o)) for o in Product.FORWARD.operands]
    blank = LayerProduct(Product.FORWARD, GEOMETRY, *zeros, name="fc")
    assert sufficient([blank]).smallest("fc", "forward", "input") == CANDIDATES[0]


def test_a_recorded_run_has_a_row_for_each_layer() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten()
    ).append(torch.nn.Linear(64, 3))
    with elision.record(model.train(), samples=8) as trace:
        x = torch.randn(8, 1, 6, 6)
        torch.nn.functional.cross_entropy(model(x), torch.arange(8) % 3).backward()
    found = sufficient(trace)
    assert found.layers == ["0", "3"]
    rows = {row["layer"]: row for row in found.rows()}
    # The first layer's input needs no gradient.
    assert rows["0"]["input_grad grad_output"] == ""
    assert all(rows["3"].values())
    of_fp32 = [e.error for e in found.errors if e.format == "fp32"]
    assert of_fp32 == [0.0] * len(of_fp32)
    assert "forward weight" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["threshold"] == found.threshold


def test_an_empty_trace_says_so() -> None:
    assert str(sufficient([])) == "no product was recorded"


@pytest.mark.parametrize(
    ("trace", "options", "says"),
    [
        ([product(Product.FORWARD)], {"threshold": 0.0}, "threshold=0"),
        ([product(Product.FORWARD)], {"threshold": math.nan}, "threshold=nan"),
        ([product(Product.FORWARD)], {"formats": ("fp9",)}, "fp9.*bf16"),
        ([LayerProduct(Product.FORWARD, GEOMETRY, name="fc")], {}, "fc.*no operands"),
    ],
)
def test_what_cannot_be_rounded_is_said_in_one_line(
    trace: list[LayerProduct], options: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        sufficient(trace, **options)  # pyright: ignore[reportArgumentType]
    assert "\n" not in str(caught.value)


def test_no_format_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="give at least one number format"):
        sufficient([], ())
