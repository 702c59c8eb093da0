"""A tensor sharded over processes is seen whole, and a whole one sharded alike."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

from elision.common.sharding import full, scatter_like


@pytest.fixture
def one_process() -> Iterator[None]:
    store = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_plain_tensor_is_itself() -> None:
    x, y = torch.ones(3), torch.zeros(3)
    assert full(x) is x
    assert scatter_like(y, x) is y


@pytest.mark.usefixtures("one_process")
def test_a_sharded_tensor_goes_whole_and_back() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (1,))
    whole = torch.arange(6.0).view(3, 2)
    sharded = distribute_tensor(torch.zeros(3, 2), mesh, [Shard(0)])
    result = scatter_like(whole, sharded)
    assert isinstance(result, DTensor)
    assert result.placements == sharded.placements
    assert type(full(result)) is torch.Tensor
    assert torch.equal(full(result), whole)
