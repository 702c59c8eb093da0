"""elision report."""

from pathlib import Path

__all__ = ["report"]


def report(run: Path, *, out: Path | None = None) -> None:
    """Make the report of a run folder again, from what the folder holds.

    Nothing is trained or simulated. Of a run that was interrupted, the report has what is
    finished, and names the rest; with --out that works beside a run that still trains.

    Parameters
    ----------
    run
        Folder of a study or a training.
    out
        File for the report; default: report.html in the run folder.
    """
    from contextlib import nullcontext

    from elision.common.files import taken_apart, write_text
    from elision.study.folder import configuration, own
    from elision.study.page.page import study_page
    from elision.study.restored import restored

    configuration(run)  # what is no run is refused before anything is made for it
    with own(run) if out is None else nullcontext():
        found = restored(run)
        place = run / "report.html" if out is None else out
        place.parent.mkdir(parents=True, exist_ok=True)
        # Findings of a probe have no form that could be checked when they are read.
        with taken_apart(
            run, "what it holds, such as probe-*.json, is of another form"
        ):
            page = study_page(found.outcome, whole=found.config, missing=found.missing)
        write_text(place, page)
    for what in found.missing:
        print(f"not in it: {what}")
    print(f"report: {place}")
