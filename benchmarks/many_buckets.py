"""PowerSGD over many buckets on two gloo ranks: how many runs end, ours and torch's.

    OMP_NUM_THREADS=1 python benchmarks/many_buckets.py \
        records/2026-11-30-many-buckets/run.json

Six layers of 512 x 512 in buckets of 1 MB, so that every layer has one of its own, 30 steps of
SGD; a run is two fresh processes that meet, train and compare their weights. A run that has
not ended after the time limit is ended and counts as hung. Torch's hook starts its later
all-reduces from callbacks of futures, whose order differs between ranks.
"""

import argparse
import collections
import multiprocessing
import os
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook

from elision.common.files import write_json
from elision.engines.bench import machine
from elision.training.parallel import compress_hook

RANKS, SIDE, LAYERS, STEPS, RANK = 2, 512, 6, 30, 2
HOOKS = ("elision", "torch")


def register(hook: str, model: nn.parallel.DistributedDataParallel) -> None:
    if hook == "elision":
        compress_hook(model, f"powersgd:rank={RANK}")
        return
    state = powerSGD_hook.PowerSGDState(
        None, matrix_approximation_rank=RANK, start_powerSGD_iter=2
    )
    model.register_comm_hook(state, powerSGD_hook.powerSGD_hook)


def rank_main(hook: str, rank: int, folder: str, seed: int, limit: float) -> None:
    if hook == "torch":  # its traces are many
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=RANKS,
        timeout=timedelta(seconds=limit),
    )
    torch.manual_seed(seed)
    layers = [nn.Linear(SIDE, SIDE) for _ in range(LAYERS)]
    model = nn.parallel.DistributedDataParallel(nn.Sequential(*layers), bucket_cap_mb=1)
    register(hook, model)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    random = torch.Generator().manual_seed(100 * seed + rank)
    for _ in range(STEPS):
        optimizer.zero_grad()
        model(torch.randn(8, SIDE, generator=random)).square().mean().backward()
        optimizer.step()
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    everyone = [torch.empty_like(weights) for _ in range(RANKS)]
    distributed.all_gather(everyone, weights)
    equal = all(torch.equal(weights, other) for other in everyone)
    Path(folder, f"rank-{rank}").write_text("equal" if equal else "different")
    # In this order: torch 2.13's reducer, freed last, waits with Python's lock for a thread
    # of gloo that may be waiting for that lock, with or without a hook.
    del model, optimizer
    distributed.destroy_process_group()


def run(hook: str, seed: int, limit: float) -> tuple[str, float]:
    """How one run ends, and its seconds."""
    context = multiprocessing.get_context("forkserver")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            context.Process(target=rank_main, args=(hook, r, folder, seed, limit))
            for r in range(RANKS)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(max(0.0, began + limit - time.perf_counter()))
        hung = any(process.is_alive() for process in ranks)
        for process in ranks:
            process.kill()
            process.join()
        said = [Path(folder, f"rank-{r}") for r in range(RANKS)]
        # What a rank says counts also where the other never came that far.
        words = [path.read_text() if path.is_file() else "" for path in said]
    seconds = time.perf_counter() - began
    if words == ["equal"] * RANKS and not hung:
        return "ended, ranks bit-equal", seconds
    if "different" in words:
        return "ended, ranks differ", seconds
    return ("hung" if hung else "failed"), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="seed of the first run")
    parser.add_argument("--torch-runs", type=int, default=12)
    parser.add_argument("--limit", type=float, default=40.0, help="seconds of a run")
    given = parser.parse_args()
    multiprocessing.set_forkserver_preload(
        [__name__, "torch", "torch._dynamo", "elision"]
    )
    before = machine()
    first = multiprocessing.get_context("forkserver").Process(target=machine)
    first.start()  # imports what all others are forked with
    first.join()
    found: dict[str, Any] = {}
    for hook, runs in zip(HOOKS, (given.runs, given.torch_runs), strict=True):
        ends = []
        for seed in range(given.first, given.first + runs):
            ends.append(run(hook, seed, given.limit))
            print(hook, seed, *ends[-1], flush=True)
        counted = collections.Counter(how for how, _ in ends)
        good = [s for how, s in ends if how.startswith("ended")]
        found[hook] = {
            "runs": runs,
            "ends": dict(counted),
            "median_seconds_of_those_that_end": statistics.median(good)
            if good
            else None,
        }
        print(hook, found[hook], flush=True)
    facts = {
        "machine": before,
        "load_after": os.getloadavg(),
        "torch": torch.__version__,
        "layers": LAYERS,
        "side": SIDE,
        "bucket_mb": 1,
        "steps": STEPS,
        "rank": RANK,
        "limit_seconds": given.limit,
        "hooks": found,
    }
    given.file.parent.mkdir(parents=True, exist_ok=True)
    write_json(given.file, facts)


if __name__ == "__main__":
    main()
