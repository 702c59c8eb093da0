"""``python -m campaigns.page``: the counts of the last campaigns into their page.

Writes the tables of ``docs/what-survives.md`` anew from the files that
``python -m campaigns --out`` wrote; ``--check`` fails where they differ.
"""

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from elision.common.files import write_text

__all__ = ["PAGE", "RECORDS", "records", "with_tables"]

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "what-survives.md"

#: Files of the last campaigns.
RECORDS = ROOT / "records" / "2026-11-30-survival"

#: Where a table stands in the page.
_TABLE = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def records() -> list[Path]:
    """The files of the last campaigns; others beside them are of other programs."""
    others = ("denormals", "dependencies")
    return [path for path in RECORDS.glob("*.json") if path.stem not in others]


def with_tables(page: str, records: Iterable[Path]) -> str:
    """A page with its tables filled in.

    Args:
        page: text, with ``<!-- table: CAMPAIGN -->`` and ``<!-- end -->`` around each.
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
    wanted = {name for _, name, _ in _TABLE.findall(page)} - {"all"}
    if wanted != found.keys():
        raise ValueError(f"tables of {sorted(wanted)}, campaigns {sorted(found)}")
    tables = {name: _kinds(kinds) for name, kinds in found.items()}
    tables["all"] = _campaigns(found)
    return _TABLE.sub(lambda m: m[1] + "\n" + tables[m[2]] + "\n\n" + m[3], page)


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
    old = PAGE.read_text("utf-8")
    new = with_tables(old, records())
    if sys.argv[1:] == ["--check"]:
        sys.exit(f"{PAGE} is not of its records" if new != old else 0)
    write_text(PAGE, new)


if __name__ == "__main__":
    main()
