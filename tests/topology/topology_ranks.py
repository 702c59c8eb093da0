"""What each of two processes does in the tests of masks across ranks."""

import os
import sys

import pytest
import torch
import torch.nn.functional as F
from sparse_models import MOVING, batch, sgd, small_net
from torch import distributed

import elision


def half(step, rank):
    """This rank's four of the step's eight images."""
    images, labels = batch(step)
    return images[4 * rank : 4 * rank + 4], labels[4 * rank : 4 * rank + 4]


def data_parallel(rank, name):
    """Seven steps under DistributedDataParallel."""
    model = elision.elide(small_net(), MOVING[name], engine="torch")
    wrapped = torch.nn.parallel.DistributedDataParallel(model).eval()
    optimizer = sgd(wrapped)
    topology = elision.topology.attach(wrapped, optimizer)
    return wrapped, optimizer, topology


def fully_sharded(rank, name):
    """The same under FSDP2: parameters sharded, masks whole on each rank."""
    from torch.distributed.fsdp import fully_shard

    model = elision.elide(small_net(), MOVING[name], engine="torch").eval()
    for layer in (model[0], model[3], model[7], model[9]):
        fully_shard(layer)
    fully_shard(model)
    optimizer = sgd(model)
    topology = elision.topology.attach(model, optimizer)
    return model, optimizer, topology


def sharded_optimiser(rank, name):
    """The first, whose optimiser steps a part of the weights on each rank."""
    from torch.distributed.optim import ZeroRedundancyOptimizer

    model = elision.elide(small_net(), MOVING[name], engine="torch")
    wrapped = torch.nn.parallel.DistributedDataParallel(model).eval()
    how = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}
    own = wrapped.parameters()
    optimizer = ZeroRedundancyOptimizer(own, torch.optim.SGD, **how)
    topology = elision.topology.attach(wrapped, optimizer)
    return wrapped, optimizer, topology


def refuse_what_another_rank_keeps():
    """Momentum and thresholds of a weight are where it is stepped."""
    for name in ("snfs", "swat-m", "dst"):
        with pytest.raises(
            ValueError, match=r"ZeroRedundancyOptimizer\(SGD\) steps .* in an"
        ):
            sharded_optimiser(0, name)


def run(kind, name, rank):
    """Train, compare the masks of both ranks at every step, print what came out."""
    kinds = {"ddp": data_parallel, "fsdp2": fully_sharded, "zero": sharded_optimiser}
    build = kinds[kind]
    model, optimizer, topology = build(rank, name)
    for step in range(7):
        images, labels = half(step, rank)
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        topology.check_ranks()
    if rank == 0:
        print(name, topology.digest(), topology.nnz)
    return topology


def refuse_a_different_mask(topology, rank):
    """The check must notice a mask that differs on one rank."""
    weight = topology.weights[1]
    if rank == 1:
        weight.set_state("mask", ~weight.mask)
    with pytest.raises(RuntimeError, match=r"ranks \[1\] differ from those of rank 0"):
        topology.check_ranks()


def main(folder, kind, *names):
    rank = int(os.environ["RANK"])
    meet = f"file://{folder}/meet"
    distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
    for name in names:
        topology = run(kind, name, rank)
    refuse_a_different_mask(topology, rank)
    if kind == "zero":
        refuse_what_another_rank_keeps()
    distributed.barrier()
    distributed.destroy_process_group()
    sys.stdout.flush()
    # Gloo's threads sometimes abort while the interpreter shuts down; the work is done.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
