"""The figures on the practitioner's page are those of its record."""

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "records" / "2026-11-30-ways"
PAGE = (ROOT / "docs" / "for-practitioners.md").read_text(encoding="utf-8")

#: Network of the record -> its name on the page.
NAMES = {
    "bert": "BERT, 4 layers of 256, batch 16 of 128 tokens",
    "vit-tiny": "ViT-tiny, batch 8 at 224x224",
    "lstm": "LSTM, 2 layers of 256, batch 32 of 64 steps",
    "resnet18": "ResNet-18, batch 64 at 32x32 (fourth generation)",
}
WAYS = ("exact", "bits(8)", "bits(4)", "checkpoint", "checkpoint + bits(4)")


def networks() -> dict[str, Any]:
    if not RECORD.exists():
        pytest.skip("not a checkout")
    found: dict[str, Any] = {}
    for file in sorted(RECORD.glob("*.json")):
        found |= json.loads(file.read_text())["networks"]
    return found


def cell(way: dict[str, Any]) -> str:
    """Ratio of the peaks, and of the times with its quartiles."""
    if way["failed"]:
        return "no blocks"
    low, middle, high = statistics.quantiles(
        way["time_ratios"], n=4, method="inclusive"
    )
    return f"{way['peak_ratio']:.2f}x at {middle:.2f}x ({low:.2f}-{high:.2f})"


def row(name: str, network: dict[str, Any]) -> str:
    ways = {way["name"]: way for way in network["ways"]}
    plain = ways["plain"]["peak_bytes"] / 2**20
    cells = [cell(ways[way]) for way in (*WAYS, "save_on_cpu")]
    return f"| {NAMES[name]} | {plain:.1f} MiB | {' | '.join(cells)} |"


def test_the_table_is_that_of_the_record() -> None:
    found = networks()
    assert set(found) == set(NAMES)
    rows = [line for line in PAGE.splitlines() if " MiB | " in line]
    assert rows == [row(name, found[name]) for name in NAMES]


def test_the_sentences_are_those_of_the_record() -> None:
    found = networks()
    ways = {way["name"]: way for way in found["lstm"]["ways"]}
    without = ways["without oneDNN"]
    text = " ".join(PAGE.split())
    middle = statistics.median(without["time_ratios"])
    assert f"{without['peak_ratio']:.2f}x less at {middle:.2f}x the time" in text
    for name in ("bert", "vit-tiny", "resnet18"):
        ways = {way["name"]: way for way in found[name]["ways"]}
        for way in ("bits(4)", "checkpoint"):
            middle = statistics.median(ways[way]["time_ratios"])
            said = f"{ways[way]['peak_ratio']:.2f}x at {middle:.2f}x the time"
            assert said in text, (name, way)
