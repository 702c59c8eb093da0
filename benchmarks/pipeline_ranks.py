"""Two real ranks under five schedules: losses beside the emulator's, time beside the plan's.

    OMP_NUM_THREADS=1 python benchmarks/pipeline_ranks.py records/2026-11-29-pipeline/ranks.json

VGG-16 (width 12) on patches of photographs, 4 micro-batches of 16, one thread a rank. The
costs of the layers are measured first, in this process, one layer at a time. Each schedule
then trains twice on two processes: the first run warms up; of the second the step time is
that of a step (synchronous) or of four updates (others), beside the planned one. Wall
clock: other programs on the machine lengthen it, so the load is recorded, and the
processor time of each rank is given besides.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from elision.engines.bench import machine
from elision.training.pipeline import LayerCost, Plan, plan
from elision.training.pipeline.chain import chain
from elision.training.pipeline.emulator import DelayEmulator, split
from elision.training.pipeline.measure import measured
from elision.training.pipeline.runtime import stages_in
from elision.workloads import Workload

SCHEDULES = ("gpipe", "1f1b", "zb1p", "pipedream", "layerpipe-intra")
MICROBATCHES = 4
RANKS = 2
WORKLOAD = Workload(
    name="photo-vgg16",
    dataset="photo-patches",
    model="vgg16",
    model_options={"width": 12},
    batch_size=16 * MICROBATCHES,
    learning_rate=0.01,
)


def model() -> nn.Module:
    torch.manual_seed(0)
    return WORKLOAD.make_model(WORKLOAD.load_dataset())


def batches(steps: int) -> list[tuple[Tensor, Tensor]]:
    data = WORKLOAD.load_dataset()
    every = WORKLOAD.train_batches(data, seed=0, epoch=0)
    return [(x, t) for (x, t), _ in zip(every, range(steps), strict=False)]


def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, WORKLOAD.learning_rate, momentum=0.9)


def planned(costs: tuple[LayerCost, ...]) -> dict[str, Plan]:
    return {s: plan(costs, RANKS, s, MICROBATCHES) for s in SCHEDULES}


def emulated(made: Plan, given: list[tuple[Tensor, Tensor]]) -> list[float]:
    """Losses of the emulator on the same micro-batches."""
    stages = stages_in(made, model(), split(given[0][0], MICROBATCHES)[0])
    together = made.schedule.synchronous
    emulator = DelayEmulator(
        stages,
        nn.functional.cross_entropy,
        sgd,
        delays=made.delays,
        microbatches=MICROBATCHES if together else 1,
    )
    if together:
        return [emulator.step(x, t) for x, t in given]
    return [
        emulator.step(*part)
        for x, t in given
        for part in zip(split(x, MICROBATCHES), split(t, MICROBATCHES), strict=True)
    ]


def rank(number: int, folder: Path, costs: tuple[LayerCost, ...], steps: int) -> None:
    """Every schedule on one rank; what it saw goes to a file."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=number,
        world_size=RANKS,
        timeout=timedelta(seconds=120),
    )
    given, found = batches(steps), {}
    for name, made in planned(costs).items():
        made.run(model(), nn.functional.cross_entropy, sgd, given)
        distributed.barrier()
        began = time.process_time()
        done = made.run(model(), nn.functional.cross_entropy, sgd, given)
        spent = time.process_time() - began
        found[name] = {
            "losses": done.losses,
            "kept": done.kept,
            "seconds": done.seconds,
            "cpu_seconds_per_batch": spent / steps,
        }
    (folder / f"rank{number}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--steps", type=int, default=12)
    steps = parser.parse_args().steps
    file = parser.parse_args().file
    torch.set_num_threads(1)
    given = batches(steps)
    example = split(given[0][0], MICROBATCHES)[0]
    costs: tuple[LayerCost, ...] = measured(chain(model(), example), example)
    plans = planned(costs)
    before = machine()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ranks = [
            context.Process(target=rank, args=(r, folder, costs, steps))
            for r in range(RANKS)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        seen = [
            json.loads((folder / f"rank{r}.json").read_text()) for r in range(RANKS)
        ]
    rows: list[dict[str, Any]] = []
    for name, made in plans.items():
        expected = emulated(made, given)
        found = seen[0][name]
        differences = [
            abs(a - b) / abs(b) for a, b in zip(found["losses"], expected, strict=True)
        ]
        a_step = 1 if made.schedule.synchronous else MICROBATCHES
        seconds = found["seconds"][a_step:]
        sums = [
            sum(seconds[i : i + a_step])
            for i in range(0, len(seconds) - a_step + 1, a_step)
        ]
        expected_seconds = (
            made.makespan if made.schedule.synchronous else made.period * MICROBATCHES
        )
        quartiles = statistics.quantiles(sums, n=4)
        rows.append(
            {
                "schedule": name,
                "layers_per_stage": [len(s) for s in made.partition.layers],
                "delays": made.delays,
                "losses_first_last": [found["losses"][0], found["losses"][-1]],
                "relative_difference_of_losses": {
                    "of_the_first_8": max(differences[:8]),
                    "of_all": max(differences),
                },
                "planned_seconds": expected_seconds,
                "measured_seconds": statistics.median(sums),
                "measured_quartiles": [quartiles[0], quartiles[2]],
                "measured_fastest": min(sums),
                "fastest_over_planned": min(sums) / expected_seconds,
                "planned_busy_seconds": [
                    sum(a.end - a.start for a in own) for own in made.by_processor
                ],
                "cpu_seconds": [s[name]["cpu_seconds_per_batch"] for s in seen],
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    record = {
        "machine": before,
        "load_after": machine()["load"],
        "workload": WORKLOAD.to_dict(),
        "costs": [vars(cost) for cost in costs],
        "schedules": rows,
    }
    file.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
