"""DiLoCo on patches of photographs: loss and traffic by the steps between exchanges."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import torch

from elision.common.columns import column
from elision.training.parallel import OuterOptimizer
from elision.training.parallel.federated.partitions import PARTITIONS
from elision.workloads import Workload

__all__ = ["Case", "LossRow", "cases", "loss_row", "trained"]


@dataclass(frozen=True)
class Case:
    """A row: workers, rule, and how outer gradients travel.

    Attributes:
        workers: their number.
        rule: spec of an outer rule; None: gradients are averaged at every step.
        compress: spec of a compressor.

    Example:
        >>> Case(1).rule is None
        True
    """

    workers: int
    rule: str | None = None
    compress: str | None = None


@dataclass(frozen=True)
class LossRow:
    """One case over its seeds.

    Attributes:
        case: in words.
        loss: of the test images after the last step, mean over seeds.
        spread: its standard deviation.
        accuracy: likewise.
        megabytes: that one worker hands over for averaging.
        less: bytes of synchronous training over these; None where nothing is sent.

    Example:
        >>> LossRow("synchronous", 1.0, 0.1, 0.6, 2.0, 1.0).less
        1.0
    """

    case: str = column("workers do")
    loss: float = column("test loss", ".3f")
    spread: float | None = column("± over seeds", ".3f")
    accuracy: float = column("accuracy", ".1f", " %", scale=100)
    megabytes: float = column("MB a worker sends", ".3f")
    less: float | None = column("less traffic", ".0f", "x")


def cases(workers: int, every: Sequence[int]) -> dict[str, Case]:
    """The rows, in their order; the first is what the others are compared with."""
    many = {f"{workers} workers, synchronous": Case(workers)}
    for steps in every:
        many[f"{workers} workers, DiLoCo every {steps}"] = Case(
            workers, f"diloco:every={steps}"
        )
        many[f"{workers} workers, local SGD every {steps}"] = Case(
            workers, f"local-sgd:every={steps}"
        )
    middle = every[len(every) // 2]
    return many | {
        f"{workers} workers, DiLoCo every {middle}, int8": Case(
            workers, f"diloco:every={middle}", "int8"
        ),
        f"{workers} workers, DiLoCo every {middle}, 4 fragments": Case(
            workers, f"diloco:every={middle},fragments=4"
        ),
        "1 worker": Case(1),
        f"1 worker, outer step every {middle}": Case(1, f"diloco:every={middle}"),
    }


def trained(
    case: Case,
    *,
    seed: int,
    steps: int,
    batch: int,
    width: int,
    rate: float,
    images: int | None,
) -> dict[str, Any]:
    """Train, and what the test says, as plain values.

    Each worker has an equal part of the shuffled images and takes batches of its own, so
    that several workers see more images in as many steps.

    Args:
        case: workers and rule.
        seed: of weights, partition and batches.
        steps: of every worker.
        batch: images of one worker's step.
        width: of the convolutional network.
        rate: of AdamW, falling along a cosine.
        images: training images; None: all.
    """
    workload = Workload(
        name="photo-cnn",
        dataset="photo-patches",
        model="cnn",
        model_options={"width": width},
        batch_size=batch,
        learning_rate=rate,
        optimizer="adamw",
        weight_decay=0.1,
        train_images=images,
    )
    data = workload.load_dataset()
    count = len(data.train_images)
    parts = PARTITIONS["iid"](clients=case.workers).parts(count, None, seed)
    models = []
    for _ in parts:
        torch.manual_seed(seed)
        models.append(workload.make_model(data))
    inner = [workload.make_optimizer(model) for model in models]
    # Up to the last step gradients are shared: synchronous training.
    rule = case.rule or f"post-local-sgd:begin={steps}"
    outer = OuterOptimizer(inner, rule, compress=case.compress, seed=seed)
    streams = [
        _batches(workload, data.part(part.tolist()), 100 * seed + worker)
        for worker, part in enumerate(parts)
    ]
    for step in range(steps):
        for optimizer in inner:
            for group in optimizer.param_groups:
                group["lr"] = workload.learning_rate_at(
                    step, -(-steps // workload.epochs)
                )
        outer.zero_grad()
        for model, stream in zip(models, streams, strict=True):
            workload.task.loss(model, next(stream)).backward()
        outer.step()
    outer.average()
    model = models[0].eval()
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point():
                own = [dict(m.named_buffers())[name] for m in models]
                buffer.copy_(torch.stack(own).mean(0))
        losses = [
            workload.task.loss(model, b).item() * len(b[0])
            for b in workload.test_batches(data)
        ]
    score = workload.task.evaluate(model, workload.test_batches(data))
    sent = outer.sent_bytes if case.workers > 1 else 0
    return {"loss": sum(losses) / len(data.test_images), "score": score, "bytes": sent}


def _batches(workload: Workload, data: Any, seed: int) -> Any:
    """Batches without end."""
    epoch = 0
    while True:
        for batch in workload.train_batches(data, seed=seed, epoch=epoch):
            if len(batch[0]) == workload.batch_size:
                yield batch
        epoch += 1


def loss_row(
    case: str, found: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]]
) -> LossRow:
    """The runs of a case, one a seed, beside the synchronous ones."""
    losses = [f["loss"] for f in found]
    sent = fmean(f["bytes"] for f in found)
    return LossRow(
        case,
        fmean(losses),
        stdev(losses) if len(losses) > 1 else None,
        fmean(f["score"] for f in found),
        sent / 1e6,
        fmean(f["bytes"] for f in base) / sent if sent else None,
    )
