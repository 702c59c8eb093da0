"""Operands at the ends of their format: the same call with other values."""

import random
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["KINDS", "NOT_FINITE", "WITH_FLOATS"]

Change = Callable[[Tensor, random.Random], Tensor]


def _generator(drawn: random.Random) -> torch.Generator:
    return torch.Generator().manual_seed(drawn.getrandbits(32))


def _scaled(factor: Callable[[torch.finfo], float]) -> Change:
    """Values times a number of their format."""

    def change(x: Tensor, drawn: random.Random) -> Tensor:
        return (x.double() * factor(torch.finfo(x.dtype))).to(x.dtype)

    return change


def _mixed(x: Tensor, drawn: random.Random) -> Tensor:
    """Values times powers of two over the square root of the range, up and down."""
    most = int(torch.tensor(torch.finfo(x.dtype).max).log2()) // 2
    powers = torch.randint(-most, most + 1, x.shape, generator=_generator(drawn))
    return (x.double() * 2.0**powers).to(x.dtype)


def _zeros(x: Tensor, drawn: random.Random) -> Tensor:
    """Zeros of both signs, with a value now and then."""
    kept = torch.rand(x.shape, generator=_generator(drawn)) < 0.1
    return torch.where(kept, x, torch.copysign(torch.zeros_like(x), x))


def _planted(*values: float) -> Change:
    """Some values replaced, the fewest in one case of two."""

    def change(x: Tensor, drawn: random.Random) -> Tensor:
        x, flat = x.clone(), x.numel()
        count = drawn.choice((1, 1 + flat // 50))
        places = torch.randint(flat, (count,), generator=_generator(drawn))
        put = torch.tensor([drawn.choice(values) for _ in range(count)], dtype=x.dtype)
        x.view(-1)[places] = put
        return x

    return change


#: Operands that only floating-point kernels take.
WITH_FLOATS: dict[str, Change] = {
    "near the largest": _scaled(lambda info: info.max / 8),
    "near the root of the largest": _scaled(lambda info: info.max**0.5 / 2),
    "smallest normal": _scaled(lambda info: info.smallest_normal),
    "near the root of the smallest": _scaled(lambda info: info.smallest_normal**0.5),
    "subnormal": _scaled(lambda info: info.smallest_normal / 64),
    "mixed scales": _mixed,
    "signed zeros": _zeros,
}

#: Operands with values that are not finite.
NOT_FINITE: dict[str, Change] = {
    "nan": _planted(torch.nan),
    "inf": _planted(torch.inf, -torch.inf),
    "nan and inf": _planted(torch.nan, torch.inf, -torch.inf),
}

#: All of them.
KINDS: dict[str, Change] = WITH_FLOATS | NOT_FINITE
