"""A transform of a user's own joins the engines by the flags and the form it states."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import elision
from elision.engines.native.blocked.layer import Sparsity
from elision.layers.blocked import sparsity_of
from elision.layers.plan import LayerPlan
from elision.layers.recipe import Recipe, Table
from elision.operands import Transform
from elision.operands.blocked_form import LargestForm
from elision.products import Product


@dataclass(frozen=True)
class Plain(Transform):
    def apply(self, x: Tensor, state: Any, training: bool) -> Tensor:
        return x.where(x.abs() >= x.abs().median(), 0)

    def __str__(self) -> str:
        return "above the median"


@dataclass(frozen=True)
class Stated(Plain):
    sparsifies = True
    limits_gradient = True

    def blocked_form(self) -> LargestForm:
        return LargestForm(keep=0.5)


@dataclass(frozen=True)
class Reusing(Stated):
    reuses = True


def weights(transform: Transform) -> Table:
    row = {"weight": transform}
    return Table({Product.FORWARD: row, Product.INPUT_GRAD: row})


def test_a_blocked_form_is_enough_for_the_blocked_layout() -> None:
    found = {}
    for transform in (Plain(), Stated()):
        layer = nn.Conv2d(16, 16, 3)
        elision.elide(layer, Recipe("mine", weights(transform)), engine="torch")
        found[type(transform)] = sparsity_of(layer)
    assert found == {Plain: None, Stated: Sparsity(weight_keep=0.5)}


def test_flags_are_the_hints_of_a_compiled_graph() -> None:
    plain, stated, reusing = (
        LayerPlan("mine", weights(t)).in_graph for t in (Plain(), Stated(), Reusing())
    )
    assert plain == dict.fromkeys(Product)
    use = "weight_for_forward"
    assert stated[Product.FORWARD] == ("weight", None)
    assert stated[Product.WEIGHT_GRAD] == (None, use)
    assert reusing[Product.FORWARD] is None


def test_the_operands_are_those_that_apply_returns() -> None:
    layer = nn.Linear(4, 4, bias=False)
    expected = Plain().apply(layer.weight.detach(), {}, True)
    elision.elide(layer, Recipe("mine", weights(Stated())), engine="torch")
    assert torch.equal(layer(torch.eye(4)).T, expected)
