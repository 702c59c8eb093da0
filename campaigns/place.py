"""A disk for one trial, with a run on it, another's file beside, and a folder outside."""

import functools
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from campaigns.folders import contents

__all__ = ["Place", "can_mount"]

#: Size of a disk in memory: some times what any writer writes.
_DISK_SIZE = "16m"


@dataclass
class Place:
    """Where a trial takes place.

    Attributes:
        base: the folder of all trials.
        start: content of the run's folder; None: there is none.
        whole: files of the disk after a whole run, by name.
        drawn: the trial's random numbers.
        told: what was drawn, for people.
        strange: names below the disk that the fault put there and takes away.
    """

    base: Path
    start: Path | None
    whole: dict[str, bytes]
    drawn: random.Random
    told: str = ""
    strange: set[str] = field(default_factory=set)

    @property
    def disk(self) -> Path:
        """The disk."""
        return self.base / "disk"

    @property
    def run(self) -> Path:
        """Folder that a writer is given."""
        return self.disk / "run"

    @property
    def outside(self) -> Path:
        """Folder of another disk, which nobody names to a writer."""
        return self.base / "outside"

    @property
    def aside(self) -> Path:
        """Where a folder goes that vanishes."""
        return self.base / "aside"

    @contextmanager
    def made(self, is_mounted: bool) -> Iterator[None]:
        """Context in which the disk is there, as the trial finds it."""
        for folder in (self.disk, self.outside, self.aside):
            shutil.rmtree(folder, ignore_errors=True)
        self.disk.mkdir()
        self.outside.mkdir()
        (self.outside / "letter.txt").write_text("not ours\n", encoding="utf-8")
        if is_mounted:
            _mounted(self.disk, "-t", "tmpfs", "-o", f"size={_DISK_SIZE}", "tmpfs")
        try:
            self._fill()
            yield
        finally:
            if is_mounted:
                subprocess.run(["umount", str(self.disk)], check=True)

    def _fill(self) -> None:
        (self.disk / "theirs.txt").write_text("another's\n", encoding="utf-8")
        if self.start is not None:
            shutil.copytree(self.start, self.run)

    def found(self) -> dict[str, bytes]:
        """What is on the disk, a folder that has vanished included."""
        gone = contents(self.aside).items()
        return contents(self.disk) | {f"run/{name}": content for name, content in gone}

    def remount(self, how: str) -> None:
        """Make a mounted disk read-only (``"ro"``) or not (``"rw"``)."""
        _mounted(self.disk, "-o", f"remount,{how}")


def _mounted(folder: Path, *words: str) -> None:
    subprocess.run(["mount", *words, str(folder)], check=True, capture_output=True)


@functools.cache
def can_mount() -> bool:
    """Whether this process may mount a disk in memory."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        try:
            _mounted(Path(folder), "-t", "tmpfs", "-o", "size=1m", "tmpfs")
        except subprocess.CalledProcessError:
            return False
        subprocess.run(["umount", folder], check=True)
    return True


def changed_outside(place: Place, before: dict[str, bytes]) -> list[str]:
    """Names of files outside the disk that are not as they were."""
    after = contents(place.outside)
    return sorted(
        name
        for name in before.keys() | after.keys()
        if before.get(name) != after.get(name)
    )
