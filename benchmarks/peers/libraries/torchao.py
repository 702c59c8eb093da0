"""torchao: microscaling formats and training in float8, as far as a CPU runs them."""

import copy
import importlib
from collections.abc import Iterator

import torch
from torch import nn

from benchmarks.kernels import layer_step
from benchmarks.peers.base import DENSE, OURS, Agreement, Peer, Work, relative
from elision.formats import FORMATS, native
from elision.layers import elide
from elision.methods import Fp8

#: Half a step of E5M2, which has two bits of mantissa, is an eighth.
FLOAT8 = 0.125


def works(small: bool) -> Iterator[Work]:
    """Rounding to MXFP8 and MXFP4, and a linear layer under float8."""
    yield from _rounding(1 << (12 if small else 20))
    yield _float8(*((32, 64, 64) if small else (512, 1024, 1024)))


def _rounding(count: int) -> Iterator[Work]:
    mx = importlib.import_module("torchao.prototype.mx_formats.mx_tensor")
    x = torch.randn(count, generator=torch.Generator().manual_seed(0))
    for name, dtype in (
        ("mxfp8", torch.float8_e4m3fn),
        ("mxfp4", torch.float4_e2m1fn_x2),
    ):

        def ours(name=name):
            return native.rounded(x, FORMATS[name], "nearest")

        def theirs(dtype=dtype):
            return mx.MXTensor.to_mx(x, dtype, 32).dequantize(torch.float32)

        here = ours()
        assert here is not None
        yield Work(
            f"{count:,} normally distributed values to {name} and back, blocks of 32",
            {OURS: ours, "torchao": theirs, "a copy": x.clone},
            (Agreement("all values", (here - theirs()).abs().max().item(), 0.0),),
            "torchao packs codes and scales; here the rounded values are float32",
        )


def _float8(rows: int, inputs: int, outputs: int) -> Work:
    float8 = importlib.import_module("torchao.float8")
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(inputs, outputs, bias=False))
    ours = elide(copy.deepcopy(dense), Fp8(dense=()), engine="auto")
    theirs = float8.convert_to_float8_training(
        copy.deepcopy(dense), config=float8.Float8LinearConfig(emulate=True)
    )
    x, g = torch.randn(rows, inputs), torch.randn(rows, outputs)
    sides = {OURS: ours, "torchao": theirs, DENSE: dense}
    results = {}
    for name, module in sides.items():
        value = x.clone().requires_grad_()
        y = module(value)
        y.backward(g)
        results[name] = (y.detach(), value.grad)
    agreement = [
        Agreement(
            f"{what} of {name} beside float32's",
            relative(results[name][i], results[DENSE][i]),
            FLOAT8,
        )
        for name in (OURS, "torchao")
        for i, what in enumerate(("output", "input gradient"))
    ]
    return Work(
        f"linear {inputs} to {outputs}, {rows} rows, operands in float8 (emulated): "
        "forward and backward pass",
        {
            name: layer_step(module, x.clone().requires_grad_(), g)
            for name, module in sides.items()
        },
        tuple(agreement),
        "scales: torchao's are of the tensor at hand, ours follow the last steps (delayed)",
    )


PEER = Peer(
    "torchao",
    "low precision in torch",
    works,
    requirements=("torchao",),
    distribution="torchao",
)
