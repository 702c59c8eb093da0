"""What the delays of pipeline schedules do to training: accuracy over seeds and stages.

    OMP_NUM_THREADS=1 python benchmarks/pipeline_delay.py records/2026-11-29-pipeline/delay.json

ResNet-14 (width 8) learns patches of photographs, which ship with two dependencies, for
four epochs of 31 updates: batch 64, SGD with momentum 0.9, rate 0.02 falling by a cosine,
the same for every schedule. Every update is one batch. 2BW splits it into as many
micro-batches as there are stages; the others take it whole.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from elision.engines.bench import machine
from elision.training.pipeline.chain import chain, stages_of
from elision.training.pipeline.emulator import DelayEmulator
from elision.training.pipeline.stability import advise
from elision.workloads import Workload

WORKLOAD = Workload(
    name="photo-resnet14",
    dataset="photo-patches",
    model="resnet14",
    model_options={"width": 8},
    train_images=1984,  # whole batches only
    test_images=500,
    epochs=4,
    learning_rate=0.02,
    nesterov=False,
)
SCHEDULES = ("pipedream", "pipedream-2bw", "layerpipe", "layerpipe2")
STAGES = (4, 8)


def stages(count: int, data: Any, seed: int) -> tuple[nn.Module, list[nn.Module]]:
    """The network and its eight layers in so many stages, two or one each."""
    torch.manual_seed(seed)
    model = WORKLOAD.make_model(data)
    layers = chain(model, next(WORKLOAD.train_batches(data, seed=seed, epoch=0))[0])
    return model, stages_of(layers, [len(layers) // count] * count)


def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        parameters,
        WORKLOAD.learning_rate,
        momentum=WORKLOAD.momentum,
        weight_decay=WORKLOAD.weight_decay,
    )


def train(schedule: str, count: int, data: Any, seed: int) -> dict[str, Any]:
    """One run: accuracy and losses."""
    model, pieces = stages(count, data, seed)
    emulator = DelayEmulator(
        pieces,
        nn.functional.cross_entropy,
        sgd,
        delays=schedule,
        microbatches=count if schedule == "pipedream-2bw" else 1,
    )
    began, losses = time.process_time(), []
    per_epoch = WORKLOAD.steps_per_epoch(data)
    for epoch in range(WORKLOAD.epochs):
        for batch in WORKLOAD.train_batches(data, seed=seed, epoch=epoch):
            for weights in emulator.weights:
                assert weights.optimizer is not None
                WORKLOAD.set_learning_rate(weights.optimizer, len(losses), per_epoch)
            losses.append(emulator.step(*batch))
    counts = WORKLOAD.task.counted(model, WORKLOAD.test_batches(data))
    return {
        "schedule": schedule,
        "stages": count,
        "seed": seed,
        "delays": emulator.delays,
        "weight_copies": emulator.kept,
        "accuracy": WORKLOAD.task.score(counts),
        "loss": statistics.mean(losses[-10:]),
        "updates": len(losses),
        "cpu_seconds": time.process_time() - began,
    }


def advice(data: Any) -> list[dict[str, Any]]:
    """Stable rates of the four stages at the first weights, without and with momentum."""
    _, pieces = stages(4, data, 0)
    images, labels = next(WORKLOAD.train_batches(data, seed=0, epoch=0))
    found = []
    for momentum in (0.0, WORKLOAD.momentum):
        for one in advise(
            pieces,
            nn.functional.cross_entropy,
            (images, labels),
            delays="layerpipe",
            momentum=momentum,
            iterations=10,
        ):
            found.append({"momentum": momentum, **vars(one)})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    data = WORKLOAD.load_dataset()
    record: dict[str, Any] = {
        "machine": machine(),
        "workload": WORKLOAD.to_dict(),
        "runs": [],
    }
    for seed in range(given.seeds):
        plan = [("gpipe", 4), *((s, n) for n in STAGES for s in SCHEDULES)]
        for schedule, count in plan:
            run = train(schedule, count, data, seed)
            record["runs"].append(run)
            print(json.dumps(run), flush=True)
            given.file.write_text(json.dumps(record, indent=1) + "\n")
    record["advice"] = advice(data)
    given.file.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
