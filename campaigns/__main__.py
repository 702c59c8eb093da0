"""``python -m campaigns``: run the campaigns and write what they found."""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # trials are forked


def main() -> None:
    """Run what the command line names; a line for each kind, and a file of the counts."""
    from campaigns.kills import JOBS, stopped
    from campaigns.poison import KINDS, poisoned
    from elision.common.files import write_json
    from elision.engines.bench import machine

    parser = argparse.ArgumentParser(prog="python -m campaigns", description=__doc__)
    parser.add_argument("kinds", nargs="*", help="of files or jobs; default: all")
    parser.add_argument("--trials", type=int, default=750, help="of each kind of file")
    parser.add_argument("--kills", type=int, default=60, help="of each job")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file; counted kinds stay in it")
    given = parser.parse_args()
    kept: dict[str, Any] = {}
    if given.out is not None and given.out.is_file():
        kept = json.loads(given.out.read_text("utf-8"))
    asked = {"trials": given.trials, "kills": given.kills, "seed": given.seed}
    if kept.setdefault("asked", asked) != asked:
        sys.exit(f"{given.out}: is of other numbers: {kept['asked']}")
    kept.setdefault("machine", machine())
    for name in given.kinds or (*KINDS, *JOBS):
        if name not in KINDS and name not in JOBS:
            sys.exit(f"unknown kind {name!r}; known: {', '.join((*KINDS, *JOBS))}")
        part = kept.setdefault("poison" if name in KINDS else "kills", {})
        if name in part:
            continue
        began = time.monotonic()
        if name in KINDS:
            with tempfile.TemporaryDirectory() as folder:
                place = Path(folder) / "kind"
                found = poisoned(KINDS[name], place, given.trials, given.seed)
            part[name] = row = {"counts": dict(found.counts), "bad": []}
            row["bad"] = [[n, o.kind, o.said[-2000:]] for n, o in found.bad]
        else:
            jobs = stopped(JOBS[name], given.kills, given.seed)
            part[name] = row = {"counts": dict(jobs.kills), "ended": jobs.ended}
            row |= {"bad": jobs.bad, "times": list(jobs.times)}
        bad = row["bad"]
        print(
            f"{name}: {row['counts']}, {len(bad)} bad, {time.monotonic() - began:.0f} s"
        )
        for case in bad[:3]:
            print("  ", str(case)[-600:])
        sys.stdout.flush()
        if given.out is not None:
            write_json(given.out, kept)


if __name__ == "__main__":
    main()
