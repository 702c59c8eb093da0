"""``python -m campaigns``: run the campaigns and write what they found."""

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # trials are forked


def main() -> None:
    """Run what the command line names; a line for each kind, and a file of the counts."""
    from campaigns.disks import DISKS
    from campaigns.kills import KILLS
    from campaigns.load import LOAD
    from campaigns.numerics import NUMERICS
    from campaigns.pairs import PAIRS
    from campaigns.poison import POISON
    from campaigns.sanitizers import SANITIZERS
    from elision.common.files import write_json
    from elision.common.locking import locked
    from elision.engines.bench import machine

    every = (DISKS, KILLS, LOAD, NUMERICS, PAIRS, POISON, SANITIZERS)
    campaigns = {campaign.name: campaign for campaign in every}
    parser = argparse.ArgumentParser(prog="python -m campaigns", description=__doc__)
    parser.add_argument(
        "names", nargs="*", help="campaigns, or CAMPAIGN/KIND; default: all"
    )
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the trials of a whole campaign"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out",
        type=Path,
        help="JSON file; counted kinds stay in it, and several processes may share it",
    )
    given = parser.parse_args()
    known = [f"{c.name}/{kind}" for c in campaigns.values() for kind in c.kinds]
    asked = [n for name in given.names or campaigns for n in _of(name, known)]
    facts = {
        "asked": {"share": given.share, "seed": given.seed},
        "machine": machine(),
    }
    for name, kind in (text.split("/", 1) for text in asked):
        campaign = campaigns[name]
        if kind in _kept(given.out, facts).get(name, {}):
            continue
        count = math.ceil(given.share * campaign.count)
        began = time.monotonic()
        row = campaign.kinds[kind](count, given.seed)
        found = vars(row) | {"asked": count, "unit": campaign.unit}
        seconds = time.monotonic() - began
        print(f"{name}/{kind}: {row.counts}, {len(row.bad)} bad, {seconds:.0f} s")
        for case in row.bad[:3]:
            print("  ", case[-600:])
        sys.stdout.flush()
        if given.out is not None:
            with locked(given.out.parent):  # others may run other kinds
                kept = _kept(given.out, facts)
                kept.setdefault(name, {})[kind] = found
                write_json(given.out, kept)


def _kept(out: Path | None, facts: dict[str, Any]) -> dict[str, Any]:
    """What is counted already, of the same numbers."""
    if out is None or not out.is_file():
        return dict(facts)
    kept = json.loads(out.read_text("utf-8"))
    if kept["asked"] != facts["asked"]:
        sys.exit(f"{out}: is of other numbers: {kept['asked']}")
    return kept


def _of(name: str, known: list[str]) -> list[str]:
    """The kinds that a word of the command line means."""
    found = [one for one in known if one == name or one.startswith(f"{name}/")]
    if not found:
        sys.exit(f"unknown campaign or kind {name!r}; known: {', '.join(known)}")
    return found


if __name__ == "__main__":
    main()
