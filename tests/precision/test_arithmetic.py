"""Formats of operands by their words."""

import pytest
import torch

from elision.formats import FORMATS
from elision.layers import Table
from elision.operands import KEEP, Cast, Project, Ternary
from elision.precision import arithmetic, rounding
from elision.products import OPERANDS, Product


@pytest.mark.parametrize(
    ("text", "formats"),
    [
        ("8a-4w", {"input": "8", "weight": "4"}),
        ("8a-8w-6g", {"input": "8", "weight": "8", "grad_output": "6"}),
        ("4w", {"weight": "4"}),
        ("6a", {"input": "6"}),
        ("8w-8g", {"weight": "8", "grad_output": "8"}),
        ("bf16", dict.fromkeys(OPERANDS, "bf16")),
        ("fp8-e4m3", dict.fromkeys(OPERANDS, "fp8-e4m3")),
        ("e5m3", dict.fromkeys(OPERANDS, "e5m3")),
        ("mxfp8:block=16", dict.fromkeys(OPERANDS, "mxfp8:block=16")),
        ("weight=mxfp4, input=8", {"weight": "mxfp4", "input": "8"}),
    ],
)
def test_an_arithmetic_is_read(text: str, formats: dict[str, str]) -> None:
    found = arithmetic(text)
    assert found.name == text
    assert found.formats == formats


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "write bits such as 8a-4w"),
        ("-", "write bits such as 8a-4w"),
        ("8a4w-", "write bits such as 8a-4w"),
        ("fp9", "fp9.*bf16"),
        ("8w-8w", "write bits"),
        ("4w-8a", "write bits"),
        ("8a-17w", r"bits=17.*\[1, 16\]"),
        ("1a-8w", r"bits=1\)"),
        ("0w", "bits=0"),
        ("wieght=4", "unknown operand.*did you mean 'weight'"),
        ("weight=fp9", "fp9"),
    ],
)
def test_what_is_no_arithmetic_is_said_in_one_line(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        arithmetic(text)
    assert "\n" not in str(caught.value)


def test_bits_of_a_weight_choose_its_grid() -> None:
    assert rounding("1", "weight") == Project(1, "channel", fit="least-squares")
    assert rounding("2", "weight") == Ternary(64, 1)
    assert rounding("4", "weight") == Project(4, "channel", fit="least-squares")
    assert rounding("16", "weight") == Project(16, "channel", fit="least-squares")


def test_an_input_of_few_bits_has_a_zero_point() -> None:
    """So that what a rectifier gives uses all codes."""
    x = torch.linspace(0, 1, 256)
    found = rounding("8", "input")(x, [], False)
    torch.testing.assert_close(found, x, atol=1e-6, rtol=0)
    assert rounding("16", "input") == Cast("int16")


def test_blocks_run_along_the_dimension_that_is_summed() -> None:
    axes = {
        (product, operand): rounding("mxfp8", operand, product)
        for product in Product
        for operand in product.operands
    }
    assert {place: cast.axis for place, cast in axes.items()} == {  # pyright: ignore[reportAttributeAccessIssue]
        (Product.FORWARD, "input"): 1,
        (Product.FORWARD, "weight"): 1,
        (Product.INPUT_GRAD, "grad_output"): 1,
        (Product.INPUT_GRAD, "weight"): 0,
        (Product.WEIGHT_GRAD, "grad_output"): 0,
        (Product.WEIGHT_GRAD, "input"): 0,
    }


def test_channels_with_scales_are_not_those_that_are_summed() -> None:
    cast = rounding("int8-channel", "weight")
    assert isinstance(cast, Cast)
    assert cast.axis == 0
    weight = torch.tensor([[1.0, 0.5], [1000.0, 500.0]])
    found = cast(weight, [], False)
    torch.testing.assert_close(found, weight, rtol=0.01, atol=0)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("operand", OPERANDS)
def test_every_format_rounds_every_operand(name: str, operand: str) -> None:
    torch.manual_seed(0)
    x = 1e-3 * torch.randn(40, 50)
    found = rounding(name, operand)(x, [], False)
    assert found.shape == x.shape
    # Of two bits with a scale that cuts nothing off, most values become zero.
    assert float((found - x).norm() / x.norm()) < (1.0 if name == "int2" else 0.75)


def test_a_table_rounds_gradients_only_where_they_have_a_format() -> None:
    forward = arithmetic("8a-4w").table()
    assert forward[Product.FORWARD, "weight"] == rounding("4", "weight")
    assert forward[Product.INPUT_GRAD, "weight"] == KEEP
    whole = arithmetic("8a-4w-6g").table()
    assert whole[Product.WEIGHT_GRAD, "grad_output"] == rounding("6", "grad_output")
    assert whole[Product.INPUT_GRAD, "weight"] == rounding("4", "weight")
    assert Table.from_dict(whole.to_dict()) == whole
