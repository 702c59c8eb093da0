"""What one peer is, and what is compared with it."""

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.peers import libraries

__all__ = ["DENSE", "OURS", "PEERS", "Agreement", "Peer", "Work", "load", "relative"]

#: Names of two sides of a comparison; every other side is the peer's.
OURS = "Elision"
DENSE = "torch dense"

#: Modules of :mod:`benchmarks.peers.libraries`, one for each peer.
PEERS = tuple(sorted(m.name for m in pkgutil.iter_modules(libraries.__path__)))


@dataclass(frozen=True)
class Agreement:
    """One result that two sides both have, compared before anything is timed.

    Attributes:
        what: is compared, and how.
        error: by how much the two differ.
        limit: the largest difference for which the work counts as the same.

    Example:
        >>> Agreement("cycles of all layers", 0, 0).holds
        True
    """

    what: str
    error: float
    limit: float

    @property
    def holds(self) -> bool:
        """True if the difference is within its limit (never for NaN)."""
        return self.error <= self.limit


@dataclass(frozen=True)
class Work:
    """Work that every side does.

    Attributes:
        title: shape, sparsity and which passes.
        sides: a call for each side, :data:`OURS` among them.
        agreement: results compared before the clock runs.
        differs: what the sides do not have in common, in words; empty if nothing.
        rounds: at most so many, where one side takes long.
        figures: other measured figures of a side, by name with unit.
    """

    title: str
    sides: Mapping[str, Callable[[], Any]]
    agreement: tuple[Agreement, ...]
    differs: str = ""
    rounds: int | None = None
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """A library to be measured beside this one.

    Attributes:
        title: its name as its authors write it.
        about: what it is for, in a few words.
        requirements: what pip installs from the registry.
        source: the public address to install from instead, in pip's notation.
        builds: packages that its set-up needs beforehand; it is then built in its own
            environment and not in an isolated one.
        distribution: the installed distribution whose version is recorded; none for
            what is part of torch.
        works: makes the comparisons, small ones for a test; None if there is none.
        uncompared: why there is none.
    """

    title: str
    about: str
    works: Callable[[bool], Iterator[Work]] | None = None
    uncompared: str = ""
    requirements: tuple[str, ...] = ()
    source: str = ""
    builds: tuple[str, ...] = ()
    distribution: str = ""


def load(name: str) -> Peer:
    """The peer of a module of :mod:`benchmarks.peers.libraries`.

    Raises:
        ValueError: there is no such module; the message lists those that there are.
    """
    if name not in PEERS:
        raise ValueError(f"no peer {name!r}; there are {', '.join(PEERS)}")
    return importlib.import_module(f"{libraries.__name__}.{name}").PEER


def relative(a: Any, b: Any) -> float:
    """Largest difference of two tensors over the largest magnitude of the second."""
    return ((a - b).abs().max() / b.abs().max()).item()
