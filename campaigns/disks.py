"""Disks and rights: work that cannot write, or not where it means to.

Each trial runs one of the library's writers on a disk with one fault, in a folder that is
new or that an earlier work has written to, and once more when the fault is gone. The work
must end in one line that names the file and the cause, or well (a cache that cannot be
written costs a compilation and no more); no file may be half-written, lost, or written
through a link; and the second run must end with the bytes of a run on a good disk. Files
that differ between two of those, since they hold times, are compared by their form.

``python -m campaigns.disks`` answers the campaign from a Python whose disk can fail; see
:mod:`campaigns.failing`.
"""

import atexit
import json
import os
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

from campaigns.campaign import Campaign, Row
from campaigns.disk_faults import FAULTS, Fault
from campaigns.failing import Answers
from campaigns.folders import contents, left_behind, torn
from campaigns.place import Place, changed_outside
from campaigns.trial import Outcome, tried, warmed
from campaigns.writers import WRITERS, Writer

__all__ = ["DISKS", "asked"]

#: What a command says of its progress before it ends.
_NOTICE = re.compile(r"elision: |.+: epoch \d+, ")

#: Machine code, whose names depend on what its process has compiled before; and the machine
#: of a run, which has no commit where git could not be started.
_OF_HISTORY = (".nbc", ".nbi", "env.json")

#: What Python and its libraries print of errors that nobody handles.
_UNHANDLED = ("Traceback", "Exception ignored", "Error in sys.")


@dataclass(frozen=True)
class Ends:
    """What a writer leaves on a good disk.

    Attributes:
        start: a folder as the trial finds it; None: none.
        whole: content of each file.
        times: files whose content may differ from run to run.
    """

    start: Path | None
    whole: dict[str, bytes]
    times: frozenset[str]


@dataclass
class _Disk:
    """Trials in one folder, and what they have found out about writers.

    Attributes:
        base: the folder.
        known: ends by writer, from a new folder and from one of an earlier work.
    """

    base: Path
    known: dict[str, tuple[Ends, Ends]] = field(default_factory=dict)

    def row(
        self, fault: Fault, writers: Sequence[Writer], count: int, seed: int
    ) -> Row:
        """The trials of a fault, of writers that are drawn."""
        row, by_writer = Row(), Counter[str]()
        ends = Counter[str]()
        for number in range(count):
            drawn = random.Random(f"{seed}/{fault.name}/{number}")
            (writer,) = drawn.choices(writers, [w.weight for w in writers])
            found = self._known(writer)[drawn.randrange(2)]
            place = Place(self.base, found.start, found.whole, drawn)
            outcome, bad = self._trial(fault, writer, found, place)
            ends[outcome] += 1
            by_writer[writer.name] += 1
            told = f"{number}, {writer.name}, {place.told}"
            if found.start is not None:
                told += ", again"
            row.bad += [f"{told}: {one}" for one in bad]
        row.counts = dict(sorted(ends.items()))
        row.facts = {"writers": dict(sorted(by_writer.items()))}
        return row

    def _known(self, writer: Writer) -> tuple[Ends, Ends]:
        if writer.name not in self.known:
            start = self.base / "start" / writer.name.replace(" ", "-")
            before = writer.before or writer.run
            start.mkdir(parents=True)
            warmed(lambda: before(start))
            first, second = self._whole(writer, None), self._whole(writer, None)
            names = first.keys() | second.keys()
            times = frozenset(
                name
                for name in names
                if first.get(name) != second.get(name) or name.endswith(_OF_HISTORY)
            )
            old = self._whole(writer, start)
            self.known[writer.name] = Ends(None, first, times), Ends(start, old, times)
        return self.known[writer.name]

    def _whole(self, writer: Writer, start: Path | None) -> dict[str, bytes]:
        """What the writer leaves on a good disk."""
        place = Place(self.base, start, {}, random.Random(0))
        with place.made(is_mounted=False):
            outcome = tried(lambda: writer.run(place.run))
            if outcome.kind != "accepted":
                raise RuntimeError(f"{writer.name}, on a good disk: {outcome.said}")
            return contents(place.disk)

    def _trial(
        self, fault: Fault, writer: Writer, ends: Ends, place: Place
    ) -> tuple[str, list[str]]:
        """How the work ended on a disk with the fault, and what did not hold."""
        with place.made(fault.is_mounted):
            enter = fault.begin(place)
            before, beyond = contents(place.disk), contents(place.outside)
            kept = before.keys() - place.strange

            def work() -> None:
                enter()
                writer.run(place.run)

            outcome = tried(work)
            lost = kept - place.found().keys()
            fault.end(place)
            after = contents(place.disk)
            bad = _unclear(outcome, place, writer, fault)
            bad += [f"lost {name}" for name in sorted(lost)]
            bad += _harm(before, after, ends, place, fault)
            bad += [f"changed outside: {n}" for n in changed_outside(place, beyond)]
            if outcome.kind == "accepted" and not writer.falls_back:
                bad += [f"ends well, {one}" for one in _differs(ends, place)]
            if outcome.kind == "accepted" and not outcome.said:
                bad += [
                    f"no {n}, and no word" for n in ends.whole.keys() - after.keys()
                ]
            again = tried(lambda: writer.run(place.run))
            if again.kind != "accepted":
                bad.append(f"afterwards: {again.kind}: {again.said[-600:]!r}")
            else:
                bad += [f"afterwards, {one}" for one in _differs(ends, place)]
                bad += [f"afterwards, left {n}" for n in left_behind(place.disk)]
        return outcome.kind, bad


def _unclear(outcome: Outcome, place: Place, writer: Writer, fault: Fault) -> list[str]:
    """Why what was said is not enough."""
    lines = [line for line in outcome.said.splitlines() if line.strip()]
    if any(mark in outcome.said for mark in _UNHANDLED):
        return [f"{outcome.kind}: {outcome.said[-1500:]!r}"]
    if outcome.kind == "accepted":
        told = Counter(lines)
        return [f"said {n} times: {line!r}" for line, n in told.items() if n > 1]
    if outcome.kind not in ("refused", "unclear") or writer.falls_back or not lines:
        return [f"{outcome.kind}: {outcome.said[-1500:]!r}"]
    others = [line for line in lines[:-1] if not _NOTICE.match(line)]
    bad = [f"several lines: {others!r}"] if others else []
    if not any(str(name) in lines[-1] for name in (place.disk, *fault.names)):
        bad.append(f"no file is named: {lines[-1]!r}")
    if fault.causes and not any(os.strerror(c) in lines[-1] for c in fault.causes):
        bad.append(f"no cause is named: {lines[-1]!r}")
    return bad


def _harm(
    before: dict[str, bytes],
    after: dict[str, bytes],
    ends: Ends,
    place: Place,
    fault: Fault,
) -> list[str]:
    """Files that are half there, or should not be."""
    bad = []
    for name, content in after.items():
        path = place.disk / name
        is_known = content in (before.get(name), ends.whole.get(name))
        if not is_known and not path.is_symlink() and (why := torn(path)):
            bad.append(f"half-written {name}: {why}")
    if not fault.keeps_partials:
        bad += [f"left {name}" for name in left_behind(place.disk)]
    return bad


def _differs(ends: Ends, place: Place) -> list[str]:
    """Files of a run that are not those of one on a good disk."""
    found = contents(place.disk)
    names = (ends.whole.keys() | found.keys()) - ends.times - place.strange
    return [
        f"other bytes in {n}"
        for n in sorted(names)
        if ends.whole.get(n) != found.get(n)
    ]


def asked(
    answers: Answers, fault: Fault, count: int, seed: int, writers: Sequence[str] = ()
) -> Row:
    """The trials of a fault, in a Python whose disk can fail.

    Args:
        answers: that Python, which runs this module.
        fault: of the disk.
        count: of the trials.
        seed: of what is drawn.
        writers: names of those that work; none: all, or the fault's own.
    """
    if why := fault.missing():
        return Row({"skipped": count}, facts={"skipped": why})
    question = json.dumps([fault.name, count, seed, writers])
    return Row(**json.loads(answers.answer(question)))


@cache
def _answers() -> Answers:
    """The Python for all kinds of a campaign."""
    found = Answers("campaigns.disks")
    atexit.register(found.close)
    return found


def _row(fault: Fault, count: int, seed: int) -> Row:
    return asked(_answers(), fault, count, seed)


def _answering() -> None:
    """Answer the questions of standard input, as :func:`asked` puts them."""
    with tempfile.TemporaryDirectory() as text:
        base = Path(text).resolve()
        base.chmod(0o755)  # for another user
        disk, faults = _Disk(base), {fault.name: fault for fault in FAULTS}
        for line in sys.stdin:
            name, count, seed, names = json.loads(line)
            writers = [w for w in WRITERS if w.name in names]
            chosen = writers or faults[name].own_writers or WRITERS
            row = disk.row(faults[name], chosen, count, seed)
            print(json.dumps(vars(row)), flush=True)


DISKS = Campaign(
    "disks", "trials", 70, {fault.name: partial(_row, fault) for fault in FAULTS}
)

if __name__ == "__main__":
    _answering()
