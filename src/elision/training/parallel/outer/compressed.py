"""CompressedMean: the weighted mean of what ranks send through a compressor."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from elision.training.parallel.channel import Channel
from elision.training.parallel.compressors import Compressor, State, emulate
from elision.training.parallel.outer.mean import Mean
from elision.training.parallel.wire import CheckedWire, PlainWire

__all__ = ["CompressedMean"]


class CompressedMean:
    """Weighted mean over ranks of compressed tensors: those of one process, or one each.

    A compressor's mean counts all ranks alike, so a rank's tensor is multiplied by its
    share of the weights times the number of ranks before it is compressed.

    Args:
        compressor: of every tensor, with its memory where it needs one.
        mean: the ranks and their shares.
        group: process group; default: all processes.
        seed: of the compressor's random numbers.

    Raises:
        ValueError: several processes hold several ranks each.

    Example:
        >>> from elision.training.parallel.compressors import make_compressor
        >>> both = Mean([1.0, 3.0])
        >>> compressed = CompressedMean(make_compressor("bf16"), both, None, 0)
        >>> compressed(["w"], [[torch.zeros(2)], [torch.ones(2)]], [None])
        ([tensor([0.7500, 0.7500])], 32)
    """

    def __init__(
        self, compressor: Compressor, mean: Mean, group: Any, seed: int
    ) -> None:
        self._compressor, self._mean, self._seed = compressor, mean, seed
        own = len(mean.shares)
        wire = CheckedWire if compressor.checksum else PlainWire
        self._channel = Channel(wire(group)) if mean.processes > 1 else None
        if self._channel is not None and own > 1:
            raise ValueError(
                f"OuterOptimizer: {mean.processes} processes hold {own} ranks each, and "
                "compressed messages are of one rank a process; give one optimiser each, or "
                "leave compress out"
            )
        first = torch.distributed.get_rank(group) if self._channel else 0
        self._ranks = range(first, first + own)
        self._states: list[dict[str, State]] = [{} for _ in self._ranks]

    def __call__(
        self,
        names: Sequence[str],
        tensors: Sequence[Sequence[Tensor]],
        masks: Sequence[Tensor | None],
    ) -> tuple[list[Tensor], int]:
        """The means, in the tensors' dtypes, and the bits of one rank's messages.

        Args:
            names: of the tensors, by which a rank remembers.
            tensors: a list for each rank held here.
            masks: where the values of a tensor matter; None: everywhere.
        """
        states = [self._named(place, names) for place in range(len(self._ranks))]
        for own in states:
            for state, mask in zip(own, masks, strict=True):
                state.mask = mask
        scaled = [
            [tensor.float().contiguous() * (share * self._mean.ranks) for tensor in own]
            for share, own in zip(self._mean.shares, tensors, strict=True)
        ]
        bits = sum(
            self._compressor.bits(tensor.shape, state)
            for tensor, state in zip(scaled[0], states[0], strict=True)
        )
        if self._channel is not None:
            means, _ = self._channel.exchange(
                self._compressor, scaled[0], states[0], where="outer gradients"
            )
        else:
            means = [
                emulate(self._compressor, each, owners)[0]
                for each, owners in zip(
                    zip(*scaled, strict=True), zip(*states, strict=True), strict=True
                )
            ]
        like = tensors[0]
        return [m.to(t.dtype) for m, t in zip(means, like, strict=True)], bits

    @property
    def sent(self) -> float:
        """Bits that this process sent in collectives so far."""
        return 0.0 if self._channel is None else self._channel.traffic.sent

    def state_dict(self) -> list[dict[str, Any]]:
        """What the ranks held here remember, one after the other."""
        return [
            {name: (s.step, dict(s.tensors)) for name, s in own.items()}
            for own in self._states
        ]

    def load_state_dict(self, saved: list[dict[str, Any]]) -> None:
        """Go on from what :meth:`state_dict` gave for as many ranks."""
        for place, own in enumerate(saved):
            self._states[place] = {}
            for name, (step, tensors) in own.items():
                (state,) = self._named(place, [name])
                state.step, state.tensors = step, dict(tensors)

    def _named(self, place: int, names: Sequence[str]) -> list[State]:
        """The states of a rank, made where there is none yet."""
        own, rank = self._states[place], self._ranks[place]
        for name in names:
            if name not in own:
                own[name] = State(
                    name=name, seed=self._seed, rank=rank, ranks=self._mean.ranks
                )
        return [own[name] for name in names]
