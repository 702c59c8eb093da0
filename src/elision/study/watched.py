"""Run folders below a folder: what each runs, how far it is, and what it came to last.

Only files are read: configurations, summaries and the headers of checkpoints. Nothing that
a folder names is imported, and no symbolic link is followed.
"""

import os
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from elision.common.locking import is_held
from elision.study import folder as runfolder
from elision.study.command import command_line
from elision.study.config import StudyConfig, recipe_folder
from elision.study.outcome import read_summary
from elision.training import checkpoint
from elision.training.checkpoint import Kept
from elision.workloads import WORKLOADS, Metric

__all__ = ["Watch", "Watched"]

#: Folders below one another in which runs are looked for (own choice).
_DEPTH = 4

#: Time for which a look at the folders is answered again (own choice).
_KEPT_SECONDS = 1.0

#: A folder with one of these is a run's.
_SIGNS = ("config.toml", "summary.json", "report.html")

#: Settings by which a run that is no study is known, and its command.
_COMMANDS = {
    "federated": "elision federate",
    "sensitivities": "elision search",
    "template": "elision search --method ...",
}


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A run folder as it is now.

    Attributes:
        path: below the folder that is watched, with slashes; empty: itself.
        state: ``"running"`` (a process has its lock), ``"ended"``, ``"killed"`` (neither),
            or ``"damaged"``.
        reason: what is damaged.
        command: that runs it; empty where the folder does not say it.
        workload: its name.
        recipes: their specs.
        done: epochs that are trained, of all recipes and seeds.
        epochs: of the whole run; 0 where that is not known.
        latest: recipe, and seed where there are several, that was written last.
        loss: its mean training loss in its last epoch; None before there is one.
        score: the task's metric after it; None likewise.
        metric: of the score.
        written: when a file of the folder was last written, seconds since 1970.
        has_report: whether there is a ``report.html``.

    Example:
        >>> Watched(path="a", state="killed", written=0.0).epochs_text()
        ''
        >>> Watched(path="a", state="running", written=0.0, done=2, epochs=6).epochs_text()
        '2 of 6'
    """

    path: str
    state: str
    written: float
    reason: str = ""
    command: str = ""
    workload: str = ""
    recipes: tuple[str, ...] = ()
    done: int = 0
    epochs: int = 0
    latest: str = ""
    loss: float | None = None
    score: float | None = None
    metric: Metric | None = None
    has_report: bool = False

    def epochs_text(self) -> str:
        """Epochs done and in all; empty where they are not known."""
        return f"{self.done} of {self.epochs}" if self.epochs else ""


class Watch:
    """The run folders below a folder, looked at again at most once a second.

    Args:
        folder: is searched through to a depth of four, hidden folders and links left out.
            A run folder is not searched further.

    Raises:
        ValueError: there is no such folder.

    Example:
        >>> Watch(Path("no-such-folder"))
        Traceback (most recent call last):
        ValueError: no-such-folder: no such folder
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder")
        self.folder = folder.resolve()
        self._lock = threading.Lock()
        self._seen: tuple[float, list[Watched]] | None = None
        self._kept: dict[Path, tuple[tuple[int, ...], Any]] = {}

    def runs(self) -> list[Watched]:
        """The runs, by their path."""
        with self._lock:
            now = time.monotonic()
            if self._seen is None or now - self._seen[0] > _KEPT_SECONDS:
                found = [self._watched(place) for place in _run_folders(self.folder)]
                self._seen = now, sorted(found, key=lambda run: run.path)
            return self._seen[1]

    def _watched(self, place: Path) -> Watched:
        """A run folder; one that cannot be read is named with its reason."""
        path = place.relative_to(self.folder).as_posix()
        found = Watched(path="" if path == "." else path, state="damaged", written=0.0)
        try:
            found = replace(
                found,
                written=_last_written(place),
                has_report=_is_plain(place / "report.html"),
            )
            return self._read(place, found)
        except (ValueError, OSError, RecursionError) as error:
            said = " ".join(str(error).split())
            return replace(found, reason=said.replace(f"{place}{os.sep}", ""))

    def _read(self, place: Path, found: Watched) -> Watched:
        # Asked first: a run that ends meanwhile has written its summary by then.
        held = is_held(place)
        if not _is_plain(place / "config.toml"):
            state = "running" if held else "ended"  # a command that is done at once
            return replace(found, state=state)
        settings = runfolder.configuration(place)
        for setting, command in _COMMANDS.items():
            if setting in settings:
                ended = _is_plain(place / "summary.json")
                state = "running" if held else "ended" if ended else "killed"
                return replace(found, state=state, command=command, **_named(settings))
        config = _config(settings)
        summary = self._of_file(place / "summary.json", read_summary)
        ended = summary is not None and _covers(summary, config)
        state = "running" if held else "ended" if ended else "killed"
        return self._with_epochs(
            place,
            config,
            replace(
                found,
                state=state,
                command=command_line(config),
                workload=config.workload_name,
                recipes=config.recipes,
                metric=config.metric,
            ),
        )

    def _with_epochs(self, place: Path, config: StudyConfig, found: Watched) -> Watched:
        """The run with its epochs, and what was written last."""
        seeds, done = config.all_seeds(), 0
        latest: tuple[int, str, Kept] | None = None
        for spec in config.recipes:
            for seed in seeds:
                of_recipe = recipe_folder(place, spec)
                own = of_recipe if seed == config.seed else of_recipe / f"seed-{seed}"
                path = own / checkpoint.CHECKPOINT
                kept = self._of_file(
                    path, lambda _, own=own: checkpoint.kept(own, config.metric.name)
                )
                if kept is None or not kept.history:
                    continue
                done += len(kept.history)
                label = f"{spec}, seed {seed}" if len(seeds) > 1 else spec
                written = path.stat().st_mtime_ns
                if latest is None or written > latest[0]:
                    latest = written, label, kept
        epochs = config.resolved_workload().epochs * len(config.recipes) * len(seeds)
        found = replace(found, done=done, epochs=epochs)
        if latest is None:
            return found
        last = latest[2].history[-1]
        return replace(found, latest=latest[1], loss=last.loss, score=last.score)

    def _of_file(self, path: Path, read: Any) -> Any:
        """What a plain file says, read again when it has changed; None without one."""
        if not _is_plain(path):
            self._kept.pop(path, None)
            return None
        known = path.stat()
        mark = known.st_ino, known.st_size, known.st_mtime_ns
        if path not in self._kept or self._kept[path][0] != mark:
            self._kept[path] = mark, read(path)
        return self._kept[path][1]


def _run_folders(folder: Path, depth: int = _DEPTH) -> Iterator[Path]:
    """Folders of runs, not searched further."""
    if any(_is_plain(folder / sign) for sign in _SIGNS):
        yield folder
    elif depth > 0:
        for entry in _entries(folder):
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                yield from _run_folders(Path(entry.path), depth - 1)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds; nothing of one that cannot be listed, or is gone."""
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:
        return []


def _last_written(folder: Path, depth: int = _DEPTH) -> float:
    """When a file below a folder was last written."""
    found = 0.0
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False):
            if depth > 0:
                found = max(found, _last_written(Path(entry.path), depth - 1))
        elif entry.is_file(follow_symlinks=False):
            found = max(found, entry.stat(follow_symlinks=False).st_mtime)
    return found


def _is_plain(path: Path) -> bool:
    """Whether there is a file that is neither a link nor a device."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _covers(summary: dict[str, Any], config: StudyConfig) -> bool:
    """Whether a summary is of all that a run was given, also after ``--resume``."""
    known = [summary.get(name) for name in ("recipes", "accelerators")]
    recipes, machines = (found if isinstance(found, dict) else {} for found in known)
    return (
        set(config.recipes) <= set(recipes)
        and set(config.accelerators) <= set(machines)
        and summary.get("seeds", 1) == len(config.all_seeds())
    )


def _config(settings: dict[str, Any]) -> StudyConfig:
    """The configuration of a study; a name never stands for a file of somebody's."""
    workload = settings.get("workload")
    if not isinstance(workload, dict) and workload not in WORKLOADS:
        raise ValueError(f"config.toml: no workload {workload!r}")
    try:
        return StudyConfig.from_toml(settings)
    except ValueError as error:
        raise ValueError(f"config.toml: {error}") from error


def _named(settings: dict[str, Any]) -> dict[str, Any]:
    """Workload and recipes of a run of another command, as far as it has them."""
    holder = settings.get("template", settings)
    workload = holder.get("workload") if isinstance(holder, dict) else None
    name = workload.get("name") if isinstance(workload, dict) else workload
    recipe = settings.get("recipe")
    return {
        "workload": name if isinstance(name, str) else "",
        "recipes": (recipe,) if isinstance(recipe, str) else (),
    }
