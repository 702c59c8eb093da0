"""Task: batches, loss and test metric of what a network is trained to do.

A training loop reads a task and nothing of its data: it moves the tensors of a batch to
a device, splits them by example and hands them back. Adding a task adds one file here
and one line in the folder's ``__init__.py``.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from elision.workloads.data import Augmentation
from elision.workloads.examples import Examples

__all__ = ["Batch", "Metric", "Task"]

#: Tensors whose first axis counts examples, such as images and their labels.
Batch = tuple[Tensor, ...]


@dataclass(frozen=True)
class Metric:
    """Test metric of a task: its name, its direction and its unit.

    Attributes:
        name: key in files, in ``snake_case``.
        higher_is_better: direction.
        percent: the value is a share in [0, 1] and is printed in per cent.

    Example:
        >>> accuracy = Metric("test_accuracy", percent=True)
        >>> accuracy.label, accuracy.text(0.9125), accuracy.better(0.9, 0.8)
        ('test accuracy', '91.2 %', True)
    """

    name: str
    higher_is_better: bool = True
    percent: bool = False

    @property
    def label(self) -> str:
        """The name in words."""
        return self.name.replace("_", " ")

    def better(self, value: float, other: float) -> bool:
        """Whether ``value`` is better than ``other``; NaN is worse than any number."""
        if math.isnan(value) or math.isnan(other):
            return math.isnan(other) and not math.isnan(value)
        return value > other if self.higher_is_better else value < other

    def text(self, value: float, spread: float | None = None) -> str:
        """A value in its unit, with the spread over seeds if one is given."""
        if math.isnan(value):
            return _DIVERGED
        scale, digits, unit = (100, ".1f", " %") if self.percent else (1, ".4g", "")
        number = format(scale * value, digits)
        if spread is not None:
            number += f" ± {scale * spread:{digits}}"
        return number + unit

    def difference_text(
        self, value: float, baseline: float, spread: float | None = None
    ) -> str:
        """``value - baseline`` with its sign, and its spread over seeds if one is given.

        In percentage points, or the metric's unit.
        """
        if math.isnan(value) or math.isnan(baseline):
            return _DIVERGED if math.isnan(value) else "the first diverged"
        scale, digits, unit = (
            (100, ".1f", " points") if self.percent else (1, ".4g", "")
        )
        number = format(scale * value - scale * baseline, f"+{digits}")
        if spread is not None:
            number += f" ± {scale * spread:{digits}}"
        return number + unit


#: What stands for the metric of a run whose network holds NaN.
_DIVERGED = "NaN (diverged)"


class Task(ABC):
    """What a network is trained to do: batches, loss, metric.

    The metric is computed from *counts*, sums over test examples that can be added over
    batches and processes (right answers and answers; summed log-likelihood and tokens).

    Attributes:
        metric: of the test examples.
        examples: what a data set of the task is.
        networks: builders by name of the networks that are made for it.

    Example:
        >>> from elision.workloads import TASKS
        >>> task = TASKS["classification"]
        >>> batch = torch.eye(4), torch.tensor([0, 1, 2, 0])
        >>> task.metric.name, task.evaluate(nn.Identity(), [batch])
        ('test_accuracy', 0.75)
    """

    metric: Metric
    examples: type[Examples]
    networks: Mapping[str, Callable[..., nn.Module]]

    @abstractmethod
    def model_arguments(self, dataset: Any) -> dict[str, Any]:
        """Arguments of a network's builder that follow from the data set."""

    @abstractmethod
    def train_size(self, dataset: Any) -> int:
        """Number of training examples."""

    @abstractmethod
    def train_batches(
        self,
        dataset: Any,
        batch_size: int,
        *,
        seed: int,
        epoch: int,
        augmentation: Augmentation | None = None,
    ) -> Iterator[Batch]:
        """Training batches of one epoch, a function of (seed, epoch) alone."""

    def train_places(
        self, dataset: Any, batch_size: int, *, seed: int, epoch: int
    ) -> Iterator[Tensor] | None:
        """Places in the training data of each batch's examples, int64; None: not known.

        In the order of :meth:`train_batches`.
        """
        del dataset, batch_size, seed, epoch
        return None

    @abstractmethod
    def test_batches(self, dataset: Any, batch_size: int) -> Iterator[Batch]:
        """All test examples, in order."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean loss of the batch's examples, a scalar that has a gradient."""

    @abstractmethod
    def counts(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sums over the batch's examples that the metric follows from, float64."""

    @abstractmethod
    def score(self, counts: Tensor) -> float:
        """The metric, from counts summed over all test examples."""

    def check(self, model: nn.Module, dataset: Any, examples: int = 2) -> None:
        """Raise ValueError unless the network takes the data and answers as it must.

        A copy of the model sees a few test examples, in training and in evaluation
        mode; of the model itself only lazy layers are given their shapes.
        """
        batch = next(iter(self.test_batches(dataset, examples)))
        with torch.no_grad():
            if any(map(is_lazy, model.parameters())):
                self.answer(model, batch)
            if not any(p.requires_grad for p in model.parameters()):
                raise ValueError("the network has no parameter to train")
            tried = copy.deepcopy(model)
            with torch.random.fork_rng():
                for training in (True, False):
                    output = self.answer(tried.train(training), batch)
                    self.check_output(output, dataset)

    def answer(self, model: nn.Module, batch: Batch) -> Any:
        """What the network says to a batch; by default to its first tensor."""
        return model(batch[0])

    def class_scores(self, answer: Any, batch: Batch) -> Tensor:
        """Rows ``(M, classes)`` of a network's answer that the loss reads.

        Raises:
            ValueError: the answers of this task are no class scores.
        """
        del answer, batch
        raise ValueError(
            f"distillation: the answers of a {type(self).__name__} are no class scores; "
            "give the task a method class_scores(answer, batch)"
        )

    def check_output(self, output: Any, dataset: Any) -> None:
        """Raise ValueError unless a network's output is what the task's loss reads."""
        del output, dataset  # a task that says nothing takes any

    def size(self, batch: Batch) -> int:
        """Number of examples in a batch: its weight in a mean over batches."""
        return len(batch[0])

    def evaluate(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """The metric of a model on test batches; leaves the model's mode as it was."""
        return self.score(self.counted(model, batches))

    @torch.no_grad()
    def counted(self, model: nn.Module, batches: Iterable[Batch]) -> Tensor:
        """Counts summed over test batches, the model in evaluation mode; empty if none."""
        training = model.training
        model.eval()
        found = [self.counts(model, batch).cpu() for batch in batches]
        model.train(training)
        return torch.stack(found).sum(0) if found else torch.zeros(0)
