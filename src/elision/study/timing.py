"""Seconds per step of a study's recipes, kept in its folder."""

import json
import logging
from pathlib import Path

from elision.common.checks import number
from elision.common.files import write_json
from elision.common.versioned import VERSION_KEY, versioned

__all__ = ["TIMING", "Timing"]

_log = logging.getLogger("elision")

#: File of a run folder.
TIMING = "timing.json"


class Timing:
    """Seconds per step by recipe, kept from the process that measured them.

    They differ from run to run, so they are no part of ``summary.json``, and a damaged
    file stops no run.

    Args:
        folder: of the run.

    Example:
        >>> Timing(Path("no-such-run")).seconds
        {}
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / TIMING
        self.seconds: dict[str, float] = {}
        if self._path.is_file():
            try:
                kept = json.loads(self._path.read_text(encoding="utf-8"))
                if VERSION_KEY in kept:  # before, the recipes alone
                    kept = kept["step_seconds"]
                self.seconds = {
                    spec: number(TIMING, spec, value, ">= 0")
                    for spec, value in kept.items()
                }
            except (
                ValueError,
                LookupError,
                TypeError,
                AttributeError,
                RecursionError,
            ) as error:
                _log.warning(
                    "%s: holds no seconds per step (%s); the run goes on without those "
                    "of before",
                    self._path,
                    error,
                )

    def note(self, spec: str, seconds: float | None) -> None:
        """Keep a measurement; None (nothing was trained now) keeps the old one."""
        if seconds is not None:
            self.seconds[spec] = seconds
            write_json(self._path, versioned({"step_seconds": self.seconds}))
