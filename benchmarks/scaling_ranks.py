"""Two real ranks beside the scaling model that was made from one, term by term.

    OMP_NUM_THREADS=1 python benchmarks/scaling_ranks.py records/2026-11-30-scaling/ranks.json

A round times, with both ranks at work and by the wall clock, a step that sends and one that
sends nothing, so that both meet the same load of other programs; the model begins at the
median of the silent step of one rank, whose gradients are ready at the shares of it that
were measured before. What ``DistributedDataParallel`` copies is timed with buckets that are
answered at once, the link by all-reduces of several sizes over gloo, with the processor
time of gloo's threads.

The terms are added one after the other: a line of latency and bandwidth; the silent step of
the slower rank of each round, which the other waits for; the link as it was measured, size
by size; the copies; and the share of the ranks' cores that gloo takes, since
two ranks leave it none of two cores. No term is fitted to the step. Medians and quartiles;
the load of the machine is recorded, and the processor time that others used meanwhile.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from elision.engines.bench import machine
from elision.training.parallel.scaling import StepCosts, scaling_model
from elision.training.parallel.scaling.calibrate import LinkCosts, measured_link
from elision.training.parallel.scaling.dry_run import dry_run
from elision.training.parallel.scaling.measure import measured_copies, measured_step
from elision.training.parallel.scaling.overlap import bucketed
from elision.workloads.models.resnet import resnet8

RANKS = 2
BATCH = 32
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


def costs_of(model: nn.Module, x: Tensor, rounds: int) -> StepCosts:
    return measured_step(
        model,
        {n: lambda n=n: model(x[:n]).square().mean() for n in (BATCH, BATCH // 2)},
        lambda m: torch.optim.SGD(m.parameters(), 0.01),
        rounds,
        wall=True,
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


def predictions(
    costs: StepCosts,
    silent: tuple[float, float],
    copies: tuple[float, float],
    measured: LinkCosts,
) -> dict[str, float]:
    """Seconds of a step by the model, with one more term in each.

    Args:
        costs: of a step.
        silent: seconds of a step that sends nothing, of one rank and of the slower one.
        copies: into buckets and out of them.
        measured: the link.
    """
    one, slower = (costs.lasting(BATCH, seconds) for seconds in silent)
    copied = replace(slower, copies=copies)
    none, share = None, measured.core_share
    cases = {
        "line": (one, measured.line, none),
        "slower rank": (slower, measured.line, none),
        "measured link": (slower, measured.link, none),
        "copies": (copied, measured.link, none),
        "core share": (copied, measured.link, share),
    }
    return {
        name: scaling_model(
            own, link, batch=BATCH, mode="weak", ranks=[RANKS], core_share=taken
        )
        .row(RANKS)
        .step
        for name, (own, link, taken) in cases.items()
    }


def busy_seconds() -> float:
    """Processor time of all programs of this machine since it started (Linux)."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, soft, steal = map(int, fields[:8])
    ticks = user + nice + system + irq + soft + steal
    return ticks / os.sysconf("SC_CLK_TCK")


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
        costs = costs_of(model, x, ROUNDS)
        copies = measured_copies(
            model, lambda m, x=x: m(x).square().mean(), ROUNDS, wall=True
        )
        measured = measured_link(rounds=ROUNDS)
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
        everyone: list[Any] = [None] * RANKS
        distributed.all_gather_object(everyone, seconds)
        slower = {
            each: [max(own) for own in zip(*(e[each] for e in everyone), strict=True)]
            for each in steps
        }
        silent = tuple(
            statistics.median(found["silent"]) for found in (everyone[0], slower)
        )
        row: dict[str, Any] = {
            "network": name,
            "gradients_mb": costs.size / 1e6,
            "buckets": [bucket.size for bucket in bucketed(costs.gradients)],
            "all_reduce_seconds": dict(
                zip(measured.sizes, measured.seconds, strict=True)
            ),
            "line": {
                "gb_per_s": measured.line.bandwidth / 1e9,
                "latency_s": measured.line.latency,
                "largest_error": measured.line_error,
            },
            "core_share": measured.core_share,
            "copies": copies,
            "two_ranks": quartiles(slower["sends"]),
            "two_ranks_silent": quartiles(slower["silent"]),
            "one_rank_silent": quartiles(everyone[0]["silent"]),
            "predicted": predictions(costs, silent, copies, measured),
        }
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
        before, own = busy_seconds(), sum(os.times()[2:4])
        began = time.perf_counter()
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        others = busy_seconds() - before - (sum(os.times()[2:4]) - own)
        others /= (os.cpu_count() or 1) * (time.perf_counter() - began)
        rows = json.loads(Path(folder, "rows.json").read_text())
    for row in rows:
        model, x = networks()[row["network"]]
        row["buckets_of_torch_at_256_ranks"] = dry_run(
            model, lambda m, x=x: m(x).square().mean(), 256
        )
        step = row["two_ranks"]["median"]
        print(
            f"{row['network']}: two ranks {1e3 * step:.1f} ms, "
            f"silent {1e3 * row['two_ranks_silent']['median']:.1f}"
        )
        shown = (
            f"{name} {1e3 * seconds:.1f} ({seconds / step - 1:+.0%})"
            for name, seconds in row["predicted"].items()
        )
        print(f"  predicted: {', '.join(shown)}")
    print(f"others used {others:.0%} of the machine's cores")
    facts = {"machine": machine(), "load": [load, os.getloadavg()]}
    facts |= {"share_of_cores_that_others_used": others, "rows": rows}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
