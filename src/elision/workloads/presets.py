"""Workloads by name: a task, its data set, a network, an optimiser and its schedule.

A preset is data. Its fields and a seed decide a training run, so that two recipes on the
same workload differ in the recipe and in nothing else.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from elision.common.checks import integer, number, one_of
from elision.common.names import lookup
from elision.workloads.data import Augmentation, Dataset, load_dataset
from elision.workloads.models import make_model
from elision.workloads.tasks import TASKS, Batch, Task

__all__ = ["DEFAULT_WORKLOAD", "WORKLOADS", "Workload", "find_workload"]

#: What ``elision study`` trains when nothing else is asked for.
DEFAULT_WORKLOAD = "photo-resnet8"


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A task, its data set, a network and the gradient descent that trains it.

    Attributes:
        name: short name.
        dataset: name of a data set of ``elision.workloads.data``.
        model: name of a network of ``elision.workloads.models``.
        batch_size: images in a batch.
        epochs: passes over the training images.
        learning_rate: at the start.
        momentum: of the descent; Nesterov's form if ``nesterov``.
        nesterov: see ``torch.optim.SGD``.
        weight_decay: added to the gradient of every parameter, times the parameter.
        schedule: ``"cosine"`` falls to zero over the run, ``"constant"`` stays, and
            ``"step"`` multiplies by ``decay`` at the start of each of ``milestones``.
        milestones: epochs, counted from 0.
        decay: factor of a step.
        augment: random crops and mirror images of the training images.
        train_images, test_images: images used, evenly spread; None: all.
        model_options: further arguments of the network's builder, such as ``width``.
        source: where the settings come from.
        task_name: key of :data:`elision.workloads.tasks.TASKS`.

    Raises:
        ValueError: a number is out of range or a choice unknown.

    Example:
        >>> workload = Workload(name="mine", dataset="digits", model="cnn", epochs=2)
        >>> [workload.learning_rate_at(step, 2) for step in (0, 2)]
        [0.1, 0.05]
    """

    name: str
    dataset: str
    model: str
    batch_size: int = 64
    epochs: int = 5
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    milestones: tuple[int, ...] = ()
    decay: float = 0.1
    augment: bool = False
    train_images: int | None = None
    test_images: int | None = None
    model_options: Mapping[str, Any] = field(default_factory=dict)
    source: str = "own choice"
    task_name: str = "classification"

    def __post_init__(self) -> None:
        owner = f"workload {self.name!r}: Workload"
        for name in ("batch_size", "epochs"):
            integer(owner, name, getattr(self, name))
        for name in ("train_images", "test_images"):
            if getattr(self, name) is not None:
                integer(owner, name, getattr(self, name))
        number(owner, "learning_rate", self.learning_rate, "> 0")
        # Nesterov's form needs a momentum.
        number(
            owner, "momentum", self.momentum, "(0, 1)" if self.nesterov else "[0, 1)"
        )
        number(owner, "weight_decay", self.weight_decay, ">= 0")
        number(owner, "decay", self.decay, "(0, 1]")
        one_of(owner, "schedule", self.schedule, ("cosine", "step", "constant"))
        lookup("task", self.task_name, TASKS)
        object.__setattr__(self, "model_options", dict(self.model_options))

    def load_dataset(self, path: str | Path | None = None) -> Dataset:
        """The data set, cut to ``train_images`` and ``test_images``."""
        dataset = load_dataset(self.dataset, path)
        return dataset.limited(self.train_images, self.test_images)

    @property
    def task(self) -> Task:
        """Batches, loss and metric."""
        return TASKS[self.task_name]

    def make_model(self, dataset: Dataset) -> nn.Module:
        """The network for this data, its weights from torch's global generator."""
        return make_model(
            self.model, **self.task.model_arguments(dataset), **self.model_options
        )

    def make_optimizer(
        self, model: nn.Module, learning_rate: float | None = None
    ) -> torch.optim.SGD:
        """The descent that trains the network; ``learning_rate`` replaces its own."""
        return torch.optim.SGD(
            model.parameters(),
            lr=self.learning_rate if learning_rate is None else learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
        )

    def set_learning_rate(
        self, optimizer: torch.optim.Optimizer, step: int, steps_per_epoch: int
    ) -> float:
        """Give every group of the optimiser the rate of a step, and return the rate."""
        rate = self.learning_rate_at(step, steps_per_epoch)
        for group in optimizer.param_groups:
            group["lr"] = rate
        return rate

    def steps_per_epoch(self, dataset: Dataset) -> int:
        """Batches of an epoch, a smaller last one included."""
        return -(-self.task.train_size(dataset) // self.batch_size)

    def train_batches(
        self, dataset: Dataset, *, seed: int, epoch: int
    ) -> Iterator[Batch]:
        """The training batches of an epoch; see :meth:`Task.train_batches`."""
        return self.task.train_batches(
            dataset,
            self.batch_size,
            seed=seed,
            epoch=epoch,
            augmentation=self.augmentation,
        )

    def test_batches(self, dataset: Dataset) -> Iterator[Batch]:
        """All test examples, in order."""
        return self.task.test_batches(dataset, self.batch_size)

    @property
    def augmentation(self) -> Augmentation | None:
        """Random variation of the training batches; None: none."""
        return Augmentation() if self.augment else None

    def learning_rate_at(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate of a training step, counted from 0 over the whole run.

        A function of the step alone, so that a resumed run needs no scheduler state.
        """
        if self.schedule == "cosine":
            progress = step / (steps_per_epoch * self.epochs)
            return self.learning_rate * (1 + math.cos(math.pi * progress)) / 2
        if self.schedule == "step":
            passed = sum(step >= m * steps_per_epoch for m in self.milestones)
            return self.learning_rate * self.decay**passed
        return self.learning_rate


def _cifar(name: str, dataset: str, model: str, **settings: Any) -> Workload:
    """A full CIFAR run; SWAT's published settings where nothing else is said."""
    defaults: dict[str, Any] = {
        "batch_size": 128,
        "epochs": 150,
        "nesterov": False,
        "schedule": "step",
        "milestones": (50, 100),
        "augment": True,
        "source": "SWAT's CIFAR configurations: rate 0.1, / 10 at epochs 50 and 100",
    }
    return Workload(name=name, dataset=dataset, model=model, **(defaults | settings))


WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        # Half the usual rate: the accuracy of the first epochs is then less erratic.
        Workload(
            name="photo-resnet8",
            dataset="photo-patches",
            model="resnet8",
            learning_rate=0.05,
        ),
        Workload(
            name="photo-vgg16",
            dataset="photo-patches",
            model="vgg16",
            learning_rate=0.05,
            model_options={"width": 16},
        ),
        Workload(
            name="photo-transformer",
            dataset="photo-patches",
            model="transformer",
            epochs=10,
            learning_rate=0.05,
        ),
        Workload(name="digits-cnn", dataset="digits", model="cnn", epochs=3),
        Workload(
            name="digits-mlp",
            dataset="digits",
            model="mlp",
            learning_rate=0.05,
            model_options={"width": 64},
        ),
        Workload(name="mnist5k-cnn", dataset="mnist-5k", model="cnn"),
        Workload(
            name="mnist5k-lstm",
            dataset="mnist-5k",
            model="lstm",
            learning_rate=0.5,
        ),
        Workload(
            name="fashion-resnet8",
            dataset="fashion-mnist",
            model="resnet8",
            train_images=10_000,
            test_images=2_000,
        ),
        Workload(
            name="fashion-resnet18",
            dataset="fashion-mnist",
            model="resnet18",
            batch_size=128,
            epochs=30,
            augment=True,
        ),
        _cifar(
            "cifar10-resnet20",
            "cifar10",
            "resnet20",
            epochs=164,
            weight_decay=1e-4,
            milestones=(82, 123),
            source="He et al. 2016, section 4.2: 64k steps, rate / 10 at 32k and 48k",
        ),
        _cifar("cifar10-resnet18", "cifar10", "resnet18"),
        _cifar("cifar10-vgg16", "cifar10", "vgg16"),
        _cifar(
            "cifar10-wrn16-8",
            "cifar10",
            "wrn16-8",
            epochs=200,
            nesterov=True,
            milestones=(60, 120, 160),
            decay=0.2,
            model_options={"dropout": 0.3},
            source="SWAT's CIFAR configuration, after Zagoruyko and Komodakis 2016",
        ),
        _cifar(
            "cifar10-wrn22-2",
            "cifar10",
            "wrn22-2",
            epochs=250,
            # 30,000, 60,000 and 90,000 of 391 steps an epoch, to the nearest epoch.
            milestones=(77, 153, 230),
            decay=0.2,
            source="RigL's CIFAR configuration: rate x 0.2 every 30,000 steps",
        ),
        _cifar("cifar10-densenet121", "cifar10", "densenet121"),
        _cifar("cifar100-resnet18", "cifar100", "resnet18"),
    )
}


def find_workload(name: str) -> Workload:
    """The preset called ``name``.

    Raises:
        ValueError: there is none; the message lists the names.
    """
    return lookup("workload", name, WORKLOADS)
