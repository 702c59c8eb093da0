"""Two real ranks beside the scaling model that was made from one.

    OMP_NUM_THREADS=1 python benchmarks/scaling_ranks.py records/2026-11-29-scaling/ranks.json

Each network's step is timed in one process with the other rank idle, by the processor time
of its thread, and once more with both ranks computing and nothing sent, by the wall clock:
ranks of one machine share its caches and memory, and here other programs' load.
The link is fitted from all-reduces of three sizes over gloo. The model then predicts the
step of two ranks under ``DistributedDataParallel``, which is timed by turns with a step
that sends nothing. gloo's threads take time from the ranks' cores, so two predictions
are given: buckets that travel during the backward pass, and buckets that wait for its
end. Wall-clock medians and quartiles; the load of the machine is recorded.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from elision.engines.bench import machine
from elision.training.parallel.scaling import Link, StepCosts, scaling_model
from elision.training.parallel.scaling.dry_run import dry_run
from elision.training.parallel.scaling.link import fit_link
from elision.training.parallel.scaling.measure import measured_step
from elision.training.parallel.scaling.overlap import bucketed
from elision.workloads.models.resnet import resnet8

RANKS = 2
BATCH = 32
SIZES = (2**16, 2**20, 2**25)
ROUNDS = 25


def networks() -> dict[str, tuple[nn.Module, Tensor]]:
    """Networks with much to compute, much to send, and both."""
    torch.manual_seed(0)
    wide = [nn.Sequential(nn.Linear(1024, 1024), nn.ReLU()) for _ in range(8)]
    return {
        "resnet8": (
            resnet8(in_channels=3, classes=10, width=16),
            torch.randn(BATCH, 3, 32, 32),
        ),
        "mlp, 8 layers of 1024": (nn.Sequential(*wide), torch.randn(BATCH, 1024)),
    }


def costs_of(
    model: nn.Module, x: Tensor, rounds: int, *, wall: bool = True
) -> StepCosts:
    return measured_step(
        model,
        {n: lambda n=n: model(x[:n]).square().mean() for n in (BATCH, BATCH // 2)},
        lambda m: torch.optim.SGD(m.parameters(), 0.01),
        rounds,
        wall=wall,
    )


def timed(step: Callable[[], object]) -> float:
    """Seconds of a call that all ranks begin together."""
    distributed.barrier()
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def quartiles(seconds: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(seconds, n=4)
    return {"median": middle, "low": low, "high": high}


def link_here() -> tuple[Link, float, dict[str, Any]]:
    """The link between the two ranks, the error of its line, and what was measured."""
    found = {}
    for size in SIZES:
        tensor = torch.ones(size // 4)
        seconds = [
            timed(lambda t=tensor: distributed.all_reduce(t)) for _ in range(ROUNDS)
        ]
        found[size] = quartiles(seconds)
    medians = [found[size]["median"] for size in SIZES]
    link, error = fit_link(SIZES, medians, RANKS)
    return link, error, {str(size): each for size, each in found.items()}


def step_of(model: nn.Module, x: Tensor, *, sends: bool) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), 0.01)

    def step() -> None:
        optimizer.zero_grad()
        if sends:
            model(x).square().mean().backward()
        else:
            assert isinstance(model, nn.parallel.DistributedDataParallel)
            with model.no_sync():
                model(x).square().mean().backward()
        optimizer.step()

    return step


def rank_main(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS
    )
    rows = []
    for name, (model, x) in networks().items():
        distributed.barrier()
        alone = costs_of(model, x, ROUNDS, wall=False) if rank == 0 else None
        distributed.barrier()
        both = costs_of(model, x, ROUNDS)
        link, error, measured = link_here()
        parallel = nn.parallel.DistributedDataParallel(model)
        steps = {
            "sends": step_of(parallel, x, sends=True),
            "silent": step_of(parallel, x, sends=False),
        }
        for step in steps.values():
            timed(step)
            timed(step)
        seconds: dict[str, list[float]] = {each: [] for each in steps}
        for _ in range(ROUNDS):
            for each, step in steps.items():
                seconds[each].append(timed(step))
        if alone is None:
            continue
        row: dict[str, Any] = {
            "network": name,
            "gradients_mb": both.size / 1e6,
            "buckets": [bucket.size for bucket in bucketed(both.gradients)],
            "all_reduce": measured,
            "link": {"gb_per_s": link.bandwidth / 1e9, "latency_s": link.latency},
            "link_error": error,
            "two_ranks": quartiles(seconds["sends"]),
            "two_ranks_silent": quartiles(seconds["silent"]),
            "alone": alone.seconds(BATCH),
            "both_computing": both.seconds(BATCH),
        }
        for costs_name, costs in (("alone", alone), ("both", both)):
            for overlap in (True, False):
                model_of = scaling_model(
                    costs,
                    link,
                    batch=BATCH,
                    mode="weak",
                    ranks=[RANKS],
                    overlap=overlap,
                )
                key = f"predicted_{costs_name}_{'overlap' if overlap else 'after'}"
                row[key] = model_of.row(RANKS).step
        rows.append(row)
    if rank == 0:
        Path(folder, "rows.json").write_text(json.dumps(rows))
    distributed.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    context = multiprocessing.get_context("spawn")
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            context.Process(target=rank_main, args=(r, folder)) for r in range(RANKS)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        rows = json.loads(Path(folder, "rows.json").read_text())
    for row in rows:
        model, x = networks()[row["network"]]
        row["buckets_of_torch_at_256_ranks"] = dry_run(
            model, lambda m, x=x: m(x).square().mean(), 256
        )
        step = row["two_ranks"]["median"]
        print(
            f"{row['network']}: two ranks {1e3 * step:.1f} ms, "
            f"silent {1e3 * row['two_ranks_silent']['median']:.1f}, predicted "
            + ", ".join(
                f"{key.removeprefix('predicted_')} {1e3 * row[key]:.1f}"
                for key in row
                if key.startswith("predicted_")
            )
            + f"; link {row['link']['gb_per_s']:.2f} GB/s"
        )
    facts = {"machine": machine(), "load": [load, os.getloadavg()], "rows": rows}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
