"""LSQ: the step between the levels of weights and activations is learned."""

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace

from torch import nn

from elision.common.checks import integer
from elision.layers.recipe import Recipe, Table
from elision.methods.quantised import FLOAT_BITS, Quantised
from elision.operands import LearnedStep, Project, QuantisedWeight
from elision.topology import Blended

__all__ = ["LSQ"]


@dataclass(frozen=True)
class LSQ(Quantised):
    """Weights and activations as whole multiples of learned steps.

    With the smallest and largest codes ``−Qn`` and ``Qp``, ``−2^(b−1)`` and ``2^(b−1) − 1``
    of weights, 0 and ``2^b − 1`` of activations::

        v' = s·round(clip(v/s, −Qn, Qp))
        dv = dv'·1[−Qn < v/s < Qp]
        ds = g·sum(dv'·(round(v/s) − v/s; −Qn below, Qp above)),  g = 1/sqrt(N·Qp)
        Y = X' · W'

    ``N`` is the number of weights of a layer, or of values of one example of its input.
    The first step is ``2·mean|v|/sqrt(Qp)``, of the weights and of the first batch. Call
    :func:`elision.topology.attach`: without it the steps stay.

    Reference: Esser, McKinstry, Bablani, Appuswamy and Modha, Learned Step Size
    Quantization, ICLR 2020.

    Deviations:
        - What is quantised is a layer's input, as in :class:`Bcgd`; the first layer's,
          the data, is not.

    Attributes:
        weight_bits: 2 to 8, or 32 (float).
        activation_bits: 1 to 8, or 32 (float).
        edge_bits: of the weights and activations of the first and last layer (published:
            8), or 32 (float).
        dense: layers left float.

    Example:
        >>> from elision.products import Product
        >>> print(LSQ(4, 4).table[Product.FORWARD, "weight"])
        signed 4 bits of a learned step, round
    """

    weight_bits: int = 4
    activation_bits: int = 4
    edge_bits: int = 8
    _: KW_ONLY
    dense: tuple[str, ...] = (":embedding",)

    key = "lsq"
    bibtex = """
        @inproceedings{esser2020learned,
          title     = {Learned Step Size Quantization},
          author    = {Esser, Steven K. and McKinstry, Jeffrey L. and Bablani, Deepika and
                       Appuswamy, Rathinakumar and Modha, Dharmendra S.},
          booktitle = {International Conference on Learning Representations},
          year      = {2020}
        }
    """

    def build(self) -> Table:
        for name in ("weight_bits", "edge_bits"):
            if getattr(self, name) != FLOAT_BITS:
                integer("LSQ", name, getattr(self, name), "[2, 8]")
        return super().build()

    def weights(self) -> QuantisedWeight:
        return _weights(self.weight_bits)

    def rule(self) -> Blended:
        """The rule by which steps learn."""
        return Blended()

    def activations(self) -> LearnedStep | None:
        return _activations(self.activation_bits)

    def resolved(self, layers: Mapping[str, nn.Module]) -> Recipe:
        del layers
        edge = _weights(self.edge_bits)
        first = (":first", self._table(edge, None))
        last = (":last", self._table(edge, _activations(self.edge_bits)))
        return replace(self, overrides=(*self.overrides, first, last))


def _weights(bits: int) -> QuantisedWeight:
    return Project(bits) if bits == FLOAT_BITS else _step(bits, signed=True)


def _activations(bits: int) -> LearnedStep | None:
    return None if bits == FLOAT_BITS else _step(bits, signed=False)


def _step(bits: int, *, signed: bool) -> LearnedStep:
    return LearnedStep(
        bits,
        "round",
        "lsq",
        signed=signed,
        initial="lsq",
        rate=1.0,
        limit=math.inf,
        bounds=(1e-6, math.inf),
    )
