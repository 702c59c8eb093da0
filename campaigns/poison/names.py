"""Hostile names of layers, classes, workloads and networks, in everything that is written.

A name may be refused in one line. If it is taken, no page has an element of it, no table a
formula, no line of a terminal a control character, and no file lies outside of the folder.
"""

import csv
import math
import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from campaigns.campaign import Row
from campaigns.poison.kind import command
from campaigns.poison.outputs import wrong_in_text, wrong_under
from campaigns.trial import Outcome, tried, warmed

__all__ = ["row"]

#: Parts of names: markup, formulas, escapes of terminals, TeX, paths, quotes, templates.
_PARTS = (
    "<script>alert(1)</script>",
    "</text><script>1</script>",
    '"><img src=x onerror=alert(1)>',
    "' onload='alert(1)",
    "-->",
    "]]>",
    "&amp;&#60;b&#62;",
    "=cmd|' /C calc'!A0",
    "=1+1",
    "+1+1",
    "-2+3",
    "@SUM(1)",
    "\t=1+1",
    "a\x1b[31mred\x1b[2J",
    "a\nb",
    "a\rb",
    "\x07\x08",
    "\u202egnp",
    "\u2028",
    "$\\frac{$",
    "$..$",
    "\\input{x}",
    "%s%n{0}{x}",
    "{{ 7*7 }}",
    "{% raw %}",
    "../../outside",
    "/absolute",
    "~root",
    '"quoted"',
    "'''",
    "a,b;c\td",
    "# comment",
    "[table]",
    "x" * 300,
    "é\u0301😀",
    "CON",
    "-",
)


#: Of the trials of a campaign: one takes a second or more.
_SHARE = 0.5


def row(trials: int, seed: int) -> Row:
    """Outcomes of names in studies, sweeps, drawings and tables."""
    counts: Counter[str] = Counter()
    bad: list[str] = []
    with tempfile.TemporaryDirectory() as top:
        for begin, (_, make, call) in enumerate(_DRIVES):
            warm = Path(top) / f"warm{begin}" / "work"
            make(warm, "plain")
            warmed(lambda warm=warm, call=call: _inside(warm, "plain", call))
        for number in range(math.ceil(_SHARE * trials)):
            drawn = random.Random(f"{seed}/names/{number}")
            name = "".join(drawn.sample(_PARTS, drawn.choice((1, 1, 2))))
            shares = [share for share, _, _ in _DRIVES]
            ((_, make, call),) = drawn.choices(_DRIVES, shares)
            outcome = _tried(Path(top) / str(number), name, make, call)
            counts[outcome.kind] += 1
            if not outcome.is_good:
                bad.append(f"{number}: {outcome.kind}: {name!r}: {outcome.said}")
    return Row(dict(counts), bad, {"sealed": False})


def _tried(
    place: Path,
    name: str,
    make: Callable[[Path, str], None],
    call: Callable[[Path, str], Any],
) -> Outcome:
    """What a name came to; ``"wrong"`` if it became more than a name."""
    work = place / "work"
    make(work, name)
    outcome = tried(lambda: _inside(work, name, call))
    wrong = wrong_under(work / "out") + wrong_in_text(outcome.result)
    beside = sorted(path.name for path in place.iterdir() if path != work)
    wrong += [f"{path} lies outside" for path in beside]
    if wrong and outcome.is_good:
        return Outcome("wrong", "; ".join(wrong))
    return outcome


def _inside(work: Path, name: str, call: Callable[[Path, str], Any]) -> Any:
    os.chdir(work)
    return call(work, name)


def _pictures(work: Path, name: str) -> None:
    """A folder of pictures whose classes bear the name."""
    from PIL import Image

    drawn = random.Random(0)
    # What no name of a folder or of a module can hold.
    label = name.replace("/", "|").replace(".", "_")[:200]
    for part in ("train", "test"):
        for begin in ("", "b"):
            place = work / "pictures" / part / f"{label}{begin}"
            place.mkdir(parents=True)
            for number in range(4):
                image = Image.frombytes("RGB", (8, 8), drawn.randbytes(192))
                image.save(place / f"{number}.png")


def _study(work: Path, name: str) -> None:
    """A study of hostile layers, classes and workload, and its tables in every format."""
    from elision.study import StudyConfig, study
    from elision.workloads import Workload

    workload = Workload(
        name=name,
        dataset="folder",
        model="campaigns.poison.own_network:network",
        model_options={"label": name.replace(".", "_")},
        epochs=1,
        batch_size=8,
        data=str(work / "pictures"),
        source=name,
    )
    config = StudyConfig(
        workload=workload,
        recipes=("dense", "swat:sparsity=0.5"),
        accelerators=("dense",),
        record=1,
        samples=1,
    )
    out = work / "out"
    study(config, out)
    for form in ("text", "markdown", "latex"):
        _ran("compare", str(out), "--format", form)


def _layers(work: Path, name: str) -> None:
    """A topology whose layers bear the name."""
    (work / "out").mkdir(parents=True)
    header = (
        "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, "
        "Num Filter, Strides"
    )
    with (work / "net.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(", "))
        writer.writerow([name, 8, 8, 3, 3, 3, 4, 1])
        writer.writerow([f"{name}b", 1, 1, 1, 1, 12, 4, 1])


def _ran(*words: str) -> None:
    """A command that must end well."""
    try:
        command(*words)(Path())()
    except SystemExit as end:
        if end.code:
            raise


def _swept(work: Path, name: str) -> None:
    del name
    machines = ("--accelerator", "dense", "systolic:rows=4,columns=4", "--out")
    net = ("--topology", str(work / "net.csv"))
    _ran("simulate", *net, *machines, str(work / "out" / "rows.csv"))
    _ran("simulate", *net, *machines, str(work / "out" / "rows.json"))
    _ran("simulate", *net, *machines, str(work / "out" / "rows.csv"))  # read again


def _drawn(work: Path, name: str) -> None:
    del name
    net = ("--topology", str(work / "net.csv"))
    _ran("shapes", *net, "--out", str(work / "out" / "shapes.csv"))
    _ran("shapes", "--topology", str(work / "out" / "shapes.csv"))
    _ran("timeline", *net, "--out", str(work / "out" / "timeline.json.gz"))
    _ran("size", *net)
    _ran("map", *net, "--array", "4x4", "--out", str(work / "out"))


#: How often, what is made, and what is run with it.
_DRIVES: tuple[
    tuple[int, Callable[[Path, str], None], Callable[[Path, str], Any]], ...
] = ((3, _layers, _swept), (3, _layers, _drawn), (1, _pictures, _study))
