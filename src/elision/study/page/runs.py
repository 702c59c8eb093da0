"""The list of run folders as a page, and as what the page's script asks for."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from elision.common.printable import printable
from elision.study.page.template import render
from elision.study.watched import Watched

__all__ = ["FILES", "LIVE", "run_cells", "runs_page"]

#: Script of the page.
LIVE = "live.js"

#: Address below which the files of the runs are.
FILES = "/files/"

#: Headings of the columns.
_HEADS = {
    "run": "run",
    "state": "state",
    "epochs": "epochs done",
    "loss": "last loss",
    "score": "last score",
    "latest": "of",
    "written": "last written",
    "report": "report",
    "workload": "workload",
    "recipes": "recipes",
    "command": "command",
}
_WORDS = ("run", "state", "latest", "report", "workload", "recipes", "command")

#: Seconds of the units of a time that has passed.
_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def run_cells(
    run: Watched, name: str, now: float | None = None
) -> dict[str, dict[str, Any]]:
    """The cells of a run: by column, the text and the number that it is sorted by.

    Args:
        run: as it is.
        name: of the folder that is watched, for the run that is this folder itself.
        now: seconds since 1970; None: the clock's.

    Returns:
        ``{"text": ..., "value": ...}`` by column; the value of the report is its address.

    Example:
        >>> run = Watched(path="a b", state="ended", written=40.0, has_report=True)
        >>> cells = run_cells(run, "runs", now=100.0)
        >>> cells["written"], cells["report"]["value"]
        ({'text': '1 min ago', 'value': 40.0}, '/files/a%20b/report.html')
    """
    score = ""
    if run.metric is not None and run.score is not None:
        score = f"{run.metric.text(run.score)} {run.metric.label}"
    # The server's addresses have no other names.
    named = run.path.isprintable() and "\\" not in run.path
    report = run.has_report and named
    at = (time.time() if now is None else now) - run.written
    found: dict[str, tuple[str, Any]] = {
        "run": (run.path or name, None),
        "state": (f"{run.state}: {run.reason}" if run.reason else run.state, None),
        "epochs": (run.epochs_text(), run.done if run.epochs else None),
        "loss": ("" if run.loss is None else f"{run.loss:.4g}", None),
        "score": (score, None),
        "latest": (run.latest, None),
        "written": (ago(at) if run.written else "", run.written),
        "report": (
            "report" if report else "",
            FILES + quote(f"{run.path}/report.html".lstrip("/")) if report else None,
        ),
        "workload": (run.workload, None),
        "recipes": (", ".join(run.recipes), None),
        "command": (run.command, None),
    }
    return {
        field: {"text": printable(text), "value": value}
        for field, (text, value) in found.items()
    }


def ago(seconds: float) -> str:
    """How long ago something was, in its largest whole unit.

    Example:
        >>> ago(7260), ago(0.2)
        ('2 h ago', 'now')
    """
    for unit, length in _UNITS:
        if seconds >= length:
            return f"{int(seconds // length)} {unit} ago"
    return "now"


def runs_page(folder: Path, runs: Sequence[Watched]) -> str:
    """The list as an HTML document, whole without its script.

    Args:
        folder: that is watched.
        runs: in it.
    """
    return render(
        "runs.html.j2",
        live=LIVE,
        folder=printable(folder.name),
        heads=_HEADS,
        words=_WORDS,
        runs=[(printable(run.path), run_cells(run, folder.name)) for run in runs],
        empty={field: {"text": "", "value": None} for field in _HEADS},
    )
