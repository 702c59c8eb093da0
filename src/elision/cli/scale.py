"""elision scale."""

import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from elision.cli.flags import Integer, Names

if TYPE_CHECKING:
    from elision.training.parallel.scaling import ScalingModel, StepCosts
    from elision.training.parallel.scaling.coding import CodedGradients

__all__ = ["figure_of", "scale"]


def scale(
    *,
    workload: str | None = None,
    data: Path | None = None,
    ranks: Names = ("1..1024",),
    link: str = "10Gbit",
    latency: float = 50e-6,
    mode: Literal["strong", "weak"] = "strong",
    batch: Integer | None = None,
    collective: Literal["ring", "tree", "hierarchical"] = "ring",
    per_node: Integer = 1,
    inner_link: str | None = None,
    compress: str | None = None,
    explain: bool = False,
    measure: bool = False,
    cores: Integer | None = None,
    comm_cores: Integer | None = None,
    no_overlap: bool = False,
    imbalance: float = 1.0,
    efficiency: float = 0.5,
    rounds: Integer = 7,
    out: Path = Path("runs/scale"),
) -> None:
    """Predict what more ranks gain, before paying for them.

    A step of the workload is timed here: forward pass, backward pass with the moment at
    which each gradient is ready, update, at three batch sizes. From there on everything
    is computed: buckets as torch's DistributedDataParallel fills them, their all-reduces
    on the link, what of these the backward pass hides. A table, a figure, and the rank
    count beyond which it does not pay.

    Parameters
    ----------
    workload
        What is trained; default: photo-resnet8. Of data sets that need files, random
        images of their shape are enough.
    data
        Folder of the data set, for those that need one.
    ranks
        Counts, such as 1,2,16, or FIRST..LAST, the powers of two between them and both
        ends.
    link
        Bandwidth between ranks, such as 10Gbit or 1.2GB.
    latency
        Seconds of an empty message; the default is a choice of this project.
    mode
        strong: all ranks share the batch. weak: each has one of its own.
    batch
        Examples of all ranks (strong) or of each (weak); default: the workload's.
    collective
        All-reduce of a bucket.
    per_node
        Ranks of a node, of the hierarchical collective.
    inner_link
        Bandwidth inside a node, likewise; default: free.
    compress
        How gradients travel, such as powersgd:rank=4 or top-k:share=0.01: bits by the
        compressor's formula for every gradient of the model, seconds to compress and
        decompress it as timed here. Default: float32.
    explain
        A table of the buckets: what --compress gains for each on this link, and the
        bandwidth below which it gains anything. At the count of a step's figure, the last
        that pays; --ranks 16 for that of 16.
    measure
        Take steps with the processes of torchrun instead, and put the model of them beside:
        when the gradients of each bucket were ready, sent and done, beside the layers of
        the backward pass, as a table, a figure and a trace for ui.perfetto.dev; the exposed
        communication, and the model's error. Goes with --workload, --data, --batch,
        --compress, --rounds and --out:
        torchrun --nproc_per_node=2 -m elision scale --measure
    cores
        Cores of a node, if communication takes some of them.
    comm_cores
        Cores pinned for communication; default: 0, which overlaps nothing.
    no_overlap
        Send buckets after the backward pass only.
    imbalance
        The slowest rank's time to compute over the mean.
    efficiency
        Speed-up over ranks below which more ranks do not pay.
    rounds
        Timed steps of each batch size.
    out
        Folder of the table and the figure.
    """
    given = dict(locals())
    from elision.cli.measuring import measure as measured_steps
    from elision.common.columns import as_text
    from elision.common.files import to_csv, write_json, write_text
    from elision.engines.bench import machine
    from elision.report.table import rows_as_text
    from elision.training.parallel import make_compressor
    from elision.training.parallel.scaling import (
        Cores,
        Link,
        StepCosts,
        scaling_model,
    )
    from elision.training.parallel.scaling.coding import measured_compression
    from elision.training.parallel.scaling.explain import explained

    if measure:
        with_measure = {"workload", "data", "batch", "compress", "rounds", "out"}
        _refuse({k: v for k, v in given.items() if k not in with_measure})
        measured_steps(workload, data, batch, compress, rounds, out)
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # set by torchrun
        raise ValueError(
            "elision scale computes in one process; under torchrun give --measure, which "
            "takes steps with its processes"
        )
    counts = _counts(ranks)
    if comm_cores is not None and cores is None:
        raise ValueError(
            f"--comm-cores {comm_cores} would be ignored: give --cores, too"
        )
    if explain and compress is None:
        raise ValueError(
            "--explain would be ignored: give the compressor that it explains, such as "
            "--compress powersgd:rank=4"
        )
    if compress is not None:
        make_compressor(compress)  # refuses before anything is timed
    between = Link.parse(link, latency)
    inner = None if inner_link is None else Link.parse(inner_link, 0.0)
    options = {
        "ranks": counts,
        "mode": mode,
        "collective": collective,
        "per_node": per_node,
        "inner": inner,
        "cores": None if cores is None else Cores(cores, comm_cores or 0),
        "overlap": not no_overlap,
        "imbalance": imbalance,
    }
    # Refuses what has no meaning before anything is timed.
    scaling_model(
        StepCosts((0.0, 1.0), (0.0, 1.0)), between, batch=batch or 1, **options
    )
    costs, own_batch = _timed(workload, data, rounds)
    compression = compress and measured_compression(compress, costs.shapes)
    options |= {"compression": compression or None}
    model = scaling_model(costs, between, batch=batch or own_batch, **options)
    until = model.pays_until(efficiency)
    out.mkdir(parents=True, exist_ok=True)
    rows = [vars(row) for row in model.rows]
    write_text(out / "scaling.csv", to_csv(rows))
    write_text(out / "scaling.svg", figure_of(model, until))
    facts = {"source": costs.source, "link": link, "latency": latency, "mode": mode}
    facts |= {"machine": machine(), "collective": collective, "overlap": not no_overlap}
    facts |= {"compress": compress, "imbalance": imbalance}
    facts |= {"cores": cores, "comm_cores": comm_cores}
    facts |= {"batch": model.batch, "pays_until": until, "fastest": model.fastest}
    many = _shown(model, until)
    buckets = explained(model, many) if compression and many > 1 else []
    facts |= {"explained_at": many, "explained": [vars(bucket) for bucket in buckets]}
    write_json(out / "scaling.json", facts | {"step": vars(costs), "rows": rows})
    print(
        f"{costs.source}; {mode} scaling, {collective}, {link}, latency {latency:g} s\n"
    )
    print(rows_as_text([as_text(row) for row in model.rows]))
    print(f"\n{_summary(model, until, efficiency)}")
    if compression:
        print(f"\n{_compressed(model, compression, many)}")
    if explain:
        rows = [as_text(bucket) for bucket in buckets]
        print(f"\nBuckets of a step of {many} ranks:\n\n{rows_as_text(rows)}")
    print(f"\nfigure and table: {out}")


def _refuse(given: dict[str, Any]) -> None:
    """Raise ValueError if an argument is not its default: it would be ignored."""
    for name, parameter in inspect.signature(scale).parameters.items():
        if name in given and name != "measure" and given[name] != parameter.default:
            raise ValueError(
                f"--{name.replace('_', '-')} would be ignored: --measure takes the ranks, "
                "the link and the cores as they are"
            )


def _counts(texts: tuple[str, ...]) -> list[int]:
    """Rank counts of ``1..1024`` or ``1,2,16``.

    Raises:
        ValueError: no such text.
    """
    found: list[int] = []
    for text in ",".join(texts).split(","):
        first, dots, last = text.partition("..")
        try:
            low, high = int(first), int(last if dots else first)
        except ValueError:
            low = high = 0
        if not 1 <= low <= high:
            raise ValueError(
                f"--ranks {text}: give counts such as 1,2,16 or FIRST..LAST, such as "
                "1..1024, from 1 on"
            )
        powers = [2**i for i in range(high.bit_length()) if low <= 2**i <= high]
        found += [low, *powers, high]
    return sorted(set(found))


def _timed(name: str | None, data: Path | None, rounds: int) -> "tuple[StepCosts, int]":
    """Costs of the workload's step, timed here, and its batch size."""
    import torch

    from elision.cli.sources import dataset_or_random
    from elision.training.parallel.scaling.measure import measured_workload
    from elision.workloads import DEFAULT_WORKLOAD, find_workload

    chosen = find_workload(name or DEFAULT_WORKLOAD)
    dataset = dataset_or_random(chosen, data, chosen.batch_size)
    threads = torch.get_num_threads()
    source = f"{chosen.name}, ranks of {threads} thread(s), a step measured here"
    return (
        measured_workload(chosen, dataset, rounds=rounds, source=source),
        chosen.batch_size,
    )


def figure_of(model: "ScalingModel", until: int) -> str:
    """The model as a figure."""
    from elision.report.scaling_figure import Curve, Step, scaling_svg

    rows = model.rows
    counts = [row.ranks for row in rows]
    curves = [Curve("model", counts, [row.speedup for row in rows])]
    shown = None
    if counts[-1] > 1:
        law = model.usl
        fitted = [law.speedup(n) for n in counts]
        curves.append(Curve("USL, fitted", counts, fitted, fitted=True))
        name, by_law = _law(model)
        curves.append(Curve(f"{name}, fitted", counts, by_law, fitted=True))
        many = _shown(model, until)
        times = model.timeline(many)
        shown = Step(many, model.backward_seconds(many), times)
    by_cores = []
    if model.cores is not None:
        by_cores = [(n, row.step) for n, row in model.by_cores(counts[-1])]
    shares = [(row.ranks, row.karp_flatt) for row in rows if row.karp_flatt is not None]
    return scaling_svg(curves, until, shown, by_cores, shares)


def _law(model: "ScalingModel") -> tuple[str, list[float]]:
    """The law of the model's mode that is fitted to it, and its speed-ups."""
    from elision.training.parallel.scaling.laws import amdahl, gustafson

    counts = [row.ranks for row in model.rows]
    if model.mode == "strong":
        return "Amdahl", [amdahl(n, model.amdahl) for n in counts]
    return "Gustafson", [gustafson(n, model.gustafson) for n in counts]


def _summary(model: "ScalingModel", until: int, efficiency: float) -> str:
    """What the table comes to, in sentences."""
    lines = []
    left_out = len(model.ranks) - len(model.rows)
    if left_out:
        lines.append(
            f"{left_out} rank counts are left out: a batch of {model.batch} has no example "
            "for each rank"
        )
    following = [row for row in model.rows if row.ranks > until]
    why = "no larger count was asked for"
    if following and following[0].efficiency < efficiency:
        n, share = following[0].ranks, following[0].efficiency
        why = f"at {n} the efficiency is {share:.0%}, below {efficiency:.0%}"
    elif following:
        why = f"{following[0].ranks} are slower"
    lines.append(f"beyond {until} rank(s) it does not pay: {why}")
    lines.append(f"highest throughput: {model.fastest} ranks")
    if model.rows[-1].ranks > 1:
        law = model.usl
        peak = f", peak at {law.peak:,.0f} ranks" if law.coherency else ""
        lines.append(
            f"USL: contention {law.contention:.3g}, coherency {law.coherency:.3g}{peak}"
        )
        if model.mode == "strong":
            lines.append(f"Amdahl: parallel share {model.amdahl:.4f}")
        else:
            lines.append(f"Gustafson: serial share {model.gustafson:.4f}")
    return "\n".join(lines)


def _shown(model: "ScalingModel", until: int) -> int:
    """The rank count whose step is drawn and explained; 1 if there is no other."""
    counts = [row.ranks for row in model.rows if row.ranks > 1]
    return until if until > 1 or not counts else min(counts)


def _compressed(model: "ScalingModel", coded: "CodedGradients", ranks: int) -> str:
    """What the compressor does to a step, in a sentence or two."""
    from elision.training.parallel.scaling.explain import speed

    dense = model.step.size
    said = (
        f"{coded.compressor}: {dense / coded.size:.1f}x fewer bytes in a rank's messages, "
        f"{1e3 * coded.seconds:.3g} ms to compress and decompress them, timed here"
    )
    if ranks == 1:
        return said
    ends = [speed(f(model.break_even(ranks))) for f in (min, max)]
    below = " to ".join(dict.fromkeys(ends))
    plain, own = model.uncompressed.row(ranks).step, model.row(ranks).step
    return (
        f"{said}\nat {ranks} ranks a step takes {1e3 * own:.4g} ms, and {1e3 * plain:.4g} ms "
        f"as it is; a bucket that is not hidden gains on links below {below}"
    )
