"""Rounding to number formats: the kernels beside torch, ml_dtypes and QPyTorch.

    python benchmarks/rounding.py --out rounding.json

One million float32 values; all candidates run once a round, in rotating order, in one
process. With one thread (the default) the CPU time of the calling thread is taken. Printed
are medians, half the interquartile range, and the ratio to a copy of the tensor, which is
what the memory alone costs. QPyTorch (``pip install qtorch``) and ml_dtypes are measured
where they can be imported.
"""

import argparse
import functools
import importlib
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elision.common.files import write_json
from elision.common.timing import interleaved
from elision.engines.bench import machine
from elision.formats import FORMATS, Floating, Rounding, bitwise, native

VALUES = 1 << 20
FORMATS_TIMED = (
    *("bf16", "fp16", "fp8-e4m3", "fp8-e5m2", "fp4-e2m1"),
    *("int8", "dfp16", "mxfp8", "mxfp4", "mxint8", "nvfp4", "int8-channel"),
)
ROUNDINGS: tuple[Rounding, ...] = ("nearest", "zero", "stochastic")


def candidates(x: Tensor) -> dict[str, Callable[[], Any]]:
    made: dict[str, Callable[[], Any]] = {"copy": x.clone}
    room = torch.empty_like(x)
    made["copy in place"] = functools.partial(room.copy_, x)
    for name in FORMATS_TIMED:
        format = FORMATS[name]
        for rounding in ROUNDINGS:
            call = functools.partial(native.rounded, x, format, rounding)
            assert call() is not None
            made[f"{name} {rounding}"] = call
        if isinstance(format, Floating) and format.dtype is not None:
            dtype = format.dtype
            made[f"torch cast {name}"] = lambda d=dtype: x.to(d).to(x.dtype)
        if isinstance(format, Floating):
            made[f"torch bits {name}"] = functools.partial(bitwise.nearest, x, format)
    above = x.abs().flatten().kthvalue(int(0.9 * x.numel())).values.item()
    fp8 = FORMATS["fp8-e4m3"]
    made["top 10 % and fp8-e4m3 nearest"] = functools.partial(
        native.largest_rounded, x, above, fp8
    )
    return made | others(x)


def slow(x: Tensor) -> dict[str, Callable[[], Any]]:
    """The formulas of float64."""
    return {
        f"formulas {name} {rounding}": functools.partial(
            FORMATS[name].round, x, rounding
        )
        for name in ("bf16", "fp8-e4m3", "mxfp8")
        for rounding in ("nearest", "stochastic")
    }


def others(x: Tensor) -> dict[str, Callable[[], Any]]:
    made: dict[str, Callable[[], Any]] = {}
    try:
        quant = importlib.import_module("qtorch.quant")
    except ImportError:
        print("qtorch is not installed")
    else:
        for mode in ("nearest", "stochastic"):
            made[f"qtorch float 5,2 {mode}"] = functools.partial(
                quant.float_quantize, x, 5, 2, mode
            )
            made[f"qtorch fixed 8 {mode}"] = functools.partial(
                quant.fixed_point_quantize, x, 8, 4, rounding=mode
            )
            made[f"qtorch block 8 {mode}"] = functools.partial(
                quant.block_quantize, x, 8, rounding=mode
            )
    try:
        ml_dtypes = importlib.import_module("ml_dtypes")
    except ImportError:
        print("ml_dtypes is not installed")
    else:
        array = x.numpy()
        for name in ("float8_e4m3fn", "float4_e2m1fn", "bfloat16"):
            dtype = getattr(ml_dtypes, name)
            made[f"ml_dtypes {name}"] = lambda d=dtype: array.astype(d).astype(
                "float32"
            )
    return made


def measured(rounds: int) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    x = torch.randn(1024, VALUES // 1024)
    seconds = interleaved(candidates(x), rounds)
    seconds |= interleaved(slow(x), max(3, rounds // 7))
    copy = statistics.median(seconds["copy"])
    rows = []
    for name, times in seconds.items():
        low, middle, high = statistics.quantiles(times, n=4)
        rows.append(
            {
                "what": name,
                "ms": 1000 * middle,
                "spread_ms": 500 * (high - low),
                "fastest_ms": 1000 * min(times),
                "over_copy": middle / copy,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = measured(args.rounds)
    for row in rows:
        print(
            f"{row['what']:32s} {row['ms']:8.3f} ± {row['spread_ms']:.3f} ms"
            f"   {row['over_copy']:7.2f} of a copy"
        )
    if args.out:
        found = {"machine": machine(), "values": VALUES, "rounds": args.rounds}
        write_json(args.out, {**found, "rows": rows})


if __name__ == "__main__":
    main()
