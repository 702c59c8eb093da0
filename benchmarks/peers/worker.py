"""Runs in the interpreter of a peer: compares results, then takes times.

python -m benchmarks.peers.worker NAME --out FILE [--rounds 7] [--small]
"""

import argparse
import os
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.base import DENSE, OURS, Work, load
from elision.common.files import write_json
from elision.common.timing import interleaved
from elision.engines.bench import machine


def measured(work: Work, rounds: int) -> dict[str, Any]:
    """One comparison: results first, and seconds only if these agree."""
    row: dict[str, Any] = {
        "title": work.title,
        "agreement": [
            {"what": a.what, "error": a.error, "limit": a.limit, "holds": a.holds}
            for a in work.agreement
        ],
        "differs": work.differs,
        "figures": {side: dict(told) for side, told in work.figures.items()},
    }
    if not all(a.holds for a in work.agreement):
        return row
    seconds = interleaved(work.sides, min(rounds, work.rounds or rounds))
    return row | {"sides": {n: _side(n, seconds) for n in seconds}}


def _side(name: str, seconds: Mapping[str, list[float]]) -> dict[str, Any]:
    """Seconds of a side, and how many times longer it took than others in the same round."""
    times = seconds[name]
    over = {
        other: quartiles([t / o for t, o in zip(times, seconds[other], strict=True)])
        for other in (OURS, DENSE)
        if other in seconds
    }
    return {"seconds": times, "quartiles": quartiles(times), "over": over}


def quartiles(values: list[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    if len(values) == 1:
        return values * 3
    return statistics.quantiles(values, n=4, method="inclusive")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("name")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    start = machine()
    works = load(args.name).works
    assert works is not None
    rows = [measured(work, args.rounds) for work in works(args.small)]
    load_after = [round(value, 1) for value in os.getloadavg()]
    write_json(args.out, {"machine": start, "load_after": load_after, "works": rows})


if __name__ == "__main__":
    main()
