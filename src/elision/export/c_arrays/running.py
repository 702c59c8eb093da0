"""A C program compiled and run on this machine, to compare it with its reference."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from elision.common.programs import completed
from elision.export.c_arrays.program import CProgram

__all__ = ["STRICT", "c_compiler", "run_c", "run_source"]

#: Flags under which the written C must compile without a word.
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")


def c_compiler() -> str:
    """Path of the C compiler: ``CC``, else ``cc``, ``gcc`` or ``clang`` on the PATH.

    Raises:
        FileNotFoundError: there is none.
    """
    given = os.environ.get("CC")
    for name in (given,) if given else ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return found
    raise FileNotFoundError(
        f"no C compiler ({given or 'cc, gcc, clang'}) on the PATH; install one or set CC"
    )


def run_c(
    program: CProgram,
    codes: Tensor,
    *,
    flags: Sequence[str] = ("-O2",),
    timeout_seconds: float = 600,
) -> Tensor:
    """Outputs of a program that is not written yet; see :func:`run_source`.

    Args:
        program: what :func:`~elision.export.c_arrays.c_program` returns.
        codes: int8, ``(N, *shape)``.
        flags: of the compiler, besides :data:`STRICT`.
        timeout_seconds: of the compiler and of the run, each.
    """
    with tempfile.TemporaryDirectory() as folder:
        _, source = program.write(folder)
        return run_source(
            source, program.name, codes, flags=flags, timeout_seconds=timeout_seconds
        )


def run_source(
    source: Path,
    name: str,
    codes: Tensor,
    *,
    flags: Sequence[str] = ("-O2",),
    timeout_seconds: float = 600,
) -> Tensor:
    """Outputs of a written program, compiled by the system's compiler, of inputs' codes.

    Args:
        source: the C file, its header beside it.
        name: prefix of what is public in it.
        codes: int8, ``(N, *shape)``.
        flags: of the compiler, besides :data:`STRICT`.
        timeout_seconds: of the compiler and of the run, each.

    Returns:
        int8, ``(N, output bytes)``, in the order of the program.

    Raises:
        FileNotFoundError: there is no C compiler.
        RuntimeError: the compiler or the program failed; the message has its first words.
        ValueError: codes are not int8.
    """
    if codes.dtype != torch.int8:
        raise ValueError(f"run_source: codes must be int8, got {codes.dtype}")
    compiler = c_compiler()
    kernels = resources.files("elision.export.c_arrays") / "kernels"
    main = (kernels / "main.c").read_text("utf-8")
    for mark, text in (
        ("@HEADER@", f"{source.stem}.h"),
        ("@NAME@", name.upper()),
        ("@name@", name),
    ):
        main = main.replace(mark, text)
    with tempfile.TemporaryDirectory() as folder:
        entry, binary = Path(folder) / "main.c", Path(folder) / "main"
        entry.write_text(main, encoding="utf-8")
        files = [f"-I{source.parent}", str(source), str(entry), "-o", str(binary)]
        _run([compiler, *STRICT, *flags, *files], b"", timeout_seconds)
        raw = codes.contiguous().numpy().tobytes()
        found = _run([str(binary)], raw, timeout_seconds)
    return torch.from_numpy(np.frombuffer(found, np.int8).copy()).view(len(codes), -1)


def _run(command: list[str], given: bytes, timeout_seconds: float) -> bytes:
    try:
        done = completed(command, timeout_seconds=timeout_seconds, given=given)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(
            f"{command[0]} took longer than {timeout_seconds:g} s"
        ) from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise RuntimeError(
            f"{command[0]} failed ({done.returncode}): {said[0] if said else 'silently'}"
        )
    return done.stdout
