"""Folder of a study: its configuration, its machine, its results.

A run folder stands alone. It is claimed by writing its configuration, and one process
works in it at a time. The same configuration continues it, and one with more recipes,
machines, probes or seeds adds what is missing. Another one is refused, so that no run ends
up holding the results of two.
"""

import itertools
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from elision import __version__
from elision.common.files import (
    check_no_links_out,
    is_partial,
    read_json,
    remove_left_partials,
    write_json,
    write_text,
)
from elision.common.locking import alone_in
from elision.common.toml import from_toml, to_toml
from elision.common.versioned import unversioned, versioned

__all__ = [
    "Environment",
    "claimed",
    "commit_of",
    "configuration",
    "environment",
    "kept_environment",
    "numbered",
    "own",
]

#: Patience with git on a slow disk; a run without its commit is better than none.
_GIT_SECONDS = 10

#: Layout of a run folder; raised when a later version could not continue an older one.
LAYOUT = 1

#: Facts about the machine that began a run; see :func:`environment`.
_ENVIRONMENT = "env.json"

#: Digests of what a run is made of; see :mod:`elision.study.sources`.
_SOURCES = "sources.json"


@contextmanager
def claimed(
    folder: Path, config: dict[str, Any], sources: dict[str, str] | None = None
) -> Iterator[None]:
    """Context in which a folder is this run's, and no other process works in it.

    Nothing is written or removed before the folder is known to be free or this run's.
    Files that a killed process left half-written are then removed.

    Args:
        folder: created if it does not exist.
        config: the study's configuration, plain values.
        sources: digests of what the configuration names, such as the data; kept in
            ``sources.json``.

    Raises:
        ValueError: the folder belongs to a run of another configuration or layout, of
            sources that have changed since, or of more than is asked for, holds other
            files and no run, or a link to a folder outside, or is a file; or another
            process is at work in it.
        OSError: the folder cannot be made or written.
    """
    _refuse(folder, config, sources or {})
    with own(folder):
        _refuse(folder, config, sources or {})  # once more: nobody writes now
        remove_left_partials(folder)
        path = folder / "config.toml"
        wanted = to_toml({"layout": LAYOUT, "study": config})
        if not path.is_file() or from_toml(wanted)["study"] != configuration(folder):
            write_text(path, wanted)
        if sources and not (folder / _SOURCES).is_file():
            write_json(folder / _SOURCES, versioned(sources))
        # The claim comes first: a run killed right after it is still this run.
        if not (folder / _ENVIRONMENT).is_file():
            started = datetime.now(UTC).date().isoformat()
            facts = environment() | {"started": started}
            write_json(folder / _ENVIRONMENT, versioned(facts))
        yield


@contextmanager
def own(folder: Path) -> Iterator[None]:
    """Context in which no other process works in a folder that holds no study.

    Args:
        folder: created if it does not exist.

    Raises:
        ValueError: another process is at work in it, it is a file, or a folder below it
            is a link to one outside.
        OSError: the folder cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; give a folder with --out")
    check_no_links_out(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder):
        yield


def _refuse(folder: Path, config: dict[str, Any], sources: dict[str, str]) -> None:
    """Raise ValueError unless a folder is free or holds this run."""
    if (folder / "config.toml").is_file():
        after = from_toml(to_toml({"study": config}))["study"]
        _refuse_another(folder, configuration(folder), after)
        _refuse_changed(folder, sources)
        if (folder / _ENVIRONMENT).is_file():
            kept_environment(folder)  # read now, not after the trainings
    elif folder.is_dir() and not all(map(is_partial, folder.iterdir())):
        raise ValueError(
            f"{folder}: not empty and not a run folder; give another with --out"
        )


def numbered(folder: Path, config: dict[str, Any]) -> Path:
    """The folder, or the next of ``folder-2``, ``folder-3``, ... that the run can have.

    Args:
        folder: the first that is tried.
        config: as for :func:`claimed`.
    """
    for number in itertools.count(1):
        tried = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        if not tried.exists() or (tried.is_dir() and not any(tried.iterdir())):
            return tried
        with suppress(ValueError):
            after = from_toml(to_toml({"study": config}))["study"]
            _refuse_another(tried, configuration(tried), after)
            return tried
    raise AssertionError


def _refuse_changed(folder: Path, sources: dict[str, str]) -> None:
    """Raise ValueError if a run's sources are no longer what it began with."""
    path = folder / _SOURCES
    if not path.is_file():
        return
    before = read_json(
        path,
        "the digests of what the run began with",
        "give another folder with --out, or delete this file if nothing has changed since",
    )
    if changed := [
        n for n, digest in sources.items() if before.get(n, digest) != digest
    ]:
        raise ValueError(
            f"{folder}: holds a run with another {' and '.join(changed)}, which "
            f"{'have' if len(changed) > 1 else 'has'} changed since; give another folder "
            "with --out"
        )


def _refuse_another(
    folder: Path, before: dict[str, Any], after: dict[str, Any]
) -> None:
    """Raise ValueError unless ``after`` is ``before``, or that and more."""
    changed = [k for k in {**before, **after} if before.get(k) != after.get(k)]
    if another := [k for k in changed if k not in _GROWING]:
        raise ValueError(
            f"{folder}: holds a run with another {', '.join(another)}; "
            "give another folder with --out, or delete this one"
        )
    for setting in changed:
        held, asked = (_GROWING[setting](config) for config in (before, after))
        if missing := [str(value) for value in held if value not in asked]:
            raise ValueError(
                f"{folder}: holds a run with the {setting} {', '.join(missing)} as well; "
                "name them, too, add to the run with --resume, or give another folder "
                "with --out"
            )
    if before.get("recipes", [None])[0] != after.get("recipes", [None])[0]:
        raise ValueError(
            f"{folder}: holds a run whose first recipe, with which the others are "
            f"compared, is {before['recipes'][0]}; give another folder with --out"
        )


def _seeds(config: dict[str, Any]) -> list[int]:
    """The seeds of a configuration; see ``StudyConfig.all_seeds``."""
    seeds, first = config.get("seeds", 1), config.get("seed", 0)
    return list(range(first, first + seeds)) if isinstance(seeds, int) else seeds


#: Settings of which a finished run can be given more, and their values.
_GROWING: dict[str, Callable[[dict[str, Any]], list[Any]]] = {
    "recipes": lambda config: config.get("recipes", []),
    "accelerators": lambda config: config.get("accelerators", []),
    "probes": lambda config: config.get("probes", []),
    "seeds": _seeds,
}


def configuration(folder: Path) -> dict[str, Any]:
    """The configuration of the run that a folder holds.

    Raises:
        ValueError: not a run folder, or one of another layout.
    """
    path = folder / "config.toml"
    if not path.is_file():
        raise ValueError(f"{folder}: not a run folder (it has no config.toml)")
    try:
        found = from_toml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not readable as TOML: {error}") from error
    if found.get("layout") != LAYOUT:
        raise ValueError(
            f"{folder}: a run folder of layout {found.get('layout')!r}; this version "
            f"writes layout {LAYOUT}. Give another folder with --out"
        )
    return found.get("study", {})


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Versions and machine of a run.

    Attributes:
        elision: version of this library.
        commit: of the clone that holds its files, marked where it was changed; absent
            where it is in no clone.
        python: version.
        torch: version.
        numpy: version.
        system: operating system and kind of machine.
        processor: model name, as far as the system has it.
        cpu_count: logical processors; None where the system does not tell.
        threads: threads that torch computes with.
        capability: instructions of torch's dense products.
        byte_order: of the machine.
        started: day in UTC on which the run began; absent in other environments.

    Example:
        >>> Environment.here().elision == __version__
        True
    """

    elision: str
    commit: str | None = None
    python: str
    torch: str
    numpy: str
    system: str
    processor: str
    cpu_count: int | None
    threads: int
    capability: str
    byte_order: Literal["little", "big"]
    started: str | None = None

    @classmethod
    def here(cls) -> "Environment":
        """That of this process."""
        import numpy
        import torch

        return cls(
            elision=__version__,
            commit=commit_of(Path(__file__).parent),
            python=platform.python_version(),
            torch=torch.__version__,
            numpy=numpy.__version__,
            system=f"{platform.system()} {platform.machine()}",
            processor=_processor(),
            cpu_count=os.cpu_count(),
            threads=torch.get_num_threads(),
            capability=torch.backends.cpu.get_cpu_capability(),
            byte_order=sys.byteorder,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; what is absent is left out."""
        return {
            name: value
            for name, value in asdict(self).items()
            if value is not None or name not in ("commit", "started")
        }


def environment() -> dict[str, Any]:
    """Versions, processor and threads of this machine; of a clone, its commit."""
    return Environment.here().to_dict()


def kept_environment(folder: Path) -> dict[str, Any]:
    """Facts about the machine that began a folder's run, as :func:`claimed` wrote them.

    Raises:
        ValueError: the file is damaged.
        OSError: it cannot be read.
    """
    found = read_json(
        folder / _ENVIRONMENT,
        "the versions and the machine that the run began with",
        "delete it, and those of today are written in their place",
    )
    return unversioned(found)


def commit_of(folder: Path) -> str | None:
    """Commit of the clone that holds a folder's files, marked where it was changed.

    Args:
        folder: of a package.

    Returns:
        The commit's short name; None where the files are in no clone, as those of an
        installed package are not, even below somebody's clone.
    """
    git = ["git", "-C", str(folder)]
    # Looking at a clone leaves it as it is.
    settings = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
    try:
        for asked in (
            ["ls-files", "--error-unmatch", "__init__.py"],
            ["describe", "--always", "--dirty", "--exclude=*"],
        ):
            found = subprocess.run(
                [*git, *asked],
                check=True,
                capture_output=True,
                env=settings,
                text=True,
                timeout=_GIT_SECONDS,
            )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def _processor() -> str:
    """The processor's model name, as far as the system has it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
