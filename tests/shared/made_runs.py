"""Run folders as finished studies leave them, made without training."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from elision.common.toml import to_toml
from elision.products import Product

__all__ = ["run_folder"]


def run_folder(
    folder: Path,
    scores: Mapping[str, Sequence[float | None]],
    seed: int = 0,
    *,
    workload: Mapping[str, Any] | None = None,
    cycles: Mapping[str, Mapping[str, int]] | None = None,
    env: Mapping[str, Any] | None = None,
    seconds: Mapping[str, float] | None = None,
    kept: tuple[int, int] | None = None,
    **settings: Any,
) -> Path:
    """Make the folder of a run.

    Args:
        folder: to make.
        scores: of each recipe, by seed.
        seed: the first.
        workload: its table; default: one with the name ``"w"`` alone.
        cycles: of each machine, by recipe; energy is twice as much, in pJ.
        env: of ``env.json``; None: there is none.
        seconds: of a step by the wall clock, by recipe.
        kept: bytes of saved activations, by plain autograd and as stored.
        **settings: of the study.
    """
    folder.mkdir(parents=True)
    products = {p.value: {"rcp_fraction": 0.5} for p in Product}
    seeds = {len(found) for found in scores.values()}.pop()
    recipes = {}
    for spec, found in scores.items():
        known = [score for score in found if score is not None]
        recipes[spec] = {
            "test_accuracy": None if None in found else sum(known) / seeds,
            "test_accuracy_by_seed": list(found),
            "training_macs_ratio": 0.5 + seed / 10,
            "products": products,
        }
        if kept is not None:
            recipes[spec]["saved_bytes"] = {"logical": kept[0], "stored": kept[1]}
    table = dict(workload or {"name": "w"})
    summary = {
        "schema": 1,
        "workload": table["name"],
        "seed": seed,
        "seeds": seeds,
        "recipes": dict(sorted(recipes.items())),
        "accelerators": {
            machine: {
                spec: {"total": {"cycles": count, "energy_on_chip_pj": 2.0 * count}}
                for spec, count in of_recipes.items()
            }
            for machine, of_recipes in (cycles or {}).items()
        },
    }
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    study = {"recipes": list(scores), "seed": seed, "seeds": seeds, **settings}
    config = to_toml({"layout": 1, "study": study})
    (folder / "config.toml").write_text(config, encoding="utf-8")
    resolved = to_toml({"workload": table})
    (folder / "workload.toml").write_text(resolved, encoding="utf-8")
    if env is not None:
        (folder / "env.json").write_text(json.dumps(env), encoding="utf-8")
    if seconds is not None:
        timing = json.dumps({"schema": 1, "step_seconds": dict(seconds)})
        (folder / "timing.json").write_text(timing, encoding="utf-8")
    return folder
