"""Translation: what a trained network makes of the test sentences."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from elision.common.checks import integer, number
from elision.study.probes.base import Probe, Trained
from elision.study.probes.unigram import unigram_nll
from elision.workloads import Translations, beam_search
from elision.workloads.tasks.translation import token_batch
from elision.workloads.text import bleu
from elision.workloads.text.translations import TokenPair
from elision.workloads.tokens import EOS

__all__ = ["Translation"]


@dataclass(frozen=True)
class Translation(Probe):
    """BLEU of beam search beside that of copied sources, and what a token costs.

    A falling loss is no proof that a network reads its source: it may have learned to
    write the target language. So the test's tokens are also scored with sources that
    belong to other sentences; of a network that reads, they then cost clearly more.

    Attributes:
        beam: hypotheses of the search; 1 is greedy.
        alpha: exponent of the length penalty.
        beta: weight of the coverage penalty.
        samples: translations that are shown, spread evenly.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> Translation(beam=0)
        Traceback (most recent call last):
        ValueError: translation(beam=0): must be an integer >= 1
    """

    beam: int = 5
    alpha: float = 0.6
    beta: float = 0.1
    samples: int = 10

    def __post_init__(self) -> None:
        integer("translation", "beam", self.beam)
        number("translation", "alpha", self.alpha, "[0, 1]")
        number("translation", "beta", self.beta, ">= 0")
        integer("translation", "samples", self.samples, ">= 0")

    def headline(self, found: dict[str, Any]) -> str:
        """The score."""
        return f"BLEU {found['bleu']:.1f}"

    def run(self, trained: Trained) -> dict[str, Any]:
        """BLEU, negative log-likelihoods in nats a token, and sample translations.

        Raises:
            ValueError: the study is of another task.
            ModuleNotFoundError: sacrebleu is not installed.
        """
        data, model = trained.dataset, trained.model.eval()
        if not isinstance(data, Translations):
            raise ValueError(
                f"probe translation: workload {trained.workload.name!r} does not translate"
            )
        size = trained.workload.batch_size
        sources, references = (list(side) for side in zip(*data.text.test, strict=True))
        translations = self._translated(model, data, size)
        scored = bleu(translations, references)
        pairs = data.test_tokens
        turned = pairs[1:] + pairs[:1]
        others = [(b[0], a[1]) for a, b in zip(pairs, turned, strict=True)]
        learned, tested = (
            [[*target, EOS] for _, target in part]
            for part in (data.train_tokens, pairs)
        )
        shown = range(0, len(pairs), max(1, len(pairs) // max(1, self.samples)))
        return {
            "bleu": scored.score,
            "brevity": scored.brevity,
            "bleu_of_copies": bleu(sources, references).score,
            "signature": scored.signature,
            "sentences": len(pairs),
            "nll": _nll(trained, pairs),
            "nll_of_other_sources": _nll(trained, others),
            "nll_of_a_unigram_model": unigram_nll(
                learned, tested, len(data.vocabulary)
            ),
            "samples": [[sources[i], references[i], translations[i]] for i in shown][
                : self.samples
            ],
        }

    def _translated(self, model: Any, data: Translations, size: int) -> list[str]:
        """The test's sentences, translated; as long as a source and a half at most."""
        found = [""] * len(data.test_tokens)
        order = sorted(range(len(found)), key=lambda i: len(data.test_tokens[i][0]))
        for first in range(0, len(order), size):
            chosen = order[first : first + size]
            source, _ = token_batch([data.test_tokens[i] for i in chosen])
            for i, best in zip(
                chosen,
                beam_search(
                    model,
                    source,
                    beam=self.beam,
                    alpha=self.alpha,
                    beta=self.beta,
                    max_length=source.shape[1] * 3 // 2 + 5,
                ),
                strict=True,
            ):
                found[i] = data.vocabulary.decode(best[0].tokens)
        return found


def _nll(trained: Trained, pairs: Sequence[TokenPair]) -> float:
    """Mean of ``-log p`` of the targets' tokens, in nats."""
    task, size = trained.workload.task, trained.workload.batch_size
    batches = (
        token_batch(pairs[first : first + size]) for first in range(0, len(pairs), size)
    )
    total, tokens = task.counted(trained.model, batches).tolist()
    return total / tokens
