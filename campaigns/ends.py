"""Values at the ends of their format in codecs, number formats, selections and optimisers.

Every call ends in one of few ways that are written down where it is defined: a codec keeps
a tensor or refuses it, a format gives the value of its oracle, a selection lets a NaN show,
and an optimiser with masks writes what torch's would.
"""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any, get_args

import torch
from torch import Tensor, nn

from campaigns.campaign import Row
from campaigns.native.products import generator
from campaigns.native.values import KINDS
from elision.formats import FORMATS, Rounding, fast_round
from elision.layers import elide
from elision.memory import Guarantee
from elision.memory.codecs import (
    Division,
    ErrorBounded,
    FixedPoint,
    Float8,
    GroupQuant,
    Jpeg,
    Offload,
    SparseGroupQuant,
    ZeroValue,
)
from elision.memory.saved.codec import Codec
from elision.memory.saved.roles import Role, Slot
from elision.methods import Static
from elision.operands import (
    TopK,
    TopKChannels,
    TopKPerExample,
    TopKShare,
    TopKSlices,
    TopNofM,
    Transform,
)
from elision.topology import attach

__all__ = ["codecs", "formats", "optimisers", "selections"]

_CODECS: tuple[Codec, ...] = (
    GroupQuant(4),
    GroupQuant(8, rounding="nearest"),
    ErrorBounded(0.05),
    FixedPoint(8),
    Float8(),
    SparseGroupQuant(4),
    ZeroValue(),
    Offload(),
    Jpeg(),
    Jpeg(coding="deflate"),
    Division(),
)

_SELECTIONS: tuple[Transform, ...] = (
    TopK(0.9),
    TopK(0.5, threshold="sampled", sample_size=64),
    TopKChannels(0.5),
    TopKPerExample(0.1),
    TopKShare(0.5),
    TopKSlices(0.5),
    TopNofM(2, 4),
)

_OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, 0.1),
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "Adam": lambda p: torch.optim.Adam(p, 0.1),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.1),
    "RMSprop": lambda p: torch.optim.RMSprop(p, 0.1),
    "Adagrad": lambda p: torch.optim.Adagrad(p, 0.1),
}


def _trials(
    count: int, seed: int, what: str, one: Callable[[random.Random], tuple[str, Any]]
) -> Row:
    """Ends of so many trials; one whose end is ``"wrong"`` says what is."""
    ends, bad = Counter[str](), list[str]()
    for trial in range(count):
        end, said = one(random.Random(f"{seed}/{what}/{trial}"))
        ends[end] += 1
        if end == "wrong":
            bad.append(f"{what}, trial {trial}: {said}")
    return Row(dict(ends), bad)


def _drawn(drawn: random.Random, shape: tuple[int, ...]) -> tuple[str, Tensor]:
    """Values of one kind, and its name."""
    kind = drawn.choice(list(KINDS))
    return kind, KINDS[kind](torch.randn(shape, generator=generator(drawn)), drawn)


def _same(x: Tensor, y: Tensor) -> bool:
    """Equal, NaN for NaN."""
    return bool(((x == y) | (x.isnan() & y.isnan())).all())


def codecs(count: int, seed: int) -> Row:
    """Kept within what the codec declares, finite for finite; or refused."""

    def one(drawn: random.Random) -> tuple[str, Any]:
        codec, relu = drawn.choice(_CODECS), drawn.random() < 0.5
        shape = drawn.choice(((2, 3, 16, 16), (7, 33), (130,)))
        kind, x = _drawn(drawn, shape)
        x = x.relu() if relu else x
        slot = Slot(
            "ConvolutionBackward0",
            "input",
            Role.LINEAR_INPUT,
            nonnegative=relu,
            seed=drawn.randrange(99),
        )
        packed = codec.pack(x, slot)
        if packed is None:
            return "refused", None
        y = codec.unpack(packed)
        case = f"{codec}, {kind}, {shape}"
        if codec.guarantee is Guarantee.EXACT and not _same(x, y):
            return "wrong", f"{case}: not equal"
        if not torch.equal(x.isfinite(), y.isfinite()):
            return "wrong", f"{case}: {int(y.isfinite().sum())} of {x.numel()} finite"
        bound = codec.bound(packed)
        error = (x.double() - y.double())[x.isfinite()].abs().amax().item()
        if bound is not None and error > bound:
            return "wrong", f"{case}: off by {error:.3g}, declared {bound:.3g}"
        return "kept", None

    return _trials(count, seed, "codec", one)


def formats(count: int, seed: int) -> Row:
    """The fast way gives the oracle's value, a NaN for a NaN."""

    def one(drawn: random.Random) -> tuple[str, Any]:
        name = drawn.choice(list(FORMATS))
        rounding = drawn.choice(get_args(Rounding))
        kind, x = _drawn(drawn, (drawn.randint(1, 9), drawn.randint(1, 70)))
        case, number = f"{name}, {rounding}, {kind}", drawn.randrange(99)
        found = []
        for way in (fast_round, type(FORMATS[name]).round):
            try:
                found.append(way(FORMATS[name], x, rounding, number))
            except ValueError as error:
                found.append(str(error))
        fast, oracle = found
        if isinstance(fast, str) or isinstance(oracle, str):
            same = fast == oracle if isinstance(fast, str) else False
            return ("refused", None) if same else ("wrong", f"{case}: {found}")
        if not _same(fast, oracle):
            return "wrong", f"{case}: other values than the oracle's"
        if (x.isnan() & ~fast.isnan()).any():
            return "wrong", f"{case}: a number for a NaN"
        return "equal", None

    return _trials(count, seed, "format", one)


def selections(count: int, seed: int) -> Row:
    """Values are kept as they are or zero, and a NaN shows in what is kept."""

    def one(drawn: random.Random) -> tuple[str, Any]:
        transform = drawn.choice(_SELECTIONS)
        kind, x = _drawn(drawn, drawn.choice(((8, 12, 5, 5), (9, 40))))
        y = transform(x, [t.clone() for t in transform.initial_state().values()], True)
        case = f"{transform!r}, {kind}"
        if not _same(torch.where(y == 0, 0, y), torch.where(y == 0, 0, x)):
            return "wrong", f"{case}: a value that is neither kept nor zero"
        if x.isnan().any() and not y.isnan().any():
            return "wrong", f"{case}: no NaN is left"
        return ("NaN kept" if x.isnan().any() else "selected"), None

    return _trials(count, seed, "selection", one)


def optimisers(count: int, seed: int) -> Row:
    """Two steps under a mask write what torch's write, and zero behind the mask."""

    def one(drawn: random.Random) -> tuple[str, Any]:
        name = drawn.choice(list(_OPTIMISERS))
        plain = nn.Linear(12, 9)
        with torch.no_grad():
            plain.weight.copy_(torch.randn(9, 12, generator=generator(drawn)))
        model = nn.Sequential(nn.Linear(12, 9))
        model.load_state_dict({f"0.{k}": v for k, v in plain.state_dict().items()})
        elide(model, Static(0.5, dense=()), engine="torch")
        ours = _OPTIMISERS[name](model.parameters())
        topology = attach(model, ours, steps=10)
        (weight,) = topology.weights
        mask = weight.mask.view(9, 12).bool()
        with torch.no_grad():
            plain.weight[~mask] = 0
        theirs = _OPTIMISERS[name](plain.parameters())
        kinds = []
        for _ in range(2):
            kind, gradient = _drawn(drawn, (9, 12))
            kinds.append(kind)
            for layer, optimiser in ((model[0], ours), (plain, theirs)):
                layer.weight.grad = gradient.clone()
                layer.bias.grad = gradient[:, 0].clone()
                optimiser.step()
        case = f"{name}, {' then '.join(kinds)}"
        mine, other = (layer.weight.detach() for layer in (model[0], plain))
        if mine[~mask].any():
            return "wrong", f"{case}: a weight behind the mask"
        if not _same(mine[mask], other[mask]):
            return "wrong", f"{case}: other weights than torch's"
        if not _same(model[0].bias.detach(), plain.bias.detach()):
            return "wrong", f"{case}: other biases than torch's"
        return "equal", None

    return _trials(count, seed, "optimiser", one)
