"""The measured side of elision scale: a step of real ranks beside the model of it."""

from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elision.training.parallel import Overlap

__all__ = ["measure"]


def measure(
    workload: str | None,
    data: Path | None,
    batch: int | None,
    compress: str | None,
    rounds: int,
    out: Path,
) -> None:
    """Take steps of a workload with the processes of torchrun; rank 0 writes and prints.

    Args:
        workload: by name; None: the default one.
        data: folder of its data.
        batch: examples of all ranks; None: the workload's.
        compress: spec of a compressor.
        rounds: timed steps.
        out: folder of the files.

    Raises:
        ValueError: this is the only process, or there are fewer examples than ranks.
    """
    import torch

    from elision.cli.sources import dataset_or_random
    from elision.training.parallel import make_compressor, measured_overlap
    from elision.training.ranks import Ranks, joined
    from elision.workloads import DEFAULT_WORKLOAD, find_workload

    if Ranks.from_environment().count < 2:
        raise ValueError(
            "--measure takes steps of two ranks or more; start it as torchrun "
            "--nproc_per_node=2 -m elision scale --measure"
        )
    chosen = find_workload(workload or DEFAULT_WORKLOAD)
    if compress is not None:
        make_compressor(compress)
    size = chosen.batch_size if batch is None else batch
    dataset = dataset_or_random(chosen, data, size)
    with joined("cpu") as ranks:
        torch.manual_seed(0)
        model = chosen.make_model(dataset).train()
        whole = next(iter(chosen.train_batches(dataset, seed=0, epoch=0)))
        whole = tuple(tensor[:size] for tensor in whole)
        if len(whole[0]) < ranks.count:
            raise ValueError(
                f"--batch {size}: {ranks.count} ranks need an example each"
            )
        own, factor = ranks.share(whole)
        threads = torch.get_num_threads()
        found = measured_overlap(
            model,
            lambda module: factor * chosen.task.loss(module, own),
            chosen.make_optimizer,
            rounds,
            compress=compress,
            source=f"{chosen.name}, {ranks.count} ranks of {threads} thread(s)",
        )
        if ranks.is_first:
            _write(found, compress, len(whole[0]), out)


def _write(found: "Overlap", compress: str | None, batch: int, out: Path) -> None:
    from elision.common.columns import as_text
    from elision.common.files import to_csv, write_json, write_text
    from elision.engines.bench import machine
    from elision.report.scaling_figure import steps_svg
    from elision.report.table import rows_as_text
    from elision.report.timeline import save_chrome_trace

    out.mkdir(parents=True, exist_ok=True)
    rows = found.buckets()
    source = found.model.step.source
    facts = {"source": source, "batch": batch, "compress": compress}
    write_json(out / "overlap.json", facts | {"machine": machine()} | found.facts())
    write_text(out / "overlap.csv", to_csv([vars(row) for row in rows]))
    write_text(out / "overlap.svg", steps_svg(found.panels()))
    save_chrome_trace(found.slices(), out / "overlap.trace.json", "times in us")
    print(
        f"{source}, a batch of {batch} shared, {len(found.seconds)} steps measured here\n"
    )
    print(
        "Buckets of rank 0 in the step of median length, from its backward pass on:\n"
    )
    print(rows_as_text([as_text(row) for row in rows]))
    print(f"\n{_summary(found)}\n\nfigure, trace for ui.perfetto.dev and table: {out}")


def _summary(found: "Overlap") -> str:
    """The link, the step and the exposed communication, measured and by the model."""
    line, row = found.link.line, found.model.row(found.ranks)
    share = found.model.core_share
    sizes = ", ".join(f"{size:,}" for size in found.link.sizes)
    lines = [
        f"link by all-reduces of {sizes} bytes: latency {1e6 * line.latency:.3g} us, "
        f"{line.bandwidth / 1e9:.3g} GB/s; the line is up to {found.link.line_error:.0%} "
        "off at these sizes, and the model has the sizes as they were measured",
        "messages have cores of their own"
        if share is None
        else f"no core is spare: a message takes {share:.0%} of a rank's while it travels",
        f"step: {_spread(found.seconds)} measured, {_spread(found.silent)} of it with "
        f"nothing sent; {1e3 * row.step:.4g} ms by the model, {found.step_error:+.1%}",
        f"exposed communication: {_spread(found.exposed)} measured, "
        f"{1e3 * row.exposed:.3g} ms by the model, {found.exposed_error:+.1%} of the step; "
        f"beside it a rank waited {_spread(found.waited)} for a slower one",
    ]
    return "\n".join(lines)


def _spread(seconds: "tuple[float, ...]") -> str:
    """Median and quartiles in ms.

    Example:
        >>> _spread((0.001, 0.002, 0.003)), _spread((0.001,))
        ('2 ms (1 to 3)', '1 ms')
    """
    middle = f"{1e3 * median(seconds):.3g} ms"
    if len(seconds) < 2:
        return middle
    low, _, high = quantiles(seconds, n=4)
    return f"{middle} ({1e3 * low:.3g} to {1e3 * high:.3g})"
