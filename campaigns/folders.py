"""What a folder holds, and whether files of it are whole."""

import json
from pathlib import Path

__all__ = ["contents", "left_behind", "torn"]

#: What whole files end with.
_ENDS = {".html": "</html>", ".svg": "</svg>", ".csv": "\n", ".jsonl": "\n"}


def contents(folder: Path) -> dict[str, bytes]:
    """Content by name of all files below a folder, a symbolic link's target for its own.

    Lock files, which are empty, are left out.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = bytes(path.readlink())
        elif path.is_file() and path.suffix != ".lock":
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def left_behind(folder: Path) -> list[str]:
    """Names of temporary files and folders below a folder, of the library or its tools."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.name.endswith(".elision-partial")
        or path.name.startswith((".tmp", "build-", "elision-"))
    )


def torn(path: Path) -> str:
    """Why a file is not whole; empty if it is, or is of a kind that does not tell."""
    from elision.common.files import load_tensors
    from elision.common.toml import from_toml

    try:
        if path.suffix == ".safetensors":
            load_tensors(path, "tensor")
        elif path.suffix == ".json":
            json.loads(path.read_text("utf-8"))
        elif path.suffix == ".toml":
            from_toml(path.read_text("utf-8"))
        elif path.suffix in _ENDS:
            end = _ENDS[path.suffix]
            if not path.read_text("utf-8").rstrip(" ").endswith((end, end + "\n")):
                return f"does not end with {end!r}"
    except (ValueError, OSError) as error:
        return str(error)
    return ""
