r"""What training under each compressor of gradients loses, and the bytes that it really sends.

    OMP_NUM_THREADS=1 python benchmarks/compressed_training.py \
        records/2026-11-30-compressed-training/run.json --data FOLDER/usr/share/sword

Two processes over gloo train a network as ``elision train --compress`` does under torchrun:
the convolutional network on digits and, with ``--data`` (docs/gnmt.md says how to install the
corpus), the translating one of ``gnmt-tiny``. Plain DistributedDataParallel runs from several
seeds; their lowest and highest loss are the spread to which a compressor's loss is held.

Bytes are counted three times: by the compressors' formula for the network's parameters, by the
hook as it sent them, and by the kernel, which knows what a process handed to its TCP sockets
(``TCP_INFO``). The last holds all that the processes say to one another: a plain run's bytes
that are no gradients (the metrics, the model's buffers) are taken off.
"""

import argparse
import json
import multiprocessing
import os
import socket
import stat
import statistics
import struct
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from elision import methods
from elision.common.files import write_json
from elision.engines.bench import machine
from elision.training import Execution, Ranks, RunPlan, TrainingDivergedError, train
from elision.training.parallel import (
    State,
    make_compressor,
    wire_bits,
)
from elision.workloads import Workload, find_workload
from elision.workloads.tasks import Metric

RANKS = 2
PLAIN = "plain"
#: ``struct tcp_info`` of Linux: bytes that a socket sent, without those sent again.
BYTES_ACKED = 120

#: One of each compressor, with shares that a run of some hundred steps allows.
EACH = (
    *("bf16", "fp16", "fp8", "int8", "dfp16", "top-k:share=0.1", "random-k:share=0.1"),
    *("qsgd:width=4", "terngrad:clip=2.5", "sign", "powersgd:rank=4"),
    "dgc:share=0.01,warmup=60",
)
MORE = (
    *("int8:block=256", "top-k:share=0.01", "random-k:share=0.01", "qsgd:width=2"),
    *("terngrad", "powersgd:rank=1"),
)


@dataclass(frozen=True)
class Case:
    """A workload, and the seeds of plain runs and of those under each compressor."""

    workload: Workload
    plain_seeds: int
    seeds: int
    specs: tuple[str, ...]


def cases(data: Path | None) -> dict[str, Case]:
    digits = replace(find_workload("digits-cnn"), epochs=10)
    found = {"digits-cnn": Case(digits, plain_seeds=5, seeds=3, specs=(*EACH, *MORE))}
    if data is not None:
        tiny = replace(
            find_workload("gnmt-tiny"),
            epochs=2,
            train_images=2250,
            test_images=300,
            warmup=20,
            data=str(data),
        )
        found["gnmt-tiny"] = Case(tiny, plain_seeds=3, seeds=1, specs=EACH)
    return found


def sent_by_sockets() -> int:
    """Bytes that the TCP connections of this process have sent and got confirmed."""
    total = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            own = socket.socket(fileno=os.dup(int(name)))
        except OSError:  # closed since it was listed
            continue
        with own:
            try:
                info = own.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            except OSError:  # of another kind
                continue
            if len(info) >= BYTES_ACKED + 8:
                total += struct.unpack_from("=Q", info, BYTES_ACKED)[0]
    return total


def formula(spec: str, shapes: dict[str, torch.Size], steps: int) -> float:
    """Bytes that a rank sends for all gradients in so many steps, by the formula."""
    compressor, bits = make_compressor(spec), 0.0
    for name, shape in shapes.items():
        state = State(name=name, ranks=RANKS)
        message = next(compressor.exchange(torch.zeros(shape), state))
        share = wire_bits(replace(message, parts=(torch.zeros(1),)), RANKS) / 32
        for step in range(steps):
            bits += share * compressor.bits(shape, State(name=name, step=step))
    return bits / 8


def run(
    workload: Workload, recipe: str, spec: str, seed: int, ranks: Ranks
) -> dict[str, Any]:
    """One training; the metrics, and the bytes of this rank."""
    method = RECIPES[recipe]()
    compress = None if spec == PLAIN else spec
    if spec.startswith("dgc"):
        if workload.optimizer == "sgd":
            workload = replace(workload, momentum=0.0, nesterov=False)
        else:
            compress = f"{spec},momentum=0"
    distributed.barrier()
    before, began = sent_by_sockets(), time.perf_counter()
    result = train(
        workload,
        method,
        DATA[workload.name],
        RunPlan(seed=seed),
        execution=Execution(engine="torch", compress=compress),
        ranks=ranks,
    )
    distributed.barrier()
    sent, seconds = sent_by_sockets() - before, time.perf_counter() - began
    last = result.history[-1]
    shapes = {n: p.shape for n, p in result.model.named_parameters()}
    steps = workload.epochs * workload.steps_per_epoch(DATA[workload.name])
    found: dict[str, Any] = {
        "compressor": spec if compress is None else compress,
        "recipe": recipe,
        "seed": seed,
        "loss": last.loss,
        workload.task.metric.name: last.score,
        "seconds": seconds,
        "steps": steps,
        "bytes_of_sockets": sent,
        "gradient_bytes": 4 * steps * sum(s.numel() for s in shapes.values()),
    }
    if result.traffic is not None and compress is not None:
        found["traffic"] = asdict(result.traffic)
        if spec != "mask":
            found["bytes_by_formula"] = formula(compress, shapes, steps)
    return found


DATA: dict[str, Any] = {}
RECIPES: dict[str, Callable[[], methods.Method]] = {
    "dense": methods.Dense,
    "rigl": lambda: methods.RigL(0.8),
}


def rank_main(rank: int, folder: str, data: Path | None, only: list[str]) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS
    )
    ranks = Ranks(rank, RANKS, rank)
    for name, case in cases(data).items():
        if only and name not in only:
            continue
        DATA[case.workload.name] = case.workload.load_dataset()
        plan = [("dense", PLAIN, seed) for seed in range(case.plain_seeds)]
        rest = [
            ("rigl", PLAIN),
            ("rigl", "mask"),
            *(("dense", spec) for spec in case.specs),
        ]
        plan += [(*each, seed) for each in rest for seed in range(case.seeds)]
        for recipe, spec, seed in plan:
            try:
                row = run(case.workload, recipe, spec, seed, ranks)
            except TrainingDivergedError as error:  # on all ranks alike, and a result
                row = {"recipe": recipe, "compressor": spec, "seed": seed}
                row["failed"] = str(error).split("\n")[0]
            if rank == 0:
                print(json.dumps(row), flush=True)
                with open(f"{folder}/{name}.jsonl", "a", encoding="utf-8") as lines:
                    lines.write(json.dumps(row) + "\n")
    distributed.destroy_process_group()


def summary(rows: list[dict[str, Any]], metric: Metric) -> list[dict[str, Any]]:
    """By recipe and compressor: means over seeds beside the plain runs' spread, and bytes."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["recipe"], row["compressor"]), []).append(row)
    found = []
    for (recipe, spec), own in groups.items():
        line = {"recipe": recipe, "compressor": spec, "seeds": len(own)}
        if failed := [row["failed"] for row in own if "failed" in row]:
            found.append(line | {"holds": False, "failed": failed})
            continue
        plain = groups[recipe, PLAIN]
        loss = statistics.mean(row["loss"] for row in own)
        score = statistics.mean(row[metric.name] for row in own)
        losses = [row["loss"] for row in plain]
        scores = [row[metric.name] for row in plain]
        worst = min(scores) if metric.higher_is_better else max(scores)
        first = own[0]
        found.append(
            line
            | {
                "loss": loss,
                "plain_loss": [min(losses), max(losses)],
                "holds": loss <= max(losses),
                metric.name: score,
                f"plain_{metric.name}": [min(scores), max(scores)],
                f"{metric.name}_holds": not metric.better(worst, score),
                "bytes_by_formula": first.get("bytes_by_formula"),
                "bytes_of_hook": first.get("traffic", {}).get("sent", 0) / 8 or None,
                # What a plain run says that is no gradient is said here, too.
                "bytes_of_sockets": first["bytes_of_sockets"]
                - min(r["bytes_of_sockets"] - r["gradient_bytes"] for r in plain),
                "gradient_bytes": first["gradient_bytes"],
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    given = parser.parse_args()
    before, began = machine(), time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        arguments = (folder, given.data, given.only)
        ranks = [
            context.Process(target=rank_main, args=(r, *arguments))
            for r in range(RANKS)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        if any(process.exitcode for process in ranks):
            raise SystemExit("a rank failed")
        results = {}
        for name, case in cases(given.data).items():
            if given.only and name not in given.only:
                continue
            text = Path(folder, f"{name}.jsonl").read_text(encoding="utf-8")
            rows = [json.loads(line) for line in text.splitlines()]
            metric = case.workload.task.metric
            results[name] = {
                "epochs": case.workload.epochs,
                "batch_size": case.workload.batch_size,
                "summary": summary(rows, metric),
                "runs": rows,
            }
    facts = {
        "machine": before,
        "load_after": os.getloadavg(),
        "ranks": RANKS,
        "seconds": time.perf_counter() - began,
    }
    given.file.parent.mkdir(parents=True, exist_ok=True)
    write_json(given.file, facts | {"workloads": results})


if __name__ == "__main__":
    main()
