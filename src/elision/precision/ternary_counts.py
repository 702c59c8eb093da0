"""What ternary residual networks multiply, add and store: by formula, and counted.

Of a layer with ``n`` weights in blocks of ``N``, ``β`` terms a block on average and a
share ``d`` of the codes not zero, for each output pixel:

    multiplications   n·β/N instead of n: one by a scale for each term of a block
    additions         β·d·n
    bits              β·(2 + 8/N)·n: two bits a code, eight a scale

Source: Kundu et al., Ternary Residual Networks, arXiv 1707.04679; the 8 bits of a scale
follow from its published sizes.
"""

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["PUBLISHED", "Counts", "Published", "fewer_multiplications", "smaller"]

#: Bits of a code, of a scale, and of a weight of the networks that are compared with.
CODE_BITS, SCALE_BITS, DENSE_BITS = 2, 8, 8


def fewer_multiplications(block: int, terms: float) -> float:
    """Multiplications of the dense network over those of the ternary one, ``N/β``.

    Example:
        >>> round(fewer_multiplications(64, 2.4), 1)
        26.7
    """
    return block / terms


def smaller(block: int, terms: float) -> float:
    """Size of the 8-bit network over that of the ternary one, ``8 / (β·(2 + 8/N))``.

    Example:
        >>> round(smaller(64, 2.4), 2)
        1.57
    """
    return DENSE_BITS / (terms * (CODE_BITS + SCALE_BITS / block))


@dataclass(frozen=True)
class Counts:
    """Counted work and size of a layer or of a network, one example at a time.

    Attributes:
        weights: of the layer.
        blocks: first terms.
        terms: enabled terms of all blocks.
        dense: multiplications of the plain layer.
        multiplications: by scales.
        additions: of activations, by codes that are not zero.
        bits: of codes and scales.

    Example:
        >>> a = Counts(128, 2, 4, dense=128, multiplications=4, additions=150, bits=544)
        >>> (a + a).mean_terms, (a + a).fewer
        (2.0, 32.0)
    """

    weights: int = 0
    blocks: int = 0
    terms: int = 0
    dense: int = 0
    multiplications: int = 0
    additions: int = 0
    bits: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        mine, theirs = asdict(self), asdict(other)
        return Counts(**{name: mine[name] + theirs[name] for name in mine})

    @property
    def mean_terms(self) -> float:
        """Terms of a block, ``β``."""
        return self.terms / max(self.blocks, 1)

    @property
    def fewer(self) -> float:
        """Multiplications of the plain network over those left."""
        return self.dense / max(self.multiplications, 1)

    @property
    def smaller(self) -> float:
        """Size of the weights in 8 bits over that of codes and scales."""
        return DENSE_BITS * self.weights / max(self.bits, 1)

    def to_dict(self) -> dict[str, Any]:
        """The counts and what follows from them, for JSON."""
        follows = ("mean_terms", "fewer", "smaller")
        return asdict(self) | {name: getattr(self, name) for name in follows}


@dataclass(frozen=True)
class Published:
    """A published ternary residual network.

    Attributes:
        block: weights that share a scale.
        terms: mean terms of a block.
        fewer: multiplications left out, as a factor over the 8-bit network.
        smaller: size as a factor; None where it is not published.
        drop: points of top-1 lost, of ResNet-101 on ImageNet with 8-bit activations; None
            where it is not published.

    Example:
        >>> row = PUBLISHED[0]
        >>> row.fewer, round(fewer_multiplications(row.block, row.terms), 1)
        (26, 26.7)
    """

    block: int
    terms: float
    fewer: float
    smaller: float | None = None
    drop: float | None = None


#: Rows of the authors' slides; sizes and drops of their abstract (arXiv 1707.04679).
PUBLISHED = (
    Published(64, 2.4, 26, smaller=1.6, drop=1.0),
    Published(64, 2.0, 32, smaller=1.9, drop=2.0),
    Published(256, 2.8, 90),
    Published(256, 2.4, 105),
)
