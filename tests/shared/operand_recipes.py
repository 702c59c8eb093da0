"""One table of operand recipes, and a network whose arithmetic is exact.

Weights and images are small integers, so every sum of a step is exact in any order and
a transform chooses the same values however the products are computed.
"""

from typing import Any

import torch
from torch import Tensor, nn

from elision.layers.recipe import Recipe, Table
from elision.methods import Dense, MeProp, Swat, SwatStructured
from elision.operands import (
    Accumulate,
    Cast,
    Chain,
    LearnedStep,
    NoisyLevels,
    Project,
    Reuse,
    Ternary,
    TopK,
    Transform,
)
from elision.products import Product


def everywhere(name: str, transform: Transform) -> Recipe:
    """The same transform in all six cells."""
    rows = {p: dict.fromkeys(p.operands, transform) for p in Product}
    return Recipe(name, Table(rows))


def of_weights(name: str, transform: Transform) -> Recipe:
    """A transform of the weights in both products that read them."""
    row = {"weight": transform}
    return Recipe(name, Table({Product.FORWARD: row, Product.INPUT_GRAD: row}))


def reusing(name: str, **how: Any) -> Recipe:
    """ReSprop with a threshold that discards differences from the second step on."""
    row = {"grad_output": Reuse(0.5, initial_threshold=32.0, **how)}
    return Recipe(name, Table({Product.INPUT_GRAD: row, Product.WEIGHT_GRAD: row}))


def chained() -> Recipe:
    """Sparsity and precision in one table, with state inside the chains."""
    weight = Chain((TopK(0.7, refresh=2), Cast("fp8-e4m3")))
    grad = Chain((Reuse(0.5, initial_threshold=32.0), Cast("bf16")))
    rows = {
        Product.FORWARD: {"weight": weight, "input": Cast("fp16")},
        Product.INPUT_GRAD: {"weight": weight, "grad_output": grad},
        Product.WEIGHT_GRAD: {"input": TopK(0.7), "grad_output": grad},
    }
    return Recipe("chained", Table(rows))


def stepped(name: str, weight: Transform, x: Transform) -> Recipe:
    """Transforms of weights and inputs, each in both products that read them."""
    rows = {
        Product.FORWARD: {"weight": weight, "input": x},
        Product.INPUT_GRAD: {"weight": weight},
        Product.WEIGHT_GRAD: {"input": x},
    }
    return Recipe(name, Table(rows))


def lsq(bits: int, step: float, *, signed: bool) -> LearnedStep:
    """The transform of LSQ, with a first step that is a power of two."""
    return LearnedStep(bits, "round", "lsq", signed=signed, initial=step)


def accumulated() -> Recipe:
    """Sparse weights and sums in bf16 whose rounding depends on the step."""
    row = {"weight": TopK(0.7), "accumulate": Accumulate("bf16", 64)}
    random = Accumulate("bf16", 64, rounding="stochastic")
    rows = {
        Product.FORWARD: row,
        Product.INPUT_GRAD: row | {"accumulate": random},
        Product.WEIGHT_GRAD: {"accumulate": random},
    }
    return Recipe("accumulated", Table(rows))


RECIPES: dict[str, Recipe] = {
    "dense": Dense(),
    "swat": Swat(0.7),
    "swat-refreshed": Swat(0.7, refresh=2),
    "swat-sampled": Swat(0.7, threshold="sampled", refresh=2),
    "swat-structured": SwatStructured(0.7),
    "resprop": reusing("resprop"),
    "resprop-same-index": reusing("resprop", pairing="same_index"),
    "w-resprop": reusing("w-resprop", warmup_steps=4),
    "meprop": MeProp(0.3),
    "meprop-unified": MeProp(0.3, unified=True),
    "bf16": everywhere("bf16", Cast("bf16")),
    "fp16": everywhere("fp16", Cast("fp16")),
    "fp8": everywhere("fp8", Cast("fp8-e4m3")),
    # Scaled values have no exact sums: no other operand may choose by them.
    "ternary": of_weights("ternary", Ternary(4, 2, budget=1.5)),
    "fp8-scaled": of_weights("fp8-scaled", Cast("fp8-e5m2", "tensor")),
    "chained": chained(),
    "steps": stepped("steps", Project(2, "none"), LearnedStep(4, initial=1.0)),
    "lsq": stepped("lsq", lsq(4, 2.0, signed=True), lsq(4, 1.0, signed=False)),
    # Noise has no exact sums, so no other operand chooses by them.
    "noisy": Recipe(
        "noisy", Table({Product.WEIGHT_GRAD: {"grad_output": NoisyLevels()}})
    ),
    "accumulated": accumulated(),
}

#: Recipes that treat every example by itself, or no operand that has examples: their
#: gradient of a batch is the sum of those of its parts.
EXAMPLEWISE = ("dense", "meprop", "bf16", "fp16", "fp8", "ternary", "fp8-scaled")


def network() -> nn.Module:
    """Convolutions with groups, stride, dilation and depthwise; a linear layer."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding="same", groups=2),
        nn.ReLU(),
        nn.Conv2d(8, 8, (3, 1), groups=8, bias=False),
        nn.ReLU(),
        nn.Conv2d(8, 4, 3, stride=2, dilation=2),
        nn.Flatten(),
        nn.Linear(24, 5),
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randint(-4, 5, parameter.shape, generator=generator))
    return model


def batch(step: int) -> tuple[Tensor, Tensor]:
    """Four images and what their outputs are weighed with, given the step alone."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randint(-4, 5, (4, 3, 10, 10), generator=generator).float()
    return x, torch.randint(-2, 3, (4, 5), generator=generator).float()


def rank_batch(step: int, rank: int) -> tuple[Tensor, Tensor]:
    """The batch of one of two ranks."""
    return batch(100 + 2 * step + rank)


def backward(model: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    """One forward and backward pass; gradients add up. Returns the output."""
    y = model(x)
    (y.float() * weight).sum().backward()
    return y.detach()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the gradient of every parameter."""
    return {
        n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
    }


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Equal but for the order in which sums were made."""
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        noise = 1e-6 * value.abs().max().item() if value.numel() else 0.0
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=noise)


def train(model: nn.Module, steps: range) -> None:
    """Some steps of descent, each with the batch of its number."""
    optimizer = torch.optim.SGD(model.parameters(), lr=2**-20, momentum=0.5)
    for step in steps:
        optimizer.zero_grad()
        backward(model, *batch(step))
        optimizer.step()
