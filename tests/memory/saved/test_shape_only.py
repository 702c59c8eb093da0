"""Tensors that are saved for their shape: their values are neither kept nor read."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.memory import Role, saver

INDEX = torch.arange(8).flip(0).expand(4, 16, 8, 8)

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gather": lambda x: x.gather(3, INDEX),
    "take": lambda x: x.take(INDEX),
    "masked select": lambda x: x.masked_select(INDEX > 3),
    "reflection pad": lambda x: F.pad(x, (1, 2, 3, 1), mode="reflect"),
    "replication pad": lambda x: F.pad(x, (1, 2, 3, 1), mode="replicate"),
    "reflection pad of lines": lambda x: F.pad(x[0], (1, 2), mode="reflect"),
    "replication pad of lines": lambda x: F.pad(x[0], (1, 2), mode="replicate"),
    "reflection pad of volumes": lambda x: F.pad(x[None], (1,) * 6, mode="reflect"),
    "replication pad of volumes": lambda x: F.pad(x[None], (1,) * 6, mode="replicate"),
    "max pool of volumes": lambda x: F.max_pool3d(x[None], 2),
    "average pool of volumes": lambda x: F.avg_pool3d(x[None], 2),
    "adaptive average pool of volumes": lambda x: F.adaptive_avg_pool3d(x[None], 2),
    "adaptive max pool": lambda x: F.adaptive_max_pool2d(x, 3),
    "adaptive max pool of volumes": lambda x: F.adaptive_max_pool3d(x[None], 2),
    "fractional max pool": lambda x: F.fractional_max_pool2d(x, 2, output_size=3),
}

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.mT,
    "expanded": lambda x: x[:, :1].expand_as(x),
}


class Shaped(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scale, self.function = nn.Parameter(torch.randn(4, 16, 8, 8)), function

    def forward(self, layout: Callable[[Tensor], Tensor]) -> Tensor:
        return self.function(layout(self.scale * 3)).sin().sum()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_that_no_backward_pass_reads_are_not_kept(
    name: str, layout: str
) -> None:
    model, found = Shaped(FUNCTIONS[name]), []
    for policy in ("none", "exact"):
        model.zero_grad()
        torch.manual_seed(1)
        with saver(model, policy) as saved:
            loss = model(LAYOUTS[layout])
        loss.backward()
        found.append(model.scale.grad)
    assert torch.equal(*found)
    rows = saved.ledger.rows_of([Role.SHAPE])
    assert [row.codec for row in rows] == ["shape only"]
