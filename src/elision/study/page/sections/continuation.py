"""Sentences that language models continued, and what a token costs them."""

from typing import Any

from elision.study.outcome import StudyOutcome
from elision.study.page.sections.base import Section, findings_of
from elision.study.page.sections.scored import scores_and_samples

__all__ = ["continuation"]

_NOTE = (
    "<b>nll</b>: nats a token of the test, the token that ends a sentence included; a "
    "unigram model knows the frequencies of the tokens alone. <b>Bits a character</b> do "
    "not depend on the vocabulary. Below: what the network was given of a sentence of the "
    "test, the sentence, and what it made of its beginning, by sampling."
)


def continuation(outcome: StudyOutcome) -> Section | None:
    """Scores of every recipe, and its samples."""
    found = findings_of(outcome, "continuation")
    if not found:
        return None
    sheets = scores_and_samples(found, _scores, ("given", "sentence", "sampled"))
    return Section("Continuations", "measured here", _NOTE, sheets)


def _scores(name: str, found: dict[str, Any]) -> dict[str, Any]:
    return {
        "recipe": name,
        "nll": f"{found['nll']:.2f}",
        "of a unigram model": f"{found['nll_of_a_unigram_model']:.2f}",
        "bits a character": f"{found['bits_a_character']:.2f}",
        "sentences": found["sentences"],
    }
