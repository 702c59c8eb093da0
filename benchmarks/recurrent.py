"""``elision.nn.LSTM`` and ``GRU`` against torch's own: forward and backward.

One layer, 50 steps, as many inputs as units, without first states; outputs, and gradients of
the input and of all parameters. The candidates are torch's module, ours with the kernel, and
in float32 ours with masks that keep a tenth of both weights, and torch's module elided with
SWAT at 90 % (exact and sampled thresholds, taken anew in every step); besides, what ours
chooses as it comes, by a short trial. They take turns in every round. On one thread the time
is that of the processor, so that other processes do not count; on more it is the wall clock.
Ratios are medians over the rounds of torch's time over the candidate's in the same round.

    python benchmarks/recurrent.py [--rounds 7] [--threads 1] [--units 256 512 1024]
                                   [--dtype bfloat16] [--out FOLDER]
"""

import argparse
import copy
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import elision
from elision.common.files import write_json
from elision.common.timing import interleaved, quoted_clock
from elision.methods import Swat
from elision.native import builder
from elision.nn.choice import Shape, is_kernel_faster
from elision.study.folder import environment

STEPS, SEQUENCES, UNITS = 50, (32, 64, 128, 160), (256, 512, 1024)
KEPT = 0.1
DTYPES = ("float32", "bfloat16")
CLASSES: dict[str, tuple[Any, Any]] = {
    "LSTM": (elision.nn.LSTM, nn.LSTM),
    "GRU": (elision.nn.GRU, nn.GRU),
}

Call = Callable[[], object]


def candidates(
    name: str, units: int, sequences: int, dtype: torch.dtype
) -> dict[str, Call]:
    """Calls of forward and backward pass."""
    ours, own = CLASSES[name]
    torch.manual_seed(0)
    plain = own(units, units)
    kernel, masked = (ours(units, units, engine="native") for _ in range(2))
    for module in (kernel, masked):
        module.load_state_dict(plain.state_dict())
    weights = dict(plain.named_parameters())
    places = {n: torch.rand_like(weights[n]) < KEPT for n in weights if "weight" in n}
    masked.mask_weights(places)
    for module in (plain, kernel):
        module.to(dtype)
    x = torch.randn(STEPS, sequences, units, dtype=dtype, requires_grad=True)
    direction = torch.randn(STEPS, sequences, units, dtype=dtype)

    def both(module: nn.Module) -> Call:
        wanted = [x, *module.parameters()]

        def call() -> tuple[Tensor, ...]:
            return torch.autograd.grad(module(x)[0], wanted, direction)

        return call

    dense = {"torch": both(plain), "kernel": both(kernel)}
    if dtype != torch.float32:
        return dense
    exact, sampled = (
        elision.elide(copy.deepcopy(plain), Swat(1 - KEPT, threshold=how, dense=()))
        for how in ("exact", "sampled")
    )
    sparse = {"mask": masked, "swat": exact, "swat sampled": sampled}
    return dense | {key: both(module) for key, module in sparse.items()}


def row(calls: dict[str, Call], rounds: int, dense_macs: int) -> dict[str, Any]:
    """Milliseconds of each candidate, and torch's time in times of its own."""
    seconds = interleaved(calls, rounds)
    found: dict[str, Any] = {}
    for name, times in seconds.items():
        pairs = zip(seconds["torch"], times, strict=True)
        low, middle, high = statistics.quantiles([a / b for a, b in pairs], n=4)
        median = statistics.median(times)
        found[name] = {
            "ms": 1e3 * median,
            "ratio": middle,
            "quartiles": [low, high],
            "dense_gflops": 2e-9 * dense_macs / median,
        }
    return found


def measured(
    names: list[str], units: list[int], rounds: int, dtype: torch.dtype
) -> dict[str, dict[str, Any]]:
    results: dict[str, dict[str, Any]] = {}
    for name in names:
        gates = 4 if name == "LSTM" else 3
        for size in units:
            for sequences in SEQUENCES:
                macs = 3 * STEPS * sequences * gates * size * 2 * size
                calls = candidates(name, size, sequences, dtype)
                key = f"{name}, {size} units, {sequences} sequences"
                results[key] = row(calls, rounds, macs)
                shape = Shape(
                    name.lower(), size, size, sequences, STEPS, back=True, dtype=dtype
                )
                results[key]["auto"] = _chosen(results[key], shape)
                words = [
                    f"{n} {v['ratio']:.2f} [{v['quartiles'][0]:.2f}, {v['quartiles'][1]:.2f}]"
                    for n, v in results[key].items()
                    if n not in ("torch", "auto")
                ]
                words.append(f"auto takes {results[key]['auto']['engine']}")
                print(f"{key}: {', '.join(words)}", flush=True)
    return results


def _chosen(row: dict[str, Any], shape: Shape) -> dict[str, Any]:
    """What the module takes as it comes, and its ratio."""
    engine = "kernel" if is_kernel_faster([shape]) else "torch"
    return {"engine": engine, "ratio": row[engine]["ratio"]}


def summary(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Geometric mean and smallest ratio of every candidate, by cell."""
    found: dict[str, Any] = {}
    for name in CLASSES:
        rows = [r for key, r in results.items() if key.startswith(f"{name},")]
        for candidate in rows[0] if rows else ():
            if candidate == "torch":
                continue
            ratios = [r[candidate]["ratio"] for r in rows]
            found[f"{name} {candidate}"] = {
                "geometric_mean": statistics.geometric_mean(ratios),
                "smallest": min(ratios),
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--units", type=int, nargs="+", default=list(UNITS))
    parser.add_argument("--cells", nargs="+", choices=CLASSES, default=list(CLASSES))
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dtype = getattr(torch, arguments.dtype)
    results = measured(arguments.cells, arguments.units, arguments.rounds, dtype)
    means = summary(results)
    for key, value in means.items():
        mean, least = value["geometric_mean"], value["smallest"]
        print(f"{key}: geometric mean {mean:.3f}, smallest {least:.3f}")
    if arguments.out:
        facts = {
            "rounds": arguments.rounds,
            "threads": arguments.threads,
            "dtype": arguments.dtype,
            "clock": quoted_clock(),
            "variant": builder.variant(),
            "kept_by_the_mask": KEPT,
            "machine": environment(),
            "summary": means,
            "results": results,
        }
        arguments.out.mkdir(parents=True, exist_ok=True)
        threads = "" if arguments.threads == 1 else f"-{arguments.threads}-threads"
        name = f"recurrent-{arguments.dtype}-{facts['variant']}{threads}.json"
        write_json(arguments.out / name, facts)


if __name__ == "__main__":
    main()
