"""Folder of a study: its configuration, its machine, its results.

A run folder stands alone. It is claimed by writing its configuration; the same
configuration continues it, another one is refused, so that no run ends up holding the
results of two.
"""

import json
import os
import platform
import sys
import tomllib
from pathlib import Path
from typing import Any

from elision import __version__
from elision.common.files import is_partial, write_json, write_text

__all__ = ["claim", "configuration", "environment", "to_toml"]

#: Layout of a run folder; raised when a later version could not continue an older one.
LAYOUT = 1


def claim(folder: Path, config: dict[str, Any]) -> None:
    """Make a folder this run's, or confirm that it is.

    Files that a killed process left half-written are removed.

    Args:
        folder: created if it does not exist.
        config: the study's configuration, plain values.

    Raises:
        ValueError: the folder belongs to a run of another configuration or layout,
            holds other files and no run, or is a file.
        OSError: the folder cannot be made or written.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; give a folder with --out")
    for partial in [p for p in folder.rglob(".*") if is_partial(p)]:
        partial.unlink(missing_ok=True)
    path = folder / "config.toml"
    wanted = to_toml({"layout": LAYOUT, "study": config})
    if path.is_file():
        before = configuration(folder)
        after = tomllib.loads(wanted)["study"]
        if before != after:
            changed = [k for k in {**before, **after} if before.get(k) != after.get(k)]
            raise ValueError(
                f"{folder}: holds a run with another {', '.join(changed)}; "
                "give another folder with --out, or delete this one"
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise ValueError(
            f"{folder}: not empty and not a run folder; give another with --out"
        )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, wanted)
    # The claim comes first: a run killed right after it is still this run.
    if not (folder / "env.json").is_file():
        write_json(folder / "env.json", environment())


def configuration(folder: Path) -> dict[str, Any]:
    """The configuration of the run that a folder holds.

    Raises:
        ValueError: not a run folder, or one of another layout.
    """
    path = folder / "config.toml"
    if not path.is_file():
        raise ValueError(f"{folder}: not a run folder (it has no config.toml)")
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: not readable as TOML: {error}") from error
    if found.get("layout") != LAYOUT:
        raise ValueError(
            f"{folder}: a run folder of layout {found.get('layout')!r}; this version "
            f"writes layout {LAYOUT}. Give another folder with --out"
        )
    return found.get("study", {})


def to_toml(values: dict[str, Any]) -> str:
    """Plain values as TOML: numbers, strings, booleans, lists of these, and tables.

    A None is left out: TOML has no null.

    Example:
        >>> print(to_toml({"epochs": 5, "data": None, "model": {"width": 16}}))
        epochs = 5
        <BLANKLINE>
        [model]
        width = 16
        <BLANKLINE>
    """
    lines, tables = [], []
    for key, value in values.items():
        if isinstance(value, dict):
            tables.append(f"\n[{key}]\n{to_toml(value)}")
        elif value is not None:
            # A JSON scalar or list of scalars is a TOML one.
            lines.append(f"{key} = {json.dumps(value)}\n")
    return "".join(lines + tables)


def environment() -> dict[str, Any]:
    """Versions, processor and threads of this machine."""
    import numpy
    import torch

    return {
        "elision": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "byte_order": sys.byteorder,
    }


def _processor() -> str:
    """The processor's model name, as far as the system has it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
