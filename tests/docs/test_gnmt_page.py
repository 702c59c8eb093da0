"""The figures on the page about GNMT are those of the records."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "gnmt.md"
RECORDS = ROOT / "records" / "2026-11-29-recurrent"


@pytest.mark.skipif(not RECORDS.is_dir(), reason="not a checkout")
def test_the_steps_are_the_recorded_ones() -> None:
    page = PAGE.read_text(encoding="utf-8")
    record = json.loads((RECORDS / "gnmt-steps.json").read_text(encoding="utf-8"))
    for row in (*record["one_process"], *record["ranks"]):
        low, high = row["spread"]
        assert (
            f"| {row['way']} | {row['tokens_per_second']:,.0f} | {row['ratio']:.2f} | "
            f"{low:.2f} to {high:.2f} | {row['paid']:.3f} |"
        ) in page


@pytest.mark.skipif(not RECORDS.is_dir(), reason="not a checkout")
def test_the_recipes_are_the_recorded_ones() -> None:
    page = PAGE.read_text(encoding="utf-8")
    record = json.loads((RECORDS / "gnmt-recipes.json").read_text(encoding="utf-8"))
    recipes = dict.fromkeys(run["recipe"] for run in record["runs"])
    assert len(recipes) >= 3
    for recipe in recipes:
        runs = [run for run in record["runs"] if run["recipe"] == recipe]

        def words(values: list[float], digits: int) -> str:
            return ", ".join(f"{value:.{digits}f}" for value in values)

        found = [run["translation"] for run in runs]
        gaps = [f["nll_of_other_sources"] - f["nll"] for f in found]
        perplexities = [run["test_perplexity"][-1] for run in runs]
        assert (
            f"| `{recipe}` | {len(runs)} | {words(perplexities, 1)} | "
            f"{words([f['bleu'] for f in found], 1)} | {words(gaps, 2)} |"
        ) in page
