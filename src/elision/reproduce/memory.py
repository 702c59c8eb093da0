"""Policies for saved activations, measured, beside what was published about them.

Everything in a :class:`MemoryRow` is measured here, in one process: bytes by the ledger,
the peak by the allocator's own account, time against plain autograd in the same round,
the error of every layer's weight gradient, and the accuracy after a real training. The
published figures are for other networks, sizes and machines; they stand beside ours and
are compared with nothing.
"""

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.memory import Ledger, measure_peak, saver, watch_peak
from elision.training import evaluate
from elision.workloads import Dataset, Workload

__all__ = [
    "POLICIES",
    "PUBLISHED",
    "MemoryRow",
    "PublishedFigure",
    "TrainingRow",
    "measure_peaks",
    "measure_policies",
    "train_policies",
]

#: What is measured if nothing else is asked for. ``none`` is the hooks alone.
POLICIES = (
    *("none", "exact", "int8", "bits(4)", "bits(2.5)", "sfpr", "jpeg", "fp8"),
    *("guaranteed(0.1)", "expected(0.1)", "offload", "rad(0.1)"),
)


@dataclass(frozen=True)
class PublishedFigure:
    """A claim about one technique.

    Attributes:
        technique: its name.
        policy: our nearest policy.
        figure: what is claimed.
        source: where it is stated.
        caution: why it is not to be expected here.
    """

    technique: str
    policy: str
    figure: str
    source: str
    caution: str = ""


PUBLISHED = (
    PublishedFigure(
        "vDNN",
        "offload",
        "average GPU memory down by up to 89 % (AlexNet), 91 % (OverFeat), 95 % "
        "(GoogLeNet); VGG-16 at batch 256 at 18 % performance loss",
        "abstract, arXiv 1602.08124",
        "Offloads to host memory over PCIe; ours goes to files on a CPU.",
    ),
    PublishedFigure(
        "JPEG-ACT",
        "jpeg",
        "2.4x training performance over offloading accelerators, 1.6x over other "
        "activation compression",
        "abstract, ISCA 2020",
        "A hardware unit, simulated. Per-network ratios (8.5x is often quoted) could "
        "not be verified.",
    ),
    PublishedFigure(
        "AC-GC",
        "guaranteed(0.1)",
        "15.1x on average at 0.1 % accuracy change",
        "abstract, NeurIPS 2021",
        "The released code's own logs come to 4.8x on the quantised tensors, and it "
        "compresses after the forward pass, so its peak does not fall.",
    ),
    PublishedFigure(
        "ActNN",
        "bits(2.5)",
        "12x less activation memory at 2 bits, 6.6-14x larger batches",
        "project documentation, ICML 2021",
        "Stores group ranges as bfloat16; ours as float32.",
    ),
    PublishedFigure(
        "GACT",
        "bits(4)",
        "up to 8.1x less activation memory, 4.2-24.7x larger batches",
        "abstract and documentation, ICML 2022",
    ),
    PublishedFigure(
        "BLPA",
        "bits(4)",
        "4-bit activations close to exact training",
        "abstract, NeurIPS 2019",
        "Its quantiser, aligned with batch norm, is not built here.",
    ),
)


@dataclass(frozen=True)
class MemoryRow:
    """One policy on one model, measured.

    Attributes:
        policy: its name.
        logical_bytes: what plain autograd would hold between forward and backward.
        stored_bytes: what is held instead, by the ledger.
        held_bytes: what the allocator still counts after the forward pass, the batch
            excepted.
        batch_bytes: the batch, which the ledger includes.
        plain_peak_bytes, peak_bytes: peak of a step in plain autograd and here;
            parameters excepted, their gradients included.
        time_ratios: step time over plain autograd's, one per round.
        processor_time_ratios: the same in processor seconds of this process, which
            other processes do not add to.
        gradient_errors: parameter of two or more axes -> relative error.
        elsewhere_bytes: packed tensors whose originals the model or caller kept alive.
    """

    policy: str
    logical_bytes: int
    stored_bytes: int
    held_bytes: int
    batch_bytes: int
    plain_peak_bytes: int
    peak_bytes: int
    time_ratios: tuple[float, ...]
    processor_time_ratios: tuple[float, ...]
    gradient_errors: dict[str, float]
    elsewhere_bytes: int = 0

    @property
    def tensor_ratio(self) -> float:
        """How many times fewer bytes the saved tensors take."""
        return self.logical_bytes / max(self.stored_bytes, 1)

    @property
    def peak_ratio(self) -> float:
        """How many times lower the measured peak is."""
        return self.plain_peak_bytes / self.peak_bytes

    @property
    def time_ratio(self) -> float:
        """Median step time over plain autograd's."""
        return statistics.median(self.time_ratios)

    @property
    def processor_time_ratio(self) -> float:
        """Median processor time of a step over plain autograd's."""
        return statistics.median(self.processor_time_ratios)

    @property
    def largest_error(self) -> float:
        """Largest relative error of a weight gradient."""
        return max(self.gradient_errors.values())

    @property
    def median_error(self) -> float:
        """Median relative error of the weight gradients."""
        return statistics.median(self.gradient_errors.values())


def measure_policies(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    policies: Sequence[Any] = POLICIES,
    rounds: int = 5,
) -> Iterator[MemoryRow]:
    """Measure training steps of a classifier under each policy.

    Plain autograd and all policies take turns within each round, so that what else the
    machine does falls on all of them. Parameters are not updated.

    Args:
        model: the classifier, in training mode.
        images: a batch, ``(N, C, H, W)``.
        labels: its classes, ``(N,)``.
        policies: as for :class:`elision.memory.saver`.
        rounds: timed steps per policy.
    """
    arms = [None, *policies]
    for arm in arms:  # compile, learn, allocate
        _step(model, images, labels, arm)
    _step(model, images, labels, None)
    exact = _weight_gradients(model)
    seconds = {arm: _Seconds() for arm in arms}
    for _ in range(rounds):
        for arm in arms:
            began = time.perf_counter(), time.process_time()
            _step(model, images, labels, arm)
            seconds[arm].wall.append(time.perf_counter() - began[0])
            seconds[arm].processor.append(time.process_time() - began[1])
    plain_peak = _peak(model, images, labels, None)
    for arm in policies:
        _step(model, images, labels, arm)
        got = _weight_gradients(model)
        errors = {n: _relative(got[n] - g, g) for n, g in exact.items()}
        del got
        held, ledger = _held(model, images, arm)
        mine, plain = seconds[arm], seconds[None]
        yield MemoryRow(
            policy=str(arm),
            logical_bytes=ledger.logical_bytes,
            stored_bytes=ledger.stored_bytes,
            held_bytes=held,
            batch_bytes=images.untyped_storage().nbytes(),
            plain_peak_bytes=plain_peak,
            peak_bytes=_peak(model, images, labels, arm),
            time_ratios=_ratios(mine.wall, plain.wall),
            processor_time_ratios=_ratios(mine.processor, plain.processor),
            gradient_errors=errors,
            elsewhere_bytes=ledger.elsewhere_bytes,
        )


def measure_peaks(
    model: nn.Module, images: Tensor, labels: Tensor, policies: Sequence[Any]
) -> dict[str, int]:
    """Peak bytes of one step in plain autograd (``"plain"``) and under each policy.

    For networks and batches whose steps take too long to repeat; arguments as for
    :func:`measure_policies`.
    """
    peaks = {"plain": _peak(model, images, labels, None)}
    peaks |= {str(arm): _peak(model, images, labels, arm) for arm in policies}
    return peaks


@dataclass
class _Seconds:
    """Times of one policy's steps."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)


def _ratios(mine: list[float], plain: list[float]) -> tuple[float, ...]:
    return tuple(a / b for a, b in zip(mine, plain, strict=True))


@dataclass(frozen=True)
class TrainingRow:
    """Accuracies after training under one policy.

    Attributes:
        policy: its name; ``"plain"`` is plain autograd.
        accuracies: share of the test images classified rightly, one per seed.
        losses: training loss of the last epoch, one per seed.
    """

    policy: str
    accuracies: tuple[float, ...]
    losses: tuple[float, ...]


def train_policies(
    workload: Workload,
    dataset: Dataset,
    policies: Sequence[Any],
    seeds: Sequence[int] = (0, 1, 2),
) -> Iterator[TrainingRow]:
    """Train a workload's model in plain autograd and under each policy.

    Weights, order of the batches and augmentation follow from the seed alone and are
    the same for all policies.
    """
    for policy in (None, *policies):
        runs = [_train(workload, dataset, policy, seed) for seed in seeds]
        accuracies, losses = zip(*runs, strict=True)
        yield TrainingRow(
            "plain" if policy is None else str(policy), accuracies, losses
        )


def _train(
    workload: Workload, dataset: Dataset, policy: Any, seed: int
) -> tuple[float, float]:
    """Accuracy and last training loss of one run."""
    torch.manual_seed(seed)
    model = workload.make_model(dataset)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=workload.learning_rate,
        momentum=workload.momentum,
        weight_decay=workload.weight_decay,
        nesterov=workload.nesterov,
    )
    per_epoch = -(-len(dataset.train_images) // workload.batch_size)
    step, loss = 0, 0.0
    for epoch in range(workload.epochs):
        batches = dataset.train_batches(
            workload.batch_size,
            seed=seed,
            epoch=epoch,
            augmentation=workload.augmentation,
        )
        loss = 0.0
        for images, labels in batches:
            for group in optimizer.param_groups:
                group["lr"] = workload.learning_rate_at(step, per_epoch)
            optimizer.zero_grad()
            value, _ = _loss(model, images, labels, policy, seed=step)
            value.backward()
            optimizer.step()
            loss += value.item() * len(labels) / len(dataset.train_images)
            step += 1
    return evaluate(model, dataset, workload.batch_size), loss


def _loss(
    model: nn.Module, images: Tensor, labels: Tensor, policy: Any, seed: int
) -> tuple[Tensor, saver | None]:
    if policy is None:
        return F.cross_entropy(model(images), labels), None
    with saver(model, policy, seed=seed) as saved:
        loss = F.cross_entropy(model(images), labels)
    return loss, saved


def _step(model: nn.Module, images: Tensor, labels: Tensor, policy: Any) -> None:
    """A forward and a backward pass with the same random numbers every time."""
    torch.manual_seed(1)
    model.zero_grad(set_to_none=True)
    loss, _ = _loss(model, images, labels, policy, seed=0)
    loss.backward()


def _peak(model: nn.Module, images: Tensor, labels: Tensor, policy: Any) -> int:
    # Dropped beforehand, so that the new gradients are not set off against the old.
    model.zero_grad(set_to_none=True)
    work = measure_peak(lambda: _step(model, images, labels, policy), images.device)
    return work.peak_bytes


def _held(model: nn.Module, images: Tensor, policy: Any) -> tuple[int, Ledger]:
    """Bytes alive after a forward pass, and the ledger's account of them."""
    with watch_peak(images.device) as measured, saver(model, policy, seed=0) as saved:
        out = model(images)
    del out
    return measured.end_bytes, saved.ledger


def _weight_gradients(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: p.grad.clone()
        for name, p in model.named_parameters()
        if p.grad is not None and p.dim() > 1
    }


def _relative(error: Tensor, exact: Tensor) -> float:
    return float(error.norm()) / max(float(exact.norm()), 1e-30)
