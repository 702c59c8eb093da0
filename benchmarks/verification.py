"""Seconds of a proof, and of the exact comparison at one size that it makes unnecessary.

Every pair of programs that the tests prove or refute, and every product of ResNet-18 in
blocks and as matrices. A comparison at one size runs both programs on formal inputs, which
is exact there and says nothing of another size; its time is given as a ratio to the proof's
for the sizes 8, or the largest below that take less than a minute.

    python benchmarks/verification.py [--runs 5] [--out FILE]
"""

import argparse
import os
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tests" / "shared"))

from verified_pairs import PROVED, REFUTED

import elision
from elision.common.files import write_json
from elision.common.timing import elapsed
from elision.engines.bench import machine
from elision.products import Conv2dGeometry, Product
from elision.verify import equivalent, read, run
from elision.verify.products import DIVISORS, blocked, definition, fixed, unfolded
from elision.verify.run import formal_input


def spread(seconds: list[float]) -> dict[str, float]:
    return {
        "median_s": statistics.median(seconds),
        "least_s": min(seconds),
        "most_s": max(seconds),
    }


def of_pairs(runs: int) -> dict[str, Any]:
    found = {}
    for status, table in (("proved", PROVED), ("refuted", REFUTED)):
        for name, (program, specification, sizes, *_) in table.items():
            times = []
            for _ in range(runs):
                verdict = None

                def prove() -> None:
                    nonlocal verdict
                    verdict = equivalent(program, specification, sizes=sizes)  # noqa: B023

                times.append(elapsed(prove).thread)
                assert verdict is not None
                assert verdict.status == status, verdict
            found[name] = {"status": status, **spread(times)}
    return found


def one_size(name: str, size: int) -> float:
    """CPU seconds of running both programs of a pair on formal inputs."""
    program, specification, sizes, _ = PROVED[name]
    texts = [read(t) for t in (program, specification)]
    everywhere = dict.fromkeys({s for t in texts for s in t.sizes}, size) | sizes
    return sum(
        elapsed(lambda t=t: run(t, everywhere, formal_input, at_most=10**9)).thread
        for t in texts
    )


def of_resnet18(runs: int) -> dict[str, Any]:
    layers = [
        g
        for _, g in elision.shapes.model_layers("resnet18", 224, 1)
        if isinstance(g, Conv2dGeometry)
    ]

    def all_of(forget: bool) -> int:
        known = set()
        for shape in layers:
            for kind in Product:
                specification = definition(kind, shape)
                for form in (blocked, unfolded):
                    names = ("R", "S") if form is blocked else (*DIVISORS, "H", "V")
                    sizes = fixed(shape, names)
                    key = form, kind, specification, tuple(sizes.items())
                    if forget or key not in known:
                        assert equivalent(form(kind, shape), specification, sizes=sizes)
                    known.add(key)
        return len(known)

    distinct = all_of(forget=False)
    return {
        "layers": len(layers),
        "products": 3 * len(layers),
        "forms": ["blocked", "unfolded"],
        "distinct_proofs": distinct,
        "each_layer_by_itself": spread(
            [elapsed(lambda: all_of(forget=True)).thread for _ in range(runs)]
        ),
        "each_distinct_proof_once": spread(
            [elapsed(lambda: all_of(forget=False)).thread for _ in range(runs)]
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    equivalent("y[0] = x[0]", "y[0] = x[0]")  # loads isl
    result: dict[str, Any] = {"machine": machine(), "load": os.getloadavg()[0]}
    result["pairs"] = of_pairs(given.runs)
    proof = result["pairs"]["tiled"]["median_s"]
    result["tiled matmul at one size, over its proof"] = {
        size: one_size("tiled", size) / proof for size in (8, 16, 32)
    }
    result["resnet18"] = of_resnet18(max(given.runs // 2, 1))
    medians = [pair["median_s"] for pair in result["pairs"].values()]
    print(
        f"{len(medians)} pairs: at most {max(medians):.3f} s, sum {sum(medians):.2f} s"
    )
    print(result["tiled matmul at one size, over its proof"])
    print(result["resnet18"])
    if given.out:
        write_json(given.out, result)


if __name__ == "__main__":
    main()
