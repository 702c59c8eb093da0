"""Accumulators: their errors, how sums stagnate in them, and what emulating them costs.

``table`` multiplies 256 x 4096 by 4096 x 256 values of a positive mean in accumulators of
11, 8 and 5 significant bits, whose chunks are added in float32, and prints the relative
Frobenius error against float64. ``swamping`` writes sums of ones as they grow. ``step``
takes whole training steps of ResNet-18 (32x32, batch 32) by turns: plain, and with an
accumulator in all three products of every convolution and linear layer. Each round takes
them in another order and gives one ratio each; printed are the medians of the ratios and
their quartiles. Time is that of the processor on one thread.

    python benchmarks/accumulate.py table|swamping|step [--rounds 7] [--out FOLDER]
"""

import argparse
import json
import random
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import elision
from elision.common.files import write_json
from elision.common.timing import elapsed
from elision.engines.accumulating import compute, running_sums
from elision.formats import FORMATS, Floating
from elision.layers.recipe import Recipe, Table
from elision.operands import Accumulate
from elision.products import LayerProduct, MatmulGeometry, Product
from elision.study.folder import environment
from elision.workloads import make_model

#: Significant bits -> relative error without chunks and with chunks of 512, 128, 32 and
#: 8 terms, as the prototype of this emulator measured it on another machine.
REFERENCE: Mapping[int, tuple[float, ...]] = {
    11: (7.9e-3, 1.0e-3, 2.9e-4, 1.0e-4, 4.6e-5),
    8: (1.5e-1, 8.6e-3, 2.3e-3, 8.3e-4, 3.7e-4),
    5: (7.0e-1, 1.7e-1, 3.2e-2, 8.0e-3, 3.1e-3),
}
CHUNKS = (0, 512, 128, 32, 8)

#: The prototype's notes say of the data that their mean is positive. These give its errors
#: within 5 %: magnitudes of normal values times normal values of this mean (found here).
MEAN = 0.2

STEPS: Mapping[str, Accumulate] = {
    "fp16, chunks of 128, each rounded once": Accumulate("fp16", 128, rounds="chunk"),
    "fp16, chunks of 128, every addition": Accumulate("fp16", 128),
    "fp16, every addition": Accumulate("fp16"),
}
#: Those whose cost has no bar; with ``--all``.
MORE: Mapping[str, Accumulate] = {
    "fp16, chunks of 32, stochastic": Accumulate("fp16", 32, rounding="stochastic"),
    "fp16, chunks of 128, towards zero": Accumulate("fp16", 128, rounding="zero"),
    "fp16, Kahan": Accumulate("fp16", compensated=True),
    "fp8-e5m2 in 16, fp16 in 8, fp32": Accumulate(
        "fp8-e5m2", 16, wide="fp16", wide_chunk=8
    ),
}

#: Rounds before those that count.
_WARM = 1


def error_table(rows: int = 256, terms: int = 4096, seeds: int = 3) -> dict[str, Any]:
    """Errors of every accumulator: by significant bits, by chunk, one for each seed."""
    geometry = MatmulGeometry(rows, terms, rows)
    errors: dict[str, Any] = {}
    for bits in REFERENCE:
        # The exponents of float32: no sum leaves the range.
        name = f"{bits} bits"
        FORMATS[name] = Floating(name, 8, bits - 1, bias=127)
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        x, w = (torch.randn(rows, terms, generator=generator) for _ in range(2))
        x, w = x.abs(), w + MEAN
        exact = x.double() @ w.double().mT
        product = LayerProduct(Product.FORWARD, geometry, x, w)
        for bits in REFERENCE:
            for chunk in CHUNKS:
                found = compute(product, Accumulate(f"{bits} bits", chunk))
                error = ((found - exact).norm() / exact.norm()).item()
                row = errors.setdefault(str(bits), {})
                row.setdefault(str(chunk or "none"), []).append(error)
    return errors


def swamping() -> dict[str, Any]:
    """Sums of ones, up to 8192 of them, in several accumulators."""
    counts = [0, *(2**n for n in range(5, 14)), *(1024 * n for n in (3, 5, 6, 7))]
    counts.sort()
    cells = (
        Accumulate("fp16"),
        Accumulate("fp16", 128),
        Accumulate("fp16", compensated=True),
        Accumulate("fp16", rounding="stochastic"),
        Accumulate("bf16"),
        Accumulate("bf16", 128),
        Accumulate("fp8-e5m2", 4, wide="fp16", wide_chunk=64),
    )
    ones = torch.ones(max(counts))
    sums = {str(c): running_sums(ones, c, counts).tolist() for c in cells}
    return {"terms": counts, "sums of ones": sums}


def stepper(accumulate: Accumulate | None) -> Callable[[], None]:
    """A function that takes one training step of ResNet-18."""
    torch.manual_seed(0)
    model = make_model("resnet18")
    if accumulate is not None:
        table = Table({product: {"accumulate": accumulate} for product in Product})
        elision.elide(model, Recipe("accumulate", table))
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    images, labels = torch.randn(32, 3, 32, 32), torch.randint(0, 10, (32,))

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def step_ratios(rounds: int, cells: Mapping[str, Accumulate]) -> dict[str, Any]:
    """Processor time of a step in every accumulator, over the plain step."""
    steps = {"plain": stepper(None)} | {n: stepper(a) for n, a in cells.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    order = random.Random(0)
    for number in range(rounds + _WARM):
        for name in order.sample(list(steps), len(steps)):
            taken = elapsed(steps[name]).process
            if number >= _WARM:
                seconds[name].append(taken)
    plain = seconds.pop("plain")
    found: dict[str, Any] = {"plain_ms": 1000 * statistics.median(plain)}
    for name, own in seconds.items():
        ratios = [a / b for a, b in zip(own, plain, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        found[name] = {"median": middle, "quartiles": [low, high]}
        print(f"{name}: {middle:.2f} ({low:.2f}-{high:.2f}) times the plain step")
    return found


def _print_table(errors: Mapping[str, Any]) -> None:
    for bits, row in errors.items():
        for chunk, reference in zip(row, REFERENCE[int(bits)], strict=True):
            low, high = min(row[chunk]), max(row[chunk])
            print(
                f"{bits} bits, chunk {chunk}: {low:.2e} to {high:.2e}, "
                f"reference {reference:.1e}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("what", choices=("table", "swamping", "step"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--all", action="store_true", help="steps in more accumulators")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.what == "table":
        found = error_table()
        _print_table(found)
    elif arguments.what == "swamping":
        found = swamping()
        print(found)
    else:
        found = step_ratios(
            arguments.rounds, {**STEPS, **MORE} if arguments.all else STEPS
        )
    if arguments.out:
        path = arguments.out / "accumulators.json"
        facts = json.loads(path.read_text("utf-8")) if path.exists() else {}
        facts |= {"machine": environment(), arguments.what: found}
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_json(path, facts)


if __name__ == "__main__":
    main()
