"""Building the native kernels: compiled once on this machine by the user's compiler.

The C++ sources are package data. The first use compiles them to one plain shared
library in the user's cache; its name is the hash of everything that decides its content
(sources, compiler, flags, machine), so that a stale library is never loaded and one
cache may serve different machines. Two processes that build at once wait for each other;
a library that does not match its recorded digest is built again. A library is code that
runs, so folder and files must be the user's own, and nobody else may write to them.
"""

import contextlib
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from elision.common.files import is_alive
from elision.common.locking import locked
from elision.common.names import lookup
from elision.common.programs import completed

__all__ = [
    "NEXT_BEST",
    "SANITIZERS",
    "VARIANTS",
    "Build",
    "BuildError",
    "build_text",
    "cache_folder",
    "compiler",
    "cpu_fields",
    "private_folder",
    "runnable_variants",
    "variant",
]

_AVX512 = (
    "-mavx512f",
    "-mavx512dq",
    "-mavx512bw",
    "-mavx512vl",
    "-mfma",
    "-mprefer-vector-width=512",
)

_VNNI = (*_AVX512, "-mavx512vnni")
_FP16 = (*_VNNI, "-mavx512fp16")

#: Instruction sets a library can be built for, best first, and the flags for each.
VARIANTS: dict[str, tuple[str, ...]] = {
    "amx": (*_FP16, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"),
    "avx512fp16": _FP16,
    "avx512vnni": _VNNI,
    "avx512": _AVX512,
    "avx2": ("-mavx2", "-mfma"),
    "portable": (),
}

#: What Linux calls the instructions that a CPU with AVX-512 may have, best first.
_BEYOND_AVX512 = {
    "amx": {"avx512_vnni", "avx512_fp16", "avx512_bf16", "amx_tile", "amx_bf16"},
    "avx512fp16": {"avx512_vnni", "avx512_fp16"},
    "avx512vnni": {"avx512_vnni"},
}

#: What to build where the compiler is older than the CPU.
NEXT_BEST = {
    "amx": "avx512fp16",
    "avx512fp16": "avx512vnni",
    "avx512vnni": "avx512",
}

#: Names of the folders that compilations work in: this, the process, a token.
_BUILD = "build-"

_COMMON = ("-std=c++17", "-O3", "-shared", "-fPIC", "-pthread", "-w")

#: What ``$ELISION_SANITIZE`` may be, and the flags: lines in reports, and in place of
#: instructions that the variant lacks their emulation, so that every kernel can run. Such a
#: library loads only into a process that began with the sanitizer's own library
#: (``LD_PRELOAD``), as ``campaigns/sanitizers.py`` does.
SANITIZERS: dict[str, tuple[str, ...]] = {
    name: (
        *("-O1", "-g1", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all"),
        *("-DELISION_EMULATE_HALF", "-DELISION_EMULATE_TILES", f"-fsanitize={name}"),
    )
    for name in ("address,undefined", "thread")
}


class BuildError(RuntimeError):
    """The kernels cannot be built here; the message gives the reason."""


def cache_folder() -> Path:
    """Where built libraries are kept.

    ``$ELISION_CACHE`` if set, else ``$XDG_CACHE_HOME/elision``, else
    ``~/.cache/elision``.

    Raises:
        OSError: none is set, and the user has no home.
    """
    if folder := os.environ.get("ELISION_CACHE"):
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "elision"
    except RuntimeError as error:  # no HOME, and the user is in no table
        raise OSError("there is no home folder; set ELISION_CACHE") from error


def variant() -> str:
    """The best variant that this CPU runs, or the one named in ``$ELISION_VARIANT``.

    Raises:
        ValueError: ``$ELISION_VARIANT`` is not a variant, or has instructions that this
            CPU lacks.
    """
    runs = runnable_variants()
    name = os.environ.get("ELISION_VARIANT")
    if not name:
        return runs[0]
    lookup("native variant", name, VARIANTS)
    if name not in runs:
        raise ValueError(
            f"ELISION_VARIANT={name}: this CPU, as torch sees it, lacks some of its "
            f"instructions; it runs {', '.join(runs)}"
        )
    return name


def runnable_variants() -> tuple[str, ...]:
    """Variants that this CPU runs, best first."""
    names = tuple(VARIANTS)
    return names[names.index(_best_variant()) :]


def _best_variant() -> str:
    capability = torch.backends.cpu.get_cpu_capability()
    if capability.startswith("AVX512"):
        flags = set(cpu_fields().get("flags", "").split())
        for name, needed in _BEYOND_AVX512.items():
            if needed <= flags:
                return name
        return "avx512"
    return "avx2" if capability == "AVX2" else "portable"


def cpu_fields() -> dict[str, str]:
    """Fields of Linux's description of the CPU, instruction sets as ``flags``.

    Empty on other systems.
    """
    fields = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            key, _, value = line.partition(":")
            fields[key.strip()] = value.strip()
    return fields


@dataclass(frozen=True)
class Build:
    """One way to build the kernels.

    Attributes:
        variant: instruction set, a key of :data:`VARIANTS`.
        extra_flags: further compiler flags (the tests pass sanitizers).
        timeout_seconds: after which a compilation is given up (about 45 s are usual on
            one core; the default is an own choice).

    Raises:
        ValueError: an unknown variant.

    Example:
        >>> Build("portable").extra_flags
        ()
    """

    variant: str
    extra_flags: tuple[str, ...] = ()
    timeout_seconds: float = 300.0

    def __post_init__(self) -> None:
        lookup("native variant", self.variant, VARIANTS)

    def library(self) -> Path:
        """Path of the built library; builds it if it is absent or damaged.

        Raises:
            BuildError: there is no compiler, it failed or took too long, or the cache
                cannot be written.
        """
        compiler, version = _compiler()
        sources = _sources()
        flags = (*_flags(self.variant), *self.extra_flags)
        digest = hashlib.sha256(
            "\0".join((version, platform.machine(), *flags)).encode()
        )
        for source in sources:
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
        name = f"kernels-{self.variant}-{digest.hexdigest()[:16]}"
        units = [source for source in sources if source.suffix == ".cpp"]
        return _cached(
            name,
            lambda path: _compile(
                [compiler, *flags, *map(str, units)],
                path,
                f"the native kernels ({self.variant}, {compiler})",
                self.timeout_seconds,
            ),
        )


def build_text(
    text: str, flags: tuple[str, ...] = (), timeout_seconds: float = 300.0
) -> Path:
    """Path of the library built from a C++ source that was made by code.

    It is kept in the same cache and by the same rules as the kernels, for the best
    variant of this CPU.

    Args:
        text: C++17.
        flags: beyond those of the kernels, such as ``-fopenmp``.
        timeout_seconds: after which a compilation is given up (an own choice).

    Raises:
        BuildError: as :meth:`Build.library`.
    """
    compiler, version = _compiler()
    chosen = variant()
    every = (*_flags(chosen), *flags)
    named = "\0".join((version, platform.machine(), *every, text))
    digest = hashlib.sha256(named.encode()).hexdigest()

    def compile_(path: Path) -> None:
        with _build_folder(path.parent) as folder:
            unit = folder / "generated.cpp"
            unit.write_text(text, encoding="utf-8")
            _compile([compiler, *every, str(unit)], path, "", timeout_seconds)

    return _cached(f"generated-{chosen}-{digest[:16]}", compile_)


def _flags(variant: str) -> tuple[str, ...]:
    """The compiler's flags of every library of a variant.

    Raises:
        ValueError: ``$ELISION_SANITIZE`` is set, and is none of :data:`SANITIZERS`.
    """
    name = os.environ.get("ELISION_SANITIZE")
    checked = lookup("ELISION_SANITIZE", name, SANITIZERS) if name else ()
    return (*_COMMON, *VARIANTS[variant], *checked)


def _cached(name: str, compile_: Callable[[Path], None]) -> Path:
    """Path of a library of the cache; compiled if it is absent or damaged."""
    try:
        folder = private_folder(cache_folder())
        path = folder / f"{name}.so"
        _remove_left_builds(folder)
        if not _intact(path):
            with locked(path.with_suffix(".lock")):
                if not _intact(path):  # another process may have built it meanwhile
                    compile_(path)
    except OSError as error:
        raise BuildError(
            f"cannot use the kernel cache ({error}); set ELISION_CACHE to a folder of "
            "your own that can be written"
        ) from error
    return path


def private_folder(folder: Path) -> Path:
    """The folder, made if need be, where nobody but the user can put a file.

    Raises:
        OSError: it cannot be made, is another user's, or others may write to it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_owner(folder, folder.stat())
    return folder


def _check_owner(path: Path, found: os.stat_result) -> None:
    """Raise PermissionError unless the user owns what was found and alone writes to it."""
    if found.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to another user")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"others can write to {path}; chmod go-w allows it")


def _remove_left_builds(folder: Path) -> None:
    """Remove what killed compilations left; their compilers have ended with them."""
    for left in folder.glob(f"{_BUILD}*"):
        if not is_alive(int(left.name.removeprefix(_BUILD).partition("-")[0])):
            shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _build_folder(parent: Path) -> Iterator[Path]:
    """A new folder for one compilation, which bears the number of this process."""
    name = f"{_BUILD}{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=name, dir=parent) as folder:
        yield Path(folder)


def _compile(command: list[str], path: Path, told: str, timeout_seconds: float) -> None:
    """Compile and put the library and its digest in place; say so if ``told``."""
    compiler, what = command[0], "the native kernels" if told else "generated code"
    if told:
        print(f"elision: building {told} once, into {path.parent}", file=sys.stderr)
    with _build_folder(path.parent) as folder:
        made = folder / path.name
        try:
            done = completed(
                [*command, "-o", str(made)],
                timeout_seconds=timeout_seconds,
                environment={"TMPDIR": str(folder)},  # removed with it
            )
        except subprocess.TimeoutExpired as error:
            raise BuildError(
                f"{compiler} took longer than {timeout_seconds:g} s to build {what}"
            ) from error
        if done.returncode != 0:
            reason = _reason(done.stderr.decode(errors="replace").splitlines())
            raise BuildError(
                f"{compiler} cannot build {what}: {reason} (in {path.parent})"
            )
        record = made.with_suffix(".sha256")
        record.write_text(_digest(made))
        for file in (made, record):  # whatever the user's mask allows to others
            file.chmod(0o700 if file is made else 0o600)
        made.replace(path)
        record.replace(path.with_suffix(".sha256"))


def _reason(said: list[str]) -> str:
    """The line of a compiler that says why it failed."""
    # gcc's last line says that the linker failed; the linker said why.
    lines = [line for line in said if not line.startswith("collect2:")]
    errors = [line for line in lines if "error" in line]
    return (errors or lines or said or ["no message"])[0]


def _sources() -> list[Path]:
    folder = Path(__file__).with_name("kernels")
    return sorted(p for p in folder.iterdir() if p.suffix in {".cpp", ".hpp"})


def compiler() -> str:
    """The C++ compiler and its version, in one line.

    Raises:
        BuildError: there is none, or it does not run; the message says what to do.
    """
    return ": ".join(_compiler())


def _compiler() -> tuple[str, str]:
    """The C++ compiler and its version line."""
    given = os.environ.get("CXX")
    for name in [given] if given else ["g++", "clang++", "c++"]:
        if path := shutil.which(name):
            try:
                done = subprocess.run(
                    [path, "--version"],
                    capture_output=True,
                    text=True,
                    timeout=30,
                    check=True,
                )
            except (OSError, subprocess.SubprocessError) as error:
                raise BuildError(f"{path} --version fails: {error}") from error
            return path, done.stdout.splitlines()[0] if done.stdout else path
    raise BuildError(
        f"no C++ compiler ({given or 'g++, clang++, c++'}) on the PATH; "
        "install one or set CXX"
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _intact(path: Path) -> bool:
    """Whether a library is there as it was built, a file of the user's alone.

    Raises:
        OSError: others could have written it, or its digest.
    """
    record = path.with_suffix(".sha256")
    for file in (path, record):
        try:
            found = file.lstat()
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(found.st_mode):
            raise PermissionError(f"{file} is not a plain file")
        _check_owner(file, found)
    return record.read_bytes() == _digest(path).encode()
