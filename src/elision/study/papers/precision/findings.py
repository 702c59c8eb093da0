"""Our own findings in words, to stand beside the published figures."""

from collections.abc import Mapping
from typing import Any

from elision.study.papers.precision.rows import Runs
from elision.study.papers.precision.runs import REFERENCE, words

__all__ = ["findings"]


def findings(
    trainings: Mapping[str, Runs],
    ternary: Mapping[str, Mapping[str, Any]],
    between: Mapping[str, Mapping[str, Any]],
) -> dict[str, str]:
    """Findings by the key ``ours`` of a :class:`~.published.PublishedFigure`.

    Args:
        trainings: network -> recipe -> results, one a seed.
        ternary: network -> rows.
        between: ``k_tanh``, ``lstm`` and ``softmax``.
    """
    found: dict[str, list[str]] = {}
    for network, runs in trainings.items():
        plain = _accuracy(runs[REFERENCE])
        for recipe, seeds in runs.items():
            text = f"{network} {_accuracy(seeds)} %, float32 {plain} %"
            found.setdefault(recipe, []).append(text)
    for network, part in ternary.items():
        for row in part["rows"]:
            key = f"ternary, blocks of {row['block']}, drop {row['drop']:g}"
            text = f"{network}: drop not met"
            if "not met" not in row:
                lost = 100 * (row["float"] - row["ternary"])
                text = (
                    f"{network} {row['terms']:.1f} terms: {row['fewer']:.1f} times fewer, "
                    f"{row['smaller']:.1f} times smaller, {lost:.1f} points lost"
                )
            found.setdefault(key, []).append(text)
    speed = between["k_tanh"]["speed"]
    found["k-tanh speed"] = [
        f"{ratio:.1f} times as fast as torch's tanh on {dtype}"
        for dtype, ratio in speed.items()
    ]
    found["k-tanh lstm"] = [
        f"{row['gates']} gates: loss {words(row['loss'], '.4f')}"
        for row in between["lstm"]["rows"]
    ]
    found["softmax"] = [
        f"{row['training loss']} {_final(row['by probability'])} %"
        for row in between["softmax"]["rows"]
    ]
    return {key: "; ".join(texts) for key, texts in found.items()}


def _accuracy(seeds: Any) -> str:
    return _final([run["accuracy"][-1] for run in seeds])


def _final(values: Any) -> str:
    return words(values, ".1f", 100)
