"""PyTorchFI: faults in the weights and activations of a network (Mahmoud et al., 2020)."""

import importlib
import random
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from benchmarks.peers.base import DENSE, OURS, Agreement, Peer, Work, relative
from elision.faults import Fault, campaign, flip
from elision.workloads.models import make_model

#: The highest bit of a float32's exponent.
BIT = 30


def works(small: bool) -> Iterator[Work]:
    """Trials of one flipped bit in a stored weight, each an inference."""
    core = importlib.import_module("pytorchfi.core")
    network, images, trials = ("resnet8", 4, 2) if small else ("resnet18", 8, 5)
    torch.manual_seed(0)
    model = make_model(network, classes=10).eval()
    x = torch.randn(images, 3, 32, 32)
    with torch.no_grad():
        golden = model(x)
    labels = golden.argmax(1)
    injector = core.fault_injection(model, images, [3, 32, 32], [nn.Conv2d])
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    random.seed(0)

    def flipped(weight: Tensor, place: tuple[int, ...]) -> Tensor:
        return flip(weight[place].detach().reshape(1), 0, BIT)[0]

    def struck(layer: int, place: list[int]) -> nn.Module:
        names = ("k", "dim1", "dim2", "dim3")
        at = {name: [index] for name, index in zip(names, place, strict=True)}
        return injector.declare_weight_fi(function=flipped, layer_num=[layer], **at)

    def drawn() -> tuple[int, list[int]]:
        layer = random.randrange(len(layers))
        return layer, [random.randrange(n) for n in layers[layer].weight.shape]

    @torch.no_grad()
    def theirs() -> int:
        changed = 0
        for _ in range(trials):
            scores = struck(*drawn())(x)
            changed += int((scores.argmax(1) != labels).any())
        return changed

    def ours() -> float:
        fault = Fault(bits=(BIT,))
        return campaign(model, (x, labels), fault, trials=trials, block=trials).changed

    @torch.no_grad()
    def one_pass() -> None:
        for _ in range(trials):
            model(x)

    layer, place = drawn()
    with torch.no_grad():
        there = struck(layer, place)(x)
        weight, index = layers[layer].weight, tuple(place)
        before = weight[index].clone()
        weight[index] = flipped(weight, index)
        here = model(x)
        weight[index] = before
    yield Work(
        f"{network}, {trials} trials of one flipped bit of a stored weight, {images} images "
        "of 32x32 each",
        {OURS: ours, "PyTorchFI": theirs, f"{DENSE}, as many inferences": one_pass},
        (
            Agreement(
                "scores with the same bit flipped in the same weight",
                relative(here, there),
                0.0,
            ),
        ),
        "places are drawn apart, ours in the last layer too; PyTorchFI copies the network "
        "for each trial; ours infers once more, without a fault, and sorts the outcomes",
    )


PEER = Peer(
    "PyTorchFI",
    "injected faults",
    works,
    requirements=("pytorchfi",),
    distribution="pytorchfi",
)
