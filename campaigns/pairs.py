"""Pairs: the same work started twice, in one folder or one cache, at the same time.

Of two commands in a folder one works, and the other says in one line that it does; in a
cache, or a sweep's file, both work, one after the other. Either way the folder ends as
that of one alone.
"""

import random
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path

from campaigns.campaign import Campaign, Row
from campaigns.children import ended, started
from campaigns.jobs import JOBS, Job
from campaigns.kills import whole

__all__ = ["PAIRS", "together"]

#: Status of a command that is refused.
_REFUSED = 2


def together(job: Job, pairs: int, seed: int = 0) -> Row:
    """Start pairs of a job, the second within the time that the first needs.

    Args:
        job: the work.
        pairs: their number.
        seed: of the moments.
    """
    drawn, found = random.Random(f"{seed}/{job.name}"), Row()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        expected = whole(job, folder)
        found.facts["times"] = list(expected.times)
        place = folder / "both"
        for number in range(pairs):
            shutil.rmtree(place, ignore_errors=True)
            # At once in every other pair, since nothing is claimed then.
            wait = number % 2 * drawn.uniform(0, expected.seconds)
            how, bad = _pair(job, place, wait)
            found.counts[how] = found.counts.get(how, 0) + 1
            if differs := expected.differing(place):
                bad.append(f"other bytes: {', '.join(differs)}")
            found.bad += bad
    return found


def _pair(job: Job, place: Path, wait_seconds: float) -> tuple[str, list[str]]:
    """How a pair ended, and what did not hold."""
    first = started(job, place, "-first")
    time.sleep(wait_seconds)
    second = started(job, place, "-second")
    statuses = {child: ended(child) for child in (first, second)}
    if not any(statuses.values()):
        return "both worked", []
    refused = [child for child, status in statuses.items() if status == _REFUSED]
    told = [child.lines() for child in refused]
    is_clear = (
        len(told) == 1 and len(told[0]) == 1 and "another process is at" in told[0][0]
    )
    if sorted(statuses.values()) == [0, _REFUSED] and is_clear and not job.is_shared:
        return "one worked, one was refused", []
    said = [child.lines()[-2:] for child in statuses]
    return "failed", [f"statuses {[*statuses.values()]}: {said}"]


PAIRS = Campaign(
    "pairs", "pairs", 3, {job.name: partial(together, job) for job in JOBS}
)
