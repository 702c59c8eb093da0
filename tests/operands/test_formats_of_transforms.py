"""Every transform that rounds to codes says a format of as many codes."""

import pytest
import torch

from elision.formats import format_named
from elision.layers.plan import LayerPlan
from elision.methods import Bcgd
from elision.operands import (
    KEEP,
    Cast,
    Chain,
    LearnedStep,
    NoisyLevels,
    Project,
    TanhLevels,
    Ternary,
    TopK,
    Transform,
)
from elision.products import Product

CODES = {
    "binary": [Project(1), NoisyLevels(1), LearnedStep(1)],
    "ternary": [Project(2), Ternary(block=4096, terms=1)],
    "int3": [Project(3), Project(3, fit="largest")],
    "int4": [
        LearnedStep(4, "round", "lsq", signed=True),
        Project(4, fit="least-squares"),
    ],
    "uint4": [LearnedStep(4), TanhLevels(4), NoisyLevels(4)],
    "uint8": [LearnedStep(8, "round", "pact")],
}
CASES = [(name, each) for name, all in CODES.items() for each in all]


@pytest.mark.parametrize(("name", "transform"), CASES, ids=str)
def test_the_result_has_the_codes_of_its_format(
    name: str, transform: Transform
) -> None:
    x = torch.randn(1, 4096, generator=torch.Generator().manual_seed(0)) * 3
    state = transform.initial_state()
    codes = transform(x, list(state.values()), True).unique()
    assert transform.number_format == name
    assert 2 <= len(codes) <= 2 ** format_named(name).bits


@pytest.mark.parametrize(
    "transform", [KEEP, TopK(0.5), Project(32), Ternary()], ids=str
)
def test_what_is_no_code_is_float32(transform: Transform) -> None:
    assert transform.number_format == "fp32"


def test_a_chain_has_the_format_of_what_it_rounds_to() -> None:
    assert Chain((TopK(0.5), Cast("fp8-e4m3"))).number_format == "fp8-e4m3"


def test_bcgd_multiplies_binary_weights_by_four_bits() -> None:
    found = LayerPlan("bcgd", Bcgd(1, 4).table).arithmetic(Product.FORWARD)
    assert {found.first, found.second} == {"uint4", "binary"}
