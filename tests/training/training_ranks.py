"""Runs of each of two processes in the tests of training across ranks."""

import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from elision import methods
from elision.training import Execution, Ranks, RunPlan, checkpoint, joined, train
from elision.training.loop import TrainingDivergedError
from elision.training.parallel import NonFiniteGradientWarning
from elision.workloads import Workload

#: Batches of 48 and one of 9 images, which two ranks cannot halve.
SMALL = Workload(
    name="small",
    dataset="digits",
    model="mlp",
    epochs=3,
    train_images=201,
    test_images=101,
    batch_size=48,
)
CNN = replace(SMALL, model="cnn")

RUNS: dict[str, tuple[Workload, methods.Method, Execution]] = {
    "dense": (SMALL, methods.Dense(), Execution()),
    "resprop": (CNN, methods.ReSprop(0.5), Execution()),
    "rigl": (CNN, methods.RigL(0.8, every=3, until=12), Execution(engine="native")),
    "compressed": (CNN, methods.Dense(), Execution(compress="top-k:share=0.1")),
    "outer": (
        CNN,
        methods.Static(0.5),
        Execution(outer="diloco:every=4,fragments=2", compress="int8"),
    ),
    "swat": (CNN, methods.Swat(0.8), Execution(engine="native", memory="bits(4)")),
}


def run(name: str, ranks: Ranks, folder: Path | None = None) -> dict[str, Any]:
    """Train, and return everything that should repeat, as plain values."""
    workload, method, execution = RUNS[name]
    result = train(
        workload,
        method,
        workload.load_dataset(),
        RunPlan(seed=1, meter_every=2),
        execution=execution,
        ranks=ranks,
        folder=folder,
    )
    weights = [p.detach().double().sum().item() for p in result.model.parameters()]
    return {
        "history": [m.to_row("test_accuracy") for m in result.history],
        "weights": weights,
        "work": result.meter.to_json(),
        "saved_bytes": result.saved_bytes,
        "sent_ratio": result.sent_ratio,
    }


def killed(name: str, ranks: Ranks, folder: Path) -> None:
    """Train until the first checkpoint is written."""
    original = checkpoint.save

    def save(*args: Any) -> None:
        original(*args)
        raise KeyboardInterrupt

    checkpoint.save = save
    try:
        run(name, ranks, folder)
    except KeyboardInterrupt:
        torch.manual_seed(99)
    finally:
        checkpoint.save = original


def ill(ranks: Ranks) -> str:
    """What a rank says whose fellow has one gradient that is not finite, in step 2."""
    begin, step = nn.Module.__call__, 0

    def forward(self: nn.Module, *args: Any, **named: Any) -> Any:
        nonlocal step
        if isinstance(self, nn.parallel.DistributedDataParallel) and self.training:
            if step == 2 and ranks.rank == 1:
                first = next(self.module.parameters())
                first.register_hook(lambda grad: grad * torch.nan)
            step += 1
        return begin(self, *args, **named)

    nn.Module.__call__ = forward
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NonFiniteGradientWarning)
            run("compressed", ranks)
    except TrainingDivergedError as error:
        return str(error)
    finally:
        nn.Module.__call__ = begin
    return ""


def main(folder: str) -> None:
    found: dict[str, list[Any]] = {}
    with joined("cpu") as ranks:
        for name in RUNS:
            whole = run(name, ranks)
            killed(name, ranks, Path(folder, name))
            resumed = run(name, ranks, Path(folder, name))
            found[name] = ranks.gather([whole, resumed])
        told = ranks.gather(ill(ranks))
        if ranks.is_first:
            Path(folder, "found.json").write_text(json.dumps(found))
            Path(folder, "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
