"""Interleaved gradients of one fully connected layer, against separate ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product as grid

from elision.accelerators.base import Cost
from elision.common.columns import column
from elision.products import LayerProduct, MatmulGeometry, Product
from elision.study.papers.intergrad.steps import (
    DRAIN_RULES,
    interleaving,
    sram_words,
    ws_os,
)

__all__ = ["FullyConnectedRow", "fully_connected"]


@dataclass(frozen=True)
class FullyConnectedRow:
    """Both gradients of a fully connected layer: separate over interleaved.

    Attributes:
        side: rows and columns of the array.
        batch: rows of G.
        features: inputs and outputs of the layer.
        drain: a name of :data:`DRAIN_RULES`.
        separate_cycles: dX weight-stationary, then dW output-stationary.
        interleaved_cycles: both at once.
        cycles_ratio: the first over the second; published 1.4 to 2.2.
        accesses_ratio: SRAM words, gradients only.
        accesses_ratio_with_update: SRAM words with the optimiser's pass over the weights
            on the separate side, and the update in the array on the interleaved side;
            published 1.9, of which the abstract does not say what it counts.

    Example:
        >>> row = fully_connected(sides=(8,), batch_per_side=(), features=8)[0]
        >>> row.batch, row.separate_cycles > row.interleaved_cycles
        (1, True)
    """

    side: int = column("side")
    batch: int = column("batch")
    features: int = column("features")
    drain: str = column("drain")
    separate_cycles: int = column("separate cycles", ",")
    interleaved_cycles: int = column("interleaved cycles", ",")
    cycles_ratio: float = column("cycles", ".2f", "x")
    accesses_ratio: float = column("accesses", ".2f", "x")
    accesses_ratio_with_update: float = column("accesses with update", ".2f", "x")


def fully_connected(
    sides: Sequence[int] = (32, 64, 128, 256),
    batch_per_side: Sequence[float] = (0.25, 0.5, 1.0, 2.0, 4.0),
    features: int = 1024,
) -> list[FullyConnectedRow]:
    """Cycles and SRAM accesses of a square layer over array side, batch and drain rule.

    Batch 1 is always among the batches.
    """
    rows = []
    for side, name in grid(sides, DRAIN_RULES):
        rule = DRAIN_RULES[name]
        batches = {1} | {max(1, round(share * side)) for share in batch_per_side}
        for batch in sorted(batches):
            geometry = MatmulGeometry(batch, features, features)
            gradients = [
                LayerProduct(kind, geometry)
                for kind in (Product.INPUT_GRAD, Product.WEIGHT_GRAD)
            ]
            plain = ws_os(side, rule)
            apart = sum((plain.cost(p) for p in gradients), Cost())
            together, updated = (
                interleaving(side, rule, update=update).cost_pair(*gradients)
                for update in (False, True)
            )
            with_pass = apart + plain.cost_update(geometry)
            rows.append(
                FullyConnectedRow(
                    side=side,
                    batch=batch,
                    features=features,
                    drain=name,
                    separate_cycles=apart.cycles,
                    interleaved_cycles=together.cycles,
                    cycles_ratio=apart.cycles / together.cycles,
                    accesses_ratio=sram_words(apart) / sram_words(together),
                    accesses_ratio_with_update=sram_words(with_pass)
                    / sram_words(updated),
                )
            )
    return rows
