"""Install peers and measure them beside this library.

    python -m benchmarks.peers [NAME...] [--out FOLDER] [--cache FOLDER] [--rounds 7]
                               [--source NAME=PATH] [--small]

Each peer gets an environment under the cache folder, which is kept. One process of that
environment runs all sides of a comparison in turns, on one thread, by the CPU time of the
thread. Results are compared first; where they do not agree nothing is timed. ``--out``
writes a JSON file for each peer. A peer that cannot be installed, or whose import or run
fails, has the reason in its file.
"""

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.peers.base import OURS, PEERS, Peer, load
from benchmarks.peers.environment import install, last_line
from elision.common.files import write_json
from elision.native.builder import cache_folder


def compared(
    name: str, cache: Path, *, rounds: int, source: str = "", small: bool = False
) -> dict[str, Any]:
    """Everything about one peer: how it was installed, and what was measured.

    Args:
        name: a module of :mod:`benchmarks.peers.libraries`.
        cache: holds a folder with an environment for each peer.
        rounds: of the measurement.
        source: where to install it from, in place of its public address.
        small: sizes of a test.
    """
    peer = load(name)
    at = install(peer, cache / name, source)
    row: dict[str, Any] = {
        "name": peer.title,
        "about": peer.about,
        "installed_from": _origin(peer),
        "version": at.version,
        "reason": at.reason,
        "day": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "rounds": rounds,
    }
    if at.reason:
        return row
    if peer.works is None:
        return row | {"reason": peer.uncompared}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "measured.json")
        command = [str(at.python), "-m", "benchmarks.peers.worker", name]
        command += ["--out", str(out), "--rounds", str(rounds), *["--small"] * small]
        # Some peers write files where they run.
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=at.variables,
            cwd=folder,
            check=False,
        )
        if done.returncode:
            return row | {"reason": last_line(done.stderr)}
        return row | json.loads(out.read_text("utf-8"))


def _origin(peer: Peer) -> str:
    if not peer.distribution:
        return "torch"
    return peer.source or f"PyPI: {', '.join(peer.requirements)}"


def told(row: dict[str, Any]) -> str:
    """What was found, in lines for a terminal."""
    head = f"{row['name']} {row['version']}".strip()
    if row["reason"]:
        return f"{head}: {row['reason']}"
    lines = [f"{head} (load {row['machine']['load'][0]})"]
    for work in row["works"]:
        lines.append(f"  {work['title']}")
        for a in work["agreement"]:
            words = "agrees" if a["holds"] else "DOES NOT AGREE, not timed"
            lines.append(
                f"    {words}: {a['what']} ({a['error']:.1e} <= {a['limit']:g})"
            )
        for name, side in work.get("sides", {}).items():
            low, median, high = (1e3 * s for s in side["quartiles"])
            over = side["over"][OURS][1]
            lines.append(
                f"    {name:28s} {median:10.2f} ms ({low:.2f} to {high:.2f})  "
                f"{over:.2f} of ours"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=str(__doc__).partition("\n")[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PEERS))
    parser.add_argument("--out", type=Path, help="folder for a JSON file for each peer")
    parser.add_argument("--cache", type=Path, default=cache_folder() / "peers")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--small", action="store_true", help="sizes of a test")
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="install NAME from here, as pip takes it",
    )
    args = parser.parse_args()
    sources = dict(pair.partition("=")[::2] for pair in args.source)
    for name in (*args.names, *sources):
        try:
            load(name)
        except ValueError as error:
            sys.exit(str(error))
    for name in args.names or PEERS:
        row = compared(
            name,
            args.cache,
            rounds=args.rounds,
            source=sources.get(name, ""),
            small=args.small,
        )
        print(told(row), flush=True)
        if args.out is not None:
            args.out.mkdir(parents=True, exist_ok=True)
            write_json(args.out / f"{name}.json", row)


if __name__ == "__main__":
    main()
