"""Runs of each of two processes in the tests of training across ranks."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from elision import methods
from elision.training import Execution, Ranks, RunPlan, checkpoint, joined, train
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


def main(folder: str) -> None:
    found: dict[str, list[Any]] = {}
    with joined("cpu") as ranks:
        for name in RUNS:
            whole = run(name, ranks)
            killed(name, ranks, Path(folder, name))
            resumed = run(name, ranks, Path(folder, name))
            found[name] = ranks.gather([whole, resumed])
        if ranks.is_first:
            Path(folder, "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
