"""Subject of a search: a trained network and the examples that it is judged by."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from elision.common.checks import integer
from elision.layers import elide
from elision.layers.recipe import Recipe, Table
from elision.operands import TopK
from elision.products import Product
from elision.study.search.choices import LayerSpace, Option, Place
from elision.topology.install import UnattachedWarning
from elision.workloads import Batch, Examples, Workload

__all__ = ["OutOfWork", "Subject", "as_table", "elided", "subject_of"]


class OutOfWork(ValueError):
    """A measurement that would read more examples than a subject may.

    Example:
        >>> issubclass(OutOfWork, ValueError)
        True
    """


@dataclass
class Subject:
    """A trained network with batches of examples that it was not trained on.

    Attributes:
        workload: its task, network and settings.
        model: trained, not elided; measurements work on copies.
        batches: held-out *training* examples; no test example is among them.
        engine: who computes the products of a step that is timed.
        examples_read: examples in a forward pass so far, a backward pass counted as two:
            the work of the measurements.
        most: the most that ``examples_read`` may come to.

    Example:
        >>> workload = Workload(name="small", dataset="digits", model="mlp", epochs=1)
        >>> data = workload.load_dataset().held_out(0.2)
        >>> subject = subject_of(workload, workload.make_model(data), data, examples=64)
        >>> len(subject.batches), subject.examples_read
        (1, 0)
    """

    workload: Workload
    model: nn.Module
    batches: tuple[Batch, ...]
    engine: str = "auto"
    examples_read: int = 0
    most: float = math.inf

    @property
    def examples(self) -> int:
        """Number of held-out examples."""
        return sum(map(self.workload.task.size, self.batches))

    def count(self, batch: Batch, passes: int) -> None:
        """Add so many passes over a batch to the work, before they are done.

        Raises:
            OutOfWork: it would be more than :attr:`most`; nothing is added.
        """
        read = self.examples_read + passes * self.workload.task.size(batch)
        if read > self.most:
            raise OutOfWork(f"{read} examples would be read, more than {self.most:.6g}")
        self.examples_read = read

    def loss(self, recipe: Recipe) -> float:
        """Mean loss of the held-out examples under a recipe.

        Batch normalisation takes the statistics of the batch, as in training: those that
        it has learnt are of the dense network.
        """
        with elided(self.model, recipe) as model, torch.no_grad():
            total = 0.0
            for batch in self.batches:
                self.count(batch, 1)
                share = self.workload.task.size(batch) / self.examples
                total += share * float(self.workload.task.loss(model, batch))
        return total

    def gradients(self, recipe: Recipe, batch: Batch) -> list[Tensor]:
        """Gradients of a batch's loss in all parameters under a recipe."""
        with elided(self.model, recipe) as model:
            self.count(batch, 3)
            parameters = [p for p in model.parameters() if p.requires_grad]
            loss = self.workload.task.loss(model, batch)
            return list(torch.autograd.grad(loss, parameters, materialize_grads=True))


def subject_of(
    workload: Workload, model: nn.Module, data: Examples, examples: int = 128
) -> Subject:
    """The subject of a trained network.

    Args:
        workload: that trained it.
        model: not elided.
        data: with held-out training examples in the place of the test
            (:meth:`~elision.workloads.Examples.held_out`).
        examples: held-out examples to judge by, evenly spread over them.

    Raises:
        ValueError: ``examples`` is not positive.
    """
    integer("search", "examples", examples)
    few = data.limited(test=examples)
    batches = tuple(islice(workload.test_batches(few), examples))
    return Subject(workload, model, batches)


@contextmanager
def elided(
    model: nn.Module, recipe: Recipe, engine: str = "torch"
) -> Iterator[nn.Module]:
    """Context with a copy of a network under a recipe, as a measurement runs it.

    Dropout is off; batch normalisation takes the batch's statistics.
    """
    import warnings

    copied = elide(copy.deepcopy(model), recipe, engine=engine).eval()
    for module in copied.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore", UnattachedWarning)
        torch.manual_seed(0)  # of transforms that round at random
        yield copied


def as_table(option: Option) -> Table:
    """The table by which a choice is judged on a trained network.

    Of a mask that moves it keeps the largest weights: what masks are at the start says
    nothing of where they move.
    """
    from elision.methods.composed import chained

    if option.moving is None:
        return option.table
    largest = TopK(option.moving.sparsity)
    mask = Table(
        {
            Product.FORWARD: {"weight": largest},
            Product.INPUT_GRAD: {"weight": largest},
        }
    )
    return chained(mask, option.table)


def judged(place: Place, option: Option) -> Recipe:
    """The recipe of one choice at one place, all else dense, masks by magnitude."""
    return Recipe("one choice", overrides=((place.layer, as_table(option)),))


def judged_together(space: LayerSpace, chosen: list[int]) -> Recipe:
    """The recipe of a choice for each place, masks by magnitude."""
    from functools import reduce

    from elision.methods.composed import chained

    tables: dict[str, list[Table]] = {}
    for place, index in zip(space.places, chosen, strict=True):
        tables.setdefault(place.layer, []).append(as_table(place.options[index]))
    return Recipe(
        "choices", overrides=tuple((n, reduce(chained, t)) for n, t in tables.items())
    )
