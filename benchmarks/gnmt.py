r"""What every step of the way from naive to balanced batches brings GNMT, in tokens a second.

    python benchmarks/gnmt.py --data FOLDER/usr/share/sword \
        --out records/2026-11-29-recurrent/gnmt-steps.json

The network is that of the workload ``gnmt-small`` (two layers a side, 128 wide, 2,000 tokens)
on verses of at most 40 words, 64 pairs a batch and rank: forward pass, smoothed loss,
backward pass and Adam. The ways, each one change from the one before:

- torch's LSTM on random batches, padded: the naive way;
- the LSTM kernel of ``elision.nn``;
- batches of neighbours in length over all ranks (``GlobalBuckets``);
- packed batches, whose LSTMs do not run over the padding;

and beside them torch's LSTM with such batches and with packing, to tell the parts apart. Two
more processes, connected by gloo and DistributedDataParallel, train the kernel's network with
each scheme of batches.

A token is one of a source or a target; padding is none. Of every scheme's plan of the whole
corpus the same number of steps is run, evenly spread by their size. On one thread the time is
that of the processor, so that other programs do not count. For two ranks it is, of every
step, the longer of the ranks' processor times (the other rank waits for it); what the
reduction itself takes is in the processor times only as far as the ranks' own threads do it.
The wall clock of the two is recorded, too, and is worth something on an idle machine alone.
Ratios are medians over rounds in which all ways take turns.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

import elision
from elision.common.files import write_json
from elision.common.timing import elapsed, interleaved
from elision.engines.bench import machine
from elision.workloads import (
    GlobalBuckets,
    LocalBuckets,
    RandomBatches,
    Translations,
    find_workload,
)
from elision.workloads.data.batch_efficiency import batch_efficiency
from elision.workloads.tasks.translation import Translation

WORKLOAD, MAX_WORDS, BATCH = "gnmt-small", 40, 64
SCHEMES: dict[str, Any] = {
    "random": RandomBatches,
    "local": LocalBuckets,
    "global": GlobalBuckets,
}
#: Name, LSTM, scheme, packed; the first is the one that all are compared with.
WAYS = (
    ("torch, random", nn.LSTM, "random", False),
    ("kernel, random", elision.nn.LSTM, "random", False),
    ("kernel, global", elision.nn.LSTM, "global", False),
    ("kernel, global, packed", elision.nn.LSTM, "global", True),
    ("torch, global", nn.LSTM, "global", False),
    ("torch, random, packed", nn.LSTM, "random", True),
    ("kernel, random, packed", elision.nn.LSTM, "random", True),
)

Step = Callable[[Any], None]
Lengths = list[tuple[int, int]]


def network(data: Translations, lstm: Any, *, packed: bool) -> nn.Module:
    """The workload's network, its recurrent layers of a class."""
    torch.manual_seed(0)
    workload = find_workload(WORKLOAD).changed(
        model=f"gnmt(width=128,layers=2,dropout=0.1,packed={packed})"
    )
    model = workload.make_model(data)
    if lstm is nn.LSTM:
        return model
    for owner in list(model.modules()):
        for name, child in list(owner.named_children()):
            if type(child) is nn.LSTM:
                made = lstm(
                    child.input_size,
                    child.hidden_size,
                    batch_first=True,
                    engine="native",
                )
                made.load_state_dict(child.state_dict())
                setattr(owner, name, made)
    return model


def trainer(model: nn.Module) -> Step:
    """One training step on a batch."""
    workload = find_workload(WORKLOAD)
    optimizer = workload.make_optimizer(model)
    model.train()

    def step(batch: Any) -> None:
        optimizer.zero_grad()
        workload.task.loss(model, batch).backward()
        optimizer.step()

    return step


def lengths_of(data: Translations) -> Lengths:
    return [(len(source), len(target) + 1) for source, target in data.train_tokens]


def some_steps(lengths: Lengths, scheme: str, ranks: int, count: int) -> list[Any]:
    """Steps of the scheme's plan, evenly spread by the padded tokens that they pay."""
    table = torch.tensor(lengths)

    def paid(step: list[Tensor]) -> int:
        return max(len(batch) * int(table[batch].amax(0).sum()) for batch in step)

    plan = sorted(SCHEMES[scheme](lengths, BATCH, ranks).plan(), key=paid)
    return [plan[(2 * i + 1) * len(plan) // (2 * count)] for i in range(count)]


def tokens_of(lengths: Lengths, steps: list[Any]) -> int:
    return sum(sum(lengths[i]) for step in steps for b in step for i in b.tolist())


def batches_of(data: Translations, steps: list[Any], rank: int = 0) -> list[Any]:
    task = find_workload(WORKLOAD).task
    assert isinstance(task, Translation)
    pairs = data.train_tokens
    return [task.collate([pairs[i] for i in step[rank].tolist()]) for step in steps]


def alone(data: Translations, count: int, rounds: int) -> list[dict[str, Any]]:
    """Every way in one process."""
    lengths = lengths_of(data)
    calls, tokens, efficiency = {}, {}, {}
    for name, lstm, scheme, packed in WAYS:
        steps = some_steps(lengths, scheme, 1, count)
        batches = batches_of(data, steps)
        step = trainer(network(data, lstm, packed=packed))
        calls[name] = lambda step=step, batches=batches: [step(b) for b in batches]
        tokens[name] = tokens_of(lengths, steps)
        efficiency[name] = batch_efficiency(lengths, steps).paid
    seconds = interleaved(calls, rounds)
    rates = {n: [tokens[n] / s for s in seconds[n]] for n in calls}
    return rows_of(rates, WAYS[0][0], {n: {"paid": efficiency[n]} for n in calls})


def rows_of(
    rates: dict[str, list[float]], naive: str, more: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Median tokens a second, and their ratio to the naive way's of the same round."""
    rows = []
    for name, values in rates.items():
        ratios = [a / b for a, b in zip(values, rates[naive], strict=True)]
        rows.append(
            {
                "way": name,
                "tokens_per_second": statistics.median(values),
                "ratio": statistics.median(ratios),
                "spread": [min(ratios), max(ratios)],
                **more[name],
            }
        )
    return rows


def rank_main(
    rank: int, ranks: int, meeting: str, data_path: str | None, count: int, rounds: int
) -> None:
    """One of the ranks: all schemes in turns; rank 0 writes what it gathered."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=ranks
    )
    data = corpus(data_path)
    lengths = lengths_of(data)
    step = trainer(
        DistributedDataParallel(network(data, elision.nn.LSTM, packed=False))
    )
    plans = {s: some_steps(lengths, s, ranks, count) for s in SCHEMES}
    batches = {s: batches_of(data, plan, rank) for s, plan in plans.items()}
    found: dict[str, list[Any]] = {s: [] for s in SCHEMES}
    for turn in range(rounds + 1):
        for scheme in SCHEMES:
            torch.distributed.barrier()
            began = time.perf_counter()
            own = [elapsed(lambda b=b: step(b)).thread for b in batches[scheme]]
            wall = time.perf_counter() - began
            gathered: list[Any] = [None] * ranks
            torch.distributed.all_gather_object(gathered, (own, wall))
            if turn:  # the first warms up
                found[scheme].append(gathered)
    if rank == 0:
        tokens = {s: tokens_of(lengths, plan) for s, plan in plans.items()}
        paid = {s: batch_efficiency(lengths, plan).paid for s, plan in plans.items()}
        write_json(
            Path(f"{meeting}.json"), {"runs": found, "tokens": tokens, "paid": paid}
        )
    torch.distributed.destroy_process_group()


def together(
    data_path: str | None, ranks: int, count: int, rounds: int
) -> list[dict[str, Any]]:
    """The schemes of batches on processes that train together."""
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"{folder}/meeting"
        spawn(rank_main, (ranks, meeting, data_path, count, rounds), nprocs=ranks)
        found = json.loads(Path(f"{meeting}.json").read_text(encoding="utf-8"))
    rates, more = {}, {}
    for scheme, runs in found["runs"].items():
        tokens = found["tokens"][scheme]
        waited = [
            [max(step) for step in zip(*(own for own, _ in run), strict=True)]
            for run in runs
        ]
        rates[scheme] = [tokens / sum(steps) for steps in waited]
        busy = [sum(sum(own) for own, _ in run) / ranks for run in runs]
        idle = [1 - b / sum(steps) for b, steps in zip(busy, waited, strict=True)]
        more[scheme] = {
            "paid": found["paid"][scheme],
            "idle": statistics.median(idle),
            "wall_tokens_per_second": statistics.median(
                tokens / max(wall for _, wall in run) for run in runs
            ),
        }
    return rows_of(rates, "random", more)


def corpus(path: str | None) -> Translations:
    workload = find_workload(WORKLOAD)
    options = {**workload.dataset_options, "max_words": MAX_WORDS}
    return workload.changed(dataset_options=options).load_dataset(path)


def show(title: str, rows: list[dict[str, Any]]) -> None:
    print(f"{title:26} tokens/s  ratio  [spread]      paid share")
    for row in rows:
        low, high = row["spread"]
        print(
            f"{row['way']:26} {row['tokens_per_second']:8,.0f}  {row['ratio']:5.2f}  "
            f"[{low:.2f}, {high:.2f}]  {row['paid']:.3f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", help="folder of the verses")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the ranks
    begun = machine()
    print(begun)
    count, rounds = arguments.steps, arguments.rounds
    data = corpus(arguments.data)
    one = alone(data, count, rounds)
    show("one process", one)
    several = together(arguments.data, arguments.ranks, count, rounds)
    show(f"{arguments.ranks} ranks, kernel", several)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        settings = {
            "workload": WORKLOAD,
            "max_words": MAX_WORDS,
            "batch": BATCH,
            "pairs": len(data.train_tokens),
            "steps": count,
            "rounds": rounds,
            "ranks": arguments.ranks,
        }
        write_json(
            arguments.out,
            {
                "machine": begun,
                "load_at_the_end": [round(v, 1) for v in os.getloadavg()],
                "settings": settings,
                "one_process": one,
                "ranks": several,
            },
        )


if __name__ == "__main__":
    main()
