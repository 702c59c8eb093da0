"""The pictures of the gallery, made anew by what stands below each.

``python docs/gallery.py`` runs the blocks of ``docs/gallery.md`` in an empty folder and
copies what they write to where the page shows it; with names of pictures, those alone.
The report's picture needs a browser.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from elision.common.files import replacing

__all__ = ["Entry", "entries"]

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "gallery.md"

_ENTRY = re.compile(
    r"^## (?P<title>.+?)\n+!\[(?P<about>.+?)\]\((?P<figure>\S+)\)\n.*?"
    r"^```(?P<language>\w+)\n(?P<block>.*?)^```\n+Writes `(?P<written>\S+)`",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Entry:
    """One entry of the page.

    Attributes:
        title: heading.
        about: what the picture shows, for who does not see it.
        figure: the picture, in ``docs``.
        language: of the block: sh or python.
        block: what makes the picture.
        written: where the block writes it.
    """

    title: str
    about: str
    figure: str
    language: str
    block: str
    written: str

    @property
    def name(self) -> str:
        """The picture's, without folder and suffix."""
        return Path(self.figure).stem


def entries() -> list[Entry]:
    """The page's, in its order.

    Raises:
        SystemExit: a heading has no picture, no block or no file that is written.
    """
    text = PAGE.read_text(encoding="utf-8")
    found = [Entry(**match.groupdict()) for match in _ENTRY.finditer(text)]
    if [e.title for e in found] != re.findall(r"^## (.+)$", text, re.MULTILINE):
        sys.exit(f"{PAGE}: an entry lacks its picture, its block or what that writes")
    return found


def main() -> None:
    """Make the pictures that the command line names."""
    known = {entry.name: entry for entry in entries()}
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(known)}; default: all")
    names = parser.parse_args().names or list(known)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"unknown picture {unknown[0]!r}; known: {', '.join(known)}")
    for name in names:
        with tempfile.TemporaryDirectory(prefix="elision-gallery-") as folder:
            _make(known[name], Path(folder))
        print(f"docs/{known[name].figure}", flush=True)


def _make(entry: Entry, work: Path) -> None:
    for shared in ("benchmarks", "docs", "records"):  # what a block may read of ours
        (work / shared).symlink_to(ROOT / shared)
    shells = {"sh": ["bash", "-ec"], "python": [sys.executable, "-c"]}
    # The commands of this interpreter's environment.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    variables = {**os.environ, "PATH": path}
    subprocess.run(
        [*shells[entry.language], entry.block], cwd=work, env=variables, check=True
    )
    target = ROOT / "docs" / entry.figure
    if target.resolve() != (work / entry.written).resolve():
        with replacing(target) as part:
            part.write_bytes((work / entry.written).read_bytes())


if __name__ == "__main__":
    main()
