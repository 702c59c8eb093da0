"""Buffers and random state after a trial pass, as they were before."""

import pytest
import torch
from torch import nn

from elision.common.restoring import Buffers, restored


def normed() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4)).train()


def trial(model: nn.Module) -> None:
    model(torch.randn(8, 3))


def values(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def same(model: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    now = values(model)
    return now.keys() == before.keys() and all(
        torch.equal(now[name], before[name]) for name in now
    )


def test_running_statistics_are_those_of_before() -> None:
    model = normed()
    before = values(model)
    with restored(model):
        trial(model)
        assert not same(model, before)
    assert same(model, before)


def test_a_block_that_raises_is_undone_too() -> None:
    model = normed()
    before = values(model)

    def fails_in_the_middle() -> None:
        trial(model)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), restored(model):
        fails_in_the_middle()
    assert same(model, before)


def test_a_buffer_keeps_its_tensor_and_an_unchanged_one_its_version() -> None:
    model = normed()
    model[2].eval()  # pyright: ignore[reportCallIssue, reportIndexIssue]
    tensors = dict(model.named_buffers())
    versions = {name: buffer._version for name, buffer in tensors.items()}
    with restored(model):
        trial(model)
        model[1].running_mean = torch.ones(4)  # pyright: ignore[reportIndexIssue]
    for name, buffer in model.named_buffers():
        assert buffer is tensors[name]
        changed = name.startswith("1.")
        assert (buffer._version > versions[name]) == changed, name


def test_a_snapshot_can_be_put_back_more_than_once() -> None:
    model = normed()
    before, snapshot = values(model), Buffers(model)
    for _ in range(2):
        trial(model)
        snapshot.put_back()
        assert same(model, before)


def test_a_buffer_on_the_meta_device_has_no_values_to_put_back() -> None:
    model = normed().to("meta")
    tensors = dict(model.named_buffers())
    with restored(model):
        model(torch.empty(8, 3, device="meta"))
    assert all(b is tensors[name] for name, b in model.named_buffers())


@pytest.mark.parametrize("random_state", [True, False])
def test_the_random_state_is_put_back_where_that_is_wanted(random_state: bool) -> None:
    model = normed()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with restored(model, random_state=random_state):
        torch.rand(5)
    assert torch.equal(torch.rand(3), expected) == random_state
