"""What each of two processes does in the test of measured overlap."""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from elision.training.parallel.scaling.calibrate import measured_link
from elision.training.parallel.scaling.observed import ObservedModel
from elision.training.parallel.scaling.side_by_side import measured_overlap
from elision.training.ranks import joined

#: Seconds that rank 1 comes late.
LATE = 0.3


def net() -> nn.Sequential:
    """Two buckets: the first closes at 1 MiB."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(600, 600), nn.ReLU(), nn.Linear(600, 600))


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.1)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with joined("cpu", timeout=60) as ranks:
        x = torch.randn(4, 600, generator=torch.Generator().manual_seed(ranks.rank))

        def loss(model: nn.Module) -> Tensor:
            return model(x).square().mean()

        def late(model: nn.Module) -> Tensor:
            time.sleep(LATE * ranks.rank)
            return loss(model)

        plain = nn.parallel.DistributedDataParallel(net())
        seen = ObservedModel(net())
        steps, own, other = 3, sgd(plain), sgd(seen.model)
        for _ in range(steps):
            own.zero_grad()
            loss(plain).backward()
            own.step()
            seen.step(loss, other)
        assert torch.equal(weights(plain.module), weights(seen.model))
        waiting = seen.step(late, other)

        found = {
            "late": asdict(waiting),
            "link": asdict(measured_link((2**10, 2**16, 2**20), rounds=3)),
        }
        for name, spec in (("plain", None), ("bf16", "bf16")):
            overlap = measured_overlap(net(), loss, sgd, rounds=3, compress=spec)
            table = [vars(row) for row in overlap.buckets()]
            slices = {k: list(map(list, v)) for k, v in overlap.slices().items()}
            panels = [step.title for step in overlap.panels()]
            found[name] = {**overlap.facts(), "table": table, "slices": slices}
            found[name]["panels"] = panels
        everyone = ranks.gather(found)
        if ranks.is_first:
            (folder / "found.json").write_text(json.dumps(everyone))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
