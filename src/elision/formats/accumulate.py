"""Accumulation: how a product sums, and the format of its result."""

import json
from dataclasses import KW_ONLY, asdict, dataclass
from typing import Literal, get_args

import torch

from elision.common.checks import integer, one_of
from elision.formats import FORMATS, Floating, Format, Rounding

__all__ = ["INT32", "TORCH", "Accumulate", "sums_in"]

#: Name of the accumulator that sums whole numbers.
INT32 = "int32"

#: Fraction bits up to which float32 holds the exact sum's rounding bits (an own limit).
_MOST_FRACTION = 21


def sums_in(format: Format) -> bool:
    """Whether a product can sum in a format: signed floating point, codes alone.

    Up to 21 fraction bits, or float32 itself; within the range of float32.

    Example:
        >>> sums_in(FORMATS["fp8-e5m2"]), sums_in(FORMATS["int8"])
        (True, False)
    """
    if not isinstance(format, Floating) or not format.signed:
        return False
    lowest = 1 - format.bias - (format.fraction_bits if format.subnormals else 0)
    fits = lowest >= -149 and format.largest < 2.0**128
    is_float32 = format.fraction_bits == 23 and format.bias == 127
    return fits and (format.fraction_bits <= _MOST_FRACTION or is_float32)


@dataclass(frozen=True)
class Accumulate:
    """The sums of one product: the third cell of its row in a recipe's table.

    Every value of a product is a sum of terms in a stated order
    (:mod:`elision.products.terms`). Their first ``chunk`` are summed in ``format``, from
    +0, then the next ``chunk``, and so on; the sums of these chunks are added, in their
    order, in ``wide``; after ``wide_chunk`` of them that sum is added to one in float32,
    and ``wide`` begins again from +0. The last one is the result.

    An addition is ``s ← round(fma(a, b, s))``: operands are float32 numbers (wider ones
    are rounded to it first), their product is exact, its sum with ``s`` is rounded to
    float32 and then to ``format``. The first rounding shows only where it makes a tie of
    ``format`` of a sum that is none. A sum that rounds to zero is +0. Beyond the range,
    the format's own rule holds: infinity, its largest value, or NaN.

    ``"int32"`` sums whole numbers: each operand is read as integers of at most 16 bits
    times one scale, as ``Cast`` to DFP or int8 leaves it; a chunk's sum is exact, in 32
    bits that wrap around as the hardware's do (a warning says once where that can
    happen), and goes on to ``wide`` times both scales.

    Attributes:
        format: number format of every partial sum: ``"torch"``, as torch sums;
            ``"int32"``; or a floating-point key of :data:`elision.formats.FORMATS`.
        chunk: terms summed before their sum is added to a wider one; 0: all of them.
        result: number format of the product's result; ``"torch"``: the layer's dtype.
        rounds: ``"addition"``: every addition inside a chunk is rounded; ``"chunk"``: a
            chunk is summed in float32 and its sum rounded once, which is fast.
        rounding: of sums in ``format``: to nearest, towards zero, or stochastic, whose
            random bits come from the seed, the layer, the product, the training step
            and the places of output and term: never twice the same, for any number of
            threads, and again the same where a run is resumed. The additions in
            ``wide`` round to nearest.
        compensated: Kahan's sums: what rounding added to ``s`` is kept, in ``format``
            as well, and taken from the next product: ``y = round(a·b − c)``,
            ``s' = round(s + y)``, ``c = round(round(s' − s) − y)``.
        wide: number format of the sum of chunks, every addition rounded to nearest.
        wide_chunk: sums of chunks added in ``wide`` before their sum is added to one in
            float32; 0: all of them.
        seed: of stochastic rounding.

    Raises:
        ValueError: a format that no product can accumulate, or fields that say nothing
            together.

    Source: Wang et al., "Training Deep Neural Networks with 8-bit Floating Point Numbers",
    2018, for sums in chunks; Kahan, "Further remarks on reducing truncation errors", 1965.

    Example:
        >>> print(Accumulate("fp16", chunk=128))
        fp16 in chunks of 128
        >>> print(Accumulate("fp8-e5m2", 16, wide="fp16", wide_chunk=8))
        fp8-e5m2 in chunks of 16, fp16 in chunks of 8, fp32
    """

    format: str = "torch"
    chunk: int = 0
    result: str = "torch"
    _: KW_ONLY
    rounds: Literal["addition", "chunk"] = "addition"
    rounding: Rounding = "nearest"
    compensated: bool = False
    wide: str = "fp32"
    wide_chunk: int = 0
    seed: int = 0

    # As Format.in_graph.
    @torch.compiler.assume_constant_result
    def in_graph(self) -> str:
        """The text that stands for this cell in graphs: its fields as JSON."""
        return json.dumps(asdict(self))

    def __post_init__(self) -> None:
        formats = tuple(name for name, f in FORMATS.items() if sums_in(f))
        _known("format", self.format, ("torch", INT32, *formats))
        integer("Accumulate", "chunk", self.chunk, ">= 0")
        one_of("Accumulate", "result", self.result, ("torch", *FORMATS))
        one_of("Accumulate", "rounds", self.rounds, ("addition", "chunk"))
        one_of("Accumulate", "rounding", self.rounding, get_args(Rounding))
        one_of("Accumulate", "compensated", self.compensated, (False, True))
        _known("wide", self.wide, formats)
        integer("Accumulate", "wide_chunk", self.wide_chunk, ">= 0")
        integer("Accumulate", "seed", self.seed, ">= 0")
        idle = self._idle()
        if idle:
            raise ValueError(f"Accumulate({idle[0]}): {idle[1]}")

    def _idle(self) -> tuple[str, str] | None:
        """A field that cannot be what it is, and why; None if all can."""
        plain = Accumulate.__dataclass_fields__
        given = [n for n in plain if getattr(self, n) != plain[n].default]
        if self.format == "torch":
            for name in given:
                if name != "result":
                    value = getattr(self, name)
                    return (
                        f"{name}={value!r}",
                        "torch's own sums have none; give a format",
                    )
        if self.format == INT32:
            for name in ("rounds", "rounding", "compensated", "seed"):
                if name in given:
                    value = getattr(self, name)
                    return f"{name}={value!r}", "sums of whole numbers are not rounded"
        if self.compensated and (self.rounds, self.rounding) != ("addition", "nearest"):
            return (
                f"compensated=True, rounds={self.rounds!r}, rounding={self.rounding!r}",
                "needs every addition rounded to nearest",
            )
        return None

    @property
    def is_random(self) -> bool:
        """Whether sums depend on the training step, by random bits."""
        return self.rounding == "stochastic"

    def __str__(self) -> str:
        """The cell in a few words, for a recipe's table."""
        if self.format == "torch":
            words = "torch's own"
        else:
            words = self.format
            if self.compensated:
                words += " (Kahan)"
            if self.rounding != "nearest":
                words += f" (rounded {_ADVERBS[self.rounding]})"
            if self.chunk:
                words += f" in chunks of {self.chunk}"
            if self.rounds == "chunk":
                words += " (each rounded once)"
            if self.wide != "fp32" or self.wide_chunk:
                words += f", {self.wide}"
            if self.wide_chunk:
                words += f" in chunks of {self.wide_chunk}, fp32"
        return words if self.result == "torch" else f"{words}, result {self.result}"


_ADVERBS = {"zero": "towards zero", "stochastic": "at random"}


def _known(field: str, name: str, allowed: tuple[str, ...]) -> None:
    """Raise ValueError for a format that is unknown, or that no product accumulates."""
    if name in FORMATS and name not in allowed:
        raise ValueError(
            f"Accumulate({field}={name!r}): a format that no product can accumulate; "
            f"sums are in {' or '.join(map(repr, allowed))}"
        )
    one_of("Accumulate", field, name, allowed)


#: Sums and results as torch computes them.
TORCH = Accumulate()
