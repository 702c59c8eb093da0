"""The plane-pair mapping of SCNN and ANT: a processing element owns whole planes.

In the plane-pair mapping (this project's own, for training) a processing element (PE)
takes one image plane and one kernel plane and multiplies them, ``multipliers`` image
values by ``multipliers`` kernel values per cycle, after ``startup_cycles``: ``ceil(nnz
image / n)·ceil(nnz kernel / n) + startup`` cycles per pair. The pairs are spread over
the PEs without loss, except that the longest pair bounds the time from below.

Energy counts, per pair, are this project's choices as well. Values are 32-bit words
(fewer in narrower formats), indices are 16-bit, two to a word:

* the image plane is read from the PE's buffer once, and stays while kernel values pass;
* every kernel value that is issued is read once per vector of image values;
* the global buffer gives every image plane once and the kernel plane once per pair, and
  takes every result once;
* a valid product reads and writes one word of a banked accumulator; every product that
  is issued costs two coordinate subtractions.
"""

from dataclasses import dataclass
from fractions import Fraction

from elision.accelerators.base import Cost, ceil_div
from elision.accelerators.energy import energy_table
from elision.accelerators.numbers import numbers_of
from elision.accelerators.outer.planes import Planes, plane_bits
from elision.products import LayerProduct

__all__ = ["PairWork", "PlanePairs"]


@dataclass(frozen=True)
class PairWork:
    """Work of the PEs for one product, summed over its pairs of planes.

    Attributes:
        issued: products issued to the multipliers.
        cycles: cycles without start-up.
        longest: cycles of the longest pair, without start-up.
        image_reads, kernel_reads: values read from the PE's buffers.
        index_reads: 16-bit indices read from the PE's buffers.
        compares: index comparisons.
        bounds: low ends of ranges computed, one subtraction each.

    Example:
        >>> PairWork(6, 1, 1, image_reads=3, kernel_reads=2, index_reads=5).compares
        0
    """

    issued: int
    cycles: int
    longest: int
    image_reads: int
    kernel_reads: int
    index_reads: int
    compares: int = 0
    bounds: int = 0


@dataclass(frozen=True)
class PlanePairs:
    """The common part of SCNN and ANT, which check its parameters.

    Attributes:
        elements: processing elements.
        multipliers: side of the square multiplier array of each.
        startup_cycles: cycles before the first product of a pair.
        skip_empty_pairs: True if a pair with an all-zero plane costs no start-up.
        buffer_kib: buffer of one operand in each element.
        accumulator_kib: one accumulator bank.
        global_kib: buffer that all elements share.
        energy: energy table.
        extra_area_mm2: area of the machine outside its multiplier arrays; None if the
            energy table has no areas.

    Example:
        >>> pairs = PlanePairs(64, 4, 0, False, 10.0, 0.1875, 1024.0, "horowitz-45nm")
        >>> pairs.arithmetic_units()["multiply"]
        1024
    """

    elements: int
    multipliers: int
    startup_cycles: int
    skip_empty_pairs: bool
    buffer_kib: float
    accumulator_kib: float
    global_kib: float
    energy: str
    extra_area_mm2: float | None = 0.0

    def full_work(self, planes: Planes) -> PairWork:
        """Every non-zero of an image with every one of its kernels, as in SCNN."""
        image, kernel = planes.image_nonzeros, planes.kernel_nonzeros
        vectors = ceil_div(image, self.multipliers)
        steps = ceil_div(kernel, self.multipliers)
        # Sums over all pairs of a block factorise.
        image_reads = image.sum(1) @ (kernel > 0).sum(1)
        kernel_reads = vectors.sum(1) @ kernel.sum(1)
        longest = (vectors.max(1, initial=0) * steps.max(1, initial=0)).max(initial=0)
        return PairWork(
            issued=_nonzero(planes),
            cycles=int(vectors.sum(1) @ steps.sum(1)),
            longest=int(longest),
            image_reads=int(image_reads),
            kernel_reads=int(kernel_reads),
            index_reads=int(image_reads + kernel_reads),
        )

    def _started(self, planes: Planes) -> int:
        """Number of pairs that cost a start-up."""
        image, kernel = planes.image_nonzeros, planes.kernel_nonzeros
        if not self.skip_empty_pairs:
            return image.size * kernel.shape[1]
        return int((image > 0).sum(1) @ (kernel > 0).sum(1))

    def arithmetic_units(
        self, multiply: str = "multiply", add: str = "add"
    ) -> dict[str, int]:
        """Multipliers, accumulating adders and coordinate subtractors, by action."""
        products = self.elements * self.multipliers**2
        return {multiply: products, add: products, "add_int32": 2 * products}

    def cost(self, product: LayerProduct, planes: Planes, work: PairWork) -> Cost:
        """Cost of doing ``work`` for the ``planes`` of ``product``."""
        nonzero, valid = _nonzero(planes), product.counts.valid
        pairs = self._started(planes)
        busy = work.cycles + self.startup_cycles * pairs
        longest = work.longest + self.startup_cycles * (pairs > 0)
        cycles = max(ceil_div(busy, self.elements), longest)
        words = ceil_div(work.index_reads, 2)
        n = numbers_of(product.arithmetic)
        image, kernel = plane_bits(product, planes)
        table = energy_table(self.energy)
        arrays = table.area_mm2(self.arithmetic_units(n.multiply, n.add))
        extra = self.extra_area_mm2
        return Cost(
            cycles=cycles,
            multiplies=work.issued,
            valid_multiplies=valid,
            redundant_multiplies=work.issued - valid,
            multiplier_slots=cycles * self.elements * self.multipliers**2,
            operations={
                n.multiply: work.issued,
                n.add: valid,
                "coordinate": 2 * work.issued,
                "compare": work.compares,
                "bound": work.bounds,
            },
            accesses={
                "image_buffer.read": n.words(work.image_reads, image),
                "kernel_buffer.read": n.words(work.kernel_reads, kernel),
                "index_buffer.read": words,
                "accumulator.read": n.words(valid, n.sums),
                "accumulator.write": n.words(valid, n.sums),
                "global_buffer.read": _loaded_words(planes, image, kernel),
                "global_buffer.write": n.words(product.result_size, n.result),
            },
            details={
                "nonzero_products": nonzero,
                "skipped_products": nonzero - work.issued,
                "pairs": pairs,
                "busy_cycles": busy,
                "startup_cycles": self.startup_cycles * pairs,
            },
            prices_pj=table.prices(
                {
                    n.multiply: n.multiply,
                    n.add: n.add,
                    "coordinate": "add_int32",
                    "compare": "compare",
                    "bound": "add_int32",
                },
                {
                    "image_buffer": self.buffer_kib,
                    "kernel_buffer": self.buffer_kib,
                    "index_buffer": self.buffer_kib,
                    "accumulator": self.accumulator_kib,
                    "global_buffer": self.global_kib,
                },
            ),
            area_mm2=None if arrays is None or extra is None else arrays + extra,
        )


def _nonzero(planes: Planes) -> int:
    """Products of a non-zero of every image with every non-zero of its kernels."""
    return int(planes.image_nonzeros.sum(1) @ planes.kernel_nonzeros.sum(1))


def _loaded_words(planes: Planes, image_bits: Fraction, kernel_bits: Fraction) -> int:
    """Words from the global buffer: images once, kernels once per non-empty image.

    Each value comes with an index of 16 bits.
    """
    image, kernel = planes.image_nonzeros, planes.kernel_nonzeros
    images, kernels = int(image.sum()), int((image > 0).sum(1) @ kernel.sum(1))
    values = images * image_bits + kernels * kernel_bits
    return ceil_div(int(values), 32) + ceil_div(images + kernels, 2)
