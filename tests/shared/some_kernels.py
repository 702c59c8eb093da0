"""Libraries of a few kernels, in variants and with flags that no user's library has.

Compiling all kernels takes a minute; a test of one of them needs its own sources alone.
"""

import ctypes
import functools

import pytest

from elision.native import builder, shared_object

__all__ = ["built"]


@functools.cache
def built(variant: str, sources: tuple[str, ...], *flags: str) -> ctypes.CDLL:
    """The library of the named sources alone, its functions with their signatures.

    It is kept in the cache of the kernels.

    Args:
        variant: instruction set, a key of ``builder.VARIANTS``.
        sources: names of C++ files, without their ending.
        flags: of the compiler, after those of every library.

    Raises:
        builder.BuildError: as ``Build.library``.
    """
    every = builder._sources()
    names = {path.stem for path in every if path.suffix == ".cpp"}
    if unknown := set(sources) - names:
        raise ValueError(f"no sources of kernels: {', '.join(sorted(unknown))}")
    units = [p for p in every if p.suffix == ".hpp" or p.stem in sources]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "_sources", lambda: units)
        library = ctypes.CDLL(str(builder.Build(variant, flags).library()))
    for name, (result, arguments) in shared_object._SIGNATURES.items():
        if entry := getattr(library, f"elision_{name}", None):
            entry.restype, entry.argtypes = result, arguments
    return library
