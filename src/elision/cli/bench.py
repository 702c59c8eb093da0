"""elision bench."""

from pathlib import Path
from typing import Any

from elision.cli.flags import Integer

__all__ = ["bench"]


def bench(
    *,
    sparsity: tuple[float, ...] = (0.5, 0.8, 0.9, 0.95, 0.98),
    rounds: Integer = 7,
    threads: Integer = 1,
    out: Path | None = None,
) -> None:
    """Measure this machine: dense and sparse rates, break-even sparsity per layer.

    Every product of every layer shape is computed by the native kernels, layout and
    compression included, and by torch, the better of its layouts. "s*" is the lowest
    sparsity at which the sparse kernels are faster. Peak, memory bandwidth and latency are
    measured, too, and what bounds each dense product is said: the first, the second, or
    the time of a call.

    Parameters
    ----------
    sparsity
        Fractions of zeros to measure.
    rounds
        Timed rounds of every candidate; the medians are printed.
    threads
        Threads of both. With one, CPU time is measured, with more the wall clock.
    out
        JSON file for all rows.
    """
    import torch

    from elision.common.checks import integer, number
    from elision.common.files import write_json
    from elision.engines.bench import bench as run
    from elision.engines.bench import machine
    from elision.engines.roofline import measured_ceilings
    from elision.report.table import rows_as_text

    for value in sparsity:
        number("bench", "sparsity", value, "[0, 1)")
    integer("bench", "rounds", rounds, ">= 2")
    integer("bench", "threads", threads)
    torch.set_num_threads(threads)
    about = machine()
    print("\n".join(f"{key}: {value}" for key, value in about.items()), end="\n\n")
    ceilings = measured_ceilings()
    limits = ceilings.to_dict()
    found = run(sparsities=sparsity, rounds=rounds, ceilings=ceilings)
    rows = [row.to_dict() for row in found]
    if out is not None:
        about_all = {"machine": about, "ceilings": limits, "rounds": rounds}
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, {**about_all, "products": rows})
    print(rows_as_text([{name: f"{value:.4g}" for name, value in limits.items()}]))
    print()
    print(rows_as_text(_break_even(rows)), end="\n\n")
    print(rows_as_text([_ratios(row) for row in rows]))


def _break_even(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a layer and product: the dense rate and both break-even sparsities."""
    lowest, highest = (
        min(r["sparsity"] for r in rows),
        max(r["sparsity"] for r in rows),
    )

    def words(value: float) -> str:
        if value == 0:
            return f"< {lowest:.0%}"
        return f"> {highest:.0%}" if value == 1 else f"{value:.0%}"

    found = {}
    for row in rows:
        found[row["layer"], row["product"]] = {
            "layer": row["layer"],
            "product": row["product"],
            "dense fp32, GFLOP/s": f"{row['dense_gflops']:.0f}",
            "dense bf16, GFLOP/s": f"{row['bf16_gflops']:.0f}",
            "ops/byte": f"{row['intensity']:.0f}",
            "bound": f"{row['bound']}, at {row['dense_of_roof']:.0%}",
            "s* over fp32": words(row["break_even"]),
            "s* over bf16": words(row["break_even_bf16"]),
        }
    return list(found.values())


def _ratios(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "layer": row["layer"],
        "product": row["product"],
        "sparsity": f"{row['sparsity']:.0%}",
        "useful GFLOP/s": f"{row['sparse_gflops']:.0f}",
        "times dense fp32": f"{row['ratio']:.2f} ± {row['spread']:.2f}",
        "times dense bf16": f"{row['ratio_bf16']:.2f}",
        "error": f"{row['error']:.0e}",
    }
