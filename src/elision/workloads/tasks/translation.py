"""Translation: smoothed cross-entropy of every token, and the perplexity of the test."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from elision.workloads.models import TRANSLATORS
from elision.workloads.tasks.base import Batch
from elision.workloads.tasks.smoothing import label_smoothed_loss
from elision.workloads.tasks.tokens import TokenTask, written
from elision.workloads.text import Translations
from elision.workloads.text.translations import TokenPair
from elision.workloads.tokens import PAD

__all__ = ["Translation", "token_batch"]

#: Share of a label that goes to all tokens alike, as in MLPerf's GNMT.
SMOOTHING = 0.1


class Translation(TokenTask):
    """Source sentences ``(B, S)`` in, scores ``(B, T, V)`` of the target's tokens out.

    A network is called with the source and the target without its last token. The loss
    is summed over the tokens of a sentence and averaged over sentences, as in GNMT; the
    metric is the perplexity ``exp(-mean of log p)`` of the test's tokens, the ending ones
    included, without smoothing. Batches hold sentences of nearly one length.

    Example:
        >>> task = Translation()
        >>> always = lambda source, target: torch.zeros(*target.shape, 7)
        >>> model = type("Uniform", (nn.Module,), {"forward": lambda self, *a: always(*a)})()
        >>> round(task.evaluate(model, [token_batch([([4, 5], [6]), ([4], [5, 6])])]), 3)
        7.0
    """

    examples = Translations
    networks = TRANSLATORS

    def lengths(self, dataset: Translations) -> list[tuple[int, int]]:
        """Of sources, and of targets with the token that ends them."""
        return [(len(a), len(b) + 1) for a, b in dataset.train_tokens]

    def collate(self, examples: Sequence[TokenPair]) -> Batch:
        """Sources and targets; see :func:`token_batch`."""
        return token_batch(examples)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Smoothed cross-entropy of a sentence, mean over sentences."""
        scores = self.answer(model, batch)
        total = label_smoothed_loss(scores, batch[1][:, 1:], SMOOTHING, pad=PAD)
        return total / len(batch[0])


def token_batch(pairs: Sequence[TokenPair]) -> tuple[Tensor, Tensor]:
    """Source ``(B, S)`` and target ``(B, T + 1)``, int64, padded on the right.

    Example:
        >>> token_batch([([4, 5], [6]), ([7], [8, 9])])[1].tolist()
        [[2, 6, 3, 0], [2, 8, 9, 3]]
    """
    sources = [torch.tensor(source) for source, _ in pairs]
    return (
        pad_sequence(sources, batch_first=True, padding_value=PAD),
        written([target for _, target in pairs]),
    )
