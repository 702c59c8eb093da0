"""elision simulate."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
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
    """The printed rows: those of every product and their sum, or the sums alone.

    A quantity has one unit in the whole table. A column that no machine fills is left
    out, and so is a total of energy that only some have: it would compare unequal things.
    Cycles are also shown over those of the dense array, where one was asked for.
    """
    from elision.accelerators.design.rows import ALL, by_product
    from elision.accelerators.step import GRADIENT_PAIR
    from elision.common.units import common_unit
    from elision.products import Product

    rows = [row for one in found for row in by_product(one)]
    dense = {_place(row): row for row in rows[::-1] if row["accelerator"] == "dense"}
    products = [*(product.value for product in Product), ALL]
    paired = {row["machine"] for row in rows if row["product"] == GRADIENT_PAIR}
    whole_products = {
        row["machine"]: ("forward", ALL) if row["machine"] in paired else products
        for row in rows
    }
    if not by_products:
        rows = [row for row in rows if row["product"] == ALL]
    shown = [name for name in _SHOWN if any(row[name] for row in rows)]
    if not all(row["energy_pj"] for row in rows):
        shown = [name for name in shown if name != "energy_pj"]
    units: dict[str, tuple[str, float]] = {}
    for names, unit, scale in _TOGETHER:
        values = [float(row[name]) for row in rows for name in names if row[name]]
        small = not unit and max(values, default=0) < _SMALL
        # Of the median: the largest would write the smallest as 0.002.
        middle = [median(values)] if values else []
        common = ("", 1.0) if small else common_unit(middle, unit, scale)
        units |= dict.fromkeys(names, common)
    table: list[dict[str, str]] = []
    for row in rows:
        cells = {
            "network": row["network"],
            "zeros": _zeros(row),
            "machine": row["machine"],
            "product": row["product"],
        }
        for name in shown:
            unit, factor = units.get(name, ("", 1.0))
            heading = f"{_SHOWN[name]}, {unit}" if unit else _SHOWN[name]
            cells[heading] = _cell(name, row[name], factor)
            if name == "cycles" and dense:
                # Gradients that are partly interleaved are no product of the dense array's.
                whole = row["product"] in whole_products[row["machine"]]
                cells["over dense"] = _over_dense(row, dense) if whole else ""
        table.append(cells)
    return table


def _cell(name: str, text: str, factor: float) -> str:
    """A quantity in the unit of its column, in four digits where it is no count."""
    if not text:
        return ""
    if name == "utilisation":
        return f"{100 * float(text):.1f} %"
    if factor == 1:
        return f"{int(float(text)):,}"
    value = float(text) * factor
    return f"{value:,.4g}" if value < _FOUR_DIGITS else f"{value:,.0f}"


def _place(row: "Row") -> tuple[str, ...]:
    """What a row of the dense array is compared by."""
    from elision.accelerators.design.rows import SPARSITIES

    shares = (row[name] for name in SPARSITIES)
    return (row["network"], *shares, row["multiplier_count"], row["product"])


def _over_dense(row: "Row", dense: "dict[tuple[str, ...], Row]") -> str:
    """Cycles over those of the dense array with as many multipliers, else of the first."""
    sizes = (row["multiplier_count"], *(d["multiplier_count"] for d in dense.values()))
    for size in sizes:
        base = dense.get(_place(row | {"multiplier_count": size}))
        if base is not None and int(base["cycles"]):
            return f"{int(row['cycles']) / int(base['cycles']):.3g}x"
    return ""


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


#: Quantities of a cost in the printed table, and their headings.
_SHOWN = {
    "cycles": "cycles",
    "stall_cycles": "stalls",
    "multiplies": "multiplies",
    "redundant_multiplies": "redundant",
    "multiplier_count": "multipliers",
    "utilisation": "multiplier use",
    "energy_on_chip_pj": "energy on chip",
    "energy_dram_pj": "DRAM",
    "energy_pj": "energy in all",
}

#: Quantities that have one unit: their names, the unit and its scale.
_TOGETHER = (
    (("cycles", "stall_cycles"), "", 1.0),
    (("multiplies", "redundant_multiplies"), "", 1.0),
    (("energy_on_chip_pj", "energy_dram_pj", "energy_pj"), "J", 1e-12),
)

#: Counts below a million are written out.
_SMALL = 10**6

#: Numbers from here on have no decimals.
_FOUR_DIGITS = 10**4
