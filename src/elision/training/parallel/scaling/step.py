"""StepCosts: seconds of a training step on one rank, by batch size, and its gradients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from elision.common.checks import number
from elision.training.parallel.scaling.overlap import Bucket

__all__ = ["StepCosts"]


@dataclass(frozen=True)
class StepCosts:
    """A step on one rank: ``fixed + per_example * batch`` seconds for each of its parts.

    Attributes:
        forward: (fixed, per example) seconds of the forward pass and the loss.
        backward: the same of the backward pass.
        update: seconds of the optimiser's step.
        gradients: bytes of each gradient, and the share of the backward pass after which
            it is ready, in that order. The shares are taken to hold at every batch size.
        source: where the seconds are from.
        copies: seconds of copying all gradients into buckets during the backward pass, and
            of copying them out after the last bucket; one rank alone copies nothing.
        names: of the parameters that the gradients are of; none: not known.
        shapes: of the gradients, likewise.

    Raises:
        ValueError: a negative time, gradients that are not in order, or names or shapes
            of another number.

    Example:
        >>> costs = StepCosts((0.0, 1.0), (1.0, 2.0), 0.5, (Bucket(4, 0.5), Bucket(8, 1.0)))
        >>> costs.seconds(10), costs.size
        (31.5, 12)
    """

    forward: tuple[float, float]
    backward: tuple[float, float]
    update: float = 0.0
    gradients: tuple[Bucket, ...] = ()
    source: str = ""
    copies: tuple[float, float] = (0.0, 0.0)
    names: tuple[str, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        for name in ("forward", "backward", "copies"):
            for value in getattr(self, name):
                number("StepCosts", name, value, ">= 0")
        number("StepCosts", "update", self.update, ">= 0")
        ready = [gradient.ready for gradient in self.gradients]
        if ready != sorted(ready) or any(not 0 <= r <= 1 for r in ready):
            raise ValueError(
                f"StepCosts(gradients): ready after {ready}; give shares of the backward "
                "pass in [0, 1], in the order in which gradients are ready"
            )
        for name in ("names", "shapes"):
            given = getattr(self, name)
            if given and len(given) != len(self.gradients):
                raise ValueError(
                    f"StepCosts({name}): {len(given)} for {len(self.gradients)} gradients; "
                    "give one for each, or none"
                )

    @classmethod
    def fitted(
        cls,
        forward: Mapping[int, float],
        backward: Mapping[int, float],
        update: float,
        gradients: Sequence[Bucket],
        source: str = "",
        **options: Any,
    ) -> "StepCosts":
        """Costs from seconds at several batch sizes: the line of least relative squares.

        Args:
            forward: batch size -> seconds.
            backward: the same of the backward pass.
            update: as in :class:`StepCosts`.
            gradients: likewise.
            source: likewise.
            **options: the other attributes of :class:`StepCosts`.

        Example:
            >>> costs = StepCosts.fitted({1: 3.0, 4: 6.0}, {1: 2.0, 4: 8.0}, 0.0, ())
            >>> [round(x, 6) for x in (*costs.forward, *costs.backward)]
            [2.0, 1.0, 0.0, 2.0]
        """
        lines = _line(forward), _line(backward)
        return cls(*lines, update, tuple(gradients), source, **options)

    @property
    def size(self) -> float:
        """Bytes of all gradients."""
        return sum(gradient.size for gradient in self.gradients)

    def forward_seconds(self, batch: float) -> float:
        """Seconds of the forward pass of so many examples."""
        return self.forward[0] + self.forward[1] * batch

    def backward_seconds(self, batch: float) -> float:
        """Seconds of the backward pass of so many examples."""
        return self.backward[0] + self.backward[1] * batch

    def lasting(self, batch: float, seconds: float) -> "StepCosts":
        """The same step where it takes so many seconds for a batch, copies left alone.

        Example:
            >>> StepCosts((0.0, 1.0), (0.0, 3.0)).lasting(2, 4.0).forward
            (0.0, 0.5)
        """
        factor = seconds / self.seconds(batch)
        return replace(
            self,
            forward=(self.forward[0] * factor, self.forward[1] * factor),
            backward=(self.backward[0] * factor, self.backward[1] * factor),
            update=self.update * factor,
        )

    def seconds(self, batch: float) -> float:
        """Seconds of a whole step, nothing sent."""
        return self.forward_seconds(batch) + self.backward_seconds(batch) + self.update


def _line(seconds: Mapping[int, float]) -> tuple[float, float]:
    """(fixed, per example), neither below zero."""
    batch = np.array(list(seconds), float)
    time = np.array(list(seconds.values()), float)
    if len(batch) == 1:
        return 0.0, float(time[0] / batch[0])
    terms = np.stack([np.ones_like(batch), batch], 1) / time[:, None]
    fixed, per_example = np.linalg.lstsq(terms, np.ones_like(time))[0]
    # Where a line would leave the quadrant, the better of its two edges.
    if fixed < 0:
        ratios = batch / time
        return 0.0, float(ratios.sum() / (ratios @ ratios))
    if per_example < 0:
        ratios = 1 / time
        return float(ratios.sum() / (ratios @ ratios)), 0.0
    return float(fixed), float(per_example)
