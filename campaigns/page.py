"""``python -m campaigns.page``: the counts of the last campaigns into their page.

Writes the tables of ``docs/what-survives.md`` anew from the files that
``python -m campaigns --out`` wrote; ``--check`` fails where they differ.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from elision.report.places import filled, write_or_check

__all__ = ["PAGE", "RECORDS", "records", "with_tables"]

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "what-survives.md"

#: Files of the last campaigns.
RECORDS = ROOT / "records" / "2026-11-30-survival"


def records() -> list[Path]:
    """The files of the last campaigns; others beside them are of other programs."""
    others = ("denormals", "dependencies")
    return [path for path in RECORDS.glob("*.json") if path.stem not in others]


def with_tables(page: str, records: Iterable[Path]) -> str:
    """A page with its tables filled in.

    Args:
        page: text, with a place for each campaign and one for all.
        records: files of campaigns.

    Raises:
        ValueError: a campaign has no table, or a table no campaign.
    """
    found: dict[str, dict[str, Any]] = {}
    for record in sorted(records):
        content = json.loads(record.read_text("utf-8"))
        for name, kinds in content.items():
            if name not in ("asked", "machine"):
                found.setdefault(name, {}).update(kinds)
    tables = {name: _kinds(kinds) for name, kinds in found.items()}
    return filled(page, {**tables, "all": _campaigns(found)})


def _kinds(kinds: dict[str, Any]) -> str:
    rows = [
        (kind, _ends(row["counts"]), len(row["bad"])) for kind, row in kinds.items()
    ]
    return _table(("kind", "ends", "bad"), sorted(rows))


def _campaigns(found: dict[str, dict[str, Any]]) -> str:
    rows = []
    for name, kinds in sorted(found.items()):
        ends = sum(sum(row["counts"].values()) for row in kinds.values())
        bad = sum(len(row["bad"]) for row in kinds.values())
        rows.append((f"`{name}`", len(kinds), f"{ends:,}", bad))
    return _table(("campaign", "kinds", "ends counted", "bad"), rows)


def _ends(counts: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {end}" for end, number in sorted(counts.items()))


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def main() -> None:
    """Write the page, or check it."""
    write_or_check({PAGE: with_tables(PAGE.read_text("utf-8"), records())})


if __name__ == "__main__":
    main()
