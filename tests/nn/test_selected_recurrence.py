"""A layer whose products read what is selected, against the loop of torch's operations."""

import pytest
import torch
from torch import Tensor

from elision.native.shared_object import unavailable
from elision.nn.given import Weight, selected_recurrence
from elision.nn.over_time import Gates, Plain

pytestmark = pytest.mark.skipif(unavailable() is not None, reason="no kernels here")


def whole(weight: Tensor) -> Weight:
    return Weight(weight.detach(), lambda h, sizes: h, lambda g, h: g.T @ h)


@pytest.mark.parametrize("by_lists", [True, False], ids=["lists", "input given"])
@pytest.mark.parametrize(("cell", "gates"), [("lstm", 4), ("gru", 3)])
def test_any_one_gradient_may_be_wanted_alone(
    cell: str, gates: int, by_lists: bool
) -> None:
    torch.manual_seed(0)
    counts, units = [4, 3], 6
    shapes = [(7, 5), *[(4, units)] * (gates - 2), (gates * units, 5)]
    shapes += [(gates * units, units), (gates * units,), (gates * units,)]
    tensors = [torch.randn(shape) for shape in shapes]
    for place in range(len(tensors)):
        given = [t.clone().requires_grad_(n == place) for n, t in enumerate(tensors)]
        data, state, weights = given[0], tuple(given[1:-4]), Plain(*given[-4:])
        of_input = whole(weights.input) if by_lists else None
        y, _ = selected_recurrence(
            cell,
            data if by_lists else weights.of_input(data),
            *(counts, state, weights, of_input, whole(weights.hidden)),
        )
        exact, _ = Gates().run(cell)(data, counts, state, weights, False)
        found, expected = (
            torch.autograd.grad(each.sum(), given[place])[0] for each in (y, exact)
        )
        assert (found - expected).norm() <= 1e-5 * expected.norm()
