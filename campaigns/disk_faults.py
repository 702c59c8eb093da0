"""Faults of disks and rights: what each does to a place before work, and its undoing.

A disk in memory is mounted where the system permits it, so that it is full or read-only
for every program; elsewhere, and for errors that no such disk makes, the calls of the C
library fail (:mod:`campaigns.failing`).
"""

import errno
import os
import resource
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from campaigns.failing import EVERY_CALL, Calls, fail
from campaigns.place import Place, can_mount
from campaigns.writers import AT_HOME, Writer

__all__ = ["FAULTS", "Fault"]

#: What the work does first, in its own process.
Enter = Callable[[], None]

#: A user who owns nothing: Linux's "nobody".
_NOBODY = 65534

#: A user who is in no table, and so has no home.
_NO_NAME = 54321


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: for tables.
        begin: brings it about; gives what the work does first.
        end: takes it away.
        causes: errors of the system that may be told; none: another reason is.
        mounts: whether a disk in memory is mounted for it, where that is permitted.
        names: what may be named instead of a file on the disk.
        keeps_partials: whether temporary files cannot be removed, either.
        needs_root: whether it is of another user.
        own_writers: writers that meet it; none: all.
    """

    name: str
    begin: Callable[[Place], Enter]
    end: Callable[[Place], None]
    causes: tuple[int, ...] = ()
    mounts: bool = False
    names: tuple[str, ...] = ()
    keeps_partials: bool = False
    needs_root: bool = False
    own_writers: tuple[Writer, ...] = ()

    @property
    def is_mounted(self) -> bool:
        """Whether trials have a disk of their own."""
        return self.mounts and can_mount()

    def missing(self) -> str:
        """Why it cannot be tried here; empty if it can."""
        if self.needs_root and os.geteuid() != 0:
            return "needs the right to become another user"
        return ""


def _nothing(place: Place) -> None:
    """What needs no undoing, since it was of the process that is gone."""


# Room.


def _size(place: Place) -> int:
    """Bytes that a whole run writes."""
    return sum(map(len, place.whole.values()))


def _no_room(place: Place) -> Enter:
    return _with_room(place, 0)


def _some_room(place: Place) -> Enter:
    return _with_room(place, place.drawn.randrange(1, _size(place) + 1))


def _with_room(place: Place, room: int) -> Enter:
    """A disk with so many bytes left."""
    place.told = f"{room} bytes left"
    if not can_mount():
        return lambda: fail(place.disk, errno.ENOSPC, room)
    found = os.statvfs(place.disk)
    filler = os.open(place.disk / "filler", os.O_CREAT | os.O_WRONLY)
    os.posix_fallocate(filler, 0, found.f_bavail * found.f_frsize - room)
    os.close(filler)
    place.strange.add("filler")
    return lambda: None


def _room_again(place: Place) -> None:
    (place.disk / "filler").unlink(missing_ok=True)


def _quota(place: Place) -> Enter:
    """Bytes, or files, that the user may not exceed."""
    files = place.drawn.random() < 0.5
    calls = Calls.MAKES if files else Calls.WRITES
    left = place.drawn.randrange(2 * len(place.whole) if files else _size(place))
    place.told = f"{left} {'files' if files else 'bytes'} left"
    return lambda: fail(place.disk, errno.EDQUOT, left, counted=calls, failing=calls)


def _large_file(place: Place) -> Enter:
    """A bound on the size of a file (``ulimit -f``)."""
    largest = max(map(len, place.whole.values()))
    limit = place.drawn.randrange(largest)
    place.told = f"files of {limit} bytes"
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


# Errors.


def _broken(place: Place) -> Enter:
    """A write, a flush or a renaming that fails, and all of them after it."""
    calls = place.drawn.choice((Calls.WRITES, Calls.SYNCS, Calls.RENAMES))
    count = _size(place) if calls is Calls.WRITES else 2 * len(place.whole)
    left = place.drawn.randrange(count)
    place.told = f"{calls.name} after {left}"
    return lambda: fail(place.disk, errno.EIO, left, counted=calls, failing=calls)


def _read_only(place: Place) -> Enter:
    """A disk that is mounted read-only."""
    if not can_mount():
        return lambda: fail(
            place.disk, errno.EROFS, 0, counted=EVERY_CALL, failing=EVERY_CALL
        )
    place.remount("ro")
    return lambda: None


def _writable_again(place: Place) -> None:
    if can_mount():
        place.remount("rw")


def _turned_read_only(place: Place) -> Enter:
    """A disk that the system mounts read-only in the middle, after an error."""
    left = place.drawn.randrange(_size(place))
    place.told = f"after {left} bytes"
    return lambda: fail(place.disk, errno.EROFS, left, failing=EVERY_CALL)


def _vanishing(place: Place) -> Enter:
    """A folder that another program moves away in the middle."""
    left = place.drawn.randrange(_size(place))
    place.told = f"after {left} bytes"
    return lambda: fail(place.run, 0, left, aside=place.aside)


def _found_again(place: Place) -> None:
    if place.aside.exists():
        shutil.rmtree(place.run, ignore_errors=True)  # what was begun there anew
        place.aside.rename(place.run)


# Rights.


def _as(user: int) -> None:
    """Become another user for the rest of this process."""
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)


def _give(folder: Path, user: int) -> None:
    """Make a user the owner of a folder and all in it."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, user, follow_symlinks=False)


def _no_right(place: Place) -> Enter:
    """A folder that its owner may not write to."""
    folder = place.run if place.start is not None else place.disk
    place.told = f"{folder.name} is 0555"
    if os.geteuid() != 0:
        folder.chmod(0o555)
        return lambda: None
    _give(place.disk, _NOBODY)
    folder.chmod(0o555)
    return lambda: _as(_NOBODY)


def _right_again(place: Place) -> None:
    for folder in (place.disk, place.run):
        if folder.exists():
            folder.chmod(0o755)
    if os.geteuid() == 0:
        _give(place.disk, 0)


def _of_another(place: Place) -> Enter:
    """A disk, a run, or files of a run that are another user's and closed to all."""
    _give(place.disk, _NOBODY)
    files = [path for path in place.run.rglob("*") if path.is_file()]
    if not files or place.drawn.random() < 0.3:
        theirs = place.run if place.run.exists() else place.disk
        _give(theirs, 0)
    else:
        theirs = place.drawn.choice(files)
        os.chown(theirs, 0, 0)
        theirs.chmod(place.drawn.choice((0o600, 0o644)))
    place.told = f"{theirs.relative_to(place.base)} is root's"
    return lambda: _as(_NOBODY)


def _own_again(place: Place) -> None:
    _give(place.disk, 0)
    for path in place.run.rglob("*"):
        if path.is_file():
            path.chmod(0o644)


# Links, and files in the place of folders.


def _names(place: Place) -> tuple[list[str], list[str]]:
    """Files and folders that a whole run has in its folder, by path below the disk."""
    files = [name for name in place.whole if name.startswith("run/")]
    folders = {str(above) for name in files for above in Path(name).parents}
    return sorted(files), sorted(folders - {".", "run"})


def _linked(place: Place) -> Enter:
    """A link out of the run in the place of one of its files or folders."""
    files, folders = _names(place)
    kind = place.drawn.choice(("file", "dangling", "loop", "folder"))
    name = place.drawn.choice(folders if kind == "folder" and folders else files)
    path, target = place.disk / name, place.outside / Path(name).name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.move(path, target)
    elif path.is_file():
        shutil.copy(path, target)
        path.unlink()
    elif kind != "dangling":
        target.mkdir() if name in folders else target.write_text("not ours\n")
    if kind == "dangling":
        target = place.outside / "nothing"
    place.told = f"{name} is a link ({kind})"
    path.symlink_to(path if kind == "loop" else target)
    place.strange.add(name)
    return lambda: None


def _unlinked(place: Place) -> None:
    """Put back what was in the place of a link that is still there."""
    for name in place.strange:
        path = place.disk / name
        if path.is_symlink():
            path.unlink()
            _put_back(place, name)
    place.strange.clear()
    _empty_again(place)


def _put_back(place: Place, name: str) -> None:
    """The file or folder that the trial began with, if there was one."""
    if place.start is None:
        return
    kept, path = place.start / Path(name).relative_to("run"), place.disk / name
    if kept.is_dir():
        shutil.copytree(kept, path)
    elif kept.is_file():
        shutil.copy(kept, path)


def _empty_again(place: Place) -> None:
    """Remove the folders that a fault in a new run had to make."""
    for folder in sorted(place.run.rglob("*"), reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _of_other_kind(place: Place) -> Enter:
    """A file where the run has a folder, or a folder where it has a file."""
    files, folders = _names(place)
    name = place.drawn.choice(("run", *files, *folders))
    path = place.disk / name
    place.told = f"{name} is a {'folder' if name in files else 'file'}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if name in files:
        path.mkdir()
        (path / "letter.txt").write_text("not ours\n", encoding="utf-8")
    else:
        path.write_text("not ours\n", encoding="utf-8")
    place.strange.add(name)
    return lambda: None


def _of_kind_again(place: Place) -> None:
    """Take away what is not the run's, and put back what was in its place."""
    for name in place.strange:
        path = place.disk / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        _put_back(place, name)
    place.strange.clear()
    _empty_again(place)


# The process.


def _few_files(place: Place) -> Enter:
    """A bound on open files (``ulimit -n``)."""
    more = place.drawn.randrange(8)
    place.told = f"{more} more files"

    def enter() -> None:
        limit = len(os.listdir("/proc/self/fd")) - 1 + more
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    return enter


def _no_scratch(place: Place) -> Enter:
    """A folder for temporary files that is not there, or none that can be written."""
    if place.drawn.random() < 0.5:
        place.told = "TMPDIR is no folder"
        return lambda: os.environ.update(TMPDIR=str(place.base / "nothing"))
    place.told = "no folder for temporary files"
    return lambda: fail(Path("/"), errno.ENOSPC, 0, but=place.base)


def _no_home(place: Place) -> Enter:
    """A user without a home, or one whose home cannot be written."""
    told, home, user = place.drawn.choice(
        (
            ("no HOME and no name", None, _NO_NAME),
            ("HOME is no folder", "/dev/null", None),
            ("HOME is another's", "/", _NOBODY),
        )
    )
    place.told = told

    def enter() -> None:
        for name in ("HOME", "XDG_CACHE_HOME", "ELISION_CACHE"):
            os.environ.pop(name, None)
        if home is not None:
            os.environ["HOME"] = home
        if user is not None and os.geteuid() == 0:
            _as(user)

    return enter


_FULL = (errno.ENOSPC,)

FAULTS = (
    Fault("full", _no_room, _room_again, _FULL, mounts=True),
    Fault("filling", _some_room, _room_again, _FULL, mounts=True),
    Fault("quota", _quota, _nothing, (errno.EDQUOT,)),
    Fault("size of files", _large_file, _nothing, (errno.EFBIG,)),
    Fault("error", _broken, _nothing, (errno.EIO,)),
    Fault("read-only", _read_only, _writable_again, (errno.EROFS,), mounts=True),
    Fault(
        *("turned read-only", _turned_read_only, _nothing, (errno.EROFS,)),
        keeps_partials=True,
    ),
    Fault("vanished", _vanishing, _found_again, (errno.ENOENT,)),
    Fault("no right", _no_right, _right_again, (errno.EACCES,)),
    Fault("another user's", _of_another, _own_again, needs_root=True),
    Fault("links", _linked, _unlinked),
    Fault("other kind", _of_other_kind, _of_kind_again),
    Fault(
        *("open files", _few_files, _nothing, (errno.EMFILE,)),
        names=(os.strerror(errno.EMFILE),),  # a pipe has no name
    ),
    Fault("no scratch", _no_scratch, _nothing, _FULL, names=("/tmp", "temporary")),
    Fault(
        "no home",
        _no_home,
        _nothing,
        names=("home", "/dev/null", "/.cache"),
        own_writers=AT_HOME,
    ),
)
