"""Building the native kernels: compiled once on this machine by the user's compiler.

The C++ sources are package data. The first use compiles them to one plain shared
library in the user's cache; its name is the hash of everything that decides its content
(sources, compiler, flags, machine), so that a stale library is never loaded and one
cache may serve different machines. Two processes that build at once wait for each other;
a library that does not match its recorded digest is built again.
"""

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from elision.common.locking import locked
from elision.common.names import lookup

__all__ = [
    "NEXT_BEST",
    "VARIANTS",
    "Build",
    "BuildError",
    "cache_folder",
    "cpu_fields",
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

_COMMON = ("-std=c++17", "-O3", "-shared", "-fPIC", "-pthread", "-w")


class BuildError(RuntimeError):
    """The kernels cannot be built here; the message gives the reason."""


def cache_folder() -> Path:
    """Where built libraries are kept.

    ``$ELISION_CACHE`` if set, else ``$XDG_CACHE_HOME/elision``, else
    ``~/.cache/elision``.
    """
    if folder := os.environ.get("ELISION_CACHE"):
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "elision"


def variant() -> str:
    """The best variant that this CPU runs, or the one named in ``$ELISION_VARIANT``.

    Raises:
        ValueError: ``$ELISION_VARIANT`` is not a variant.
    """
    if name := os.environ.get("ELISION_VARIANT"):
        lookup("native variant", name, VARIANTS)
        return name
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
        flags = (*_COMMON, *VARIANTS[self.variant], *self.extra_flags)
        digest = hashlib.sha256(
            "\0".join((version, platform.machine(), *flags)).encode()
        )
        for source in sources:
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
        name = f"kernels-{self.variant}-{digest.hexdigest()[:16]}"
        path = cache_folder() / f"{name}.so"
        if _intact(path):
            return path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with locked(path.with_suffix(".lock")):
                if not _intact(path):  # another process may have built it meanwhile
                    self._compile(compiler, flags, sources, path)
        except OSError as error:
            raise BuildError(
                f"cannot write the kernel cache {path.parent} ({error}); "
                "set ELISION_CACHE to a folder that can be written"
            ) from error
        return path

    def _compile(
        self, compiler: str, flags: tuple[str, ...], sources: list[Path], path: Path
    ) -> None:
        print(
            f"elision: building the native kernels ({self.variant}, {compiler}) once, "
            f"into {path.parent}",
            file=sys.stderr,
        )
        units = [str(s) for s in sources if s.suffix == ".cpp"]
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder) / path.name
            try:
                done = subprocess.run(
                    [compiler, *flags, *units, "-o", str(made)],
                    capture_output=True,
                    text=True,
                    timeout=self.timeout_seconds,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise BuildError(
                    f"{compiler} took longer than {self.timeout_seconds:g} s to build "
                    "the native kernels"
                ) from error
            if done.returncode != 0:
                lines = [line for line in done.stderr.splitlines() if "error" in line]
                first = (lines or done.stderr.splitlines() or ["no message"])[0]
                raise BuildError(f"{compiler} cannot build the native kernels: {first}")
            record = made.with_suffix(".sha256")
            record.write_text(_digest(made))
            made.replace(path)
            record.replace(path.with_suffix(".sha256"))


def _sources() -> list[Path]:
    folder = Path(__file__).with_name("kernels")
    return sorted(p for p in folder.iterdir() if p.suffix in {".cpp", ".hpp"})


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
    try:
        return path.with_suffix(".sha256").read_text() == _digest(path)
    except OSError:
        return False
