"""One kind of file: the good ones, their damage, who reads them, and what came of it."""

import math
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaigns.campaign import Row
from campaigns.trial import Outcome, tried, warmed

__all__ = [
    "Damage",
    "Kind",
    "command",
    "in_process",
    "made",
    "poisoned",
    "row",
    "writes",
]

Damage = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes:
        name: for tables.
        make: writes the good files into a folder.
        files: names of those that are damaged, or patterns of names.
        read: a call that reads the folder's files, by the folder.
        damages: ways of damage, drawn evenly.
        sealed: whether a file carries a checksum.
        share: of the trials of a campaign; less where one takes a second or more.
    """

    name: str
    make: Callable[[Path], None]
    files: tuple[str, ...]
    read: Callable[[Path], Callable[[], Any]]
    damages: tuple[Damage, ...]
    sealed: bool = False
    share: float = 1.0


@dataclass
class Found:
    """What the trials of one kind came to.

    Attributes:
        counts: outcomes by kind; ``"wrong"`` are sealed files that were read otherwise.
        bad: (number of the trial, outcome) of those that no user should meet.
    """

    counts: Counter[str] = field(default_factory=Counter)
    bad: list[tuple[int, Outcome]] = field(default_factory=list)


def poisoned(
    kind: Kind, folder: Path, trials: int, seed: int = 0, first: int = 0
) -> Found:
    """Damage a kind's files again and again, and read them.

    Args:
        kind: of files.
        folder: to work in.
        trials: their number.
        seed: trial ``n`` depends on it, the kind and ``n`` alone.
        first: number of the first trial.
    """
    good, work, found = folder / "good", folder / "work", Found()
    good.mkdir(parents=True, exist_ok=True)
    kind.make(good)
    _copy(good, work)
    warmed(kind.read(work))
    _copy(good, work)
    right = tried(kind.read(work))
    if right.kind != "accepted":
        raise RuntimeError(f"{kind.name}: the good files are not read: {right.said}")
    for number in range(first, first + trials):
        drawn = random.Random(f"{seed}/{kind.name}/{number}")
        _copy(good, work)
        name = drawn.choice(_names(good, drawn.choice(kind.files)))
        content = (good / name).read_bytes()
        damaged = drawn.choice(kind.damages)(content, drawn)
        (work / name).write_bytes(damaged)
        outcome = tried(kind.read(work))
        if (
            outcome.kind == "accepted"
            and kind.sealed
            and outcome.result != right.result
        ):
            outcome = Outcome("wrong", f"{name} was read otherwise")
        found.counts[outcome.kind] += 1
        if not outcome.is_good:
            found.bad.append((number, outcome))
    return found


def row(kind: Kind, trials: int, seed: int) -> Row:
    """What a campaign keeps of a kind's trials."""
    with tempfile.TemporaryDirectory() as folder:
        count = math.ceil(kind.share * trials)
        found = poisoned(kind, Path(folder) / "kind", count, seed)
    bad = [f"{number}: {o.kind}: {o.said[-2000:]}" for number, o in found.bad]
    return Row(dict(found.counts), bad, {"sealed": kind.sealed})


def _names(folder: Path, pattern: str) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.glob(pattern))


def _copy(source: Path, target: Path) -> None:
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target)


def command(*words: str) -> Callable[[Path], Callable[[], Any]]:
    """A command of the library, ``{}`` in its words for the folder."""

    def read(folder: Path) -> Callable[[], Any]:
        def call() -> None:
            from elision.cli.main import main

            main([word.replace("{}", str(folder)) for word in words])

        return call

    return read


def writes(*words: str) -> Callable[[Path], None]:
    """A maker of files: a command that ends well, ``{}`` in its words for the folder."""

    def make(folder: Path) -> None:
        done = tried(command(*words)(folder))
        if done.kind != "accepted":
            raise RuntimeError(f"{' '.join(words)}: {done.said}")

    return make


def in_process(function: Callable[[Path], Any]) -> Callable[[Path], Callable[[], Any]]:
    """A call of a function with the folder."""
    return lambda folder: lambda: function(folder)


#: What several kinds begin with, by name: made once a process, as it takes seconds.
_MADE: dict[str, tempfile.TemporaryDirectory[str]] = {}


def made(name: str, make: Callable[[Path], Any], folder: Path) -> None:
    """Copy into a folder what a function makes, which is called once for each name."""
    if name not in _MADE:
        begun: tempfile.TemporaryDirectory[str] = tempfile.TemporaryDirectory()
        make(Path(begun.name))
        _MADE[name] = begun
    shutil.copytree(_MADE[name].name, folder, dirs_exist_ok=True)
