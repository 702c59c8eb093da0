"""Tensors that averages take over: what they are to everybody else."""

import copy

import pytest
import torch
from torch import Tensor, nn

from elision.common.exact import Exact, GivenExact, exact, plain


def pair() -> tuple[Exact, Exact]:
    """A mask and a copy of it from before it moved."""
    model = exact(torch.tensor([True, False, True]))
    average = copy.deepcopy(model)
    plain(model).copy_(torch.tensor([False, True, True]))
    return model, average


AVERAGES = {
    "decay": lambda a, m: 0.9 * a + 0.1 * m,
    "turned round": lambda a, m: m * 0.1 + a * 0.9,
    "difference": lambda a, m: a + (m - a) / 10,
    "difference of a tensor": lambda a, m: a + (m - a) / torch.tensor(10),
    "lerp": lambda a, m: a.lerp(m, 0.1),
    "lerp of a function": lambda a, m: torch.lerp(a, m, 0.1),
    "in place": lambda a, m: a.mul_(0.9).add_(m, alpha=0.1),
    "operators in place": lambda a, m: a.__imul__(0.9).__iadd__(m * 0.1),
    "lists": lambda a, m: torch._foreach_add([a], torch._foreach_sub([m], [a]))[0],  # pyright: ignore[reportPrivateImportUsage]
    "of data": lambda a, m: a.data.mul(0.9).add(m.data.mul(0.1)),
}


@pytest.mark.parametrize("name", AVERAGES)
def test_an_average_is_the_original(name: str) -> None:
    model, average = pair()
    found = AVERAGES[name](average, model)
    assert torch.equal(found, model)
    average.copy_(found)
    assert torch.equal(average, model)
    assert not torch.equal(average, pair()[1])


PLAIN = {
    "not": lambda m: ~m,
    "and": lambda m: m & torch.tensor(True),
    "sum": lambda m: m.sum(),
    "float": lambda m: m.float() * 0.5,
    "times a weight": lambda m: torch.ones(3) * m,
    "a weight times": lambda m: m * torch.ones(3),
    "where": lambda m: torch.where(m, 1.0, 2.0),
    "index": lambda m: torch.arange(3)[m],
    "part": lambda m: m[:2],
}


@pytest.mark.parametrize("name", PLAIN)
def test_all_else_is_that_of_a_plain_tensor(name: str) -> None:
    values = torch.tensor([True, False, True])
    found = PLAIN[name](exact(values.clone()))
    assert type(found) is Tensor
    assert torch.equal(found, PLAIN[name](values))


def test_a_counter_counts() -> None:
    counter = exact(torch.zeros((), dtype=torch.int64))
    counter.add_(1)
    counter += 2
    assert int(counter) == 3
    assert int(counter + 1) == 4


@pytest.mark.parametrize(
    "same",
    [Tensor.detach, Tensor.clone, Tensor.cpu, lambda x: x.to("cpu"), lambda x: x.data],
)
def test_an_alias_and_a_copy_are_exact_too(same) -> None:
    assert type(same(exact(torch.tensor([True])))) is Exact
    assert type(exact(torch.tensor([True])).to(torch.float32)) is Tensor


def test_a_module_reads_plain_buffers_and_gives_exact_ones() -> None:
    norm = nn.BatchNorm1d(3)
    norm.register_buffer("own_mask", torch.ones(3, dtype=torch.bool))
    norm._buffers = GivenExact(norm._buffers, "own_")
    assert type(norm.own_mask) is Tensor
    kinds = {name: type(value) for name, value in norm.named_buffers()}
    assert kinds.pop("own_mask") is Exact
    assert set(kinds.values()) == {Tensor}
    assert norm.state_dict()["own_mask"].data_ptr() == norm.own_mask.data_ptr()
    norm.own_mask = torch.zeros(3, dtype=torch.bool)
    assert not dict(norm.named_buffers())["own_mask"].any()
    norm.half()
    assert norm.own_mask.dtype is torch.bool
