"""Train presets under recipes: the accuracy of every epoch and the processor time.

    python benchmarks/workloads.py photo-resnet8 --recipe dense swat --seed 0 1

Processor seconds are those of one thread, because they suffer least from what else the
machine does; the ratio is to the dense recipe of the same workload and seed. The
sparse recipes are masked: they compute as much as the dense one, and never less. Peak
memory is that of the process so far.
"""

import argparse
import os
import platform
import resource
import time
from pathlib import Path
from typing import Any

import torch

from elision.common.files import write_json
from elision.methods import METHODS, make_recipe
from elision.training.loop import RunPlan, train
from elision.workloads import DEFAULT_WORKLOAD, WORKLOADS, find_workload

#: W-ReSprop's warm-up, as a share of the steps of the run (published: 9 of 90 epochs).
WARMUP = 0.1


def measure(
    workload_name: str, recipe_name: str, seed: int, path: Path | None
) -> dict[str, Any]:
    workload = find_workload(workload_name)
    dataset = workload.load_dataset(path)
    steps = workload.epochs * workload.steps_per_epoch(dataset)
    parameters: dict[str, Any] = {}
    if recipe_name == "w-resprop":
        parameters["warmup_steps"] = max(1, round(WARMUP * steps))
    recipe = make_recipe(recipe_name, **parameters)
    start = time.process_time()
    # Metering belongs to a study and would blur the time of a step.
    result = train(workload, recipe, dataset, RunPlan(seed=seed, meter_every=steps + 1))
    return {
        "workload": workload_name,
        "recipe": recipe_name,
        "parameters": parameters,
        "seed": seed,
        "test_accuracy": [epoch.score for epoch in result.history],
        "processor_seconds": time.process_time() - start,
        "steps": steps,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("workloads", nargs="*", default=[DEFAULT_WORKLOAD])
    parser.add_argument("--recipe", nargs="+", default=["dense"], choices=METHODS)
    parser.add_argument("--seed", nargs="+", type=int, default=[0])
    parser.add_argument("--path", type=Path, help="folder of the data")
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    unknown = set(arguments.workloads) - WORKLOADS.keys()
    if unknown:
        parser.error(f"unknown {', '.join(unknown)}; known: {', '.join(WORKLOADS)}")
    torch.set_num_threads(1)
    machine = {
        "processor": platform.processor() or platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    print(machine)
    runs: list[dict[str, Any]] = []
    dense: dict[tuple[str, int], float] = {}
    for workload in arguments.workloads:
        for seed in arguments.seed:
            for recipe in arguments.recipe:
                run = measure(workload, recipe, seed, arguments.path)
                seconds = run["processor_seconds"]
                if recipe == "dense":
                    dense[workload, seed] = seconds
                reference = dense.get((workload, seed))
                run["ratio_to_dense"] = seconds / reference if reference else None
                ratio = f"{seconds / reference:.2f} x dense" if reference else ""
                curve = " ".join(f"{a:.3f}" for a in run["test_accuracy"])
                print(f"{workload:18} {recipe:15} {seed:2}  {curve}  {seconds:6.1f} s")
                print(f"{'':37} {ratio}  peak {run['peak_mib']:.0f} MiB", flush=True)
                runs.append(run)
                if arguments.out is not None:
                    arguments.out.parent.mkdir(parents=True, exist_ok=True)
                    record = {"schema": 1, "machine": machine, "runs": runs}
                    write_json(arguments.out, record)


if __name__ == "__main__":
    main()
