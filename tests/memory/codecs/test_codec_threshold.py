"""Masks of one bit: no representative lies on the threshold that it stands beside."""

import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.memory import Role, Slot, saver
from elision.memory.codecs import TwoValued

INF, NAN = float("inf"), float("nan")

#: Functions whose backward compares the saved value with thresholds.
FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hardtanh": nn.Hardtanh(-0.5, 0.7),
    "hardtanh, no low": nn.Hardtanh(-INF, 0.5),
    "hardtanh, no high": nn.Hardtanh(0.25, INF),
    "hardtanh, neither": nn.Hardtanh(-INF, INF),
    "hardtanh, huge": nn.Hardtanh(-6e4, 6e4),
    # In bfloat16 the next numbers to 1.001 are 1 and 1.0078.
    "hardtanh between two numbers": nn.Hardtanh(-1.001, 1.001),
    "hardtanh of one number": nn.Hardtanh(1.0, 1.0078125),
    "hardtanh in place": nn.Hardtanh(-0.5, 0.7, inplace=True),
    "threshold": nn.Threshold(0.1, 0.0),
    "threshold 300": nn.Threshold(300, 0),
    "threshold -300": nn.Threshold(-300, 7),
    "threshold between two numbers": nn.Threshold(1.001, 0),
    "threshold, never": nn.Threshold(INF, 0),
    "threshold, always": nn.Threshold(-INF, 0),
    "leaky relu": nn.LeakyReLU(0.1),
    "leaky relu, flat": nn.LeakyReLU(0.0),
    "leaky relu, identity": nn.LeakyReLU(1.0),
    "leaky relu, falling": nn.LeakyReLU(-0.5),
    "leaky relu in place": nn.LeakyReLU(0.1, inplace=True),
    "hardshrink": nn.Hardshrink(0.5),
    "softshrink": nn.Softshrink(0.5),
    "hardswish": nn.Hardswish(),
    "hardsigmoid": nn.Hardsigmoid(),
    "clamp": lambda x: x.clamp(-0.5, 0.7),
    "clamp min": lambda x: x.clamp_min(1.0),
    "elu": nn.ELU(),
    "dropout": lambda x: F.dropout(x, 0.3),
    "alpha dropout": lambda x: F.alpha_dropout(x, 0.3, True),
}
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def values(dtype: torch.dtype) -> torch.Tensor:
    """Usual and large numbers, thresholds and their neighbours, zeros, infinities, NaN."""
    near = [0.1, 0.25, 0.5, 0.7, 1.0, 1.001, 1.0078125, 3.0, 6.0, 298.0, 300.0, 302.0]
    marked = torch.tensor([0.0, INF, NAN, 1e-30, *near], dtype=torch.float64).to(dtype)
    up = torch.nextafter(marked, torch.full_like(marked, INF))
    down = torch.nextafter(marked, torch.full_like(marked, -INF))
    usual = torch.randn(1000, dtype=torch.float64)
    return torch.cat(
        [x for m in (marked, up, down) for x in (m, -m)]
        + [usual.to(dtype), (usual * 300).to(dtype)]
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_gradient_is_that_of_plain_autograd(name: str, dtype: torch.dtype) -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return FUNCTIONS[name](x * 1)

    torch.manual_seed(0)
    x = values(dtype).requires_grad_()
    incoming = torch.randn(x.shape, dtype=torch.float64).to(dtype)

    def gradient(policy: str | None) -> torch.Tensor:
        torch.manual_seed(1)
        model = Model()
        if policy is None:
            out = model(x)
        else:
            with saver(model, policy):
                out = model(x)
        return torch.autograd.grad(out, x, incoming)[0]

    plain = gradient(None)
    for policy in ("exact", "offload"):
        assert torch.equal(plain.nan_to_num(7), gradient(policy).nan_to_num(7))


@pytest.mark.parametrize("value", [INF, -INF, 2.0, -65504.0, 6e-8])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_two_values_come_back_as_they_were(value: float, dtype: torch.dtype) -> None:
    x = ((torch.arange(1000) % 3 == 0) * torch.ones(())).to(dtype)
    x = torch.where(x > 0, torch.tensor(value, dtype=dtype), x)
    packed = TwoValued().pack(x, Slot("MulBackward0", "other", Role.FACTOR))
    assert packed is not None
    assert torch.equal(TwoValued().unpack(packed), x)


def test_a_nan_passes_a_relu_whose_mask_is_read_from_its_values() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(1000, 1000)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(F.relu(x * 1))

    torch.manual_seed(0)
    model = Model()
    x = values(torch.float32)[:1000].expand(2, -1).clone().requires_grad_()
    out = model(x)
    (plain,) = torch.autograd.grad(out, x, torch.ones_like(out))
    for policy in ("exact", "int8", "offload", "fp8"):
        with saver(model, policy):
            out = model(x)
        (mine,) = torch.autograd.grad(out, x, torch.ones_like(out))
        assert torch.equal(plain.nan_to_num(7), mine.nan_to_num(7)), policy


class Several(nn.Module):
    """Functions of one tensor, each with thresholds of its own."""

    def __init__(self, functions: Sequence[Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.functions = nn.Linear(32, 64), functions

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        return sum((f(h) for f in self.functions), torch.zeros(()))


THRESHOLDS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky relu": lambda x: F.leaky_relu(x, 0.1),
    "relu6": F.relu6,
    "hardtanh": F.hardtanh,
    "narrow hardtanh": lambda x: F.hardtanh(x, -0.2, 0.3),
    "threshold": lambda x: F.threshold(x, 0.3, 20),
    "other threshold": lambda x: F.threshold(x, -0.3, 0),
    "relu, then hardtanh": lambda x: F.hardtanh(F.relu(x), -0.5, 0.5),
    "relu, then leaky relu": lambda x: F.leaky_relu(F.relu(x) - 0.0),
}


@pytest.mark.parametrize("policy", ["exact", "offload", "bits(4)"])
@pytest.mark.parametrize(
    "names", [*itertools.permutations(THRESHOLDS, 2), tuple(THRESHOLDS)], ids=", ".join
)
def test_functions_of_one_tensor_keep_their_own_thresholds(
    names: tuple[str, ...], policy: str
) -> None:
    model, x = Several([THRESHOLDS[n] for n in names]), torch.randn(64, 32)
    gradients = []
    for inside in (nullcontext(), saver(model, policy)):
        model.zero_grad()
        with inside:
            loss = model(x).sin().sum()
        loss.backward()
        gradients.append(model.layer.weight.grad)
    assert torch.equal(*gradients)
