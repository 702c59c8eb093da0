"""BLEU, Papineni et al., ACL 2002, by the package ``sacrebleu`` with its signature."""

from collections.abc import Sequence
from dataclasses import dataclass

from elision.common.extras import imported

__all__ = ["Bleu", "bleu"]


@dataclass(frozen=True)
class Bleu:
    """A score of a whole test set.

    Attributes:
        score: from 0 to 100.
        precisions: of 1 to 4 words, in per cent.
        brevity: penalty of translations that are too short, from 0 to 1.
        signature: how it was computed; scores of other signatures cannot be compared.

    Example:
        >>> Bleu(25.0, (50.0, 25.0, 25.0, 12.5), 1.0, "tok:13a").score
        25.0
    """

    score: float
    precisions: tuple[float, ...]
    brevity: float
    signature: str


def bleu(
    translations: Sequence[str], references: Sequence[str], *, lower: bool = False
) -> Bleu:
    """BLEU of translations, one reference each.

    Args:
        translations: plain text, not tokenised.
        references: as many.
        lower: compare in lower case, as MLPerf's target for GNMT does.

    Raises:
        ValueError: the numbers differ, or there is none.
        ModuleNotFoundError: sacrebleu is not installed.

    Example:
        >>> found = bleu(["the cat sat on the mat"], ["the cat sat on a mat"])
        >>> round(found.score, 4)
        53.7285
    """
    if not translations or len(translations) != len(references):
        raise ValueError(
            f"bleu: {len(translations)} translations need as many references and at "
            f"least one, got {len(references)}"
        )
    metric = imported("sacrebleu.metrics", "translation", "BLEU").BLEU(lowercase=lower)
    found = metric.corpus_score(list(translations), [list(references)])
    return Bleu(
        found.score, tuple(found.precisions), found.bp, str(metric.get_signature())
    )
