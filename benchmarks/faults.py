"""Flips a second, and what checksums of products cost, find and miss.

    OMP_NUM_THREADS=1 python benchmarks/faults.py records/2026-11-30-faults/run.json

One thread unless ``--threads`` says otherwise.

- Flips: 100,000 faults drawn over the weights of LeNet-5 and applied at once; beside it
  PyTorchFI, where it is installed, which makes a copy of the model for each.
- Checksums: a training step of ResNet-18 with and without, in turns (``--image``,
  ``--batch``); single flips in the recorded products of a step, uniform over products,
  values and bits; clean steps of a ResNet-8, each with other weights and data.
"""

import argparse
import copy
import json
import statistics
import time
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from elision.common.timing import elapsed
from elision.engines.bench import machine
from elision.faults import Fault, checked_products
from elision.faults.defence.checksums import check
from elision.faults.draw import Reach, places_of
from elision.faults.flip import flip
from elision.faults.sites import weights_of
from elision.faults.stored import stored_as
from elision.layers.observation import Computed
from elision.layers.watch import watch
from elision.workloads import make_model

FLIPS = 100_000
MEASURES = ("flips a second", "checksums", "coverage", "false alarms")


def lenet() -> nn.Module:
    """LeNet-5 (LeCun et al. 1998), 32 x 32 pixels."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def flips_a_second(rounds: int) -> dict[str, Any]:
    model = lenet()
    seconds = []
    for seed in range(rounds + 1):
        began = time.perf_counter()
        held = {n: stored_as(w.detach()) for n, w in weights_of(model).items()}
        reach = Reach(Fault(), places_of(held, Fault()))
        for hit in reach.drawn(torch.Generator().manual_seed(seed), FLIPS):
            held[hit.place.name] = held[hit.place.name].changed(
                "values", hit.index, hit.bit
            )
        for held_weight in held.values():
            held_weight.values()
        seconds.append(time.perf_counter() - began)
    found = {"ours": FLIPS / statistics.median(seconds[1:])}
    try:
        from pytorchfi.core import fault_injection  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        return found | {"PyTorchFI": f"not installed: {error}"}
    fault = fault_injection(model, 1, input_shape=[1, 32, 32])
    generator = torch.Generator().manual_seed(0)
    count = 50
    began = time.perf_counter()
    for _ in range(count):
        k, c, y, x = (
            int(torch.randint(n, (), generator=generator)) for n in (16, 6, 5, 5)
        )
        fault.declare_weight_fi(
            layer_num=[1], k=[k], dim1=[c], dim2=[y], dim3=[x], value=[1.0]
        )
    return found | {"PyTorchFI": count / (time.perf_counter() - began)}


def overhead(image: int, batch: int, rounds: int) -> dict[str, Any]:
    """Time of a step with checksums over that of a plain one; some of the checks alike."""
    torch.manual_seed(0)
    model = make_model("resnet18", in_channels=3, classes=10, image_size=(image, image))
    x, y = torch.randn(batch, 3, image, image), torch.randint(10, (batch,))

    def step(which: nn.Module) -> None:
        which.zero_grad()
        nn.functional.cross_entropy(which(x), y).backward()

    ratios: dict[int, list[float]] = {1: [], 2: [], 4: []}
    plain: list[float] = []
    with ExitStack() as checking:
        checked = {}
        for every in ratios:
            checked[every] = copy.deepcopy(model)
            products = checked_products(checked[every], every=every)
            checking.enter_context(products)
        for warm in (model, *checked.values()):
            step(warm)
        for _ in range(rounds):
            for every, found in ratios.items():
                # Processor time, which other work on the machine does not lengthen.
                alone, with_sums, again = (
                    elapsed(partial(step, which)).process
                    for which in (model, checked[every], model)
                )
                plain += [alone, again]
                found.append(2 * with_sums / (alone + again))
    return {
        "image": image,
        "batch": batch,
        "step processor seconds": statistics.median(plain),
        "over plain": {
            f"every={every}": {
                "median": statistics.median(found),
                "quartiles": statistics.quantiles(found, n=4)[::2],
            }
            for every, found in ratios.items()
        },
    }


class _Recorded:
    """Keeps every product of a step with its result."""

    def __init__(self) -> None:
        self.products: list[Computed] = []

    def __call__(self, observation: Any) -> None:
        pass

    def computed(self, done: Computed) -> None:
        self.products.append(done)


def coverage(trials: int) -> dict[str, Any]:
    """Single flips in the results of ResNet-18's products: above the bound, found."""
    torch.manual_seed(0)
    model = make_model("resnet18", in_channels=3, classes=10, image_size=(32, 32))
    recorded = _Recorded()
    with watch(model, recorded):
        x, y = torch.randn(8, 3, 32, 32), torch.randint(10, (8,))
        nn.functional.cross_entropy(model(x), y).backward()
    clean = [_checked(p, p.result.detach()) for p in recorded.products]
    generator = torch.Generator().manual_seed(1)
    above = found_above = found = false_negative = 0
    by_bit: Counter[int] = Counter()
    tried: Counter[int] = Counter()
    for _ in range(trials):
        k = int(torch.randint(len(clean), (), generator=generator))
        product, before = recorded.products[k], clean[k]
        result = product.result.detach()
        at = int(torch.randint(result.numel(), (), generator=generator))
        bit = int(torch.randint(32, (), generator=generator))
        after = flip(result, at, bit)
        change = float((after.double() - result.double()).view(-1)[at].abs())
        wrong = not _checked(product, after).ok
        slack = (before.found - before.expected).abs() + before.tolerance
        sure = not change <= float(slack.max())
        above += sure
        found_above += sure and wrong
        false_negative += sure and not wrong
        found += wrong
        tried[bit] += 1
        by_bit[bit] += wrong
    return {
        "trials": trials,
        "products": len(clean),
        "above the bound": above,
        "of these found": found_above,
        "missed above the bound": false_negative,
        "found of all": found,
        "found by bit %": {
            b: round(100 * by_bit[b] / tried[b], 1) for b in sorted(tried)
        },
    }


def _checked(product: Computed, result: Tensor) -> Any:
    bias = None if product.bias is None else product.bias.detach()
    return check(
        product.kind, product.first, product.second, result, bias, product.convolution
    )


def false_alarms(steps: int) -> dict[str, Any]:
    """Findings in clean steps of a small residual network that learns."""
    torch.manual_seed(0)
    model = make_model("resnet8", in_channels=3, classes=10, image_size=(16, 16))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    findings = checked = 0
    for step in range(steps):
        if step % 500 == 0:  # other weights, from small to large
            with torch.no_grad():
                for p in model.parameters():
                    if p.ndim > 1:
                        nn.init.normal_(p, std=10.0 ** (-(step // 500) % 4))
        x, y = torch.randn(8, 3, 16, 16), torch.randint(10, (8,))
        optimizer.zero_grad()
        with checked_products(model) as products:
            nn.functional.cross_entropy(model(x), y).backward()
        finite = all(
            bool(p.grad.isfinite().all())
            for p in model.parameters()
            if p.grad is not None
        )
        if not finite:
            continue
        findings += len(products.findings)
        checked += products.checked
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return {"steps": steps, "products checked": checked, "findings": findings}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--image", type=int, default=32)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=MEASURES)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found: dict[str, Any] = {"machine": machine(), "threads": given.threads}
    for name, measure in {
        "flips a second": lambda: flips_a_second(given.rounds),
        "checksums": lambda: overhead(given.image, given.batch, given.rounds),
        "coverage": lambda: coverage(given.trials),
        "false alarms": lambda: false_alarms(given.steps),
    }.items():
        if name not in given.only:
            continue
        found[name] = measure()
        print(name, json.dumps(found[name], indent=1), flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
