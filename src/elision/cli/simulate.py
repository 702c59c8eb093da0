"""elision simulate."""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from elision.cli.flags import Files, Integers, Names, Shares, Specs
from elision.cli.progress import Bar
from elision.cli.running import cluster
from elision.cli.sources import DEFAULT_MODEL, layers_by_network

if TYPE_CHECKING:
    from elision.accelerators.design.sweep import Machine, Recorded

__all__ = ["simulate"]


def simulate(
    *,
    trace: Files = (),
    model: Names = (),
    topology: Files = (),
    onnx: Files = (),
    dim: Names = (),
    input: int | None = None,
    batch: int | None = None,
    sparsity: Shares = (0.9,),
    accelerator: Specs = ("dense", "scnn", "ant"),
    multipliers: Annotated[Integers, Parameter(name=["--multipliers", "--n"])] = (),
    window: Annotated[Integers, Parameter(name=["--window", "--k"])] = (),
    startup_cycles: Integers = (),
    elements: Integers = (),
    seed: int = 0,
    workers: int | None = None,
    ray: str | None = None,
    out: Path | None = None,
) -> None:
    """Cost of traces, or of networks with random sparse operands, on accelerators.

    Lists are swept: every network at every sparsity on every machine with every value
    of the parameters that it has.

    Parameters
    ----------
    trace
        Trace files of recorded runs, with their own operands.
    model
        Networks by name; default: resnet18, if no file is given.
    topology
        SCALE-Sim topology files.
    onnx
        ONNX graphs (needs the onnx extra).
    dim
        Sizes of the dimensions that ONNX graphs leave open: NAME=SIZE.
    input
        Height and width of a model's images; default: 32.
    batch
        Images of a model; default: 1.
    sparsity
        Fractions of zeros of every random operand.
    accelerator
        NAME or NAME:parameter=value,...
    multipliers
        Sides of the multiplier array, n.
    window
        Column indices that ANT compares per cycle, k.
    startup_cycles
        Cycles before the first product of a pair of planes.
    elements
        Numbers of processing elements.
    seed
        Of the random operands.
    workers
        Processes; default: one for a single network, else one a processor.
    ray
        Address of a Ray cluster that does the work (needs the ray extra); "local"
        starts one here.
    out
        CSV file for the rows. Rows already in it are not counted again: the same
        command continues an interrupted sweep.
    """
    from elision.accelerators.design.sweep import machines, read_rows, sweep
    from elision.report.table import rows_as_text

    if not (trace or model or topology or onnx):
        model = (DEFAULT_MODEL,)
    sources = {
        **_recorded(trace),
        **layers_by_network(model, topology, onnx, input, batch, dim),
    }
    given = {
        "multipliers": multipliers,
        "window": window,
        "startup_cycles": startup_cycles,
        "elements": elements,
    }
    chosen = machines(accelerator, {name: v for name, v in given.items() if v})
    single = len(sources) * len(sparsity) == 1
    with TemporaryDirectory() as scratch, cluster(ray) as executor, Bar() as bar:
        path = sweep(
            sources,
            sparsity,
            chosen,
            out or Path(scratch) / "sweep.csv",
            seed=seed,
            workers=workers or getattr(executor, "workers", 1 if single else None),
            executor=executor,
            progress=lambda done, of: bar.step("simulate", done, of),
        )
        rows = read_rows(path)
    shown = _ordered(rows, list(sources), [str(s) for s in sparsity], chosen, str(seed))
    print(
        rows_as_text([_cells(row, m) for row, m in shown if single or _is_total(row)])
    )
    if out is not None:
        print(f"\nrows: {out}")


def _recorded(traces: Iterable[Path]) -> "dict[str, Recorded]":
    """Traces by file and recipe; a trace of several recipes is a source for each."""
    from elision.accelerators.design.sweep import Recorded
    from elision.products import Trace

    found = {}
    for path in traces:
        recipes = Trace.load(path).recipes
        if not recipes:
            raise ValueError(f"{path}: the trace holds no product")
        for recipe in recipes:
            name = f"{path.stem}/{recipe}" if recipe else path.stem
            if name in found:
                raise ValueError(f"two traces are called {name!r}; rename a file")
            found[name] = Recorded(str(path.resolve()), recipe)
    return found


def _is_total(row: dict[str, str]) -> bool:
    return row["product"] == "all"


def _ordered(
    rows: list[dict[str, str]],
    networks: list[str],
    sparsities: list[str],
    chosen: "list[Machine]",
    seed: str,
) -> "list[tuple[dict[str, str], Machine]]":
    """Rows of this command in the order of its flags; the file may hold others."""
    order = {(m.name, m.parameters_json): (i, m) for i, m in enumerate(chosen)}
    found = []
    for row in rows:
        machine = order.get((row["accelerator"], row["parameters"]))
        recorded = row["sparsity"] == ""
        if machine is None or row["network"] not in networks:
            continue
        if not recorded and (row["sparsity"] not in sparsities or row["seed"] != seed):
            continue
        step = 0 if recorded else sparsities.index(row["sparsity"])
        key = (networks.index(row["network"]), step, machine[0])
        found.append((key, row, machine[1]))
    found.sort(key=lambda entry: entry[0])
    return [(row, machine) for _, row, machine in found]


def _cells(row: dict[str, str], machine: "Machine") -> dict[str, str]:
    from elision.accelerators.design.sweep import as_cells

    return {
        "network": row["network"],
        "zeros": f"{100 * float(row['sparsity']):g} %"
        if row["sparsity"]
        else "recorded",
        "machine": machine.spec,
        "product": row["product"],
        **as_cells(row, _SHOWN),
    }


#: Quantities of a cost in the printed table.
_SHOWN = (
    "cycles",
    "stall_cycles",
    "multiplies",
    "redundant_multiplies",
    "utilisation",
    "energy_pj",
)
