"""A fault is data: where, in which bits, how often and for how long."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, get_args

from elision.common import checks
from elision.common.names import lookup
from elision.faults.stored import ACTIONS, STORAGES, Action
from elision.formats import format_named

__all__ = ["SITES", "Fault", "Lifetime"]

#: One use of the value; until it is written anew; at every use.
Lifetime = Literal["transient", "reload", "permanent"]

#: The places of a fault, and what a faulty bit there belongs to.
SITES = {
    "weight": "a value of a layer's weight, as it is stored",
    "scale": "a number that stored values share: scale, exponent, zero point",
    "index": "a column or a row pointer of a pruned weight (storage csr, or bitmap's rows)",
    "bitmap": "a bit that says which weights survive (storage bitmap)",
    "activation": "a value of a layer's output",
    "gradient": "a value of the gradient of a layer's output",
    "weight-gradient": "a value of the gradient of a parameter, before the optimiser reads it",
    "optimizer": "a value of the optimiser's state",
    "error-memory": "a value that a recipe or a compressor remembers from step to step",
    "saved": "a packed byte of an activation that is kept for the backward pass",
    "message": "a byte that a rank sends",
}

#: Parts of a stored weight, by site: names, or what they begin with.
_PARTS = {
    "weight": ("values",),
    "scale": ("scales.",),
    "index": ("columns", "rows"),
    "bitmap": ("bitmap",),
}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Bits that change in one kind of place.

    Attributes:
        site: a name of :data:`SITES`.
        layers: shell-style pattern of the names of layers (of parameters, for the sites
            of optimisers and gradients), or several.
        format: in which the values are stored, a name of
            :data:`elision.formats.FORMATS`; None: the dtype of the tensor.
        storage: of a pruned weight, ``"dense"``, ``"csr"`` or ``"bitmap"``.
        action: ``"flip"``, ``"stuck-at-0"`` or ``"stuck-at-1"``.
        bits: positions in a word at which a fault may begin, 0 the least significant;
            None: all.
        length: neighbouring bits of a word that change together, a burst.
        number: faults of a trial (of a step, while training).
        rate: probability of a fault a stored bit; their number is drawn from a Poisson
            distribution, and ``number`` is not read.
        lifetime: ``"transient"``: one use of the value. ``"reload"``: until it is written
            anew; of a stored weight, a whole trial. ``"permanent"``: at every use.

    Raises:
        ValueError: an unknown name, a number out of range, a bit outside of the format, or
            a storage that the site does not have.

    Example:
        >>> Fault(format="int8", bits=(6, 7)).part_of("values")
        True
        >>> Fault(format="int8", bits=(8,))
        Traceback (most recent call last):
        ValueError: Fault(bits=8): must be an integer in [0, 8)
    """

    site: str = "weight"
    layers: str | tuple[str, ...] = "*"
    format: str | None = None
    storage: str = "dense"
    action: Action = "flip"
    bits: tuple[int, ...] | None = None
    length: int = 1
    number: int = 1
    rate: float | None = None
    lifetime: Lifetime = "reload"

    def __post_init__(self) -> None:
        lookup("site", self.site, SITES)
        lookup("storage", self.storage, STORAGES)
        checks.one_of("Fault", "action", self.action, ACTIONS)
        checks.one_of("Fault", "lifetime", self.lifetime, get_args(Lifetime))
        checks.integer("Fault", "length", self.length)
        checks.integer("Fault", "number", self.number)
        if self.rate is not None:
            checks.number("Fault", "rate", self.rate, "[0, 1]")
        width = 64 if self.format is None else format_named(self.format).bits
        if self.site in ("weight", "activation", "gradient"):
            for bit in self.bits or ():
                checks.integer("Fault", "bits", bit, f"[0, {width})")
        places = {"index": ("csr", "bitmap"), "bitmap": ("bitmap",)}.get(self.site)
        if places is not None and self.storage not in places:
            raise ValueError(
                f"Fault(site={self.site!r}, storage={self.storage!r}): a {self.storage} "
                f"weight has none; storage must be {' or '.join(places)}"
            )

    @property
    def patterns(self) -> tuple[str, ...]:
        """Patterns of the layers."""
        return (self.layers,) if isinstance(self.layers, str) else tuple(self.layers)

    def selects(self, name: str) -> bool:
        """Whether the layer of this name may be hit."""
        return any(fnmatchcase(name, pattern) for pattern in self.patterns)

    def part_of(self, part: str) -> bool:
        """Whether the site is this part of a stored weight."""
        return part.startswith(_PARTS.get(self.site, ("values",)))

    def starts(self, width: int) -> tuple[int, ...]:
        """Positions in a word of ``width`` bits at which a fault may begin."""
        last = max(width - self.length, 0)
        if self.bits is None:
            return tuple(range(last + 1))
        return tuple(bit for bit in self.bits if bit <= last)
