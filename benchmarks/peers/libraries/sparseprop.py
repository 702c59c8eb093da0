"""SparseProp: products of a fixed sparse weight on CPUs (Nikdan et al., ICML 2023)."""

import copy
import importlib
from collections.abc import Iterator

import torch
from torch import nn

from benchmarks.kernels import dense_layers, difference, fixed, layer_step
from benchmarks.peers.base import DENSE, OURS, Agreement, Peer, Work

#: Channels and side of the layers; two of a ResNet-18 on 32x32 images.
LAYERS = ((64, 32), (256, 8))
TOKENS, INPUTS, OUTPUTS = 512, 1024, 1024
#: Sums of thousands of float32 products in another order.
ROUNDING = 1e-4


def works(small: bool) -> Iterator[Work]:
    """Forward and backward pass of layers, gradient at the surviving weights."""
    modules = importlib.import_module("sparseprop.modules")
    batch = 16 if small else 32
    for sparsity in (0.9,) if small else (0.9, 0.95):
        for channels, side in LAYERS[-1:] if small else LAYERS:
            layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            x = torch.randn(batch, channels, side, side)
            others = {
                f"SparseProp, {order}": (
                    lambda conv, on=on: modules.SparseConv2d.from_dense(
                        conv, vectorizing_over_on=on
                    )
                )
                for order, on in (("over images", False), ("over pixels", True))
            }
            title = f"conv {channels} @ {side}x{side}, batch {batch}"
            yield compared(title, layer, x, sparsity, others)
        linear = nn.Linear(INPUTS, OUTPUTS, bias=False)
        others = {"SparseProp": modules.SparseLinear.from_dense}
        title = f"linear {INPUTS} to {OUTPUTS}, {TOKENS} rows"
        yield compared(title, linear, torch.randn(TOKENS, INPUTS), sparsity, others)


def compared(title, layer, x, sparsity, others) -> Work:
    """A layer under a fixed mask, here, there and dense with the zeros multiplied."""
    native = fixed(nn.Sequential(layer), sparsity)
    with torch.no_grad():
        layer.weight.copy_(native[0].weight)  # pyright: ignore[reportArgumentType]
    g = torch.randn_like(layer(x))
    theirs = {name: make(copy.deepcopy(layer)) for name, make in others.items()}
    agreement = [
        Agreement(
            f"output and input gradient of {name} beside the dense layer's",
            difference(module, layer, x, g),
            ROUNDING,
        )
        for name, module in {OURS: native, **theirs}.items()
    ]
    sides = {
        name: layer_step(module, x.clone().requires_grad_(), g)
        for name, module in {OURS: native, **theirs}.items()
    }
    if isinstance(layer, nn.Conv2d):
        for name, step in dense_layers(layer, x.clone().requires_grad_(), g).items():
            order = name.rpartition(" ")[2]
            if "float32" in name:
                sides[DENSE if order == "NCHW" else f"{DENSE}, channels_last"] = step
    else:
        sides[DENSE] = layer_step(layer, x.clone().requires_grad_(), g)
    return Work(
        f"{title}, fixed mask of {sparsity:.0%} zeros: forward and backward pass",
        sides,
        tuple(agreement),
        "the dense layer also computes the gradient of the zeros",
    )


PEER = Peer(
    "SparseProp",
    "sparse weights on CPUs",
    works,
    requirements=("sparseprop",),
    builds=("setuptools", "wheel", "pybind11"),
    distribution="sparseprop",
)
