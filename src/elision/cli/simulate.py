"""elision simulate."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from elision.cli.flags import Files, Integer, Integers, Names, Specs
from elision.cli.progress import Bar
from elision.cli.running import cluster
from elision.cli.sources import (
    DEFAULT_MODEL,
    layers_by_network,
    recorded_fixes,
    sparsities_of,
)

if TYPE_CHECKING:
    from elision.accelerators.design.rows import Row
    from elision.accelerators.design.sweep import Recorded

__all__ = ["simulate"]


def simulate(
    *,
    trace: Files = (),
    model: Names = (),
    topology: Files = (),
    onnx: Files = (),
    dim: Names = (),
    input: Integer | None = None,
    batch: Integer | None = None,
    sparsity: Names = (),
    accelerator: Specs = ("dense", "scnn", "ant"),
    multipliers: Annotated[Integers, Parameter(name=["--multipliers", "--n"])] = (),
    window: Annotated[Integers, Parameter(name=["--window", "--k"])] = (),
    startup_cycles: Integers = (),
    elements: Integers = (),
    energy: Specs = (),
    first_input_grad: bool | None = None,
    seed: Integer | None = None,
    workers: Integer | None = None,
    ray: str | None = None,
    out: Path | None = None,
    plot: Path | None = None,
) -> None:
    """Cost of traces, or of networks with random sparse operands, on accelerators.

    Lists are swept: every network at every sparsity on every machine with every value
    of the parameters that it has. A training step counts: forward products and both
    gradients of every layer, without the input gradient of the first.

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
        Sizes that ONNX graphs and topology files leave open: NAME=SIZE.
    input
        Height and width of a model's images; default: 32.
    batch
        Images of a model; default: 1.
    sparsity
        Fractions of zeros of the random operands; default: 0.9. A number is that of all
        three, input=0.5,weight=0.9,grad_output=0.7 one for each; one left out is dense.
    accelerator
        NAME or NAME:parameter=value,...
    multipliers
        Sides of the multiplier array of an element, n.
    window
        Column indices that ANT compares per cycle, k.
    startup_cycles
        Cycles before the first product of a pair of planes.
    elements
        Numbers of processing elements of n x n multipliers (n: 4). Machines without such
        elements get as many multipliers in all.
    energy
        Energy tables: names, or TOML files such as `elision data energy` prints.
    first_input_grad
        Count an input gradient of the first layer, too.
    seed
        Of the random operands; default: 0.
    workers
        Processes; default: one for a single network, else one a processor.
    ray
        Address of a Ray cluster that does the work (needs the ray extra); "local"
        starts one here.
    out
        File for the rows of every layer: JSON if its name ends in .json, else CSV. Rows
        in it are not counted again unless what they were counted from has changed: the
        same command continues an interrupted sweep.
    plot
        SVG file for a figure of the cycles over what is swept.
    """
    from elision.accelerators.design.sweep import machines, sweep, swept_rows
    from elision.accelerators.step import FIRST_INPUT_GRAD
    from elision.common.checks import integer, random_seed
    from elision.common.files import write_text
    from elision.report.sweep_figure import sweep_svg
    from elision.report.table import rows_as_text

    if workers is not None:
        integer("simulate", "workers", workers)
    if plot is not None and plot.suffix != ".svg":
        raise ValueError(f"{plot}: the name of a plot must end in .svg")
    drawn = bool(model or topology or onnx or not trace)
    if not drawn:
        recorded_fixes(
            sparsity=sparsity or None, seed=seed, first_input_grad=first_input_grad
        )
    if drawn and not (model or topology or onnx):
        model = (DEFAULT_MODEL,)
    sources = _named_once(
        _recorded(trace),
        layers_by_network(model, topology, onnx, input, batch, dim),
    )
    swept = {
        "multipliers": multipliers,
        "window": window,
        "startup_cycles": startup_cycles,
        "elements": elements,
        "energy": energy,
    }
    chosen = machines(accelerator, {name: v for name, v in swept.items() if v})
    work: dict[str, Any] = {
        "networks": sources,
        "sparsities": sparsities_of(sparsity or ("0.9",)),
        "chosen": chosen,
        "seed": random_seed("simulate", "seed", seed or 0),
        "first_input_grad": bool(first_input_grad),
    }
    single = len(sources) * len(work["sparsities"]) == 1
    with TemporaryDirectory() as scratch, cluster(ray) as executor, Bar() as bar:
        path = out or Path(scratch) / "sweep.csv"
        if workers is None:
            workers = getattr(executor, "workers", 1 if single else None)
        sweep(
            **work,
            out=path,
            workers=workers,
            executor=executor,
            progress=lambda done, of: bar.step("simulate", done, of),
        )
        found = swept_rows(**work, out=path)
    if plot is not None:
        plot.parent.mkdir(parents=True, exist_ok=True)
        write_text(plot, sweep_svg([row for rows in found for row in rows]))
    print(rows_as_text(_table(found, single)))
    notes = [f"Training steps {FIRST_INPUT_GRAD[bool(first_input_grad)]}."] * drawn
    notes += _energy_note(found)
    notes += dict.fromkeys(
        f"{rows[-1]['machine']}: {rows[-1]['notes']}"
        for rows in found
        if rows[-1]["notes"]
    )
    if notes:
        print("\n" + "\n".join(notes))
    if plot is not None:
        print(f"\nplot: {plot}")
    if out is not None:
        print(f"\nrows: {out}")


def _named_once(*sources: dict[str, Any]) -> dict[str, Any]:
    """All sources in one table.

    Raises:
        ValueError: two have one name.
    """
    found: dict[str, Any] = {}
    for several in sources:
        for name, source in several.items():
            if name in found:
                raise ValueError(
                    f"a trace and a network are called {name!r}; rename one"
                )
            found[name] = source
    return found


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


def _table(found: "Sequence[list[Row]]", by_products: bool) -> list[dict[str, str]]:
    """The printed rows: those of every product, or a machine's sums alone.

    A column that no machine fills is left out, and so is a total of energy that only
    some have: it would compare unequal things.
    """
    from elision.accelerators.design.rows import ALL, as_cells, by_product

    rows = [row for one in found for row in by_product(one)]
    if not by_products:
        rows = [row for row in rows if row["product"] == ALL]
    shown = [name for name in _SHOWN if any(row[name] for row in rows)]
    if not all(row["energy_pj"] for row in rows):
        shown = [name for name in shown if name != "energy_pj"]
    return [
        {
            "network": row["network"],
            "zeros": _zeros(row),
            "machine": row["machine"],
            "product": row["product"],
            **as_cells(row, shown),
        }
        for row in rows
    ]


def _zeros(row: "Row") -> str:
    from elision.accelerators.design.rows import SPARSITIES

    if row["sparsity"]:
        return f"{100 * float(row['sparsity']):g} %"
    shares = {name.removesuffix("_sparsity"): row[name] for name in SPARSITIES}
    if not any(shares.values()):
        return "recorded"
    return ", ".join(f"{n} {100 * float(share):g} %" for n, share in shares.items())


def _energy_note(found: "Sequence[list[Row]]") -> list[str]:
    """A line on the scopes of energy, where machines differ in them."""
    with_dram = {rows[-1]["accelerator"]: bool(rows[-1]["energy_pj"]) for rows in found}
    without = [name for name, has in with_dram.items() if not has]
    if not without or len(without) == len(with_dram):
        return []
    return [
        f"No total energy: no DRAM is modelled for {', '.join(without)}. Compare on chip."
    ]


#: Quantities of a cost in the printed table.
_SHOWN = (
    "cycles",
    "stall_cycles",
    "multiplies",
    "redundant_multiplies",
    "multiplier_count",
    "utilisation",
    "energy_on_chip_pj",
    "energy_dram_pj",
    "energy_pj",
)
