"""An environment for each peer, on top of the one that this process runs in.

Torch and this library come from the environment of the caller, so that all sides of a
comparison run on the same build. A peer and whatever else it asks for are installed beside
it, in other versions than the caller's where it asks for those.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

import elision
from benchmarks.peers.base import Peer
from elision.common.files import write_json

__all__ = ["Installed", "install"]

ROOT = Path(__file__).parents[2]

#: Seconds that one installation may take; some build a library.
LIMIT_S = 1800


@dataclass(frozen=True)
class Installed:
    """Where a peer is, or why it is not.

    Attributes:
        python: the interpreter that can import it.
        version: of its distribution; empty for a part of torch.
        reason: the last line of the installer's error; empty if it is installed.
    """

    python: Path
    version: str = ""
    reason: str = ""

    @property
    def variables(self) -> dict[str, str]:
        """The process environment in which its interpreter finds all sides."""
        packages = Path(elision.__file__).parents[1]
        path = f"{self.python.parent}{os.pathsep}{os.environ.get('PATH', '')}"
        return {
            **os.environ,
            "PATH": path,  # set-up scripts call `python3` and `pip` by name
            "PYTHONPATH": os.pathsep.join([str(packages), str(ROOT)]),
            "OMP_NUM_THREADS": "1",
        }


def install(peer: Peer, folder: Path, source: str = "") -> Installed:
    """Install a peer into a folder, or find it there.

    Args:
        peer: what to install.
        folder: of its own; removed first if another version of the same was asked for.
        source: a folder or an address to install from instead of the peer's own.
    """
    if not peer.distribution:
        return Installed(Path(sys.executable))
    wanted = [source] if source else [peer.source] if peer.source else []
    wanted += peer.requirements
    asked = [*wanted, *peer.builds, sys.version, sys.prefix]
    key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
    python = folder / "bin" / "python"
    mark = folder / "installed.json"
    if mark.exists():
        found = json.loads(mark.read_text("utf-8"))
        if found["key"] == key:
            return Installed(python, found["version"], found["reason"])
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True, symlinks=True)
    below = Path(sysconfig.get_path("purelib", vars=_base(folder)))
    caller = sysconfig.get_path("purelib")
    # Behind the peer's own packages, so that these are found first.
    (below / "caller.pth").write_text(f"import site; site.addsitedir({caller!r})\n")
    reason = ""
    isolated = [] if not peer.builds else ["--no-build-isolation"]
    for step in ([*peer.builds], [*isolated, *wanted]):
        reason = reason or (_pip(Installed(python), step) if step else "")
    version = "" if reason else _version([below, Path(caller)], peer.distribution)
    write_json(mark, {"key": key, "version": version, "reason": reason})
    return Installed(python, version, reason)


def _base(folder: Path) -> dict[str, str]:
    return {"base": str(folder), "platbase": str(folder)}


def _pip(at: Installed, arguments: list[str]) -> str:
    """Run pip; the last line of its error, or nothing."""
    command = [str(at.python), "-m", "pip", "install", "--no-input", *arguments]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=at.variables,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"pip took more than {LIMIT_S} s"
    if done.returncode == 0:
        return ""
    return last_line(done.stdout + done.stderr)


def last_line(output: str) -> str:
    """The last line of an output that says what went wrong.

    Pip's own summary of a build that failed is taken only where nothing else is said.
    """
    lines = [line for text in output.splitlines() if (line := " ".join(text.split()))]
    # That a subprocess failed is said by pip of everything; what failed in it comes before.
    of_pip = [line for line in lines if line.startswith(("error:", "ERROR:"))]
    of_pip = [line for line in of_pip if "subprocess-exited-with-error" not in line]
    raised = [
        line
        for line in lines
        if ("Error:" in line or line.startswith("fatal:")) and line not in of_pip
    ]
    for told in (raised, of_pip, lines):
        if told:
            return told[-1]
    return "it said nothing"


def _version(folders: list[Path], distribution: str) -> str:
    """The version in the first of the folders that has one: the caller may have it, too."""
    wanted = distribution.replace("_", "-").lower()
    for found in distributions(path=list(map(str, folders))):
        if found.metadata["Name"].replace("_", "-").lower() == wanted:
            return found.version
    raise ValueError(f"pip installed no distribution {distribution!r}")
