"""The tables of docs/kernels.md, written from the records that they quote.

    python benchmarks/kernel_tables.py [--check]

``--check`` changes nothing and fails if the page is not what it would become.
"""

import json
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from elision.report.places import filled, write_or_check

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "records" / "2026-11-21-kernels"  # unless a table names others
PAGE = ROOT / "docs" / "kernels.md"

Row = dict[str, Any]


def load(name: str) -> Any:
    """A record."""
    return json.loads((RECORDS / f"{name}.json").read_text("utf-8"))


def table(head: str, rows: Iterable[Iterable[str]]) -> str:
    """A table of Markdown; columns of ``head`` are set apart by bars."""
    columns = [f" {c.strip()} " for c in head.split("|")]
    lines = [columns, ["---"] * len(columns), *([f" {c} " for c in r] for r in rows)]
    return "".join(f"|{'|'.join(line)}|\n" for line in lines)


def spread(row: Row) -> str:
    """A ratio and its spread."""
    return f"{row['ratio']:.2f} ± {row['spread']:.2f}"


def best(rows: dict[str, Row], start: str) -> Row:
    """The fastest of the rows whose name begins so."""
    named = (r for n, r in rows.items() if n.startswith(start))
    return min(named, key=lambda r: r["seconds"])


def milliseconds(row: Row) -> str:
    """Of one step, without decimals where there are hundreds."""
    value = 1e3 * row["seconds"]
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def layers() -> str:
    """Whole SWAT convolutions."""
    record = load("layers")
    ways = ("SWAT 0.9", "SWAT 0.95", "SWAT 0.9, exact", "SWAT 0.95, exact")
    rows = [
        [
            name,
            milliseconds(best(each, "dense float32")),
            *(spread(each[w]) for w in ways),
        ]
        for name, each in record["layers"].items()
    ]
    total = record["13 layers"]
    for dtype in ("float32", "bfloat16"):
        dense = total[f"dense {dtype}"]
        ratios = (f"{dense / total[w]:.2f}" for w in ways)
        name = "all 13 (4 + 3 + 3 + 3)" + ", over bf16" * (dtype == "bfloat16")
        rows.append([name, f"{1e3 * dense:.0f}", *ratios])
    return table("layer | dense ms | 90 % | 95 % | 90 %, exact | 95 %, exact", rows)


def _steps(*records: str) -> str:
    rows = []
    for record in map(load, records):
        for title, each in record["network"].items():
            name = f"{title}, batch {record['batch']}"
            for way, words in {
                "SWAT {}": "SWAT",
                "SWAT {}, exact": "SWAT, exact thresholds",
                "fixed mask {}": "fixed mask",
            }.items():
                if way.format("0.9") in each:
                    at = [each[way.format(s)] for s in ("0.9", "0.95")]
                    over = " / ".join(f"{r['ratio_bf16']:.2f}" for r in at)
                    dense = milliseconds(best(each, "dense float32"))
                    rows.append([f"{name}, {words}", dense, *map(spread, at), over])
    return table("step | dense ms | 90 % | 95 % | over bf16, 90 / 95 %", rows)


def network() -> str:
    """Whole training steps."""
    return _steps("network-32", "network-128")


def two_threads() -> str:
    """The same by the wall clock."""
    return _steps("network-32-2threads")


def two_machines() -> str:
    """Steps of a ResNet-18 at batch 32 on AVX-512 and on AVX2."""
    ways = {"SWAT {}": "SWAT", "SWAT {}, auto": "SWAT, auto", "fixed mask {}": "mask"}
    records = [load("network-32"), load("../2026-11-30-kernels-avx2/network-32")]
    steps = [record["network"]["ResNet-18"] for record in records]
    dense = [milliseconds(best(each, "dense float32")) for each in steps]
    rows = []
    for way, words in ways.items():
        cells = [
            spread(each[name]) if (name := way.format(s)) in each else ""
            for each in steps
            for s in ("0.9", "0.95")
        ]
        rows.append([words, dense[0], *cells[:2], dense[1], *cells[2:]])
    head = "step | AVX-512: dense ms | 90 % | 95 % | AVX2: dense ms | 90 % | 95 %"
    return table(head, rows)


def modes() -> str:
    """Steps under autocast and compiled."""
    rows = []
    for name, each in load("modes")["modes"].items():
        for way, row in each.items():
            over = f"{row['ratio_bf16']:.2f}"
            rows.append([name, way, milliseconds(row), spread(row), over])
    return table("network | step | ms | over fp32 | over bf16", rows)


def linear() -> str:
    """Whole SWAT linear layers."""
    rows = (
        [
            name,
            milliseconds(each["dense float32"]),
            *(spread(each[f"SWAT {s}"]) for s in ("0.9", "0.95")),
        ]
        for name, each in load("linear")["linear"].items()
    )
    return table("layer | dense ms | 90 % | 95 %", rows)


def others() -> str:
    """Beside other sparse kernels."""
    rows = []
    for name, each in load("others")["others"].items():
        here, prop = each["elision"], best(each, "SparseProp")
        peers = {n: each[n] for n in ("torch CSR", "SparseLab") if n in each}
        told = {**peers, "SparseProp": prop}
        ratios = ", ".join(f"{n} {r['ratio']:.2f}" for n, r in told.items())
        over = f"{prop['seconds'] / here['seconds']:.2f}"
        rows.append([name, spread(here), ratios, over])
    return table("layer and sparsity | here | others | here over SparseProp", rows)


def _by_product(rows: list[Row]) -> list[tuple[list[str], dict[float, Row]]]:
    """Rows of one layer and product together, by sparsity."""
    grouped: dict[tuple[str, str], dict[float, Row]] = {}
    for row in rows:
        key = (row["layer"], row["product"])
        grouped.setdefault(key, {})[row["sparsity"]] = row
    return [(list(key), at) for key, at in grouped.items()]


def _even(row: Row) -> list[str]:
    return [f"{row['break_even']:.2f}", f"{row['break_even_bf16']:.2f}"]


def products() -> str:
    """Rates and break-even, product by product."""
    head = "layer | product | dense GFLOP/s | useful GFLOP/s at 90 % | s* over fp32 | "
    rows = (
        [
            *names,
            f"{at[0.9]['dense_gflops']:.0f}",
            f"{at[0.9]['sparse_gflops']:.0f}",
            *_even(at[0.9]),
        ]
        for names, at in _by_product(load("products")["products"])
    )
    return table(head + "s* over bf16", rows)


def _ratios(rows: list[Row]) -> str:
    return table(
        "layer | product | 80 % | 90 % | 95 % | s* over fp32 | s* over bf16",
        (
            [*names, *(spread(at[s]) for s in (0.8, 0.9, 0.95)), *_even(at[0.9])]
            for names, at in _by_product(rows)
        ),
    )


def gradients() -> str:
    """Zeros anywhere in the gradient."""
    return _ratios(load("gradients")["gradients"]["anywhere"])


def channels() -> str:
    """Zeros in whole channels of the gradient."""
    return _ratios(load("gradients")["gradients"]["whole channels"])


def grouped() -> str:
    """Grouped convolutions."""
    return _ratios(load("grouped")["grouped"])


def memory() -> str:
    """Peak memory of steps, MiB."""
    names = ("32", "128-resnet-18", "128-vgg-16")
    rows = (row for name in names for row in load(f"step-memory-{name}")["rows"])
    kinds = ("allocator", "process", "as it is")
    return table(
        "step | allocator | process | as it is",
        (
            [
                f"{row['model']}, batch {row['batch']}, {row['way']}",
                *(f"{row[kind]:.0f}" for kind in kinds),
            ]
            for row in rows
        ),
    )


def training() -> str:
    """Real trainings, native and masked."""
    rows = []
    for method in ("SWAT", "RigL"):
        for engine in ("masked", "native"):
            runs = [r for r in load("curves")[method]["runs"] if r["engine"] == engine]
            last = [statistics.mean(r["losses"][-15:]) for r in runs]
            means = (last, [r["accuracy"] for r in runs])
            cells = (
                f"{statistics.mean(m):.4f} ± {statistics.stdev(m):.4f}" for m in means
            )
            rows.append([method, engine, *cells])
    head = "method | engine | mean loss of the last 15 steps | test accuracy"
    return table(head, rows)


def batch_reduce() -> str:
    """Dense products by the batch-reduce kernel."""
    rows: dict[str, list[str]] = {}
    for row in load("../2026-11-30-batch-reduce/products")["rows"]:
        torch, direct = row["gflops"][row["best"]], row["gflops"]["direct"]
        line = rows.setdefault(row["layer"], [row["layer"]])
        line.append(f"{direct:.0f} / {torch:.0f}")
        line.append(spread(row["ratios"]["direct"]))
    head = "layer | Y, GFLOP/s | over torch | dX | over torch | dW | over torch"
    return table(head, rows.values())


def batch_reduce_means() -> str:
    """Geometric means over the layers."""
    kinds = ("forward", "input_grad", "weight_grad", "all")
    names = {
        "direct": "channels_last, as it stays between layers",
        "direct NCHW": "from and to NCHW, both changes counted",
        "F(4,3)": "Winograd F(4, 3), its 3x3 layers",
    }
    rows = []
    for dtype, record in (("float32", "products"), ("bfloat16", "products-bfloat16")):
        means = load(f"../2026-11-30-batch-reduce/{record}")["means"]
        for name, words in names.items():
            found = [means.get(f"{name}, {kind}") for kind in kinds]
            if any(found):
                cells = ("" if mean is None else f"{mean:.2f}" for mean in found)
                rows.append([dtype, words, *cells])
    return table("dtype | torch's time over | Y | dX | dW | all", rows)


def winograd_kernel() -> str:
    """Winograd's kernel over the direct one and torch."""
    return table(
        "layer | product | F(4, 3) over direct | over torch | F(2, 3) over direct | over torch",
        (
            [
                row["layer"],
                row["product"],
                *(
                    words
                    for way in ("F(4,3)", "F(2,3)")
                    for words in (
                        f"{row['ratios'][way]['over_direct']:.2f}",
                        spread(row["ratios"][way]),
                    )
                ),
            ]
            for row in load("../2026-11-30-batch-reduce/products")["rows"]
            if "F(4,3)" in row["ratios"]
        ),
    )


def winograd_errors() -> str:
    """Errors of Winograd's convolution by format."""
    rows = load("../2026-11-30-winograd/errors")["errors"]
    ways = list(dict.fromkeys(row["way"] for row in rows))

    def words(number_format: str, way: str) -> str:
        return " / ".join(
            "overflow" if row["error"] is None else f"{row['error']:.1e}"
            for row in rows
            if (row["format"], row["way"]) == (number_format, way)
        )

    formats = dict.fromkeys(row["format"] for row in rows)
    return table(
        " | ".join(["format", *ways]),
        ([name, *(words(name, way) for way in ways)] for name in formats),
    )


TABLES: dict[str, Callable[[], str]] = {
    f.__name__.replace("_", "-"): f
    for f in (
        *(layers, network, two_threads, two_machines, modes, linear, others, products),
        *(gradients, channels, grouped, memory, training),
        *(winograd_errors, winograd_kernel, batch_reduce, batch_reduce_means),
    )
}


def written(page: str) -> str:
    """The page with its tables as the records have them."""
    return filled(page, {name: make() for name, make in TABLES.items()})


if __name__ == "__main__":
    write_or_check({PAGE: written(PAGE.read_text("utf-8"))})
