"""A proof that the range rule never drops a valid product.

Symbolic, for every stride, padding, dilation and size at once: the layer's sizes are
integer variables, and the coordinates are those of the code itself, which is evaluated
on the variables. Two steps make the proof, per axis:

1. Input pixel ``h``, output ``o`` and tap ``r`` that meet in the layer's definition,
   ``h = t·o - p + d·r``, lie at an image coordinate ``y`` and a kernel coordinate ``k``
   with ``y - k = stride·u``, where ``u`` is the index of the result, within its range.
2. Whatever group ``y`` belongs to, ``low <= y <= high``: then ``k`` is within
   ``Axis.reach(low, high)``.

The enumeration that both of ANT's counting methods are tested against selects kernel
values by the same ``Axis.reach``.
"""

from types import SimpleNamespace

import pytest
import z3

from elision.accelerators.outer.planes import Axis, axis_of
from elision.products import Product


def layer():
    """A layer and one meeting of its three tensors along an axis, in variables."""
    H, R, t, p, d, h, o, r = z3.Ints("H R t p d h o r")
    outputs = z3.Int("Ho")  # the floor of (H + 2p - d(R-1) - 1)/t, plus 1
    rest = z3.Int("rest")
    geometry = SimpleNamespace(
        height=H,
        width=H,
        out_height=outputs,
        out_width=outputs,
        kernel=(R, R),
        stride=(t, t),
        padding=(p, p),
        dilation=(d, d),
    )
    facts = [
        *(H >= 1, R >= 1, t >= 1, p >= 0, d >= 1),
        *(outputs >= 1, rest >= 0, rest < t),
        t * (outputs - 1) + rest == H + 2 * p - d * (R - 1) - 1,
        *(h >= 0, h < H, o >= 0, o < outputs, r >= 0, r < R),
        h == t * o - p + d * r,
    ]
    return geometry, SimpleNamespace(h=h, o=o, r=r, R=R), facts


def indices(kind, at):
    """Index in the image, in the kernel and in the result of a meeting."""
    if kind is Product.FORWARD:
        return at.h, at.r, at.o
    if kind is Product.INPUT_GRAD:
        return at.o, at.R - 1 - at.r, at.h  # the kernel is rotated
    return at.h, at.o, at.r


def refute(facts, claim):
    """Search a counterexample of ``facts => claim``; None is a proof."""
    solver = z3.Solver()
    solver.set("timeout", 60_000)
    solver.add(*facts, z3.Not(claim))
    verdict = solver.check()
    assert verdict != z3.unknown, solver.reason_unknown()
    return solver.model() if verdict == z3.sat else None


@pytest.mark.parametrize("axis_number", [0, 1])
@pytest.mark.parametrize("kind", list(Product))
def test_meetings_are_valid_outer_products(kind, axis_number):
    geometry, at, facts = layer()
    axis = axis_of(kind, geometry, axis_number)
    image, kernel, result = indices(kind, at)
    distance = axis.image_step * image + axis.image_offset - axis.kernel_step * kernel
    claim = z3.And(distance == axis.stride * result, result >= 0, result < axis.outputs)
    assert refute(facts, claim) is None
    # The facts do not contradict one another: a layer with a meeting exists.
    assert refute(facts, z3.BoolVal(False)) is not None


def group():
    """An axis and a valid product of some group of image values, in variables."""
    stride, outputs, y, k, u, low, high = z3.Ints("stride outputs y k u low high")
    axis = Axis(1, 0, 1, stride, outputs, 0)
    facts = [
        *(stride >= 1, outputs >= 1, u >= 0, u < outputs),
        *(y - k == stride * u, low <= y, y <= high),
    ]
    return axis, SimpleNamespace(k=k, low=low, high=high), facts


def test_the_range_rule_drops_no_valid_product():
    axis, value, facts = group()
    first, last = axis.reach(value.low, value.high)
    assert refute(facts, z3.And(first <= value.k, value.k <= last)) is None


@pytest.mark.parametrize("broken", ["first", "last"])
def test_a_rule_narrower_by_one_is_refuted(broken):
    axis, value, facts = group()
    first, last = axis.reach(value.low, value.high)
    if broken == "first":
        first = first + 1
    else:
        last = last - 1
    counterexample = refute(facts, z3.And(first <= value.k, value.k <= last))
    assert counterexample is not None

    def number(expression):
        return counterexample.eval(expression, model_completion=True).as_long()

    # A product of real numbers that is valid and that the narrower rule drops.
    assert not number(first) <= number(value.k) <= number(last)
    assert all(z3.is_true(counterexample.eval(fact, True)) for fact in facts)
