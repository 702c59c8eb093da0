"""Translation: smoothed cross-entropy of every token, and the perplexity of the test."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from elision.workloads.data import Augmentation, GlobalBuckets
from elision.workloads.models import TRANSLATORS
from elision.workloads.tasks.base import Batch, Metric, Task
from elision.workloads.tasks.smoothing import label_smoothed_loss
from elision.workloads.text import Translations
from elision.workloads.text.translations import TokenPair
from elision.workloads.tokens import BOS, EOS, PAD

__all__ = ["Translation", "token_batch"]

#: Share of a label that goes to all tokens alike, as in MLPerf's GNMT.
SMOOTHING = 0.1


class Translation(Task):
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

    metric = Metric("test_perplexity", higher_is_better=False)
    examples = Translations
    networks = TRANSLATORS

    def model_arguments(self, dataset: Translations) -> dict[str, Any]:
        """The size of the vocabulary."""
        return {"vocabulary": len(dataset.vocabulary)}

    def train_size(self, dataset: Translations) -> int:
        """Number of training pairs."""
        return len(dataset.train_tokens)

    def train_batches(
        self,
        dataset: Translations,
        batch_size: int,
        *,
        seed: int,
        epoch: int,
        augmentation: Augmentation | None = None,
    ) -> Iterator[Batch]:
        """Sources and targets, padded; see :class:`elision.workloads.GlobalBuckets`.

        Raises:
            ValueError: an augmentation is asked for; it is one of images.
        """
        if augmentation is not None:
            raise ValueError(
                "augment: crops and mirror images are for images, not text"
            )
        pairs = dataset.train_tokens
        lengths = [(len(a), len(b) + 1) for a, b in pairs]
        buckets = GlobalBuckets(lengths, batch_size, seed=seed)
        buckets.set_epoch(epoch)
        return (token_batch([pairs[i] for i in indices]) for indices in buckets)

    def test_batches(self, dataset: Translations, batch_size: int) -> Iterator[Batch]:
        """All test pairs, in order."""
        pairs = dataset.test_tokens
        for first in range(0, len(pairs), batch_size):
            yield token_batch(pairs[first : first + batch_size])

    def answer(self, model: nn.Module, batch: Batch) -> Tensor:
        """Scores of every target token."""
        source, target = batch
        return model(source, target[:, :-1])

    def check_output(self, output: Any, dataset: Translations) -> None:
        """Scores: a tensor ``(B, T, vocabulary)``."""
        size = len(dataset.vocabulary)
        if (
            not isinstance(output, Tensor)
            or output.ndim != 3
            or output.shape[2] != size
        ):
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output)
            raise ValueError(
                f"must answer with scores (sentences, tokens, {size}); it gave {got}"
            )

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Smoothed cross-entropy of a sentence, mean over sentences."""
        scores = self.answer(model, batch)
        total = label_smoothed_loss(scores, batch[1][:, 1:], SMOOTHING, pad=PAD)
        return total / len(batch[0])

    def counts(self, model: nn.Module, batch: Batch) -> Tensor:
        """Summed ``-log p`` of the target's tokens, and tokens."""
        targets = batch[1][:, 1:].flatten()
        scores = self.answer(model, batch).flatten(0, 1).float()
        total = F.cross_entropy(scores, targets, ignore_index=PAD, reduction="sum")
        tokens = int((targets != PAD).sum())
        return torch.tensor([float(total), tokens], dtype=torch.float64)

    def score(self, counts: Tensor) -> float:
        """Perplexity, at least 1; infinity where it is beyond a double's range."""
        total, tokens = counts.tolist()
        try:
            return math.exp(total / tokens)
        except OverflowError:
            return math.inf


def token_batch(pairs: Sequence[TokenPair]) -> tuple[Tensor, Tensor]:
    """Source ``(B, S)`` and target ``(B, T + 1)``, int64, padded on the right.

    Example:
        >>> token_batch([([4, 5], [6]), ([7], [8, 9])])[1].tolist()
        [[2, 6, 3, 0], [2, 8, 9, 3]]
    """
    sources = [torch.tensor(source) for source, _ in pairs]
    targets = [torch.tensor([BOS, *target, EOS]) for _, target in pairs]
    return (
        pad_sequence(sources, batch_first=True, padding_value=PAD),
        pad_sequence(targets, batch_first=True, padding_value=PAD),
    )
