"""What it costs to compress 25 MB of gradients, and the links on which that pays.

    OMP_NUM_THREADS=1 python benchmarks/compressors.py records/2026-11-30-compressors/run.json

One thread, one matrix of 2560 x 2560 float32 gradients. A compressor is timed as a rank of
two uses it: with its memory, the decompression of what both sent and their mean, all but
the network. It pays on a link slower than::

    B < (bytes an all-reduce sends - bytes it sends) / seconds

if nothing of the exchange is hidden behind the backward pass. Candidates take turns;
medians and quartiles of the processor time. Then the selection of 1 % beside
``torch.topk``, and the hooks that torch has, too, beside torch's own, on a group of one
process and one bucket (``--only-hooks``: these alone).
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed import GradBucket  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook

from elision.common.timing import Elapsed, elapsed, interleaved
from elision.engines.bench import machine
from elision.training.parallel import (
    Compressor,
    Message,
    State,
    compress_hook,
    make_compressor,
    wire_bits,
)
from elision.training.parallel.compressors.top_k import largest_places

SIDE = 2560
RANKS = 2
BUCKET_MB = 64
SPECS = (
    "bf16",
    "fp16",
    "fp8",
    "int8",
    "int8:block=256",
    "dfp16",
    "top-k:share=0.01",
    "top-k:share=0.001",
    "dgc:share=0.001",
    "random-k:share=0.01",
    "qsgd:width=4",
    "terngrad",
    "sign",
    "powersgd:rank=4",
    "mask",
)


def exchanged(compressor: Compressor, x: Tensor, state: State) -> float:
    """One exchange in which the other rank sends as much; wire bits of this rank."""
    running, wire = compressor.exchange(x, state), 0.0
    message = next(running)
    while True:
        wire += wire_bits(message, RANKS)
        # What the network would add up is left out: the other rank's part of it is zero.
        try:
            message = running.send(message if message.summed else [message] * RANKS)
        except StopIteration:
            return wire


def quartiles(seconds: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(seconds, n=4)
    return {"seconds": middle, "low": low, "high": high}


def compressors(rounds: int) -> list[dict[str, Any]]:
    x = torch.randn(SIDE, SIDE)
    dense = wire_bits(Message((x,), x.shape, summed=True), RANKS) / 8
    made = {spec: make_compressor(spec) for spec in SPECS}
    states = {spec: State(name="w", ranks=RANKS) for spec in SPECS}
    # A mask of a tenth of the weights, as at a sparsity of 90 %.
    states["mask"].mask = torch.rand(SIDE, SIDE) < 0.1
    calls: Mapping[str, Callable[[], object]] = {
        spec: lambda spec=spec: exchanged(made[spec], x, states[spec]) for spec in SPECS
    }
    rows = []
    for spec, seconds in interleaved(calls, rounds).items():
        found = quartiles(seconds)
        sent = exchanged(made[spec], x, states[spec]) / 8
        pays = (dense - sent) / found["seconds"]
        rows.append(
            {
                "compressor": spec,
                "guarantee": made[spec].guarantee,
                **found,
                "bytes_sent": sent,
                "dense_over_sent": dense / sent,
                "pays_below_gbit_per_second": 8 * pays / 1e9,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def selection(rounds: int) -> dict[str, Any]:
    """The largest 1 %, by a sampled threshold and by ``torch.topk``."""
    flat = torch.randn(SIDE * SIDE)
    count = -(-flat.numel() // 100)
    found = interleaved(
        {
            "sampled": lambda: largest_places(flat, count, "sampled"),
            "torch.topk": lambda: flat.abs().topk(count, sorted=False),
        },
        rounds,
    )
    ratios = [
        torch_topk / sampled
        for sampled, torch_topk in zip(
            found["sampled"], found["torch.topk"], strict=True
        )
    ]
    low, middle, high = statistics.quantiles(ratios, n=4)
    row = {
        **{name: quartiles(seconds) for name, seconds in found.items()},
        "torch_topk_over_sampled": {"median": middle, "low": low, "high": high},
    }
    print(json.dumps(row), flush=True)
    return row


def stack() -> nn.Module:
    """As many values in the layers of a deeper network, of which the vectors go whole."""
    side, layers = 512, 25
    return nn.Sequential(*(nn.Linear(side, side) for _ in range(layers)))


#: Networks whose gradients fill one bucket.
NETS: dict[str, Callable[[], nn.Module]] = {
    "one matrix": lambda: nn.Linear(SIDE, SIDE, bias=False),
    "25 layers": stack,
}


def torch_bf16(
    group: distributed.ProcessGroup, bucket: GradBucket
) -> torch.futures.Future[Tensor]:
    """Torch's hook; DDP refuses it by its name where the device is no GPU."""
    return default_hooks.bf16_compress_hook(group, bucket)


def torch_power_sgd(model: nn.parallel.DistributedDataParallel) -> None:
    state = powerSGD_hook.PowerSGDState(
        None, matrix_approximation_rank=4, start_powerSGD_iter=2
    )
    model.register_comm_hook(state, powerSGD_hook.powerSGD_hook)


#: What is registered; a memory is this library's default, torch's casts have none.
HOOKS: dict[str, Callable[[nn.parallel.DistributedDataParallel], object]] = {
    "none": lambda model: None,
    "fp16": lambda model: compress_hook(model, "fp16", feedback=False),
    "fp16 with memory": lambda model: compress_hook(model, "fp16"),
    "torch fp16": lambda model: model.register_comm_hook(
        None, default_hooks.fp16_compress_hook
    ),
    "bf16": lambda model: compress_hook(model, "bf16", feedback=False),
    "bf16 with memory": lambda model: compress_hook(model, "bf16"),
    "torch bf16": lambda model: model.register_comm_hook(
        model.process_group, torch_bf16
    ),
    "powersgd": lambda model: compress_hook(model, "powersgd:rank=4"),
    "torch powersgd": torch_power_sgd,
}


def backward(model: nn.parallel.DistributedDataParallel) -> Callable[[], None]:
    x = torch.randn(8, model.module.get_parameter(WEIGHTS[type(model.module)]).shape[1])

    def call() -> None:
        model.zero_grad()
        model(x).square().sum().backward()

    return call


#: The first weight of a network.
WEIGHTS: dict[type[nn.Module], str] = {nn.Linear: "weight", nn.Sequential: "0.weight"}


def hooks(rounds: int) -> dict[str, Any]:
    """Backward passes under our hooks and torch's, and under none, by network.

    The processor time of all threads, since hooks work in threads of their own, and the
    wall clock. What a hook takes is the time beyond that of the pass under none.
    """
    # DDP closes its first bucket at 1 MB otherwise.
    distributed._DEFAULT_FIRST_BUCKET_BYTES = (  # pyright: ignore[reportPrivateImportUsage]
        BUCKET_MB << 20
    )
    found = {}
    for net, make in NETS.items():
        with tempfile.TemporaryDirectory() as folder:
            distributed.init_process_group(
                "gloo", init_method=f"file://{folder}/store", rank=0, world_size=1
            )
            models = {
                name: nn.parallel.DistributedDataParallel(
                    make(), gradient_as_bucket_view=True, bucket_cap_mb=BUCKET_MB
                )
                for name in HOOKS
            }
            for name, register in HOOKS.items():
                register(models[name])
            found[net] = in_turns({n: backward(m) for n, m in models.items()}, rounds)
            distributed.destroy_process_group()
    return found


def in_turns(calls: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, Any]:
    for _ in range(3):  # torch's PowerSGD begins in step 2
        for call in calls.values():
            call()
    names = list(calls)
    taken: dict[str, list[Elapsed]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            taken[name].append(elapsed(calls[name]))
    row: dict[str, Any] = {
        name: {
            **quartiles([each.process for each in found]),
            "wall_seconds": statistics.median(each.wall for each in found),
        }
        for name, found in taken.items()
    }
    for name in names:
        torchs = f"torch {name.removesuffix(' with memory')}"
        if name in taken and torchs in taken and name != torchs:
            row[name]["torch_over_ours"] = ratio(taken[torchs], taken[name])
    print(json.dumps(row), flush=True)
    return row


def ratio(other: list[Elapsed], own: list[Elapsed]) -> dict[str, float]:
    """How many times as fast a pass is, round by round."""
    found = [o.process / m.process for o, m in zip(other, own, strict=True)]
    low, middle, high = statistics.quantiles(found, n=4)
    return {"median": middle, "low": low, "high": high}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only-hooks", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    record: dict[str, Any] = {
        "machine": machine(),
        "values": SIDE * SIDE,
        "ranks": RANKS,
        "rounds": given.rounds,
    }
    if not given.only_hooks:
        record["compressors"] = compressors(given.rounds)
        record["selection"] = selection(given.rounds)
    record |= {"hooks": hooks(given.rounds), "load_after": machine()["load"]}
    given.file.parent.mkdir(parents=True, exist_ok=True)
    given.file.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
