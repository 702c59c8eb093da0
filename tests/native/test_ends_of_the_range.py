"""Values that are not finite, and those below the smallest normal number, in the kernels."""

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from elision.engines import DirectEngine, Engine, Hint, NativeEngine
from elision.engines.native import library
from elision.engines.native.blocked import passes
from elision.memory.codecs import Division
from elision.memory.saved.roles import Role, Slot
from elision.nn.over_time import Gates, Plain
from elision.nn.sparse import Mask, sparse_recurrence
from elision.products import LayerProduct, MatmulGeometry, Product

pytestmark = pytest.mark.skipif(
    library.unavailable() is not None, reason=str(library.unavailable())
)

SMALLEST = torch.finfo(torch.float32).smallest_normal


def products(engine: Engine) -> list[Tensor]:
    """All three products of an engine, of subnormal operands and ones."""
    geometry = MatmulGeometry(40, 48, 32)
    sparse = {Product.FORWARD: "weight", Product.INPUT_GRAD: "weight"}
    found = []
    for kind in Product:
        shapes = [geometry.shape_of(name) for name in kind.operands]
        small = torch.full(shapes[0], SMALLEST / 4)
        product = LayerProduct(kind, geometry, small, torch.ones(shapes[1]))
        found.append(engine.compute(product, Hint(sparse.get(kind, "input"))))
    return found


@pytest.mark.parametrize(
    "engine", [NativeEngine(), DirectEngine()], ids=["native", "direct"]
)
@pytest.mark.parametrize("threads", [1, 3])
def test_products_take_subnormal_numbers_for_zero_and_nobody_else_does(
    engine: Engine, threads: int
) -> None:
    before = torch.get_num_threads()
    small = torch.full((1 << 16,), SMALLEST / 4)
    try:
        torch.set_num_threads(threads)
        for found in products(engine):
            assert not found.any()
        assert (small * 0.5).all()  # on torch's own threads, too
        threading.Thread(target=lambda: products(engine)).start()
        assert (small * 0.5).all()
    finally:
        torch.set_num_threads(before)


def test_a_nan_passes_the_relu_of_a_norm_as_in_torch() -> None:
    x, g = torch.randn(5, 3, 4, 4), torch.ones(5, 3, 4, 4)
    x[1, 2, 0, 0] = torch.nan
    (blocked, _), (grad, _) = library.to_blocked(x), library.to_blocked(g)
    mean, variance = torch.empty(3), torch.empty(3)
    inverse, affine = passes.norm_statistics(
        *(blocked, None, None, mean, variance), images=5, eps=1e-5, train=True
    )
    *_, shift = passes.norm_backward(
        *(grad, None, blocked, None, affine, mean, inverse),
        images=5,
        relu=True,
        train=True,
        residual=False,
    )
    own = torch.zeros(3, requires_grad=True)
    F.batch_norm(x, None, None, None, own, training=True).relu().backward(g)
    assert own.grad is not None
    # The whole channel is NaN, and torch passes the gradient of each.
    assert shift[2] == own.grad[2] == 5 * 4 * 4


def test_a_weight_that_is_not_finite_reaches_no_sequence_that_has_ended() -> None:
    # The second sequence ends after a step, and its lane goes on empty.
    data, counts = torch.randn(4, 6), [2, 1, 1]
    weights = [torch.randn(20, n) for n in (6, 5)]
    weights[1][3, 2] = torch.inf
    masks = tuple(Mask(torch.ones_like(w, dtype=torch.bool)) for w in weights)
    found = []
    for way in ("lists", "loop"):
        h, c = (torch.zeros(2, 5).requires_grad_() for _ in range(2))
        plain = Plain(*weights)
        if way == "lists":
            y, _ = sparse_recurrence(
                "lstm", data, counts, (h, c), plain, (masks[0], masks[1])
            )
        else:
            y, _ = Gates().run("lstm")(data, counts, (h, c), plain, False)
        found.append(torch.autograd.grad(y.nan_to_num(0, 0, 0).sum(), c)[0])
    assert torch.equal(found[0].isnan(), found[1].isnan())
    assert found[1][1].isfinite().any()


def test_the_largest_are_as_many_as_asked_for_whatever_is_nan() -> None:
    x = torch.randn(1000)
    x[::3] = torch.nan
    found = library.largest_places(x, 10)
    assert found is None or len(found) == 10
    x[40:] = 1.0
    places = library.largest_places(x, 12)
    assert places is not None
    assert places.tolist() == [n for n in range(40) if n % 3 == 0][:12]


def test_division_refuses_what_is_wider_than_its_type() -> None:
    slot = Slot("ConvolutionBackward0", "input", Role.LINEAR_INPUT)
    x = torch.full((1, 1, 8, 8), 3e38)
    assert Division().pack(x, slot) is None
    x[..., ::2] = -3e38
    assert Division().pack(x, slot) is None
