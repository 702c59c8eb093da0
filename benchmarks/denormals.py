"""What subnormal numbers cost: every native kernel on them and on normal numbers.

    python benchmarks/denormals.py --out denormals.json

A CPU may take a detour of a hundred cycles for an operation that reads or gives a subnormal
number, below 1.2e-38 in float32. Each kernel runs on operands about 1, on subnormal ones,
on one subnormal and the others about 1, and on operands whose products are subnormal, in
turns in one process; so does torch, on the same operands. With one thread the CPU time of
the calling thread is taken. Printed are medians of ratios to the time on operands about 1.
"""

import argparse
import random
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from campaigns.native import CASES, KINDS, Call
from campaigns.native.call import Values

from elision.common.files import write_json
from elision.common.timing import interleaved, with_threads
from elision.engines.bench import machine

#: A kernel may be slower on subnormal numbers by this factor (issue of the campaigns).
BAR = 1.5


def operands(call: Call) -> dict[str, Values]:
    """The call's operands, about 1 and subnormal in three ways."""
    drawn = random.Random(0)

    def changed(kind: str, values: Values) -> Values:
        floats = (x.is_floating_point() for x in values)
        change = KINDS[kind]
        return tuple(
            change(x, drawn) if f else x for x, f in zip(values, floats, strict=True)
        )

    return {
        "about 1": call.values,
        "subnormal": changed("subnormal", call.values),
        "first subnormal": (
            *changed("subnormal", call.values[:1]),
            *call.values[1:],
        ),
        "products subnormal": changed("near the root of the smallest", call.values),
    }


def timed(call: Call, rounds: int) -> dict[str, Any]:
    """Medians of the kernel's and torch's ratios, by kind of operand."""
    given = operands(call)
    candidates: dict[str, Callable[[], Any]] = {}
    for kind, values in given.items():
        candidates[f"ours, {kind}"] = lambda v=values: call.run(*v)
        candidates[f"torch, {kind}"] = lambda v=values: call.dense(*v)
    seconds = interleaved(candidates, rounds)
    found: dict[str, Any] = {}
    for who in ("ours", "torch"):
        base = seconds[f"{who}, about 1"]
        found[f"{who} ms"] = round(1e3 * statistics.median(base), 4)
        for kind in list(given)[1:]:
            pairs = zip(seconds[f"{who}, {kind}"], base, strict=True)
            ratios = sorted(mine / own for mine, own in pairs)
            found[f"{who}, {kind}"] = round(statistics.median(ratios), 2)
    return found


def main() -> None:
    """Time every kernel, print and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="part of the kernels' names")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rows: dict[str, Any] = {}
    with with_threads(1), torch.no_grad():
        for name, case in CASES.items():
            if given.only not in name:
                continue
            call = case.draw(random.Random(f"large {name}"), True)
            if call is None or not call.of_floats:
                continue
            with torch.enable_grad():
                rows[name] = timed(call, given.rounds)
            worst = max(v for k, v in rows[name].items() if k.startswith("ours, "))
            mark = " <-" if worst > BAR else ""
            print(f"{name}: {rows[name]}{mark}", flush=True)
        if given.out is not None:
            facts = {"machine": machine(), "rounds": given.rounds, "bar": BAR}
            write_json(given.out, facts | {"kernels": rows})


if __name__ == "__main__":
    main()
