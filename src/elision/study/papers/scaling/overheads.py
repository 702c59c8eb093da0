"""Overheads of data-parallel training: what each alone would have to be, and together.

An efficiency ``e`` leaves ``1 / e - 1`` of the time to compute for overheads. A published
efficiency does not say which they were, so each is asked alone first.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

from elision.common.columns import column
from elision.training.parallel.scaling import Cores, Link, StepCosts, scaling_model
from elision.training.parallel.scaling.laws import (
    Usl,
    fit_amdahl,
    fit_gustafson,
    karp_flatt,
)

__all__ = [
    "LawRow",
    "NeededRow",
    "TogetherRow",
    "largest_of",
    "laws_of",
    "needed",
    "together",
]


@dataclass(frozen=True)
class NeededRow:
    """An overhead that would explain the published efficiencies alone.

    Attributes:
        overhead: what it is, with its unit.
        weak: its value for the weak efficiency, as text.
        strong: the same for the strong one.
        known: what is known of it here.

    Example:
        >>> NeededRow("slowest rank", "1.28x", "1.23x", "1.01x").weak
        '1.28x'
    """

    overhead: str = column("overhead, alone")
    weak: str = column("for the weak efficiency")
    strong: str = column("for the strong one")
    known: str = column("known here")


@dataclass(frozen=True)
class TogetherRow:
    """Efficiencies of the overheads up to this row, each with a given parameter.

    Attributes:
        seconds: of a rank's step with nothing sent, given.
        overheads: the last one added.
        weak: efficiency, predicted.
        strong: likewise.

    Example:
        >>> TogetherRow(1.0, "compute", 1.0, 0.9).strong
        0.9
    """

    seconds: float = column("a rank's step, s", "g")
    overheads: str = column("overheads, each with those above")
    weak: float = column("weak", ".1f", " %", scale=100)
    strong: float = column("strong", ".1f", " %", scale=100)


@dataclass(frozen=True)
class LawRow:
    """What a law makes of the published efficiencies.

    Attributes:
        quantity: of which law.
        weak: its value for the weak efficiency, as text.
        strong: the same for the strong one.

    Example:
        >>> LawRow("speed-up", "12.5x", "13.0x").weak
        '12.5x'
    """

    quantity: str = column("by the laws")
    weak: str = column("weak")
    strong: str = column("strong")


def laws_of(
    efficiencies: tuple[float, float], ranks: int, one_node: float
) -> Iterator[LawRow]:
    """The published efficiencies in the terms of each law.

    Args:
        efficiencies: weak and strong.
        ranks: at which they were published.
        one_node: speed-up of one node over what the published speed-up is over.

    Example:
        >>> [row.strong for row in laws_of((0.78, 0.81), 16, 2.0)][:3]
        ['12.96x', '25.9x', '0.9844']
    """
    speedups = [e * ranks for e in efficiencies]

    def row(quantity: str, text: Callable[[float], str]) -> LawRow:
        return LawRow(quantity, *(text(speedup) for speedup in speedups))

    def contention(speedup: float) -> float:
        return (ranks / speedup - 1) / (ranks - 1)

    yield row(f"speed-up of {ranks} nodes over one", lambda s: f"{s:.2f}x")
    yield row(
        f"and over stock, one node being {one_node:g}x",
        lambda s: f"{one_node * s:.1f}x",
    )
    yield row("Amdahl: parallel share", lambda s: f"{fit_amdahl([ranks], [s]):.4f}")
    yield row("Karp-Flatt: serial share", lambda s: f"{karp_flatt(ranks, s):.2%}")
    yield row("Gustafson: serial share", lambda s: f"{fit_gustafson([ranks], [s]):.1%}")
    yield row("USL: contention, if all is", lambda s: f"{contention(s):.4f}")
    yield row("USL: coherency, if all is", lambda s: f"{contention(s) / ranks:.6f}")
    yield row(
        "and then the fastest count of nodes",
        lambda s: f"{Usl(0.0, contention(s) / ranks).peak:.0f}",
    )


def largest_of(count: int) -> float:
    """Expected largest of so many standard normal values, by quadrature.

    Example:
        >>> round(largest_of(2), 4), round(1 / math.pi**0.5, 4)
        (0.5642, 0.5642)
    """
    x = torch.linspace(-9, 9, 9001, dtype=torch.float64)
    below = torch.special.ndtr(x)
    density = torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    values = x * count * density * below ** (count - 1)
    return torch.trapezoid(values, x).item()


def needed(
    efficiencies: tuple[float, float],
    ranks: int,
    sent: Mapping[str, float],
    cores: int,
    waits: Mapping[str, float],
) -> Iterator[NeededRow]:
    """The value of each overhead that leaves the efficiencies by itself.

    Args:
        efficiencies: weak and strong.
        ranks: at which they were published.
        sent: seconds of all buckets on a link, by the link's name.
        cores: of a node.
        waits: the slowest rank's time over the mean's, by the scheme of batches.
    """

    def row(overhead: str, values: list[str], known: str) -> NeededRow:
        weak, strong = values
        return NeededRow(overhead, weak, strong, known)

    shares = [1 / e - 1 for e in efficiencies]
    yield row(
        "exposed overhead over the time to compute",
        [f"{share:.1%}" for share in shares],
        "1 / efficiency - 1",
    )
    for link, seconds in sent.items():
        yield row(
            f"a rank's step, s, if all of the all-reduce on {link} is exposed",
            [f"{seconds / share:.2f}" for share in shares],
            f"{seconds:.3f} s of all-reduce by the model",
        )
    yield row(
        f"cores of {cores} that communicate and do not compute",
        [f"{cores * (1 - e):.1f}" for e in efficiencies],
        "not stated",
    )
    yield row(
        "slowest rank's time over the mean",
        [f"{1 + share:.2f}x" for share in shares],
        ", ".join(f"{name} {factor:.2f}x" for name, factor in waits.items()),
    )
    yield row(
        "deviation of a rank's step over its mean, normal and independent",
        [f"{share / largest_of(ranks):.1%}" for share in shares],
        f"the slowest of {ranks} is {largest_of(ranks):.2f} deviations late",
    )
    weak, strong = efficiencies
    yield row(
        "serial share: Gustafson's (weak), Amdahl's (strong)",
        [
            f"{(1 - weak) * ranks / (ranks - 1):.1%}",
            f"{karp_flatt(ranks, ranks * strong):.2%}",
        ],
        "by the laws",
    )


def together(
    costs: StepCosts,
    seconds: float,
    *,
    ranks: int,
    batch: int,
    link: Link,
    cores: Cores,
    waits: Mapping[str, float],
) -> Iterator[TogetherRow]:
    """Efficiencies as the overheads are added, none of them fitted.

    Args:
        costs: of a step, of any machine: its proportions count.
        seconds: of a rank's step with nothing sent.
        ranks: that share the work.
        batch: examples of a rank.
        link: between nodes.
        cores: of a node, with those that communicate.
        waits: as in :func:`needed`; each is added alone.
    """
    own = costs.lasting(batch, seconds)
    pinned = f"{cores.communicating} of {cores.total} cores communicate"
    cases: list[tuple[str, Link, Cores | None, bool, float]] = [
        ("what does not shrink with a rank's batch", Link(), None, True, 1.0),
        ("all-reduce, hidden where it can be", link, None, True, 1.0),
        ("all-reduce after the backward pass instead", link, None, False, 1.0),
        (f"hidden, {pinned}", link, cores, True, 1.0),
    ]
    cases += [
        (f"and waiting, {name}", link, cores, True, max(factor, 1.0))
        for name, factor in waits.items()
    ]
    for name, on, given, overlap, factor in cases:
        weak, strong = (
            scaling_model(
                own,
                on,
                ranks=[ranks],
                batch=batch if mode == "weak" else batch * ranks,
                mode=mode,
                cores=given,
                overlap=overlap,
                imbalance=factor,
            )
            .row(ranks)
            .efficiency
            for mode in ("weak", "strong")
        )
        yield TogetherRow(seconds, name, weak, strong)
