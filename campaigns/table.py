"""``python -m campaigns.table RECORD.json ...``: counts of campaigns, as a table."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["rows_of"]

#: What a record holds beside campaigns.
_FACTS = ("asked", "machine")


def rows_of(records: Iterable[Path]) -> list[str]:
    """A table in Markdown, a row a kind, in the order of the records.

    Args:
        records: files that ``python -m campaigns --out`` wrote.
    """
    rows = ["| campaign | kind | counted | ends | bad |", "|---|---|---|---|---|"]
    total = bad = 0
    for record in records:
        found = json.loads(record.read_text("utf-8"))
        for campaign in found.keys() - {*_FACTS}:
            for kind, row in found[campaign].items():
                counts = row["counts"]
                ends = ", ".join(f"{n:,} {end}" for end, n in sorted(counts.items()))
                counted = sum(counts.values())
                total, bad = total + counted, bad + len(row["bad"])
                rows.append(
                    f"| {campaign} | {kind} | {counted:,} {row['unit']} | {ends} "
                    f"| {len(row['bad'])} |"
                )
    return [*rows, f"| all | | {total:,} | | {bad} |"]


if __name__ == "__main__":
    print("\n".join(rows_of(map(Path, sys.argv[1:]))))
