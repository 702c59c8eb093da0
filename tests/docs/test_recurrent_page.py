"""The figures on the page about recurrent nets are those of the record."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "recurrent-nets-and-attention.md"
RECORD = ROOT / "records" / "2026-11-29-recurrent" / "recurrent.json"


@pytest.mark.skipif(not RECORD.is_file(), reason="not a checkout")
def test_the_table_and_the_means_are_the_recorded_ones() -> None:
    page = PAGE.read_text(encoding="utf-8")
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert len(record["results"]) == 24
    for key, row in record["results"].items():
        cell, units, sequences = (word.split()[0] for word in key.split(", "))
        ratios = " | ".join(f"{row[name]['ratio']:.2f}" for name in ("kernel", "mask"))
        assert f"| {cell} | {units} | {sequences} | {ratios} |" in page
    for cell in ("LSTM", "GRU"):
        means = " | ".join(
            f"{record['summary'][f'{cell} {name}']['geometric_mean']:.2f}"
            for name in ("kernel", "mask")
        )
        assert f"| {cell} | geometric mean | | {means} |" in page
