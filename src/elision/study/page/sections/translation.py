"""Translations of the test sentences, and how they score."""

from typing import Any

from elision.study.outcome import StudyOutcome
from elision.study.page.sections.base import Section, findings_of
from elision.study.page.sections.scored import scores_and_samples

__all__ = ["translation"]

_NOTE = (
    "BLEU of beam search over the whole test set, beside that of sources copied as they "
    "are. <b>nll</b>: nats a token of the reference, the token that ends it included; "
    "with the source of another sentence it must be clearly higher, or the network "
    "does not read its source. A unigram model knows the frequencies of the tokens alone."
)


def translation(outcome: StudyOutcome) -> Section | None:
    """Scores of every recipe, and its samples."""
    found = findings_of(outcome, "translation")
    if not found:
        return None
    sheets = scores_and_samples(
        found, _scores, ("source", "reference", "translation"), words=("signature",)
    )
    return Section("Translations", "measured here", _NOTE, sheets)


def _scores(name: str, found: dict[str, Any]) -> dict[str, Any]:
    return {
        "recipe": name,
        "BLEU": f"{found['bleu']:.1f}",
        "of copies": f"{found['bleu_of_copies']:.1f}",
        "nll": f"{found['nll']:.2f}",
        "of other sources": f"{found['nll_of_other_sources']:.2f}",
        "of a unigram model": f"{found['nll_of_a_unigram_model']:.2f}",
        "sentences": found["sentences"],
        "signature": found["signature"],
    }
