"""The recipes as tables, with what to cite."""

from elision.common.printable import escaped
from elision.study.outcome import RecipeOutcome, StudyOutcome
from elision.study.page.sections.base import Section

__all__ = ["recipes"]


def recipes(outcome: StudyOutcome) -> Section:
    """Transforms of the operands of the three products, by recipe."""
    sheets = tuple(_details(o, i == 0) for i, o in enumerate(outcome.outcomes))
    return Section("The recipes", sheets=("\n".join(sheets),))


def _details(o: RecipeOutcome, opened: bool) -> str:
    citation = o.method.citation()
    cited = f"<pre>{escaped(citation)}</pre>" if citation else ""
    return (
        f"<details{' open' if opened else ''}><summary>{escaped(o.spec)}</summary>"
        f"<pre>{escaped(str(o.method))}</pre>{cited}</details>"
    )
