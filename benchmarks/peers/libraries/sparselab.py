"""SparseLab: linear layers whose weight is stored without its zeros."""

import importlib
from collections.abc import Iterator

import torch
from torch import nn

from benchmarks.kernels import difference, layer_step
from benchmarks.peers.base import DENSE, OURS, Agreement, Peer, Work
from elision.layers import elide
from elision.methods import Static
from elision.topology import attach

#: Rows, inputs and outputs.
LAYERS = ((512, 1024, 1024), (1024, 768, 3072))
ROUNDING = 1e-4


def works(small: bool) -> Iterator[Work]:
    """Forward and backward pass, gradient at the surviving weights."""
    sparselab = importlib.import_module("sparselab")
    sizes = ((32, 128, 128),) if small else LAYERS
    for sparsity in (0.9,) if small else (0.9, 0.95):
        for rows, inputs, outputs in sizes:
            torch.manual_seed(0)
            theirs = sparselab.SparseLinear(
                inputs, outputs, bias=False, sparsity=sparsity
            )
            with torch.no_grad():
                weight = theirs(torch.eye(inputs)).T.contiguous()
            dense = nn.Linear(inputs, outputs, bias=False)
            with torch.no_grad():
                dense.weight.copy_(weight)
            ours = _ours(weight, sparsity)
            x, g = torch.randn(rows, inputs), torch.randn(rows, outputs)
            sides = {OURS: ours, "SparseLab": theirs, DENSE: dense}
            yield Work(
                f"linear {inputs} to {outputs}, {rows} rows, fixed mask of {sparsity:.0%} "
                "zeros: forward and backward pass",
                {
                    name: layer_step(module, x.clone().requires_grad_(), g)
                    for name, module in sides.items()
                },
                tuple(
                    Agreement(
                        f"output and input gradient of {name} beside the dense layer's",
                        difference(module, dense, x, g),
                        ROUNDING,
                    )
                    for name, module in sides.items()
                    if name != DENSE
                ),
                "the dense layer also computes the gradient of the zeros",
            )


def _ours(weight: torch.Tensor, sparsity: float) -> nn.Module:
    """The same weight under the same mask, by the native kernels."""
    outputs, inputs = weight.shape
    model = nn.Sequential(nn.Linear(inputs, outputs, bias=False))
    first = ((":first", sparsity),)
    masks = Static(sparsity=sparsity, distribution="uniform", layers=first)
    elide(model, masks, engine="native")
    topology = attach(model, torch.optim.SGD(model.parameters(), 0.0))
    topology.weights[0].set_state("mask", weight != 0)
    with torch.no_grad():
        next(model.parameters()).copy_(weight)
    return model


PEER = Peer(
    "SparseLab",
    "linear layers without zeros",
    works,
    requirements=("sparselab",),
    distribution="sparselab",
)
