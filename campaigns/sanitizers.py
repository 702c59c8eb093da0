"""Sanitizers: every native kernel on drawn shapes, while one of them watches.

They are AddressSanitizer with UndefinedBehaviorSanitizer, and ThreadSanitizer.

The kernels are built with the sanitizer, once for each variant that this CPU runs, and
called in a process that begins with its library, so that tensors of torch's lie in memory
that it guards. A report ends the process; the campaign notes it and goes on with the next
trial in a new one. What is watched are the kernels, not torch or Python. ThreadSanitizer
does not understand an OpenMP that was not built with it, so under it the kernels'
threads are their own.
"""

import atexit
import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from campaigns.campaign import Campaign, Row
from campaigns.planted import REPORT
from campaigns.sanitized import KERNELS
from elision.native import builder

__all__ = ["SANITIZERS", "why_not"]

#: The library that a process must begin with, and options; Python gives back little of its
#: memory at its end, so leaks are not asked for.
_RUNTIMES: dict[str, tuple[str, dict[str, str]]] = {
    "address,undefined": (
        "libasan.so",
        {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"},
    ),
    "thread": (
        "libtsan.so",
        {"TSAN_OPTIONS": "halt_on_error=1 ignore_noninstrumented_modules=1"},
    ),
}

#: Variants that are tried beside the best.
_OTHERS = ("avx2", "portable")

#: Reports after which the rest of a kind is given up, for each costs a new process.
_ENOUGH = 5

#: Longest compilation, and longest time for a number of trials (own choices).
_BUILD_SECONDS, _START_SECONDS, _TRIAL_SECONDS = 3600, 120, 10

#: Lines of a report that are kept.
_LINES = 12


def why_not(sanitizer: str) -> str | None:
    """Why a sanitizer cannot be used here, in a line; None: it can."""
    try:
        _preloaded(sanitizer)
    except builder.BuildError as error:
        return str(error)
    return None


@functools.cache
def _preloaded(sanitizer: str) -> str:
    """The libraries that a process must begin with.

    The sanitizer looks for C++'s exceptions when it begins, so that library comes too.

    Raises:
        BuildError: there is no compiler, or it has no such library.
    """
    compiler, _ = builder._compiler()
    found = []
    for name in (_RUNTIMES[sanitizer][0], "libstdc++.so.6"):
        done = subprocess.run(
            [compiler, f"-print-file-name={name}"],
            capture_output=True,
            text=True,
            check=True,
        )
        path = Path(done.stdout.strip())
        if not path.is_absolute():
            raise builder.BuildError(f"{compiler} has no {name}")
        found.append(str(path.resolve()))
    return " ".join(found)


def _environment(sanitizer: str, variant: str) -> dict[str, str]:
    here = Path(__file__).parents[1]
    paths = (str(here / "src"), str(here))
    return {
        **os.environ,
        **_RUNTIMES[sanitizer][1],
        "LD_PRELOAD": _preloaded(sanitizer),
        "ELISION_SANITIZE": sanitizer,
        "ELISION_VARIANT": variant,
        "PYTHONPATH": os.pathsep.join(paths),
    }


def _variants() -> tuple[str, ...]:
    """Variants to try: the one that is asked for, or those that share no code.

    The best that this CPU runs, AVX2 and the portable one; those between are of the code
    of their neighbours.
    """
    if os.environ.get("ELISION_VARIANT"):
        return (builder.variant(),)
    runs = builder.runnable_variants()
    return tuple(dict.fromkeys((runs[0], *(v for v in runs if v in _OTHERS))))


class _Watched:
    """A process under a sanitizer, which runs trials on request."""

    def __init__(self, sanitizer: str, variant: str) -> None:
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "campaigns.sanitized"],
            env=_environment(sanitizer, variant),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def trials(
        self, name: str, numbers: range, seed: int
    ) -> tuple[list[dict[str, Any]], str]:
        """What is said about trials, and why it ended before the last, if it did.

        Raises:
            RuntimeError: the process does not begin.
        """
        process, said = self._process, list[dict[str, Any]]()
        assert process.stdin is not None
        assert process.stdout is not None
        seconds = _START_SECONDS + _TRIAL_SECONDS * len(numbers)
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        try:
            asked = [name, [numbers.start, numbers.stop, numbers.step], seed]
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(asked) + "\n")
                process.stdin.flush()
            for line in process.stdout:
                said.append(json.loads(line))
                if "calls" in said[-1]:
                    return said, ""
        finally:
            timer.cancel()
        report = self._report()
        if not said:
            raise RuntimeError(f"the process of the trials does not begin: {report}")
        return said, report

    def end(self) -> None:
        """Close its input, at which it ends, and wait for that."""
        self._process.communicate()
        self._errors.close()

    def _report(self) -> str:
        """The beginning of a sanitizer's report, or the end of what was said otherwise."""
        status = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().splitlines()
        for number, line in enumerate(lines):
            if REPORT.search(line):
                return "\n".join(lines[number : number + _LINES])
        return "\n".join([f"status {status}, without a report:", *lines[-_LINES:]])


#: The processes at work.
_WATCHED: dict[tuple[str, str, bool], _Watched] = {}


@atexit.register
def _end_all() -> None:
    while _WATCHED:
        _WATCHED.popitem()[1].end()


def _trials(
    name: str, sanitizer: str, variant: str, numbers: range, seed: int
) -> tuple[list[dict[str, Any]], str]:
    """What the process of a variant says; the library that it loads is built before."""
    at = (sanitizer, variant, KERNELS[name].forks)
    if at not in _WATCHED:
        if KERNELS[name].entries:
            flags = builder.SANITIZERS[sanitizer]
            builder.Build(variant, flags, _BUILD_SECONDS).library()
        _WATCHED[at] = _Watched(sanitizer, variant)
    said, report = _WATCHED[at].trials(name, numbers, seed)
    if report:
        _WATCHED.pop(at).end()
    return said, report


def _row(name: str, sanitizer: str, count: int, seed: int) -> Row:
    """Trials of one group of kernels, shared out among the variants."""
    if reason := why_not(sanitizer):
        return Row({"not tried": count}, facts={"why": reason})
    row, variants = Row({"clean": 0}), _variants()
    calls: Counter[str] = Counter()
    for first, variant in enumerate(variants):
        numbers = range(first, count, len(variants))
        while numbers:
            said, report = _trials(name, sanitizer, variant, numbers, seed)
            calls += _noted(said, report, variant, row)
            numbers = numbers[sum("trial" in line for line in said) :]
            if len(row.bad) >= _ENOUGH and numbers:
                row.counts["given up"] = row.counts.get("given up", 0) + len(numbers)
                break
    entries = KERNELS[name].entries
    if missed := [entry for entry in entries if not calls[entry]]:
        row.bad.append(f"never called: {', '.join(missed)}")
    row.facts = {
        "calls": {entry: calls[entry] for entry in entries},
        "variants": list(variants),
    }
    return row


def _noted(
    said: list[dict[str, Any]], report: str, variant: str, row: Row
) -> Counter[str]:
    """Put what a process said into the row; the calls that it counted."""
    calls: Counter[str] = Counter()
    trial, bad = -1, 0
    for line in said:
        trial = line.get("trial", trial)
        if "wrong" in line:
            row.bad.append(f"trial {trial}, {variant}: {line['wrong']}")
            bad += 1
        calls.update(line.get("calls", {}))
    if report:
        row.bad.append(f"trial {trial}, {variant}: {report}")
        bad += 1
    row.counts["clean"] += sum("trial" in line for line in said) - bad
    return calls


#: Short names of the sanitizers, for the names of kinds.
_SHORT = {"address,undefined": "address", "thread": "thread"}

SANITIZERS = Campaign(
    "sanitizers",
    "shapes",
    320,
    {
        f"{name} under {_SHORT[sanitizer]}": partial(_row, name, sanitizer)
        for sanitizer in _RUNTIMES
        for name in KERNELS
    },
)
