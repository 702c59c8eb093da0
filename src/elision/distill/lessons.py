"""Lessons of a training run, batch by batch, computed or read from disk.

A teacher's answer to an image depends, in its last bits, on the batch that it comes in.
So lessons are computed in batches that follow from the data and the seed alone, and a
run that reads them from disk is bit-equal to one that computes them:

- Data that is not augmented is answered once, in the batches of epoch 0 of seed 0.
- Augmented data is answered in each epoch's own batches.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from elision.common.digests import digest, state_bytes
from elision.distill.cache import LessonCache
from elision.distill.distilled import Distilled, Lesson
from elision.workloads import Batch, Examples, Workload

__all__ = ["Lessons", "network_digest"]

#: Largest lessons of a whole data set that are held in memory; own choice.
_HELD_BYTES = 256 * 2**20


def network_digest(network: nn.Module) -> str:
    """Digest of a network's layers as printed and of its weights.

    Example:
        >>> network_digest(nn.ReLU()) == network_digest(nn.Tanh())
        False
    """
    return digest([repr(network).encode(), *state_bytes(network)])


class Lessons:
    """Lessons of one run.

    Args:
        distilled: the loss, with its teacher.
        workload: task and batches.
        dataset: the workload's data.
        seed: of the run's batches.
        share: of a batch that this process computes.
        part: name of that share, for the cache: rank and number of processes.
        cache: where lessons are kept; None: nowhere.

    Example:
        >>> from elision.workloads import find_workload
        >>> workload = find_workload("digits-mlp")
        >>> digits = workload.load_dataset()
        >>> student, teacher = workload.make_model(digits), workload.make_model(digits)
        >>> lessons = Lessons(Distilled(student, teacher), workload, digits, seed=0)
        >>> batch = next(workload.train_batches(digits, seed=0, epoch=3))
        >>> lessons.begin(3)
        >>> lessons.of(0, batch)[0][0].shape
        torch.Size([64, 10])
    """

    def __init__(
        self,
        distilled: Distilled,
        workload: Workload,
        dataset: Examples,
        seed: int,
        share: Callable[[Batch], Batch] = lambda batch: batch,
        part: tuple[int, int] = (0, 1),
        cache: LessonCache | None = None,
    ) -> None:
        self.distilled = distilled
        self._workload, self._dataset, self._seed = workload, dataset, seed
        self._share = share
        self._cacheable = bool(distilled.active) and distilled.decay is None
        self._cache = cache if self._cacheable else None
        self._once = self._cacheable and not workload.augment and self._fits()
        self._whole: list[Tensor] = []
        self._places: list[Tensor] = []
        self._read: dict[str, Tensor] | None = None
        self._kept: dict[str, Tensor] | None = None
        self._epoch = 0
        self._question: dict[str, Any] = {}
        if self._cache is not None:
            assert distilled.teacher is not None
            self._question = {
                "teacher": network_digest(distilled.teacher),
                "reads": [repr(active) for active in distilled.active],
                "data": digest(dataset.content()),
                "batch": workload.batch_size,
                "device": next(distilled.teacher.parameters()).device.type,
            }
            if not self._once:
                self._question |= {
                    "seed": seed,
                    "part": list(part),
                    "augmented": workload.augment,
                }

    def _fits(self) -> bool:
        """Whether the lessons of all examples have places, and fit in memory."""
        places = self._order(0, 0)
        if places is None:
            return False
        first = next(places)
        (batch,) = (b for b, _ in zip(self._batches(0, 0), range(1), strict=False))
        lesson = self._ask(batch)
        values = [x for part in lesson for x in part]
        if any(len(x) != len(first) for x in values):
            return False
        size = self._workload.task.train_size(self._dataset) / len(first)
        return size * sum(x.nbytes for x in values) <= _HELD_BYTES

    def _order(self, seed: int, epoch: int) -> Iterator[Tensor] | None:
        workload = self._workload
        return workload.task.train_places(
            self._dataset, workload.batch_size, seed=seed, epoch=epoch
        )

    def _batches(self, seed: int, epoch: int) -> Iterator[Batch]:
        return self._workload.train_batches(self._dataset, seed=seed, epoch=epoch)

    def _ask(self, batch: Batch) -> Lesson:
        task = self._workload.task
        teacher = self.distilled.teacher or self.distilled.student
        device = next(teacher.parameters()).device
        moved = tuple(x.to(device) for x in batch)
        return self.distilled.lesson(
            lambda network: task.answer(network, moved),
            lambda answer: (task.class_scores(answer, moved), task.size(moved)),
        )

    def begin(self, epoch: int) -> None:
        """Prepare an epoch's lessons."""
        self._epoch = epoch
        if self._once:
            if not self._whole:
                self._whole = self._answered_once()
            places = self._order(self._seed, epoch)
            assert places is not None
            self._places = list(places)
        elif self._cache is not None:
            self._read = self._cache.read(self._question | {"epoch": epoch})
            self._kept = {} if self._read is None else None

    def of(self, index: int, batch: Batch) -> Lesson:
        """The lesson of a batch of the epoch.

        Args:
            index: of the batch in the epoch.
            batch: the whole batch; the lesson is of this process's share.
        """
        if self._once:
            (places,) = self._share((self._places[index],))
            return self._grouped([x[places] for x in self._whole])
        if self._read is not None:
            names = sorted(
                (n for n in self._read if n.startswith(f"{index}/")),
                key=lambda n: int(n.partition("/")[2]),
            )
            return self._grouped([self._read[n] for n in names])
        lesson = self._ask(self._share(batch))
        if self._kept is not None:
            values = [x for part in lesson for x in part]
            self._kept |= {f"{index}/{i}": x.cpu() for i, x in enumerate(values)}
            assert self._cache is not None
            held = sum(x.nbytes for x in self._kept.values())
            if held > self._cache.limit_bytes:  # it will not be written: hold no more
                self._kept = None
        return lesson

    def end(self) -> None:
        """Keep the lessons of the epoch that is over."""
        if self._kept is not None and self._cache is not None:
            self._cache.write(self._question | {"epoch": self._epoch}, self._kept)
        self._kept = self._read = None

    def _answered_once(self) -> list[Tensor]:
        """The lessons of all training examples, in the order of the data."""
        found = None if self._cache is None else self._cache.read(self._question)
        if found is None:
            found = self._answered()
            if self._cache is not None:
                self._cache.write(self._question, found)
        teacher = self.distilled.teacher
        assert teacher is not None
        device = next(teacher.parameters()).device
        return [found[str(i)].to(device) for i in range(len(found))]

    def _answered(self) -> dict[str, Tensor]:
        places = self._order(0, 0)
        assert places is not None
        answers = [[x for p in self._ask(b) for x in p] for b in self._batches(0, 0)]
        back = torch.cat(list(places)).argsort()
        columns = zip(*answers, strict=True)
        return {str(i): torch.cat(x).cpu()[back] for i, x in enumerate(columns)}

    def _grouped(self, values: list[Tensor]) -> Lesson:
        """Values in a row as the lesson that they were made of."""
        teacher = self.distilled.teacher
        assert teacher is not None
        device = next(teacher.parameters()).device
        left = iter([x.to(device) for x in values])
        return tuple(
            tuple(next(left) for _ in range(part.lesson_size))
            for part in self.distilled.active
        )
