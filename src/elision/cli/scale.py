"""elision scale."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from elision.cli.flags import Integer, Names

if TYPE_CHECKING:
    from elision.training.parallel.scaling import ScalingModel, StepCosts

__all__ = ["scale"]


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
    bits: float | None = None,
    compress_ns: float | None = None,
    gathered: bool = False,
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
    bits
        Sent for each value, indices and scales included; default: 32.
    compress_ns
        Nanoseconds to compress and decompress a value; default: 0.
    gathered
        Whether every rank receives every other's message, as with top-k.
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
    from elision.common.columns import as_text
    from elision.common.files import to_csv, write_json, write_text
    from elision.engines.bench import machine
    from elision.report.table import rows_as_text
    from elision.training.parallel.scaling import (
        Compression,
        Cores,
        Link,
        StepCosts,
        scaling_model,
    )

    counts = _counts(ranks)
    if comm_cores is not None and cores is None:
        raise ValueError(
            f"--comm-cores {comm_cores} would be ignored: give --cores, too"
        )
    if bits is None and (compress_ns is not None or gathered):
        raise ValueError(
            "--compress-ns and --gathered would be ignored: give the --bits of a value"
        )
    compression = None
    if bits is not None:
        compression = Compression(bits, (compress_ns or 0.0) * 1e-9, gathered)
    given = Link.parse(link, latency)
    inner = None if inner_link is None else Link.parse(inner_link, 0.0)
    options = {
        "ranks": counts,
        "mode": mode,
        "collective": collective,
        "per_node": per_node,
        "inner": inner,
        "compression": compression,
        "cores": None if cores is None else Cores(cores, comm_cores or 0),
        "overlap": not no_overlap,
        "imbalance": imbalance,
    }
    # Refuses what has no meaning before anything is timed.
    scaling_model(StepCosts((0.0, 1.0), (0.0, 1.0)), given, batch=batch or 1, **options)
    costs, own_batch = _timed(workload, data, rounds)
    model = scaling_model(costs, given, batch=batch or own_batch, **options)
    until = model.pays_until(efficiency)
    out.mkdir(parents=True, exist_ok=True)
    rows = [vars(row) for row in model.rows]
    write_text(out / "scaling.csv", to_csv(rows))
    write_text(out / "scaling.svg", _figure(model, until))
    facts = {"source": costs.source, "link": link, "latency": latency, "mode": mode}
    facts |= {"machine": machine(), "collective": collective, "overlap": not no_overlap}
    facts |= {"compression": compression and vars(compression), "imbalance": imbalance}
    facts |= {"cores": cores, "comm_cores": comm_cores}
    facts |= {"batch": model.batch, "pays_until": until, "fastest": model.fastest}
    write_json(out / "scaling.json", facts | {"step": vars(costs), "rows": rows})
    print(
        f"{costs.source}; {mode} scaling, {collective}, {link}, latency {latency:g} s\n"
    )
    print(rows_as_text([as_text(row) for row in model.rows]))
    print(f"\n{_summary(model, until, efficiency)}\n\nfigure and table: {out}")


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


def _figure(model: "ScalingModel", until: int) -> str:
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
        many = until if until > 1 else min(n for n in counts if n > 1)
        times = model.timeline(many)
        shown = Step(many, model.backward_seconds(many), times)
    by_cores = []
    if model.cores is not None:
        by_cores = [(n, row.step) for n, row in model.by_cores(counts[-1])]
    return scaling_svg(curves, until, shown, by_cores)


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
    if model.compression is not None and until > 1:
        low, high = (f(model.break_even(until)) for f in (min, max))
        lines.append(
            f"compression gains at {until} ranks on links below {_speed(low)} to "
            f"{_speed(high)}, by bucket, where the transfer is exposed"
        )
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


def _speed(bandwidth: float) -> str:
    """A bandwidth of bytes per second as people read it.

    Example:
        >>> _speed(1.25e9), _speed(float("inf"))
        ('10 Gbit', 'any speed')
    """
    return "any speed" if bandwidth == float("inf") else f"{bandwidth * 8e-9:.3g} Gbit"
