"""elision map."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from elision.cli.flags import Files, Integer, Names
from elision.cli.sources import DEFAULT_MODEL, layers_by_network

if TYPE_CHECKING:
    from elision.accelerators.base import Cost
    from elision.accelerators.spatial.array import SpatialArray
    from elision.accelerators.spatial.search import Found
    from elision.products import Geometry

    Layers = list[tuple[str, Geometry]]

__all__ = ["map"]

#: What each product writes; a nest has one name for an output and its gradient.
_WRITTEN = {
    "forward": "output",
    "input_grad": "input's gradient",
    "weight_grad": "weight's gradient",
}


def map(
    *,
    model: Names = (),
    topology: Files = (),
    onnx: Files = (),
    dim: Names = (),
    input: Integer | None = None,
    batch: Integer | None = None,
    array: str | None = None,
    keep: str = "weight",
    form: str = "lowered",
    folds: str = "pipelined",
    buffers: str | None = None,
    energy: str | None = None,
    layer: str | None = None,
    first_input_grad: bool = False,
    search: bool = False,
    objective: str = "energy",
    pes: Integer | None = None,
    sram: float | None = None,
    bandwidth: float | None = None,
    schedule: Path | None = None,
    sizes: str | None = None,
    verify: bool = False,
    code: str | None = None,
    run: bool = False,
    threads: Integer = 1,
    clock_mhz: float | None = None,
    out: Path | None = None,
) -> None:
    """Map a network's products onto a spatial array: cycles, PEs, links, ports, energy.

    A loop nest and a space-time map give the array; the three products of a layer are one
    nest. With --search, all systolic maps of one layer are tried with every shape of an
    array of --pes elements and several sizes of its buffers. With --schedule, a listing
    says the array, its feeders and loaders; it can be proved, made into code, and run.

    Parameters
    ----------
    model
        Networks by name; default: resnet18, if no file is given.
    topology
        SCALE-Sim topology files.
    onnx
        ONNX graphs (needs the onnx extra).
    dim
        Sizes that ONNX graphs and topology files leave open: NAME=SIZE.
    input
        Height and width of a model's images; default: 32.
    batch
        Images of a model; default: 1.
    array
        Rows and columns of the array; default: 32x32, or what a schedule unrolls.
    keep
        What stays in the elements: input, weight, grad_output, or output, the result of
        each product.
    form
        lowered (matrix products of the unfolded image) or direct (the convolution's loops).
    folds
        pipelined, overlapped, drained, or none to refuse what is larger than the array.
    buffers
        SRAMs in KiB and DRAM words per cycle, INPUT/WEIGHT/OUTPUT@WORDS.
    energy
        Energy table: a name, or a TOML file such as `elision data energy` prints.
    layer
        The layer whose links are shown and that is searched; default: the one with the
        most work.
    first_input_grad
        Count an input gradient of the first layer, too.
    search
        Search for the array of one layer.
    objective
        What a search minimises: energy, cycles or edp, their product.
    pes
        Elements of a searched array; default: 1024.
    sram
        Limit of a searched array's buffers together, in KiB; default: 6144.
    bandwidth
        32-bit words that a searched array's DRAM moves per cycle; default: 16.
    schedule
        Listing in the form of T2S: a file, or gemm.t2s, gemm-two-level.t2s, gemm-a10.t2s
        or conv.t2s. With --model, each layer's forward product by it.
    sizes
        Sizes of the listing: numbers in its order, or NAME=NUMBER,...
    verify
        Prove that the mapped program computes the recurrence (needs the verify extra).
    code
        Print the mapped program as cpp or python; with --out, write it.
    run
        Run that code here, beside torch.
    threads
        Threads of a run.
    clock_mhz
        Clock at which a schedule's seconds and GFLOP/s are given.
    out
        Folder for the tables, the figure and the code.
    """
    if schedule is not None:
        if search:
            raise ValueError("--search would be ignored: a schedule says the map")
        from elision.cli.listing import ListingJob

        at_hand = None if array is None else _sides(array)
        job = ListingJob(
            schedule, sizes, at_hand, verify, run, code, clock_mhz, threads, out
        )
        if not (model or topology or onnx):
            job.show()
            return
        job.check_for_network()
        networks = layers_by_network(model, topology, onnx, input, batch, dim)
        for network, layers in networks.items():
            job.show_network(network, layers)
        return
    only_scheduled = {
        "--sizes": sizes,
        "--verify": verify or None,
        "--code": code,
        "--run": run or None,
        "--clock-mhz": clock_mhz,
    }
    for flag, value in only_scheduled.items():
        if value is not None:
            given = flag if value is True else f"{flag} {value}"
            raise ValueError(f"{given} would be ignored: it is of --schedule")
    only_searched = {"--pes": pes, "--sram": sram, "--bandwidth": bandwidth}
    if not (model or topology or onnx):
        model = (DEFAULT_MODEL,)
    networks = layers_by_network(model, topology, onnx, input, batch, dim)
    if search:
        if buffers is not None:
            raise ValueError(
                f"--buffers {buffers}: a search sizes them; limit them by --sram"
            )
        limits = {
            "pes": 1024 if pes is None else pes,
            "sram_kib": sram,
            "objective": objective,
            "folds": folds,
        }
        limits |= {} if bandwidth is None else {"bandwidth": bandwidth}
        limits |= {} if energy is None else {"energy": energy}
        for network, layers in networks.items():
            name, geometry = _chosen(network, layers, layer)
            _search(f"{network}, {name}", geometry, limits, out)
        return
    for flag, value in only_searched.items():
        if value is not None:
            raise ValueError(
                f"{flag} {value} would be ignored: it is a limit of --search"
            )
    rows, columns = _sides(array or "32x32")
    machine = _array(rows, columns, keep, form, folds, buffers, energy)
    for network, layers in networks.items():
        name, geometry = _chosen(network, layers, layer)
        _show(network, layers, name, geometry, machine, first_input_grad, out)


def _sides(text: str) -> tuple[int, int]:
    rows, x, columns = text.partition("x")
    if not (x and rows.isdecimal() and columns.isdecimal()):
        raise ValueError(f"--array {text}: write ROWSxCOLUMNS, such as 32x32")
    return int(rows), int(columns)


def _array(
    rows: int,
    columns: int,
    keep: str,
    form: str,
    folds: str,
    buffers: str | None,
    energy: str | None,
) -> "SpatialArray":
    from elision.accelerators.energy import energy_table
    from elision.accelerators.spatial.array import SpatialArray

    more: dict[str, Any] = {} if energy is None else {"energy": energy}
    machine = SpatialArray(
        rows=rows,
        columns=columns,
        keep=keep,
        form=form,
        folds=folds,
        buffers=buffers,
        **more,
    )
    energy_table(machine.energy)
    return machine


def _chosen(network: str, layers: "Layers", name: str | None) -> "tuple[str, Geometry]":
    """The layer of a name, or the one with the most work."""
    from elision.common.names import lookup

    if name is None:
        return max(layers, key=lambda layer: layer[1].dense_macs)
    return name, lookup(f"layer of {network}", name, dict(layers))


def _show(
    network: str,
    layers: "Layers",
    name: str,
    geometry: "Geometry",
    machine: "SpatialArray",
    first_input_grad: bool,
    out: Path | None,
) -> None:
    """Both tables of a network on an array, and its figure."""
    from elision.accelerators.step import FIRST_INPUT_GRAD, blind_products
    from elision.common.printable import printable
    from elision.products import LayerProduct, Product
    from elision.report.table import rows_as_text

    totals: dict[str, Cost] = {}
    by_layer = []
    for product in blind_products(layers, first_input_grad):
        cost = machine.cost(product)
        kind = product.kind.value
        totals[kind] = totals[kind] + cost if kind in totals else cost
        by_layer.append(
            {"layer": product.name, "product": kind} | _figures(machine, cost)
        )
    whole: Any = sum(totals.values())
    ordered = {p.value: totals[p.value] for p in Product if p.value in totals}
    table = [
        {"product": kind} | _figures(machine, cost)
        for kind, cost in {**ordered, "step": whole}.items()
    ]
    links = []
    for kind in Product:
        nest, _ = machine.nest_of(machine.seen(LayerProduct(kind, geometry)))
        for row in machine.describe(nest):
            links.append(
                {
                    "product": kind.value,
                    "tensor": f"{_WRITTEN[kind.value]} (written)"
                    if row.tensor == nest.output
                    else row.tensor,
                    "way": row.kind,
                    "hop": " ".join(f"{step:+d}" for step in row.hop) or "-",
                    "registers": row.registers,
                    "kept words": row.stored,
                    "ports": row.ports,
                    "words": row.words,
                }
            )
    nest, _ = machine.nest_of(machine.seen(LayerProduct(Product.FORWARD, geometry)))
    output = _WRITTEN[Product.FORWARD.value]
    flow = machine.dataflow(nest).replace(nest.output, output)
    size = f"{machine.rows}x{machine.columns}"
    print(f"{network} on {size} PEs, folds {machine.folds}, simulated\n")
    print(rows_as_text(_shown(table)))
    kib = "/".join(f"{size:g}" for size in machine.memory.sizes_kib.values())
    print(f"\nBuffers of input/weight/output: {kib} KiB, both halves of each.")
    print(f"Training steps {FIRST_INPUT_GRAD[first_input_grad]}.")
    print(f"\nLinks of {printable(name)} ({geometry.description}); forward: {flow}\n")
    print(rows_as_text(links))
    if out is None:
        return
    from elision.common.files import to_csv, write_text
    from elision.report.spatial_figure import array_svg
    from elision.study.config import file_name

    out.mkdir(parents=True, exist_ok=True)
    stem = file_name(network)
    folding = machine.folding_of(nest)
    title = f"{name}, forward: {flow.split(' (')[0]}"
    drawn = array_svg(
        nest.resized(folding.tile),
        folding.map,
        title,
        written=output,
    )
    write_text(out / f"{stem}.csv", to_csv(table))
    write_text(out / f"{stem}-layers.csv", to_csv(by_layer))
    write_text(out / f"{stem}-links.csv", to_csv(links))
    write_text(out / f"{stem}-array.svg", drawn)
    print(f"\ntables and figure: {out}")


def _figures(machine: "SpatialArray", cost: "Cost") -> dict[str, Any]:
    """One row of figures of a cost."""
    srams = sum(words for name, words in cost.accesses.items() if "_sram." in name)
    drams = sum(
        words for name, words in cost.accesses.items() if name.startswith("dram.")
    )
    return {
        "cycles": cost.cycles,
        "stall cycles": int(cost.stall_cycles or 0),
        "PEs": machine.multiplier_count,
        "in use": f"{100 * cost.utilisation:.1f} %",
        "folds": int(cost.details["folds"]),
        "SRAM words": srams,
        "DRAM words": drams,
        "energy_pj": cost.energy_pj,
    }


def _shown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows as they are printed, their energies in one unit."""
    from elision.common.units import common_unit

    energies = [row["energy_pj"] for row in rows]
    unit, scale = common_unit(energies, "J", 1e-12)
    return [
        {name: value for name, value in row.items() if name != "energy_pj"}
        | {f"energy, {unit}": f"{row['energy_pj'] * scale:,.4g}"}
        for row in rows
    ]


def _search(
    what: str, geometry: "Geometry", limits: dict[str, Any], out: Path | None
) -> None:
    """The front of a search as a table, and as a figure."""
    from elision.accelerators.spatial.search import pareto, search
    from elision.report.table import rows_as_text

    found = search(geometry, **limits)
    front = pareto(found)
    rows = [_found(each) for each in front]
    print(
        f"{what} ({geometry.description}): {len(found):,} arrays of {limits['pes']:,} PEs, "
        "three products, simulated\n"
    )
    print(f"Pareto front of cycles and energy\n\n{rows_as_text(_shown(rows))}")
    best = rows_as_text(_shown([_found(found[0])]))
    print(f"\nBest by {limits['objective']}\n\n{best}")
    if out is None:
        return
    from elision.common.files import to_csv, write_text
    from elision.report.spatial_figure import search_svg
    from elision.study.config import file_name

    out.mkdir(parents=True, exist_ok=True)
    stem = file_name(what.replace(", ", "-"))
    write_text(out / f"{stem}-front.csv", to_csv(rows))
    write_text(out / f"{stem}-all.csv", to_csv([_found(each) for each in found]))
    write_text(out / f"{stem}-search.svg", search_svg(found, front, what))
    print(f"\ntables and figure: {out}")


def _found(each: "Found") -> dict[str, Any]:
    """One row of a candidate."""
    sizes = each.array.memory.sizes_kib
    map = each.array.map
    return {
        "array": f"{each.array.rows}x{each.array.columns}",
        "sides": " x ".join(str(side) for side in map.space) if map else "lowered",
        "dataflow, forward": each.dataflow.split(" (")[0],
        "buffers KiB": "/".join(f"{size:g}" for size in sizes.values()),
        "cycles": each.cycles,
        "in use": f"{100 * each.cost.utilisation:.1f} %",
        "energy_pj": each.energy_pj,
    }
