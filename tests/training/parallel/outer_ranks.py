"""What two real processes do, for test_outer_optimizer.py; also what one of them does."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from elision.training.parallel import OuterOptimizer

#: Rules, and further arguments.
RULES: dict[str, dict[str, Any]] = {
    "local-sgd:every=3": {},
    "scaffold:every=3": {},
    "diloco:every=3,fragments=2": {"compress": "top-k:share=0.5"},
    "fedyogi:every=3": {"compress": "qsgd:width=8"},
}
STEPS = 7


def model() -> nn.Module:
    """The network that every rank begins with."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))


def batch(rank: int, step: int) -> torch.Tensor:
    """The examples of one rank at one step."""
    generator = torch.Generator().manual_seed(100 * rank + step)
    return torch.randn(5, 4, generator=generator)


def train(outer: OuterOptimizer, models: list[nn.Module], first_rank: int) -> None:
    """Train the models held here, of ranks from ``first_rank`` on."""
    for step in range(STEPS):
        outer.zero_grad()
        for rank, net in enumerate(models, first_rank):
            net(batch(rank, step)).square().sum().backward()
        outer.step()


def weights(net: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(net.parameters()).detach()


def two_processes(rank: int, folder: Path) -> None:
    """Train under every rule, and save the weights of this rank."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    found: dict[str, object] = {}
    for rule, options in RULES.items():
        net = model()
        inner = torch.optim.SGD(net.parameters(), lr=0.05)
        outer = OuterOptimizer(inner, rule, **options)
        train(outer, [net], rank)
        outer.exchange()
        found[rule] = weights(net)
    net = model()
    with torch.no_grad():
        net[0].bias += rank  # pyright: ignore[reportIndexIssue]
    try:
        OuterOptimizer(torch.optim.SGD(net.parameters(), lr=0.05))
    except ValueError as error:
        found["refused"] = str(error)
    wrapped = nn.parallel.DistributedDataParallel(model())
    try:
        OuterOptimizer(torch.optim.SGD(wrapped.parameters(), lr=0.05))
    except ValueError as error:
        found["wrapped"] = str(error)
    torch.save(found, folder / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()
