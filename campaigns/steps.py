"""Long training: thousands of steps with all that the library adds to a step at once.

Every step runs under a recipe with moving masks, keeps its activations under a saver and
records its products, on scikit-learn's handwritten digits.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import elision
from campaigns.campaign import Row
from campaigns.resources import repeated
from elision import methods

__all__ = ["VARIANTS", "Variant", "convolutions", "digits", "trained"]

#: Images of a step.
_BATCH = 8

#: Steps from move to move of the masks.
_EVERY = 10

#: The controller's history, which has an entry for each mask that moved.
_HISTORY = "elision.topology.move.Move"


@dataclass(frozen=True)
class Variant:
    """What the steps of one run have in common.

    Attributes:
        engine: who computes.
        policies: of the savers, one after the other from step to step.
        network: makes the network.
        narrow: whether operands are rounded to bfloat16, too.
    """

    engine: str
    policies: tuple[str, ...]
    network: Callable[[], nn.Module]
    narrow: bool = False


class _Rows(nn.Module):
    """An LSTM that reads an image row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = elision.nn.LSTM(8, 24, batch_first=True)
        self.out = nn.Linear(24, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.out(self.lstm(images.squeeze(1))[0][:, -1])


def convolutions() -> nn.Module:
    """Two convolutions with a batch normalisation, and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


_SAVERS = ("jpeg", "int8", "fp8", "rad(0.1)", "offload", "guaranteed(0.1)", "exact")

VARIANTS = {
    "native": Variant("native", ("bits(4)",), convolutions),
    "torch": Variant("torch", ("bits(4)",), convolutions),
    "other savers": Variant("native", _SAVERS, convolutions),
    "bf16": Variant("native", ("bits(4)",), convolutions, narrow=True),
    "lstm": Variant("native", ("bits(4)",), _Rows),
}


def digits() -> tuple[Tensor, Tensor]:
    """Handwritten digits ``(1797, 1, 8, 8)`` in [0, 1], and their classes."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float()[:, None] / 16
    return images, torch.from_numpy(bunch.target)


def trained(name: str, count: int, seed: int) -> Row:
    """Ten steps for each of ``count``, in one process.

    Args:
        name: of :data:`VARIANTS`.
        count: tenths of the steps.
        seed: of weights and batches.
    """
    variant, steps = VARIANTS[name], 10 * count
    torch.manual_seed(seed)
    images, labels = digits()
    recipe = methods.RigL(0.5, every=_EVERY, until=steps, dense=())
    model = variant.network()
    elision.elide(
        model,
        recipe + methods.Bf16() if variant.narrow else recipe,
        engine=variant.engine,
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    topology = elision.topology.attach(model, optimizer, steps=steps)
    before, losses, products = topology.digest(), [0.0, 0.0], set[int]()

    def step(number: int) -> None:
        chosen = torch.randint(len(images), (_BATCH,))
        policy = variant.policies[number % len(variant.policies)]
        optimizer.zero_grad()
        with elision.record(model, samples=1) as trace:
            with elision.memory.saver(model, policy):
                loss = F.cross_entropy(model(images[chosen]), labels[chosen])
            loss.backward()
        optimizer.step()
        products.add(len(trace))
        late = number >= steps // 2
        losses[late] += loss.item()

    row = repeated(step, steps, kept=(_HISTORY,))
    row.counts = {"steps": steps}
    row.facts |= {"loss": _halves(losses, steps), "products": sorted(products)}
    if topology.digest() == before:
        row.bad.append("no mask moved")
    if len(products) != 1:
        row.bad.append(f"steps recorded other numbers of products: {sorted(products)}")
    if not all(map(math.isfinite, losses)):
        row.bad.append(f"the loss is not finite: {losses}")
    return row


def _halves(losses: list[float], steps: int) -> dict[str, Any]:
    """Mean loss of the first half of the steps, and of the second."""
    names = ("first half", "second half")
    return {n: round(2 * v / steps, 4) for n, v in zip(names, losses, strict=True)}
