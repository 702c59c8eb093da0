"""Units of a reproduction: measured once, written down, and read again."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from elision.common.files import without_nan, write_json
from elision.study.folder import environment

__all__ = ["once"]


def once(
    path: Path, settings: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]
) -> dict[str, Any]:
    """The content of a file measured with these settings, else measure and write it.

    Args:
        path: a JSON file; beside what was measured it holds ``settings`` and
            ``environment``, the machine and its load before the measurement.
        settings: all that the measurement depends on, as plain values.
        measure: gives plain values by name; NaN is written as null.

    Raises:
        OSError: the file cannot be written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder) / "two.json"
        ...     once(file, {"of": 1}, lambda: {"sum": 2})["sum"]
        ...     once(file, {"of": 1}, lambda: {"sum": 3})["sum"]
        ...     once(file, {"of": 9}, lambda: {"sum": 3})["sum"]
        2
        2
        3
    """
    expected = json.loads(json.dumps(settings))
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.get("settings") == expected:
            return found
    # Read before the measurement: the load that other processes make.
    machine = environment() | {"load": os.getloadavg()[0]}
    found = {"environment": machine, "settings": expected} | dict(measure())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, without_nan(found))
    return json.loads(path.read_text(encoding="utf-8"))
