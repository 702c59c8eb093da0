"""Rows of the precision study's tables, from the results of its units."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from elision.study.papers.base import Rows
from elision.study.papers.precision.runs import REFERENCE, curves, words

__all__ = [
    "accuracy_rows",
    "between_rows",
    "curve_rows",
    "error_rows",
    "price_rows",
    "price_shares",
    "ternary_rows",
]

#: Results of one network: recipe -> one of :func:`~.runs.trained` for each seed.
Runs = Mapping[str, Sequence[Mapping[str, Any]]]


def accuracy_rows(runs: Runs) -> Rows:
    """Final accuracy and loss, the difference seed by seed, and the work, by recipe."""
    plain = [run["accuracy"][-1] for run in runs[REFERENCE]]
    rows = []
    for recipe, seeds in runs.items():
        final = [run["accuracy"][-1] for run in seeds]
        pairs = [
            a - b
            for a, b in zip(final, plain, strict=True)
            if a is not None and b is not None
        ]
        rows.append(
            {
                "recipe": recipe,
                "accuracy, %": words(final, ".2f", 100),
                "over float32 at the same seed, points": "–"
                if recipe == REFERENCE
                else words(pairs, "+.2f", 100),
                "training loss": words([run["loss"][-1] for run in seeds], ".4f"),
                "work": f"{fmean(run['work'] for run in seeds):.3f}",
                "MACs a step, M": f"{fmean(run['macs'] for run in seeds) / 1e6:.1f}",
                "diverged": sum(run["diverged"] is not None for run in seeds),
            }
        )
    return rows


def curve_rows(network: str, runs: Runs) -> Rows:
    """Mean and deviation of accuracy and loss after every epoch."""
    accuracy, loss = curves(runs, "accuracy"), curves(runs, "loss")
    return [
        {
            "network": network,
            "recipe": recipe,
            "epoch": epoch + 1,
            "accuracy": round(middle, 6),
            "accuracy, deviation": round(accuracy[recipe][1][epoch], 6),
            "loss": round(loss[recipe][0][epoch], 6),
            "loss, deviation": round(loss[recipe][1][epoch], 6),
        }
        for recipe in accuracy
        if recipe in loss
        for epoch, middle in enumerate(accuracy[recipe][0])
    ]


def price_rows(network: str, runs: Runs) -> Rows:
    """Cycles, multiplications, energy and area, by recipe and accelerator."""
    return [
        {"network": network, "recipe": recipe, **cost}
        for recipe, seeds in runs.items()
        for cost in seeds[0]["costs"]
    ]


def price_shares(
    prices: Rows,
) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    """Energy and area over the reference's on the same machine.

    Args:
        prices: of one network, :func:`price_rows`.

    Returns:
        Recipes, machines, and two arrays of that shape; NaN where there is no figure.
    """
    recipes = list(dict.fromkeys(row["recipe"] for row in prices))
    machines = list(dict.fromkeys(row["accelerator"] for row in prices))
    known = {(row["recipe"], row["accelerator"]): row for row in prices}
    energy, area = np.full((2, len(recipes), len(machines)), math.nan)
    for r, recipe in enumerate(recipes):
        for m, machine in enumerate(machines):
            own, base = known[recipe, machine], known[REFERENCE, machine]
            energy[r, m] = own["energy_on_chip_pj"] / base["energy_on_chip_pj"]
            if own["area_mm2"] and base["area_mm2"]:
                area[r, m] = own["area_mm2"] / base["area_mm2"]
    return recipes, machines, energy, area


def ternary_rows(network: str, found: Mapping[str, Any]) -> Rows:
    """Ternary residual networks of one trained network."""
    return [
        {
            "network": network,
            "drop allowed": f"{100 * row['drop']:g} %",
            "block": row["block"],
            "float32, %": "–" if "not met" in row else f"{100 * row['float']:.1f}",
            "ternary, %": "not met"
            if "not met" in row
            else f"{100 * row['ternary']:.1f}",
            "images": row.get("images", ""),
            **{
                title: "–" if "not met" in row else f"{row[key]:{form}}"
                for title, key, form in (
                    ("terms a block", "terms", ".2f"),
                    ("times fewer multiplications", "fewer", ".1f"),
                    ("times smaller than 8 bits", "smaller", ".2f"),
                )
            },
        }
        for row in found["rows"]
    ]


def error_rows(found: Mapping[str, Any]) -> Rows:
    """Errors of K-TanH and of what is reckoned through it."""
    return [
        {
            "function": row["function"],
            "largest error": f"{row['largest']:.2e}",
            "mean error": f"{row['mean']:.2e}",
        }
        for row in found["errors"]
    ]


def between_rows(found: Mapping[str, Any], column: str) -> Rows:
    """Accuracy and loss over the seeds, by what was replaced."""
    return [
        {
            column: row[column],
            "accuracy, %": words(row["accuracy"], ".2f", 100),
            **(
                {"by probability, %": words(row["by probability"], ".2f", 100)}
                if column == "training loss"
                else {}
            ),
            "its training loss": words(row["loss"], ".4f"),
        }
        for row in found["rows"]
    ]
