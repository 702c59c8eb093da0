"""What tasks whose answers are tokens share: batches by length, and the perplexity."""

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from elision.workloads.data import Augmentation, GlobalBuckets
from elision.workloads.tasks.base import Batch, Metric, Task
from elision.workloads.tokens import BOS, EOS, PAD

__all__ = ["TokenTask", "written"]


class TokenTask(Task):
    """Scores ``(B, T, V)`` of every next token out; the last tensor of a batch has them.

    The last tensor, ``(B, T + 1)``, holds the sentences that the network learns to write,
    from the token that begins them to the one that ends them. The metric is the perplexity
    ``exp(-mean of log p)`` of the test's tokens, the ending ones included. Batches hold
    sentences of nearly one length.
    """

    metric = Metric("test_perplexity", higher_is_better=False)

    @abstractmethod
    def lengths(self, dataset: Any) -> Sequence[Any]:
        """Tokens of each training example, as :class:`GlobalBuckets` takes them."""

    @abstractmethod
    def collate(self, examples: Sequence[Any]) -> Batch:
        """The batch of some examples of ``train_tokens`` or ``test_tokens``."""

    def model_arguments(self, dataset: Any) -> dict[str, Any]:
        """The size of the vocabulary."""
        return {"vocabulary": len(dataset.vocabulary)}

    def train_size(self, dataset: Any) -> int:
        """Number of training sentences."""
        return len(dataset.train_tokens)

    def train_batches(
        self,
        dataset: Any,
        batch_size: int,
        *,
        seed: int,
        epoch: int,
        augmentation: Augmentation | None = None,
    ) -> Iterator[Batch]:
        """Sentences, padded; see :class:`elision.workloads.GlobalBuckets`.

        Raises:
            ValueError: an augmentation is asked for; it is one of images.
        """
        if augmentation is not None:
            raise ValueError(
                "augment: crops and mirror images are for images, not text"
            )
        examples = dataset.train_tokens
        buckets = GlobalBuckets(self.lengths(dataset), batch_size, seed=seed)
        buckets.set_epoch(epoch)
        return (self.collate([examples[i] for i in indices]) for indices in buckets)

    def test_batches(self, dataset: Any, batch_size: int) -> Iterator[Batch]:
        """All test sentences, in order."""
        examples = dataset.test_tokens
        for first in range(0, len(examples), batch_size):
            yield self.collate(examples[first : first + batch_size])

    def answer(self, model: nn.Module, batch: Batch) -> Tensor:
        """Scores of every token; a network sees the sentences without their last."""
        *read, sentences = batch
        return model(*read, sentences[:, :-1])

    def class_scores(self, answer: Tensor, batch: Batch) -> Tensor:
        """Scores of the tokens that are no padding, sentence by sentence."""
        return answer[batch[-1][:, 1:] != PAD]

    def check_output(self, output: Any, dataset: Any) -> None:
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

    def nll(self, model: nn.Module, batch: Batch) -> Tensor:
        """Summed ``-log p`` of the batch's tokens, a scalar that has a gradient."""
        scores = self.answer(model, batch).flatten(0, 1).float()
        targets = batch[-1][:, 1:].flatten()
        return F.cross_entropy(scores, targets, ignore_index=PAD, reduction="sum")

    def counts(self, model: nn.Module, batch: Batch) -> Tensor:
        """Summed ``-log p`` of the batch's tokens, and tokens."""
        tokens = int((batch[-1][:, 1:] != PAD).sum())
        return torch.tensor(
            [float(self.nll(model, batch)), tokens], dtype=torch.float64
        )

    def score(self, counts: Tensor) -> float:
        """Perplexity, at least 1; infinity where it is beyond a double's range."""
        total, tokens = counts.tolist()
        try:
            return math.exp(total / tokens)
        except OverflowError:
            return math.inf


def written(sentences: Sequence[Sequence[int]]) -> Tensor:
    """Sentences between their marks, ``(B, T + 1)``, int64, padded on the right.

    Example:
        >>> written([[6], [8, 9]]).tolist()
        [[2, 6, 3, 0], [2, 8, 9, 3]]
    """
    rows = [torch.tensor([BOS, *sentence, EOS]) for sentence in sentences]
    return pad_sequence(rows, batch_first=True, padding_value=PAD)
