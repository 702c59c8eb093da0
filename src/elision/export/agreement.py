"""How an exported file answers, beside the network that it was made of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from elision.export.graph import QuantisedGraph

__all__ = ["Agreement", "agreement"]

#: Inputs that a network in floating point is given at once (own choice).
_AT_ONCE = 64


@dataclass(frozen=True)
class Agreement:
    """Difference of two answers to the same inputs, in steps of the output's scale.

    Attributes:
        inputs: number of inputs.
        largest: largest difference.
        mean: mean of the differences' magnitudes.
        equal: share of outputs whose codes are equal.
        classes: share of inputs whose largest output is the same.

    Example:
        >>> Agreement.of(torch.tensor([[1, 5]]), torch.tensor([[1, 4]]))
        Agreement(inputs=1, largest=1.0, mean=0.5, equal=0.5, classes=1.0)
    """

    inputs: int
    largest: float
    mean: float
    equal: float
    classes: float

    @classmethod
    def of(cls, found: Tensor, wanted: Tensor) -> "Agreement":
        """The agreement of outputs ``(N, ...)`` in steps, whole numbers or not."""
        apart = (found.double() - wanted.double()).abs()
        same = found.flatten(1).argmax(1) == wanted.flatten(1).argmax(1)
        return cls(
            len(found),
            apart.max().item(),
            apart.mean().item(),
            (apart.round() == 0).double().mean().item(),
            same.double().mean().item(),
        )

    def row(self, of: str, beside: str) -> dict[str, Any]:
        """A row of a table.

        Args:
            of: whose answers.
            beside: whose they are compared with.
        """
        return {
            "answers of": of,
            "beside": beside,
            "inputs": self.inputs,
            "largest difference (steps)": round(self.largest, 2),
            "mean difference (steps)": float(f"{self.mean:.3g}"),
            "equal codes %": round(100 * self.equal, 3),
            "same class %": round(100 * self.classes, 2),
        }


@torch.no_grad()
def agreement(
    codes: Tensor,
    graph: QuantisedGraph,
    model: Callable[[Tensor], Tensor],
    inputs: Tensor,
) -> Agreement:
    """Agreement of output codes with a network in floating point.

    Args:
        codes: int8, ``(N, *shape)``, of anything that runs the graph.
        graph: whose codes they are.
        model: in floating point.
        inputs: that both were given, ``(N, *shape)``.

    Example:
        >>> from torch import nn
        >>> from elision.export import quantised
        >>> layer, inputs = nn.Linear(4, 2), torch.randn(64, 4)
        >>> graph = quantised(layer, inputs)
        >>> found = agreement(graph.run(graph.encode(inputs)), graph, layer, inputs)
        >>> found.inputs, found.largest < 5
        (64, True)
    """
    real = torch.cat([model(part) for part in inputs.split(_AT_ONCE)])
    own = graph.values[graph.output]
    return Agreement.of(codes.double(), real.double() / own.scale + own.zero)
