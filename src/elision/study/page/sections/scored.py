"""Tables of a probe that scores sentences and shows some: shared by two sections."""

from collections.abc import Callable, Mapping
from typing import Any

from elision.report.table import rows_as_html

__all__ = ["scores_and_samples"]


def scores_and_samples(
    found: Mapping[str, dict[str, Any]],
    scores: Callable[[str, dict[str, Any]], dict[str, Any]],
    columns: tuple[str, ...],
    *,
    words: tuple[str, ...] = (),
) -> tuple[str, ...]:
    """A table of scores, a row a recipe, and one of the samples, if there are any.

    Args:
        found: the probe's findings by recipe, with ``"samples"``: rows of texts.
        scores: the row of a recipe's scores.
        columns: names of a sample's texts.
        words: columns of the scores that are words.
    """
    samples = [
        {"recipe": name, **dict(zip(columns, texts, strict=True))}
        for name, finding in found.items()
        for texts in finding["samples"]
    ]
    rows = [scores(name, finding) for name, finding in found.items()]
    table = rows_as_html(rows, words=words)
    return (table, rows_as_html(samples, words=columns)) if samples else (table,)
