"""The same work on one, two and four threads: where the result is equal to the last bit.

Products are drawn over shapes, kinds and sparse operands, and counted by who computes
them: the kernels, or torch, to which the native engine leaves what has no kernel and
gradients with whole channels of zeros. Steps of training are of one small network.
"""

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import elision
from campaigns.campaign import Row
from campaigns.steps import convolutions, digits
from elision import methods
from elision.engines import Engine, Hint, NativeEngine, TorchEngine
from elision.engines.native.channels import product_of_live_channels
from elision.products import Conv2dGeometry, Geometry, LayerProduct, MatmulGeometry
from elision.products import Product as P

__all__ = ["THREADS", "products", "trainings"]

#: Numbers of threads. Work is cut into as many shares, whatever the number of cores.
THREADS = (1, 2, 4)

_WAYS = (
    (P.FORWARD, "weight"),
    (P.INPUT_GRAD, "weight"),
    (P.INPUT_GRAD, "grad_output"),
    (P.WEIGHT_GRAD, "input"),
    (P.WEIGHT_GRAD, "grad_output"),
)

#: Steps of a training.
_STEPS = 5


def _on_each(work: Callable[[], Any]) -> list[Any]:
    """What work gives on each number of threads."""
    before, given = torch.get_num_threads(), []
    try:
        for threads in THREADS:
            torch.set_num_threads(threads)
            given.append(work())
    finally:
        torch.set_num_threads(before)
    return given


def products(count: int, seed: int) -> Row:
    """Drawn products of both engines; those of the kernels must be equal."""
    drawn, counts, row = random.Random(seed), Counter[str](), Row()
    for number in range(count):
        torch.manual_seed(number)
        geometry, (kind, sparse) = _geometry(drawn), drawn.choice(_WAYS)
        operands = {
            name: torch.randn(geometry.shape_of(name)) for name in kind.operands
        }
        _thin(operands[sparse], drawn)
        product, hint = LayerProduct(kind, geometry, *operands.values()), Hint(sparse)
        for engine in (NativeEngine(), TorchEngine()):
            found = _on_each(partial(engine.compute, product, hint))
            same = all(torch.equal(found[0], other) for other in found[1:])
            who = _who(engine, product, hint)
            counts[f"{who}: {'equal' if same else 'differ'}"] += 1
            if who == "kernels" and not same:
                row.bad.append(f"{kind.name} of {geometry}, sparse {sparse}")
    row.counts = dict(counts)
    return row


def _geometry(drawn: random.Random) -> Geometry:
    if drawn.random() < 0.3:
        sizes = (drawn.randint(1, 300) for _ in range(3))
        return MatmulGeometry(*sizes)
    kernel, dilation = drawn.randint(1, 4), drawn.randint(1, 2)
    reach = dilation * (kernel - 1) + 1
    height, width = (drawn.randint(reach, 24) for _ in range(2))
    channels = (drawn.randint(1, 64) for _ in range(2))
    return Conv2dGeometry(
        *(drawn.randint(1, 35), next(channels), height, width, next(channels)),
        *(kernel, drawn.randint(1, 2), drawn.randint(0, 2), dilation, 1),
    )


def _thin(operand: Tensor, drawn: random.Random) -> None:
    """Set values to zero, or whole channels where there are such."""
    density = drawn.choice((0.05, 0.3, 1.0))
    whole = operand.dim() > 1 and drawn.random() < 0.3
    shape = operand.shape[1:2] if whole else operand.shape
    kept = torch.rand(shape) < density
    operand *= kept.view(-1, *[1] * (operand.dim() - 2)) if whole else kept


def _who(engine: Engine, product: LayerProduct, hint: Hint) -> str:
    """Who computes a product under an engine."""
    if isinstance(engine, TorchEngine):
        return "torch"
    if engine.choose(product, hint) is not engine:
        return "left to torch, no kernel"
    conv = product.geometry.reshaped_convolution
    if hint.sparse == "grad_output" and conv is not None:
        names = product.kind.operands
        shaped = [
            x.reshape(conv.shape_of(name))
            for name, x in zip(names, (product.first, product.second), strict=True)
        ]
        if product_of_live_channels(product.kind, conv, *shaped) is not None:
            return "left to torch, whole channels"
    return "kernels"


# --- training ---------------------------------------------------------------------------

_RECIPES: dict[str, Callable[[], elision.Recipe]] = {
    "dense": lambda: methods.Dense(),
    "swat": lambda: methods.Swat(0.8, dense=()),
    "rigl": lambda: methods.RigL(0.5, every=2, until=_STEPS, dense=()),
    "bf16": lambda: methods.Bf16(),
    "int8": lambda: methods.Int8(),
}


def trainings(count: int, seed: int) -> Row:
    """Some steps of training under each engine, recipe and saver; what differs is counted.

    One seed for every hundred of ``count``. Nothing is promised of a whole step: torch
    computes the loss, what a layer has besides its products, and what is left dense.
    """
    seeds, counts, differing = range(seed, seed + max(1, count // 100)), Counter(), {}
    for engine in ("native", "torch"):
        for name, recipe in _RECIPES.items():
            for policy in ("exact", "bits(4)"):
                for own in seeds:
                    given = (recipe, engine, policy, own)
                    found = _on_each(lambda g=given: _trained(*g))
                    first = _first_difference(found)
                    counts[f"{engine}, {name}: {'differ' if first else 'equal'}"] += 1
                    if first:
                        differing[f"{engine}, {name}, {policy}"] = first
    return Row(dict(counts), [], {"first difference": differing})


def _trained(
    recipe: Callable[[], elision.Recipe], engine: str, policy: str, seed: int
) -> dict[str, Tensor]:
    """Loss and gradients of each step, and the weights at the end, by name."""
    torch.manual_seed(seed)
    images, labels = digits()
    model: nn.Module = elision.elide(convolutions(), recipe(), engine=engine)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    elision.topology.attach(model, optimizer)
    found: dict[str, Tensor] = {}
    for step in range(_STEPS):
        part = torch.randint(len(images), (64,))
        optimizer.zero_grad()
        with elision.memory.saver(model, policy, seed=step):
            output = model(images[part])
        loss = F.cross_entropy(output, labels[part])
        loss.backward()
        found |= {f"output of step {step}": output.detach().clone()}
        for name, weight in model.named_parameters():
            if weight.grad is not None:
                found[f"gradient of {name} in step {step}"] = weight.grad.clone()
        optimizer.step()
        for name, weight in model.named_parameters():
            found[f"{name} after step {step}"] = weight.detach().clone()
    return found


def _first_difference(found: list[dict[str, Tensor]]) -> str | None:
    """Name of what differs first; None: nothing does."""
    one, *others = found
    for name, value in one.items():
        if not all(torch.equal(value, other[name]) for other in others):
            return name
    return None
