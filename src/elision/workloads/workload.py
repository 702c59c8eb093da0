"""Workload: a task, its data set, a network, an optimiser and its schedule, as data.

Its fields and a seed decide a training run, so that two recipes on the same workload
differ in the recipe and in nothing else.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from elision.common.checks import MOST_COUNT, count, number, one_of
from elision.common.names import lookup
from elision.common.objects import address
from elision.common.specs import parse
from elision.workloads.data import Augmentation, load_dataset
from elision.workloads.examples import Examples
from elision.workloads.models import make_model
from elision.workloads.tasks import TASKS, Batch, Task

__all__ = ["Workload"]

#: Schedules of the learning rate.
SCHEDULES = ("cosine", "step", "halving", "constant")

#: MLPerf's GNMT: share of the run before the first halving, number of halvings, and the
#: share of the rate that a warm-up begins with.
_UNHALVED, _HALVINGS, _WARMUP_FROM = 0.666, 4, 0.01

#: Most epochs: a run keeps a row for each (own choice).
_MOST_EPOCHS = 10**6

#: Settings by the words of the command line.
_SHORT = {"batch": "batch_size", "lr": "learning_rate"}
#: Settings that a name does not say.
_UNSAID = ("name", "nesterov", "source", "data")


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A task, its data set, a network and the gradient descent that trains it.

    Attributes:
        name: short name.
        dataset: name of a data set of ``elision.workloads.data``, or a function of your
            own that takes a path or None and returns :class:`Examples`.
        model: name of a network (:func:`elision.workloads.make_model`), or a class or
            function of your own that builds one. It is kept as ``package.module:NAME``.
        batch_size: images, or other examples, in a batch.
        epochs: passes over the training examples.
        learning_rate: at the start.
        optimizer: ``"sgd"`` or ``"adamw"`` (Loshchilov, Hutter, ICLR 2019).
        momentum: of SGD; of AdamW ``β1``, the decay of its mean gradient (``β2`` is
            torch's 0.999).
        nesterov: Nesterov's form of SGD's momentum; None: True for SGD.
        weight_decay: SGD adds it to the gradient of every parameter, times the
            parameter; AdamW takes it from the parameter, times the learning rate.
        schedule: ``"cosine"`` falls to zero over the run, ``"constant"`` stays, and
            ``"step"`` multiplies by ``decay`` at the start of each of ``milestones``;
            ``"halving"`` stays for two thirds of the run and is then halved four times, at
            even distances (GNMT's in the MLPerf training benchmark).
        milestones: epochs, counted from 0.
        decay: factor of a step.
        warmup: steps in which the rate rises to its schedule from a hundredth of it, by
            the same factor in each (MLPerf's GNMT: 200).
        clip_norm: largest 2-norm of the gradient of all parameters together; a longer one
            is scaled down to it (MLPerf's GNMT: 5). None: gradients stay as they are.
        augment: random crops and mirror images of the training images.
        train_images, test_images: images, or other examples, used, evenly spread; None:
            all.
        model_options: further arguments of the network's builder, such as ``width``.
        dataset_options: further arguments of the data set's loader, such as ``side``.
        data: folder of the data set's files, for those that need one.
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
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    nesterov: bool | None = None
    weight_decay: float = 5e-4
    schedule: Literal["cosine", "step", "halving", "constant"] = "cosine"
    milestones: tuple[int, ...] = ()
    decay: float = 0.1
    warmup: int = 0
    clip_norm: float | None = None
    augment: bool = False
    train_images: int | None = None
    test_images: int | None = None
    model_options: Mapping[str, Any] = field(default_factory=dict)
    dataset_options: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = None
    source: str = "own choice"
    task_name: str = "classification"

    def __post_init__(self) -> None:
        owner = f"workload {self.name!r}: Workload"
        for name in ("dataset", "model"):
            object.__setattr__(self, name, _name(owner, name, getattr(self, name)))
        one_of(owner, "optimizer", self.optimizer, ("sgd", "adamw"))
        if self.nesterov is None:
            object.__setattr__(self, "nesterov", self.optimizer == "sgd")
        elif self.nesterov and self.optimizer != "sgd":
            raise ValueError(f"{owner}(nesterov=True): is a form of optimizer 'sgd'")
        count(owner, "batch_size", self.batch_size)
        count(owner, "epochs", self.epochs, most=_MOST_EPOCHS)
        for name in ("train_images", "test_images"):
            if getattr(self, name) is not None:
                count(owner, name, getattr(self, name))
        number(owner, "learning_rate", self.learning_rate, "> 0")
        # Nesterov's form needs a momentum.
        number(
            owner, "momentum", self.momentum, "(0, 1)" if self.nesterov else "[0, 1)"
        )
        number(owner, "weight_decay", self.weight_decay, ">= 0")
        number(owner, "decay", self.decay, "(0, 1]")
        one_of(owner, "schedule", self.schedule, SCHEDULES)
        count(owner, "warmup", self.warmup, 0)
        if self.clip_norm is not None:
            number(owner, "clip_norm", self.clip_norm, "> 0")
        lookup("task", self.task_name, TASKS)
        for name in ("model_options", "dataset_options"):
            object.__setattr__(self, name, dict(getattr(self, name)))
            _check_options(owner, getattr(self, name))
        object.__setattr__(self, "milestones", tuple(self.milestones))
        for milestone in self.milestones:
            count(owner, "milestones", milestone, 0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which :meth:`from_dict` makes the workload again.

        Options, a warm-up and an optimiser other than SGD are there only where they are
        set.
        """
        usual = {
            "optimizer": "sgd",
            "model_options": {},
            "dataset_options": {},
            "warmup": 0,
        }
        values = asdict(self)
        return {k: v for k, v in values.items() if v is not None and v != usual.get(k)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Workload":
        """The workload of plain values, such as a table of a TOML file.

        ``batch`` and ``lr`` stand for ``batch_size`` and ``learning_rate``, as on the
        command line, and data set and model may have options, as in :meth:`changed`. A
        workload without a name is called by its data set and model.

        Raises:
            ValueError: an unknown setting (lists the known ones), a data set or model
                that is missing, or a value that is refused.

        Example:
            >>> Workload.from_dict({"dataset": "digits", "model": "mlp", "lr": 0.05}).name
            'digits-mlp'
        """
        found = _settings(values)
        for needed in ("dataset", "model"):
            if needed not in found:
                raise ValueError(f"workload: {needed} is missing")
        found.setdefault("name", _as_word(f"{found['dataset']}-{found['model']}"))
        return cls(**found)

    def changed(self, **settings: Any) -> "Workload":
        """The workload with other settings, and a name that says which.

        Args:
            **settings: as in :meth:`from_dict`; None leaves one as it is. Data set and
                model may have options: ``"folder(side=64)"``. Another data set is used
                whole, another network has no options of the one before, and another
                optimiser or no momentum drops Nesterov's form.

        Raises:
            ValueError: an unknown setting, or a value that is refused.

        Example:
            >>> digits = Workload(name="digits-mlp", dataset="digits", model="mlp")
            >>> digits.changed(model="cnn(width=8)", batch_size=32).name
            'digits-cnn-batch-size-32-width-8'
        """
        given = _settings({k: v for k, v in settings.items() if v is not None})
        implied: dict[str, Any] = {}
        if "dataset" in given:
            implied |= {"train_images": None, "test_images": None, "data": None}
        for part in ("dataset", "model"):
            if part in given:
                implied[f"{part}_options"] = {}
        if given.get("optimizer", "sgd") != "sgd" or given.get("momentum") == 0:
            implied["nesterov"] = False
        made = replace(self, **(implied | given))
        made = replace(made, name=given.get("name", _name_of(made, self)))
        return self if made == self else replace(made, source="own choice")

    def load_dataset(self, path: str | Path | None = None) -> Any:
        """The data set, cut to ``train_images`` and ``test_images``; of the task's kind.

        Args:
            path: folder of its files; None for the workload's own ``data``.

        Raises:
            ValueError: the data are of another kind than the task needs, or as
                :func:`elision.workloads.load_dataset` does.
        """
        place = self.data if path is None else path
        dataset = load_dataset(self.dataset, place, **self.dataset_options)
        wanted = self.task.examples
        if not isinstance(dataset, wanted):
            raise ValueError(
                f"workload {self.name!r}: data set {self.dataset!r} holds a "
                f"{type(dataset).__name__}, task {self.task_name!r} needs a "
                f"{wanted.__name__}; begin with another workload"
            )
        return dataset.limited(self.train_images, self.test_images)

    @property
    def task(self) -> Task:
        """Batches, loss and metric."""
        return TASKS[self.task_name]

    def make_model(self, dataset: Examples) -> nn.Module:
        """The network for this data, its weights from torch's global generator.

        Raises:
            ValueError: as :func:`make_model` does, an option is what the data say, or a
                network of another library, or of the user's own, does not fit the data.
        """
        if ":" not in self.model:
            lookup(f"model for {self.task_name}", self.model, self.task.networks)
        given = {"name": self.model, **self.task.model_arguments(dataset)}
        if taken := given.keys() & self.model_options.keys():
            raise ValueError(
                f"workload {self.name}: model_options: {', '.join(sorted(taken))}: the data "
                "and the name of the network say so already"
            )
        model = make_model(**given, **self.model_options)
        if ":" in self.model:
            self._check(model, dataset)
        return model

    def _check(self, model: nn.Module, dataset: Examples) -> None:
        """Raise ValueError unless the network takes the data, the last batch included."""
        last = self.task.train_size(dataset) % self.batch_size or self.batch_size
        try:
            self.task.check(model, dataset, min(last, 2))
        except Exception as error:  # a network may fail in any way
            reason = str(error).strip().partition("\n")[0]
            if last == 1:
                reason += "; an epoch's last batch has 1 example, change batch_size"
            if self.dataset == "folder":
                reason += (
                    "; folder(side=..., channels=...) gives images of another form"
                )
            raise ValueError(
                f"model {self.model!r} on {dataset!r}: {reason}"
            ) from error

    def make_optimizer(
        self, model: nn.Module, learning_rate: float | None = None
    ) -> torch.optim.Optimizer:
        """The descent that trains the network; ``learning_rate`` replaces its own."""
        rate = self.learning_rate if learning_rate is None else learning_rate
        if self.optimizer == "adamw":
            return torch.optim.AdamW(
                model.parameters(),
                lr=rate,
                betas=(self.momentum, 0.999),
                weight_decay=self.weight_decay,
            )
        return torch.optim.SGD(
            model.parameters(),
            lr=rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=bool(self.nesterov),
        )

    def clip_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        """Let the optimiser scale long gradients down before each of its steps.

        Call it behind :func:`elision.topology.attach`, whose hook runs first then: the
        norm is that of the gradient that is applied, without what a rule only looks at.
        Loss scales are out of the gradient by then, and ranks have averaged it.
        """
        if self.clip_norm is None:
            return
        norm = self.clip_norm

        def clip(stepping: torch.optim.Optimizer, *_: Any) -> None:
            nn.utils.clip_grad_norm_(
                [p for group in stepping.param_groups for p in group["params"]], norm
            )

        optimizer.register_step_pre_hook(clip)

    def set_learning_rate(
        self, optimizer: torch.optim.Optimizer, step: int, steps_per_epoch: int
    ) -> float:
        """Give every group of the optimiser the rate of a step, and return the rate."""
        rate = self.learning_rate_at(step, steps_per_epoch)
        for group in optimizer.param_groups:
            group["lr"] = rate
        return rate

    def steps_per_epoch(self, dataset: Examples) -> int:
        """Batches of an epoch, a smaller last one included."""
        return -(-self.task.train_size(dataset) // self.batch_size)

    def train_batches(
        self, dataset: Examples, *, seed: int, epoch: int
    ) -> Iterator[Batch]:
        """The training batches of an epoch; see :meth:`Task.train_batches`."""
        return self.task.train_batches(
            dataset,
            self.batch_size,
            seed=seed,
            epoch=epoch,
            augmentation=self.augmentation,
        )

    def test_batches(self, dataset: Examples) -> Iterator[Batch]:
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
        total = steps_per_epoch * self.epochs
        rate = self.learning_rate
        if self.schedule == "cosine":
            rate *= (1 + math.cos(math.pi * step / total)) / 2
        elif self.schedule == "step":
            passed = sum(step >= m * steps_per_epoch for m in self.milestones)
            rate *= self.decay**passed
        elif self.schedule == "halving":
            rate *= 0.5 ** _halvings(step, total)
        if step < self.warmup:
            rate *= _WARMUP_FROM ** (1 - step / self.warmup)
        return rate


def _halvings(step: int, total: int) -> int:
    """How often a rate is halved up to a step of ``total``."""
    first = int(_UNHALVED * total)
    if step < first:
        return 0
    distance = max((total - first) // _HALVINGS, 1)
    return min((step - first) // distance + 1, _HALVINGS)


def _settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a workload from what a person writes."""
    known = {f.name: f for f in fields(Workload)}
    found: dict[str, Any] = {}
    for setting, value in values.items():
        field = _SHORT.get(setting, setting)
        lookup("setting of a workload", field, known)
        if field in found:
            raise ValueError(f"workload: {field} is given twice")
        found[field] = value
    for part in ("dataset", "model"):
        if isinstance(found.get(part), str):
            found[part], options = _with_options(found[part])
            if options:
                given = found.get(f"{part}_options", {})
                found[f"{part}_options"] = {**given, **options}
    return found


def _with_options(text: str) -> tuple[str, dict[str, Any]]:
    """A name and its options, from ``name(option=value, ...)`` or ``name:option=value``."""
    name, mark, rest = text.partition("(")
    if not mark and "=" in text:
        name, mark, rest = text.partition(":")
    # A colon of the name is none of the grammar's.
    found = parse(f"{name.replace(':', '.')}{mark}{rest}")
    if found.positional:
        raise ValueError(f"{text!r}: write {name}(option=value, ...)")
    return name.strip(), found.named


def _name_of(made: Workload, base: Workload) -> str:
    """A name that tells a workload from the one that it was made of."""
    told = ("dataset", "model")
    parts = [base.name]
    if any(getattr(made, n) != getattr(base, n) for n in told):
        parts = [made.dataset, made.model]
    for name in (f.name for f in fields(made)):
        value, before = getattr(made, name), getattr(base, name)
        if name.endswith("_options"):
            parts += [f"{k}-{v}" for k, v in value.items() if value != before]
        elif value not in (before, None) and name not in (*told, *_UNSAID):
            parts.append(f"{name}-{value}")
    return _as_word("-".join(parts))


def _as_word(text: str) -> str:
    return "".join(c if c.isalnum() or c in ".-" else "-" for c in text).strip("-")


def _check_options(owner: str, options: Mapping[str, Any]) -> None:
    """Refuse integers that no size of a network or an image can be."""
    for name, value in options.items():
        for part in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(part, int) and not isinstance(part, bool):
                count(owner, name, part, least=-MOST_COUNT)


def _name(owner: str, field: str, value: Any) -> str:
    """A name as given, or the address of a class or function."""
    found = value if isinstance(value, str) else address(value)
    if not found:
        raise ValueError(
            f"{owner}({field}={value!r}): must be a name, or a class or function that "
            "stands in a module by its own name, so that another process finds it"
        )
    return found
