"""Seconds of a training step of every recipe of a study, by one clock."""

from collections.abc import Mapping

from elision.common.specs import parse
from elision.study.costed import StepSeconds
from elision.study.energy import step_seconds
from elision.study.outcome import StudyOutcome

__all__ = ["clock_and_seconds", "measured_steps"]


def clock_and_seconds(outcome: StudyOutcome) -> tuple[str, Mapping[str, float]]:
    """The clock, in words, and the seconds of a step as the recipes were trained.

    On the processor with one thread its own time, which other processes cannot lengthen;
    with more threads or on another device the wall clock.

    Args:
        outcome: of a study.

    Returns:
        The clock, and recipe -> seconds, of the recipes for which they are known.
    """
    if outcome.environment.get("threads") == 1 and outcome.config.device == "cpu":
        spent = {
            o.spec: step_seconds(o.spent.get(next(iter(o.histories)), {}))
            for o in outcome.outcomes
        }
        known = {spec: own for spec, own in spent.items() if own is not None}
        if known:
            return "processor seconds", known
    return "seconds by the wall clock", outcome.timing


def measured_steps(outcome: StudyOutcome) -> StepSeconds | None:
    """Seconds of a step over those of a dense one; None where nothing was measured.

    Those of the probe ``speed``, with the zeros left out and beside the same network's
    dense step, if every recipe has them; else as the recipes were trained, beside the
    first.
    """
    probed = _probed(outcome)
    if probed is not None:
        return probed
    clock, seconds = clock_and_seconds(outcome)
    first = outcome.config.recipes[0]
    base = seconds.get(first)
    if not base:
        return None
    ratios = {spec: own / base for spec, own in seconds.items()}
    return StepSeconds(clock, ratios, masked=outcome.config.engine == "torch", of=first)


def _probed(outcome: StudyOutcome) -> StepSeconds | None:
    found = {
        o.spec: finding
        for o in outcome.outcomes
        for probe, finding in o.findings.items()
        if parse(probe).name == "speed"
    }
    if not found or len(found) < len(outcome.outcomes):
        return None
    clocks = dict.fromkeys(finding["clock"] for finding in found.values())
    ratios = {
        spec: finding["seconds"]["engine"] / finding["seconds"]["dense"]
        for spec, finding in found.items()
    }
    words = {"CPU": "processor seconds", "wall": "seconds by the wall clock"}
    clock = " and ".join(words[name] for name in clocks)
    return StepSeconds(clock, ratios, masked=False)
