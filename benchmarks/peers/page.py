"""``python -m benchmarks.peers.page``: what was measured into ``docs/peers.md``.

Writes the tables of the page anew from the files that ``python -m benchmarks.peers --out``
wrote; ``--check`` changes nothing and fails where they differ.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.kernel_tables import table
from benchmarks.peers.base import OURS, PEERS
from elision.report.places import filled, write_or_check

__all__ = ["PAGE", "RECORDS", "records", "with_tables"]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "peers.md"

#: Files of the last measurement.
RECORDS = ROOT / "records" / "2026-11-30-peers"

Record = dict[str, Any]


def records(folder: Path = RECORDS) -> list[Record]:
    """The files of all peers.

    Raises:
        ValueError: a peer has no file; the message names them.
    """
    missing = [name for name in PEERS if not (folder / f"{name}.json").exists()]
    if missing:
        raise ValueError(f"{folder.name} has no file of {', '.join(missing)}")
    return [json.loads((folder / f"{n}.json").read_text("utf-8")) for n in PEERS]


def with_tables(page: str, found: list[Record]) -> str:
    """A page with its tables filled in."""
    tables = {
        "peers": _peers(found),
        "times": _times(_rows(found)),
        "peer-wins": _times(r for r in _rows(found) if r["wins"]),
        "agreement": _agreement(found),
        "not-measured": _missing(found),
    }
    return filled(page, tables)


def _peers(found: list[Record]) -> str:
    return table(
        "peer | for | installed from | version | rounds | load before, after",
        (
            [
                record["name"],
                record["about"],
                record["installed_from"],
                record["version"] or record["machine"]["torch"],
                str(_rounds(record)),
                f"{record['machine']['load'][0]:.0f}, {record['load_after'][0]:.0f}",
            ]
            for record in found
            if not record["reason"]
        ),
    )


def _rounds(record: Record) -> int:
    """Rounds that were timed; some peers take too long for those asked for."""
    works = (work for _, work in _works([record]))
    sides = (side for work in works for side in work.get("sides", {}).values())
    return max(len(side["seconds"]) for side in sides)


def _works(found: list[Record]) -> Iterator[tuple[Record, Record]]:
    for record in found:
        for work in record.get("works", ()):
            yield record, work


def _rows(found: list[Record]) -> Iterator[Record]:
    """A row for each side that is not ours."""
    for record, work in _works(found):
        sides = work.get("sides", {})
        for name, side in sides.items():
            if name == OURS:
                continue
            low, median, high = side["over"][OURS]
            is_peer = name.startswith(record["name"])
            yield {
                "cells": [
                    record["name"],
                    work["title"],
                    _milliseconds(sides[OURS]) + _figures(work, OURS),
                    name,
                    _milliseconds(side) + _figures(work, name),
                    f"{_ratio(median)} ({_ratio(low)} to {_ratio(high)})",
                ],
                "wins": is_peer and high < 1,
            }


def _times(rows: Iterator[Record]) -> str:
    return table(
        "peer | work | Elision, ms | beside | ms | its time over ours (quartiles)",
        (row["cells"] for row in rows),
    )


def _milliseconds(side: Record) -> str:
    return _ratio(1e3 * side["quartiles"][1])


def _figures(work: Record, side: str) -> str:
    told = work["figures"].get(side, {})
    return "".join(f", {name} {value:.0f}" for name, value in told.items())


def _ratio(value: float) -> str:
    """Two decimals, or three digits where that is more than there is to say."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _agreement(found: list[Record]) -> str:
    """What was compared, over all works of a peer with the same differences."""
    largest: dict[tuple[str, ...], float] = {}
    for record, work in _works(found):
        for told in work["agreement"]:
            what = told["what"]
            if not told["holds"]:
                what += f": **no; not timed: {work['title']}**"
            row = record["name"], what, f"{told['limit']:g}", work["differs"]
            largest[row] = max(largest.get(row, 0.0), told["error"])
    return table(
        "peer | what agrees | largest difference | allowed | what is not the same",
        (
            [peer, what, f"{error:.1e}" if error else "0", limit, differs]
            for (peer, what, limit, differs), error in largest.items()
        ),
    )


def _missing(found: list[Record]) -> str:
    return table(
        "peer | for | installed from | why not",
        (
            [
                record["name"],
                record["about"],
                record["installed_from"],
                record["reason"].replace("|", "/"),
            ]
            for record in found
            if record["reason"]
        ),
    )


def main() -> None:
    """Write the page, or check it."""
    write_or_check({PAGE: with_tables(PAGE.read_text("utf-8"), records())})


if __name__ == "__main__":
    main()
