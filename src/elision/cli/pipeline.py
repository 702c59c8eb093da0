"""elision pipeline."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from elision.cli.flags import Integer, Names

if TYPE_CHECKING:
    from elision.training.pipeline import LayerCost

__all__ = ["pipeline"]


def pipeline(
    *,
    workload: str | None = None,
    profile: Path | None = None,
    model: str | None = None,
    input: Integer | None = None,
    accelerator: str | None = None,
    batch: Integer | None = None,
    data: Path | None = None,
    processors: Integer = 4,
    schedule: Names = ("gpipe", "1f1b", "zb1p", "pipedream", "layerpipe"),
    microbatches: Integer | None = None,
    bandwidth: float | None = None,
    weight_grad_share: float | None = None,
    out: Path = Path("runs/pipeline"),
) -> None:
    """Plan a network's training over several processors, by one or more schedules.

    A table: bubble, time per micro-batch, activations and bytes kept, weight versions,
    delay of the gradients, bytes sent. A figure of all schedules and, for each, a trace
    that ui.perfetto.dev opens. The durations are measured here, come from a profile file
    of PipeDream, or are the cycles of an accelerator; the schedules are computed.

    Parameters
    ----------
    workload
        What is trained; its network is timed here. Default: photo-resnet8. Of data sets
        that need files, random images of their shape are enough.
    profile
        Profile file of PipeDream instead.
    model
        Network by name instead, on --accelerator: layers by their shapes.
    input
        Height and width of a --model's images; default: 32.
    accelerator
        Machine that each processor is: NAME or NAME:parameter=value,...
    batch
        Examples of a micro-batch; default: the workload's batch size over the number of
        micro-batches, or 1 of a model.
    data
        Folder of the data set, for those that need one.
    processors
        Number of processors.
    schedule
        gpipe, 1f1b, interleaved, zb1p, zb2p, zbv, v-half, v-min, dualpipe, dualpipev,
        pipedream, pipedream-no-stash, pipedream-replicated, pipedream-2bw,
        layerpipe-intra, layerpipe or layerpipe2.
    microbatches
        Micro-batches of a step; default: two per processor.
    bandwidth
        Bytes per second, or per cycle, between two processors; default: unlimited.
    weight_grad_share
        Share of the weight gradient in a profile's backward time; default: 0.5.
    out
        Folder of the table, the figure and the traces.
    """
    import math

    from elision.common.files import to_csv, write_json, write_text
    from elision.report.pipeline_figure import pipeline_svg
    from elision.report.table import rows_as_text
    from elision.training.pipeline import plan
    from elision.training.pipeline.figures import figures, shown
    from elision.training.pipeline.schedules import find_schedule

    for name in schedule:
        find_schedule(name)  # before anything is timed
    count = 2 * processors if microbatches is None else microbatches
    given = {"--workload": workload, "--profile": profile, "--model": model}
    named = [flag for flag, value in given.items() if value is not None]
    if len(named) > 1:
        raise ValueError(
            f"a pipeline is of one network: give one of {', '.join(named)}"
        )
    if model is not None or accelerator is not None:
        _refuse("the costs are cycles of shapes", data=data, share=weight_grad_share)
        source, costs = _cycles(model, accelerator, input, batch)
    elif profile is not None:
        _refuse("a profile holds its durations", data=data, batch=batch, input=input)
        source, costs = _profiled(profile, weight_grad_share)
    else:
        _refuse("the network is timed here", input=input, share=weight_grad_share)
        source, costs = _timed(workload, data, batch, count)
    plans = {
        name: plan(costs, processors, name, count, bandwidth=bandwidth or math.inf)
        for name in schedule
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, made in plans.items():
        made.timeline(out / f"{name}.json")
    rows = [figures(made) for made in plans.values()]
    write_text(out / "pipeline.svg", pipeline_svg([p.panel() for p in plans.values()]))
    write_text(out / "pipeline.csv", to_csv(rows))
    layers = [vars(cost) for cost in costs]
    facts = {"source": source, "processors": processors, "microbatches": count}
    write_json(out / "pipeline.json", facts | {"layers": layers, "schedules": rows})
    print(
        f"{source}; {len(costs)} layers, {processors} processors, {count} micro-batches"
    )
    print(f"\n{rows_as_text([shown(row) for row in rows])}\n\nfigure and traces: {out}")


def _refuse(why: str, **arguments: Any) -> None:
    """Raise ValueError if one of the arguments is given, which would be ignored."""
    for name, value in arguments.items():
        if value is not None:
            flag = {"share": "weight-grad-share"}.get(name, name)
            raise ValueError(f"--{flag} {value} would be ignored: {why}")


def _timed(
    name: str | None, data: Path | None, batch: int | None, microbatches: int
) -> "tuple[str, tuple[LayerCost, ...]]":
    """The costs of a workload's network, timed here."""
    import torch

    from elision.cli.sources import dataset_or_random
    from elision.common.checks import integer
    from elision.training.pipeline.measure import measured
    from elision.workloads import DEFAULT_WORKLOAD, find_workload

    chosen = find_workload(name or DEFAULT_WORKLOAD)
    if chosen.task_name != "classification":
        raise ValueError(
            f"workload {chosen.name!r}: a pipeline's network takes one tensor, and that of "
            f"task {chosen.task_name!r} takes several"
        )
    size = max(chosen.batch_size // microbatches, 1) if batch is None else batch
    integer("pipeline", "batch", size)
    dataset = dataset_or_random(chosen, data, size)
    torch.manual_seed(0)
    # A processor of a plan is one core of this machine.
    torch.set_num_threads(1)
    network = chosen.make_model(dataset)
    images = dataset.normalise(dataset.train_images[:size])
    source = f"{chosen.name}, micro-batches of {len(images)}, timed here on one core"
    return source, measured(network, images)


def _profiled(path: Path, share: float | None) -> "tuple[str, tuple[LayerCost, ...]]":
    """The costs of a profile file."""
    from elision.training.pipeline.profile import read_profile

    part = 0.5 if share is None else share
    source = (
        f"{path}, weight gradients taken as {part:g} of a layer's own backward time"
    )
    return source, read_profile(path, part)


def _cycles(
    model: str | None, accelerator: str | None, input: int | None, batch: int | None
) -> "tuple[str, tuple[LayerCost, ...]]":
    """The costs of a network's layers on an accelerator."""
    from elision.accelerators.design.grid import machines
    from elision.cli.sources import DEFAULT_MODEL, layers_by_network
    from elision.training.pipeline.costs import accelerator_costs

    (machine,) = machines((accelerator or "systolic",))
    networks = layers_by_network((model or DEFAULT_MODEL,), (), (), input, batch, ())
    ((name, layers),) = networks.items()
    source = f"{name}, batch {batch or 1}, cycles of {machine.spec}, simulated"
    return source, accelerator_costs(layers, machine.build())
