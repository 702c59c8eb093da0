"""Partition of a chain of layers: which stage computes which piece of which product."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from elision.products import Product
from elision.training.pipeline.costs import LayerCost

__all__ = ["Bounds", "Partition", "Piece", "bounds", "whole_layers"]


class Piece(NamedTuple):
    """A share of one product of one layer.

    Attributes:
        layer: number of the layer, from 0.
        product: the product.
        share: of the product's work; 1 for the whole.

    Example:
        >>> Piece(2, Product.INPUT_GRAD, 0.5).share
        0.5
    """

    layer: int
    product: Product
    share: float = 1.0


class Bounds(NamedTuple):
    """Lower bounds of the time of the slowest processor, per micro-batch.

    Attributes:
        mean: the work of all layers over the number of processors.
        largest: the largest task that is not cut.

    Example:
        >>> Bounds(mean=3.0, largest=5.0).best
        5.0
    """

    mean: float
    largest: float

    @property
    def best(self) -> float:
        """No partition of these tasks is faster."""
        return max(self)


@dataclass(frozen=True)
class Partition:
    """Stages of a chain of layers.

    Attributes:
        stages: pieces that run on each stage's processor, in the order of the layers.
        replicas: processors that share the micro-batches of each stage.
        strategy: name of the partitioner.

    Example:
        >>> costs = [LayerCost(1, 1, 1), LayerCost(1, 1, 1), LayerCost(2, 2, 2)]
        >>> two = whole_layers([2, 1])
        >>> two.loads(costs), two.layers
        ((6.0, 6.0), ((0, 1), (2,)))
    """

    stages: tuple[tuple[Piece, ...], ...]
    replicas: tuple[int, ...] = ()
    strategy: str = ""

    def __post_init__(self) -> None:
        if not self.replicas:
            object.__setattr__(self, "replicas", (1,) * len(self.stages))

    @property
    def processors(self) -> int:
        """Processors of all stages."""
        return sum(self.replicas)

    @property
    def layers(self) -> tuple[tuple[int, ...], ...]:
        """Layers whose forward product runs in each stage."""
        return tuple(
            tuple(p.layer for p in stage if p.product is Product.FORWARD)
            for stage in self.stages
        )

    @property
    def chain(self) -> int:
        """Stages that micro-batches pass through; what follows has weight gradients only."""
        passed = [
            any(p.product is not Product.WEIGHT_GRAD for p in stage)
            for stage in self.stages
        ]
        return passed.index(False) if False in passed else len(passed)

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Last layer before the end of each stage but the last of the chain."""
        found, last = [], 0
        for layers in self.layers[: self.chain - 1]:
            last = max((last, *layers))
            found.append(last)
        return tuple(found)

    def loads(self, costs: Sequence[LayerCost]) -> tuple[float, ...]:
        """Time of each stage per micro-batch, shared out among its replicas."""
        return tuple(
            sum(costs[p.layer].of(p.product) * p.share for p in stage) / count
            for stage, count in zip(self.stages, self.replicas, strict=True)
        )

    def period(self, costs: Sequence[LayerCost]) -> float:
        """Time of the slowest stage per micro-batch: the pipeline's, when it is full."""
        return max(self.loads(costs))


def bounds(
    costs: Iterable[LayerCost], processors: int, granularity: str = "layer"
) -> Bounds:
    """Lower bounds of any partition's period.

    Args:
        costs: of the layers.
        processors: number of processors.
        granularity: what is not cut: ``"layer"``; ``"product"``, where the weight
            gradient is apart from the rest of its layer; ``"half"``, where the forward
            product and each half of the input gradient are apart, too.
    """
    chain = tuple(costs)
    largest = {
        "layer": lambda c: c.total,
        "product": lambda c: max(c.forward + c.input_grad, c.weight_grad),
        "half": lambda c: max(c.forward, c.input_grad / 2, c.weight_grad),
    }[granularity]
    mean = sum(cost.total for cost in chain) / processors
    return Bounds(mean, max(map(largest, chain)))


def whole_layers(
    counts: Sequence[int], replicas: Sequence[int] = (), strategy: str = "given"
) -> Partition:
    """The partition whose stages have so many layers each, all three products together.

    Args:
        counts: layers of each stage, from the first layer on.
        replicas: processors of each stage; default: one each.
        strategy: name of the partitioner.

    Raises:
        ValueError: a stage has no layer.
    """
    if not counts or min(counts) < 1:
        raise ValueError(
            f"layers per stage {list(counts)}: each stage needs at least one"
        )
    stages, first = [], 0
    for count in counts:
        pieces = (Piece(n, p) for n in range(first, first + count) for p in Product)
        stages.append(tuple(pieces))
        first += count
    return Partition(tuple(stages), tuple(replicas), strategy)
