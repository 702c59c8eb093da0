"""Secure sum: messages that say nothing alone, and whose sum is exact.

Every value is a fixed-point integer modulo ``2**bits``. Client ``i`` of a round adds ::

    PRG(b_i) + sum over j > i of PRG(s_ij) - sum over j < i of PRG(s_ij)   (mod 2**bits)

so that the pairs' masks cancel in the sum of all, and the server takes the own masks off
by the seeds ``b_i`` of those that reported. Where a client dropped out, the others give
the seeds ``s_ij`` that they share with it. Never both seeds of one client: its message
would lie open. Bonawitz et al., Practical Secure Aggregation for Privacy-Preserving
Machine Learning, CCS 2017.

The arithmetic, the traffic of values and what drop-outs cost are theirs. Key agreement and the
sharing of seeds by threshold are not here: seeds follow from the run's, so this shows
what secure aggregation costs and that it changes no sum, and protects nobody.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from elision.common.checks import integer, number, one_of

__all__ = ["SECURE", "PairwiseMasks", "Seeds"]

#: Bits of a seed that is revealed.
SEED_BITS = 128

Codes = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Seeds:
    """The seeds of one round's clients.

    Attributes:
        secret: of the run and the round.

    Example:
        >>> seeds = Seeds("0/3")
        >>> seeds.pair(1, 2) == seeds.pair(2, 1), seeds.own(1) == seeds.own(2)
        (True, False)
    """

    secret: str

    def own(self, client: int) -> int:
        """Seed of a client's own mask."""
        return self._seed(f"own/{client}")

    def pair(self, one: int, other: int) -> int:
        """Seed that two clients share."""
        return self._seed(f"pair/{min(one, other)}/{max(one, other)}")

    def _seed(self, use: str) -> int:
        digest = hashlib.sha256(f"{self.secret}/{use}".encode()).digest()
        return int.from_bytes(digest[: SEED_BITS // 8], "big")


@dataclass(frozen=True)
class PairwiseMasks:
    """Fixed point modulo ``2**bits``, and masks that cancel in pairs.

    A value is cut to ``[-range, range]`` and rounded towards zero, so that no norm grows,
    to a multiple of ``range / (2**(width - 1) - 1)``, where ``width = bits - ceil(log2 n)``
    leaves room for the sum of ``n`` clients.

    Attributes:
        bits: of a value on the wire, 16 or 32.
        range: largest magnitude of a value. The default is this project's choice.
        least: clients that must report, or the round's sum is not taken; 2 at least,
            since the sum of one is its message.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> masks, seeds = PairwiseMasks(), Seeds("0/0")
        >>> codes = {i: masks.encode(np.array([0.25 * i]), 3) for i in range(3)}
        >>> sent = {i: masks.mask(codes[i], i, range(3), seeds) for i in range(3)}
        >>> total = masks.unmask([sent[0], sent[2]], [0, 2], range(3), seeds)
        >>> int(total[0]) == int(codes[0][0]) + int(codes[2][0])
        True
    """

    name: ClassVar[str] = "masks"
    bits: int = 32
    range: float = 1.0
    least: int = 2

    def __post_init__(self) -> None:
        one_of("PairwiseMasks", "bits", self.bits, (16, 32))
        number("PairwiseMasks", "range", self.range, "> 0")
        integer("PairwiseMasks", "least", self.least, ">= 2")

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of codes on the wire."""
        return np.dtype(f"uint{self.bits}")

    def width(self, clients: int) -> int:
        """Bits of one client's value, sign included.

        Raises:
            ValueError: fewer than two are left.
        """
        width = self.bits - math.ceil(math.log2(max(clients, 1)))
        if width < 2:
            raise ValueError(
                f"{self!r}: the sum of {clients} clients leaves {width} bits of a value"
            )
        return width

    def step(self, clients: int) -> float:
        """The value of one unit of a code."""
        return self.range / (2 ** (self.width(clients) - 1) - 1)

    def encode(self, values: NDArray[Any], clients: int) -> Codes:
        """Codes of finite values; ``clients`` are all of the round."""
        cut = np.clip(values.astype(np.float64), -self.range, self.range)
        whole = np.trunc(cut / self.step(clients)).astype(np.int64)
        return whole.astype(self.dtype)

    def decode(self, total: Codes, clients: int) -> NDArray[np.float64]:
        """The sum of values that a sum of codes stands for."""
        signed = total.astype(f"int{self.bits}")
        return signed.astype(np.float64) * self.step(clients)

    def mask(
        self, codes: Codes, client: int, clients: Sequence[int], seeds: Seeds
    ) -> Codes:
        """What one client sends."""
        sent = codes + self._stream(seeds.own(client), len(codes))
        for other in clients:
            if other != client:
                sent = self._add(sent, seeds.pair(client, other), client < other)
        return sent

    def unmask(
        self,
        sent: Sequence[Codes],
        reported: Sequence[int],
        clients: Sequence[int],
        seeds: Seeds,
    ) -> Codes:
        """The sum of the codes of those that reported, from what they sent.

        Args:
            sent: in the order of ``reported``.
            reported: clients whose messages came.
            clients: all that masks were made for.
            seeds: of which those of the reported and of pairs with the missing are read.
        """
        total = np.zeros_like(sent[0])
        for client, codes in zip(reported, sent, strict=True):
            total = total + codes - self._stream(seeds.own(client), len(codes))
        for missing in set(clients) - set(reported):
            for client in reported:
                # What the client added for the pair is taken off again.
                pair = seeds.pair(client, missing)
                total = self._add(total, pair, client > missing)
        return total

    def revealed_bits(self, reported: int, missing: int) -> int:
        """Bits of the seeds that clients reveal after a round."""
        return SEED_BITS * (reported + reported * missing)

    def _add(self, codes: Codes, seed: int, plus: bool) -> Codes:
        mask = self._stream(seed, len(codes))
        return codes + mask if plus else codes - mask

    def _stream(self, seed: int, count: int) -> Codes:
        """Uniform codes of a seed: the generator Philox with the seed as its key."""
        key = np.array([seed & (2**64 - 1), seed >> 64], np.uint64)
        data = np.random.Generator(np.random.Philox(key=key))
        # All bits of the generator's words, whatever their width.
        words = data.integers(0, 2**32, count, np.uint32)
        return words.astype(self.dtype)


#: Secure sums by their name in specs.
SECURE: dict[str, type[PairwiseMasks]] = {PairwiseMasks.name: PairwiseMasks}
