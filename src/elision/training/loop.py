"""train: one model under one recipe, metered, recorded and resumable.

A run is decided by its workload, recipe and seed alone: batches follow from (seed,
epoch), the learning rate from the step, and everything else that a step reads is in the
checkpoint. So a run that was killed and started again ends with the same numbers.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.layers import elide
from elision.layers.meter import WorkMeter
from elision.layers.recipe import Recipe
from elision.layers.record import record
from elision.layers.watch import watch
from elision.products import Trace
from elision.topology import attach
from elision.training import checkpoint
from elision.training.checkpoint import EpochMetrics, RunState
from elision.workloads import Dataset, Workload

__all__ = [
    "Progress",
    "RunPlan",
    "TrainResult",
    "TrainingDivergedError",
    "evaluate",
    "train",
]

#: Called with (steps done, steps in all) and the latest epoch's metrics, if any.
Progress = Callable[[int, int, "EpochMetrics | None"], None]


class TrainingDivergedError(RuntimeError):
    """The loss is no longer a number."""


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """How a run is watched.

    Attributes:
        seed: of the model's initial weights, the batches and their augmentation.
        meter_every: steps between two whose work is counted.
        record_epochs: epochs whose last step is recorded.
        record_samples: images of that step that are kept.
    """

    seed: int = 0
    meter_every: int = 8
    record_epochs: tuple[int, ...] = ()
    record_samples: int = 2


@dataclass
class TrainResult:
    """A finished run.

    Attributes:
        model: the trained model, still elided.
        history: metrics of every epoch.
        meter: work of the metered steps, by layer and product.
        trace: the recorded products.
        step_seconds: median wall-clock seconds of the steps that were neither metered
            nor recorded, of this process only; None if there was none.
    """

    model: nn.Module
    history: list[EpochMetrics]
    meter: WorkMeter
    trace: Trace
    step_seconds: float | None = None


def train(
    workload: Workload,
    recipe: Recipe,
    dataset: Dataset,
    plan: RunPlan,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train a workload's model under a recipe.

    Args:
        workload: model and settings.
        recipe: what is done to the operands of the products.
        dataset: the workload's data.
        plan: seed, metering and recording.
        folder: where checkpoints go after every epoch; a run found there goes on.
        progress: told of every step.

    Returns:
        The trained model, its history, the work counted and the trace.

    Raises:
        TrainingDivergedError: the loss became NaN or infinite; the message names the
            step and the first layer with such a value.
        ValueError: the folder holds a checkpoint that does not fit or is damaged.
    """
    torch.manual_seed(plan.seed)
    # An engine chosen by time would not repeat to the last bit.
    model = elide(workload.make_model(dataset), recipe, engine="torch")
    optimizer = workload.make_optimizer(model)
    attach(model, optimizer)
    state = RunState()
    if folder is not None and (folder / checkpoint.CHECKPOINT).is_file():
        checkpoint.load(folder, model, optimizer, state)
    per_epoch = workload.steps_per_epoch(dataset)
    for epoch in range(len(state.history), workload.epochs):
        metrics = _epoch(
            epoch, model, optimizer, workload, dataset, plan, state, progress, per_epoch
        )
        state.history.append(metrics)
        if folder is not None:
            checkpoint.save(folder, model, optimizer, state)
        if progress is not None:
            progress((epoch + 1) * per_epoch, workload.epochs * per_epoch, metrics)
    ordered = sorted(state.seconds)
    median = ordered[len(ordered) // 2] if ordered else None
    return TrainResult(model, state.history, state.meter, state.trace, median)


def _epoch(
    epoch: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    workload: Workload,
    dataset: Dataset,
    plan: RunPlan,
    state: RunState,
    progress: Progress | None,
    per_epoch: int,
) -> EpochMetrics:
    model.train()
    total, rate = 0.0, workload.learning_rate
    batches = workload.train_batches(dataset, seed=plan.seed, epoch=epoch)
    for index, (images, labels) in enumerate(batches):
        step = epoch * per_epoch + index
        rate = workload.learning_rate_at(step, per_epoch)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with ExitStack() as watching:
            # One step before the last is recorded: the last batch may be a small one.
            wanted = epoch in plan.record_epochs and index == max(0, per_epoch - 2)
            if wanted:
                samples = plan.record_samples
                trace = watching.enter_context(
                    record(model, samples=samples, first_step=step)
                )
            metered = step % plan.meter_every == 0
            if metered:
                watching.enter_context(watch(model, state.meter))
            began = time.perf_counter()
            loss = _step(model, optimizer, images, labels, step)
            if not (wanted or metered):
                state.seconds.append(time.perf_counter() - began)
            if wanted:
                state.trace.extend(trace)  # pyright: ignore[reportPossiblyUnboundVariable]
        total += loss * len(labels)
        if progress is not None:
            progress(step + 1, workload.epochs * per_epoch, None)
    accuracy = evaluate(model, dataset, workload.batch_size)
    return EpochMetrics(epoch, total / len(dataset.train_images), accuracy, rate)


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    step: int,
) -> float:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images), labels)
    if not torch.isfinite(loss):
        where = _first_nonfinite(model, images)
        raise TrainingDivergedError(
            f"the loss is {loss.item()} at step {step}: {where}"
        )
    loss.backward()
    optimizer.step()
    return loss.item()


def _first_nonfinite(model: nn.Module, images: Tensor) -> str:
    """The first parameter or layer output that is not finite, in words."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            layer = name.rpartition(".")[0] or "(the model itself)"
            return f"layer {layer!r} holds a NaN or an infinity in {name!r}"
    found: list[str] = []

    def look(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not torch.isfinite(output).all():
                found.append(name)

        return hook

    leaves = [(n, m) for n, m in model.named_modules() if not any(m.children())]
    handles = [m.register_forward_hook(look(n)) for n, m in leaves]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    if not found:
        return "every layer's output is finite, so the loss itself overflowed"
    return f"the output of layer {found[0]!r} is the first that is not finite"


def evaluate(model: nn.Module, dataset: Dataset, batch_size: int) -> float:
    """Share of the test images that a model classifies rightly."""
    training = model.training
    model.eval()
    right = 0
    with torch.no_grad():
        for images, labels in dataset.test_batches(batch_size):
            right += int((model(images).argmax(1) == labels).sum())
    model.train(training)
    return right / len(dataset.test_images)
