"""The batch-reduce kernel and Winograd's on it against torch, all products.

Shapes are the different convolutions of ResNet-50 (224x224) and its classifier, the matrix
products of an LSTM layer (512 units, 32 sequences, 50 steps: the input's of all steps, the
state's of one), and a square matrix product. The candidates take turns in every round; on
one thread the time is that of the processor. Torch is the better of NCHW and channels_last
(a matrix product has one layout); the kernel reads channels_last, transforms the weight in
every call, and is also timed with both activations changed from and to NCHW. Ratios are
torch's time over the candidate's in the same round, median and half the interquartile range.
The roof is that of float32. Winograd's kernel and the LSTM layer are of float32 alone.

    python benchmarks/batch_reduce.py [--rounds 7] [--threads 1] [--batch 8]
                                      [--dtype bfloat16]
                                      [--only NAME ...] [--out FILE]
"""

import argparse
import math
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import elision
from elision import winograd
from elision.common.files import write_json
from elision.common.timing import interleaved
from elision.engines.bench import machine
from elision.engines.native.direct import dense_product
from elision.engines.roofline import Ceilings, measured_ceilings, roof_of
from elision.engines.winograd.native import TILES, why_not
from elision.products import (
    Conv2dGeometry,
    Geometry,
    LayerProduct,
    MatmulGeometry,
    Product,
)
from elision.report.table import rows_as_text

Call = Callable[[], object]


def resnet50(batch: int) -> dict[str, Geometry]:
    """Different layers of ResNet-50 (He et al. 2015; the stride in the 3x3), by name."""
    layers: dict[str, Geometry] = {
        "7x7 3-64 /2 @ 224": Conv2dGeometry(batch, 3, 224, 224, 64, 7, 2, 3)
    }

    def add(kernel: int, inner: int, outer: int, side: int, stride: int = 1) -> None:
        name = f"{kernel}x{kernel} {inner}-{outer}{' /2' * (stride == 2)} @ {side}"
        layers[name] = Conv2dGeometry(
            batch, inner, side, side, outer, kernel, stride, kernel // 2
        )

    before = 64
    for stage, width in enumerate((64, 128, 256, 512)):
        side, stride = 56 >> stage, 1 if stage == 0 else 2
        add(1, before, width, side * stride)
        add(3, width, width, side * stride, stride)
        add(1, before, 4 * width, side * stride, stride)  # the shortcut
        add(1, width, 4 * width, side)
        add(1, 4 * width, width, side)
        add(3, width, width, side)
        before = 4 * width
    layers["linear 2048-1000"] = MatmulGeometry(batch, 2048, 1000)
    return layers


#: Units, sequences and steps of the LSTM layer; four gates.
LSTM: dict[str, Geometry] = {
    "LSTM, input of 50 steps": MatmulGeometry(50 * 32, 512, 4 * 512),
    "LSTM, state of a step": MatmulGeometry(32, 512, 4 * 512),
}
SQUARE: dict[str, Geometry] = {"1024 x 1024 x 1024": MatmulGeometry(1024, 1024, 1024)}


def candidates(
    geometry: Geometry, kind: Product, dtype: torch.dtype
) -> dict[str, Call]:
    """Calls that compute one product."""
    generator = torch.Generator().manual_seed(0)
    first, second = (
        torch.randn(geometry.shape_of(o), generator=generator).to(dtype)
        for o in kind.operands
    )
    conv = geometry.reshaped_convolution
    found: dict[str, Call] = {
        "torch NCHW": LayerProduct(kind, geometry, first, second).compute
    }
    of_conv = [
        value.reshape(conv.shape_of(o))
        for o, value in zip(kind.operands, (first, second), strict=True)
    ]
    last = [
        value if o == "weight" else value.contiguous(memory_format=torch.channels_last)
        for o, value in zip(kind.operands, of_conv, strict=True)
    ]
    found["direct"] = lambda: dense_product(kind, conv, *last)
    if isinstance(geometry, MatmulGeometry):
        return found
    own = [v.contiguous(memory_format=torch.channels_last) for v in (first, second)]
    found["torch last"] = LayerProduct(kind, geometry, own[0], own[1]).compute
    found["direct NCHW"] = lambda: dense_product(kind, conv, *of_conv).contiguous()
    if why_not(kind, conv) is None and dtype == torch.float32:
        product = LayerProduct(kind, conv, last[0], last[1])
        for m in TILES:
            found[f"F({m},3)"] = lambda m=m: winograd.native_product(product, m)
    return found


def row(
    name: str,
    geometry: Geometry,
    kind: Product,
    rounds: int,
    ceilings: Ceilings,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """Milliseconds, rates and ratios of one product."""
    seconds = interleaved(candidates(geometry, kind, dtype), rounds)
    medians = {n: statistics.median(times) for n, times in seconds.items()}
    best = min((n for n in medians if n.startswith("torch")), key=medians.__getitem__)
    roof = roof_of(geometry, ceilings)
    ratios = {}
    for candidate, times in seconds.items():
        if candidate.startswith("torch"):
            continue
        own = [t / c for t, c in zip(seconds[best], times, strict=True)]
        low, _, high = statistics.quantiles(own, n=4)
        ratios[candidate] = {
            "ratio": statistics.median(own),
            "spread": (high - low) / 2,
            "over_direct": medians["direct"] / medians[candidate],
        }
    return {
        "layer": name,
        "product": kind.value,
        "best": best,
        "ms": {n: 1e3 * s for n, s in medians.items()},
        "gflops": {n: 2e-9 * geometry.dense_macs / s for n, s in medians.items()},
        "ratios": ratios,
        "intensity": roof.intensity,
        "bound": roof.bound,
        "attainable_gflops": roof.attainable_gflops,
    }


def recurrent(rounds: int) -> dict[str, dict[str, float]]:
    """Torch's LSTM layer over ours, whose gates the same tile computes."""
    units, sequences, steps = 512, 32, 50
    torch.manual_seed(0)
    plain = torch.nn.LSTM(units, units)
    ours = elision.nn.LSTM(units, units, engine="native")
    ours.load_state_dict(plain.state_dict())
    x = torch.randn(steps, sequences, units, requires_grad=True)
    direction = torch.randn(steps, sequences, units)

    def forward(module: torch.nn.Module) -> Call:
        def call() -> object:
            with torch.no_grad():
                return module(x)[0]

        return call

    def step(module: torch.nn.Module) -> Call:
        wanted = [x, *module.parameters()]
        return lambda: torch.autograd.grad(module(x)[0], wanted, direction)

    found = {}
    for name, make in (("forward", forward), ("forward and backward", step)):
        seconds = interleaved({"torch": make(plain), "ours": make(ours)}, rounds)
        pairs = zip(seconds["torch"], seconds["ours"], strict=True)
        low, middle, high = statistics.quantiles([t / o for t, o in pairs], n=4)
        found[name] = {"ratio": middle, "spread": (high - low) / 2}
    return found


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Geometric means of the ratios over layers, by candidate and product."""
    found = {}
    for candidate in ("direct", "direct NCHW", "F(4,3)"):
        for kind in [*(p.value for p in Product), "all"]:
            logs = [
                math.log(r["ratios"][candidate]["ratio"])
                for r in rows
                if candidate in r["ratios"] and kind in (r["product"], "all")
            ]
            if logs:
                found[f"{candidate}, {kind}"] = math.exp(statistics.mean(logs))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--only", nargs="*", help="parts of layers' names")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    dtype = getattr(torch, given.dtype)
    about, ceilings = machine(), measured_ceilings()
    print(about, ceilings.to_dict(), sep="\n", flush=True)
    layers = SQUARE | LSTM | resnet50(given.batch)
    rows: list[dict[str, Any]] = []
    for name, geometry in layers.items():
        if given.only and not any(part in name for part in given.only):
            continue
        for kind in Product:
            rows.append(row(name, geometry, kind, given.rounds, ceilings, dtype))
        print(rows_as_text([_line(r) for r in rows[-3:]]), flush=True)
    # The first layer of a network has no input gradient; the square product is no layer.
    counted = [
        r
        for r in rows
        if r["layer"] not in SQUARE
        and (r["product"] != "input_grad" or "7x7" not in r["layer"])
    ]
    means = summary(counted) if counted else {}
    layer = recurrent(given.rounds) if dtype == torch.float32 else {}
    print("LSTM layer, torch over ours:", layer)
    for name, mean in means.items():
        print(f"{name}: {mean:.2f}")
    if given.out is not None:
        record = {"machine": about, "load_at_end": os.getloadavg()[0], "means": means}
        record["lstm_layer"] = layer
        record |= {
            "ceilings": ceilings.to_dict(),
            "rounds": given.rounds,
            "dtype": given.dtype,
            "rows": rows,
        }
        given.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(given.out, record)


def _line(r: dict[str, Any]) -> dict[str, str]:
    line = {
        "layer": r["layer"],
        "product": r["product"],
        "bound": r["bound"],
        "torch GFLOP/s": f"{r['gflops'][r['best']]:.0f}",
        "direct GFLOP/s": f"{r['gflops']['direct']:.0f}",
    }
    for name, ratio in r["ratios"].items():
        line[name] = f"{ratio['ratio']:.2f} ± {ratio['spread']:.2f}"
    return line


if __name__ == "__main__":
    main()
