"""compare: the recipes of several runs in one table."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from elision.products import Product
from elision.study.outcome import SCHEMA, USUAL_METRIC

__all__ = ["compared"]


def compared(runs: Iterable[Path]) -> list[dict[str, Any]]:
    """One row for every recipe of every run.

    Args:
        runs: run folders of studies and trainings, or their ``summary.json``.

    Returns:
        Rows of the run, the recipe, its metric (mean over seeds), their number, its
        training work and the share of RCPs of each product (shares in [0, 1]), and the
        cycles and energy in pJ of each machine that the run simulated.

    Raises:
        ValueError: no run is given, or a file is not a summary of this version.
    """
    rows = [row for run in runs for row in _rows(run)]
    if not rows:
        raise ValueError("compare: give at least one run folder")
    return rows


def _rows(run: Path) -> list[dict[str, Any]]:
    path = run / "summary.json" if run.is_dir() else run
    if not path.is_file():
        raise ValueError(f"{run}: no finished run (there is no {path})")
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    if not isinstance(summary, dict) or summary.get("schema") != SCHEMA:
        raise ValueError(f"{path}: not a summary of schema {SCHEMA}")
    metric = summary.get("metric", USUAL_METRIC)
    return [
        {
            "run": run.name if run.is_dir() else run.parent.name,
            "workload": summary["workload"],
            "recipe": recipe,
            metric: found[metric],
            "seeds": summary.get("seeds", 1),
            "training_macs_ratio": found["training_macs_ratio"],
        }
        | {
            f"rcp_{p.value}": found["products"][p.value]["rcp_fraction"]
            for p in Product
        }
        | {
            f"{machine} {quantity}": costs[recipe]["total"][quantity]
            for machine, costs in summary["accelerators"].items()
            for quantity in ("cycles", "energy_pj")
        }
        for recipe, found in summary["recipes"].items()
    ]
