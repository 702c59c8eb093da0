"""Language modelling: cross-entropy of every next token, and the perplexity of the test."""

from collections.abc import Sequence

from torch import Tensor, nn

from elision.workloads.models import LANGUAGE_MODELS
from elision.workloads.tasks.base import Batch
from elision.workloads.tasks.tokens import TokenTask, written
from elision.workloads.text import Sentences

__all__ = ["LanguageModelling"]


class LanguageModelling(TokenTask):
    """Sentences ``(B, T)`` in, scores ``(B, T, V)`` of the token after each out.

    Every sentence is read from its beginning, without the ones before it. The loss is
    summed over the tokens of a sentence and averaged over sentences, so that processes
    that share a batch take the mean of sentences of any length; the metric is the
    perplexity ``exp(-mean of log p)`` of the test's tokens, the ending ones included.

    Example:
        >>> import torch
        >>> task = LanguageModelling()
        >>> model = nn.Sequential(nn.Embedding(7, 7), nn.Linear(7, 7))
        >>> _ = [nn.init.zeros_(p) for p in model.parameters()]
        >>> round(task.evaluate(model, [(written([[4, 5], [4]]),)]), 3)
        7.0
    """

    examples = Sentences
    networks = LANGUAGE_MODELS

    def lengths(self, dataset: Sentences) -> list[int]:
        """Of sentences with the token that ends them."""
        return [len(sentence) + 1 for sentence in dataset.train_tokens]

    def collate(self, examples: Sequence[Sequence[int]]) -> Batch:
        """One tensor of sentences; see :func:`elision.workloads.tasks.tokens.written`."""
        return (written(examples),)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy of a sentence, mean over sentences."""
        return self.nll(model, batch) / len(batch[0])
