"""Drawing the bits that a fault changes, uniformly over all that it may reach."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from elision.faults.fault import Fault
from elision.faults.stored import Stored

__all__ = ["Hits", "Place", "Reach", "places_of"]


class Place(NamedTuple):
    """A part of a tensor that a fault reaches.

    Attributes:
        name: of the tensor (its layer, its parameter).
        part: of its stored form.
        words: number of words.
        width: bits of a word.
    """

    name: str
    part: str
    words: int
    width: int


@dataclass(frozen=True)
class Hits:
    """Bits that change in one part of one tensor.

    Attributes:
        place: the part.
        index: place of the word of each, ``(F,)`` int64.
        bit: its position in the word, ``(F,)`` int64.
    """

    place: Place
    index: Tensor
    bit: Tensor


class Reach:
    """All bits that a fault may change, in an order that the places fix.

    Args:
        fault: which parts and bits.
        places: all parts of all tensors that the fault selects.

    Raises:
        ValueError: there is no such bit.

    Example:
        >>> reach = Reach(Fault(bits=(7,)), [Place("fc", "values", 10, 8)])
        >>> reach.size, reach.drawn(torch.Generator().manual_seed(0), 1)[0].bit.tolist()
        (10, [7])
    """

    def __init__(self, fault: Fault, places: list[Place]) -> None:
        self.fault = fault
        self.places = [p for p in places if p.words and fault.starts(p.width)]
        self._starts = [torch.tensor(fault.starts(p.width)) for p in self.places]
        sizes = [
            p.words * len(s) for p, s in zip(self.places, self._starts, strict=True)
        ]
        self._ends = torch.tensor(sizes).cumsum(0) if sizes else torch.zeros(0).long()
        if not self.size:
            given = f"bits={fault.bits}" if places else f"layers={fault.layers!r}"
            why = (
                f"; words have {places[0].width} bits"
                if places
                else f" in format {fault.format or 'of the tensor'}, {fault.storage}"
            )
            raise ValueError(
                f"Fault(site={fault.site!r}, {given}): nothing there to change{why}"
            )

    @property
    def size(self) -> int:
        """Number of (word, first bit) that a fault may have."""
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def stored_bits(self) -> int:
        """Bits of all words."""
        return sum(p.words * p.width for p in self.places)

    def strata(self, by: str) -> list[tuple[str, "Reach"]]:
        """This reach cut by first bit (``"bit"``), by tensor (``"layer"``) or both.

        Parts whose words have other widths have strata of their own.
        """
        groups: dict[str, tuple[list[Place], Fault]] = {}
        for place in self.places:
            for bit in self.fault.starts(place.width):
                key = _stratum(place, bit, by)
                fault = replace(self.fault, bits=(bit,)) if "bit" in by else self.fault
                found = groups.setdefault(key, ([], fault))[0]
                if place not in found:
                    found.append(place)
        return [(key, Reach(fault, places)) for key, (places, fault) in groups.items()]

    def number(self, generator: torch.Generator) -> int:
        """How many faults a trial has."""
        if self.fault.rate is None:
            return self.fault.number
        mean = torch.tensor(self.fault.rate * self.size, dtype=torch.float64)
        return int(torch.poisson(mean, generator))

    def drawn(self, generator: torch.Generator, number: int) -> list[Hits]:
        """So many faults, uniform and independent; a burst has several bits.

        Args:
            generator: of the random numbers.
            number: of faults.
        """
        if not number:
            return []
        at = torch.randint(self.size, (number,), generator=generator)
        which = torch.searchsorted(self._ends, at, right=True)
        hits = []
        for k in which.unique().tolist():
            place, starts = self.places[k], self._starts[k]
            begin = int(self._ends[k - 1]) if k else 0
            within = at[which == k] - begin
            index, first = within // len(starts), starts[within % len(starts)]
            run = torch.arange(min(self.fault.length, place.width))
            hits.append(
                Hits(
                    place,
                    index.repeat_interleave(len(run)),
                    (first[:, None] + run).reshape(-1),
                )
            )
        return hits


def places_of(held: Mapping[str, Stored], fault: Fault) -> list[Place]:
    """The parts of stored tensors that a fault selects.

    Example:
        >>> from elision.faults.stored import stored_as
        >>> places_of({"fc": stored_as(torch.ones(3), "int8")}, Fault(site="scale"))
        [Place(name='fc', part='scales.0', words=1, width=32)]
    """
    return [
        Place(name, part, found.words.numel(), found.bits)
        for name, stored in held.items()
        if fault.selects(name)
        for part, found in stored.parts.items()
        if fault.part_of(part)
    ]


def _stratum(place: Place, bit: int, by: str) -> str:
    own = "" if place.part == "values" else f"{place.part} "
    name = f"bit {bit} of {place.width}"
    return {"bit": own + name, "layer": place.name}.get(by, f"{place.name} {own}{name}")
