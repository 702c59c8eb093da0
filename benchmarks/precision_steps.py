"""A whole emulated training step of ResNet-18 in each number format, over the plain step.

32x32 images, batch 32; forward, backward, SGD with momentum (and the loss scaler, where
the recipe asks for one), the engine as ``elide`` gives it. The modes take turns, in
another order in each round, and each round gives one ratio to its plain step; printed are
the median of the ratios and their quartiles. A second plain copy shows the noise.

With one thread the time is that of the processor, which a busy machine disturbs less; with
more threads it is the clock on the wall.

    python benchmarks/precision_steps.py [--rounds 15] [--threads 1 2] [--out FILE]
"""

import argparse
import random
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import elision
from elision.common.files import write_json
from elision.common.timing import elapsed, quoted_clock
from elision.methods import make_recipe
from elision.study.folder import environment
from elision.training.loss_scaling import LossScaling
from elision.workloads import make_model

#: Recipes, and the ratio to the plain step that they may have; None: none was set.
BARS: dict[str, float | None] = {
    "bf16": 1.3,
    "fp16": 1.3,
    "fp8": 1.3,
    "fp8:scaling=tensor": 1.3,
    "dfp16": 1.4,
    "mxfp8": 1.5,
    "mxfp6": 1.5,
    "mxfp4": 1.5,
    "nvfp4": 1.5,
    "int8": None,
    "bf16:updates=bf16": None,
    "swat:sparsity=0.9": None,
    "swat:sparsity=0.9+fp8": None,
}

_PLAIN = ("plain", "plain again")
_LAYOUTS = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}

#: Rounds before those that count: kernels are loaded and layers make their choices.
_WARM = 3


def stepper(mode: str, network: str, batch: int, layout: Any) -> Callable[[], None]:
    """A function that takes one training step."""
    torch.manual_seed(0)
    model = make_model(network)
    model.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    scale = None
    if mode not in _PLAIN:
        recipe = make_recipe(mode)
        elision.elide(model, recipe)
        scale = recipe.loss_scaling
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    if mode not in _PLAIN:
        elision.topology.attach(model, optimizer)
    scaling = LossScaling("cpu", scale, optimizer)
    images = torch.randn(batch, 3, 32, 32).contiguous(memory_format=layout)
    labels = torch.randint(0, 10, (batch,))

    def step() -> None:
        optimizer.zero_grad()
        scaling.backward(F.cross_entropy(model(images), labels))
        scaling.step(0)

    return step


def measure(
    modes: list[str], network: str, batch: int, layout: Any, rounds: int
) -> dict[str, Any]:
    """Ratios of each mode to the plain step."""
    names = [*_PLAIN, *modes]
    steps = {mode: stepper(mode, network, batch, layout) for mode in names}
    seconds: dict[str, list[float]] = {mode: [] for mode in names}
    order = random.Random(0)
    for number in range(rounds + _WARM):
        for mode in order.sample(names, len(names)):
            taken = elapsed(steps[mode]).quoted
            if number >= _WARM:
                seconds[mode].append(taken)
    row: dict[str, Any] = {"plain_ms": 1000 * statistics.median(seconds["plain"])}
    for mode in names[1:]:
        pairs = zip(seconds[mode], seconds["plain"], strict=True)
        low, middle, high = statistics.quantiles([a / b for a, b in pairs], n=4)
        row[mode] = {"median": middle, "quartiles": [low, high], "bar": BARS.get(mode)}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--layout", nargs="+", choices=_LAYOUTS, default=[*_LAYOUTS])
    parser.add_argument("--recipe", nargs="+", default=[*BARS])
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    results: dict[str, Any] = {}
    for threads in given.threads:
        torch.set_num_threads(threads)
        for layout in given.layout:
            name = f"{layout}, {threads} threads, {quoted_clock()} clock"
            row = results[name] = measure(
                given.recipe, given.network, given.batch, _LAYOUTS[layout], given.rounds
            )
            print(f"{name}: plain {row['plain_ms']:.0f} ms; times plain:")
            for mode, ratio in row.items():
                if mode != "plain_ms":
                    low, high = ratio["quartiles"]
                    bar = f", bar {ratio['bar']}" if ratio["bar"] else ""
                    print(
                        f"  {mode:24} {ratio['median']:.3f} ({low:.3f}-{high:.3f}){bar}"
                    )
    if given.out:
        facts = {
            "network": f"{given.network}, 32x32, batch {given.batch}",
            "rounds": given.rounds,
            "unit": "times of the plain step in the same round",
            "machine": environment(),
            "results": results,
        }
        write_json(given.out, facts)


if __name__ == "__main__":
    main()
