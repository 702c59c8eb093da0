"""What each of two processes does in the test of recipes across ranks."""

import os
import sys

import torch
from operand_recipes import RECIPES, backward, gradients, network, rank_batch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

import elision

STEPS = 3


def run(recipe: str, rank: int) -> dict[str, torch.Tensor]:
    """Some steps on this rank's images; what the rank ends with."""
    model = elision.elide(network(), RECIPES[recipe], engine="torch")
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=2**-20)
    first: dict[str, torch.Tensor] = {}
    for step in range(STEPS):
        optimizer.zero_grad()
        backward(wrapped, *rank_batch(step, rank))
        if step == 0:
            first = {f"first/{n}": g for n, g in gradients(model).items()}
        optimizer.step()
    return model.state_dict() | first


def main(folder: str) -> None:
    rank = int(os.environ["RANK"])
    meet = f"file://{folder}/meet"
    distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
    torch.save({recipe: run(recipe, rank) for recipe in RECIPES}, f"{folder}/{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()
    sys.stdout.flush()
    # Gloo's threads sometimes abort while the interpreter shuts down; the work is done.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
