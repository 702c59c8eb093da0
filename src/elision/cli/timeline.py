"""elision timeline."""

from pathlib import Path
from typing import TYPE_CHECKING

from elision.cli.flags import Integer, Names, Specs
from elision.cli.sources import (
    DEFAULT_MODEL,
    layers_by_network,
    recorded_fixes,
    sparsities_of,
)

if TYPE_CHECKING:
    from elision.products import Geometry, LayerProduct

    Layers = list[tuple[str, Geometry]]

__all__ = ["timeline"]


def timeline(
    *,
    trace: Path | None = None,
    model: str | None = None,
    topology: Path | None = None,
    onnx: Path | None = None,
    dim: Names = (),
    input: Integer | None = None,
    batch: Integer | None = None,
    sparsity: str | None = None,
    first_input_grad: bool | None = None,
    seed: Integer | None = None,
    layer: Names = (),
    accelerator: Specs = ("systolic", "intergrad"),
    folds: Integer = 16,
    out: Path = Path("runs/timeline.json.gz"),
) -> None:
    """Lay a training step out in time: the busy intervals of each port of a machine.

    A Chrome trace opens in ui.perfetto.dev: a process per machine, a track per port, one
    cycle written as one microsecond. Systolic arrays are drawn fold by fold, any other
    machine product by product.

    Parameters
    ----------
    trace
        Trace file of a recorded run: the last step of its first recipe.
    model
        Network by name; default: resnet18, if no file is given.
    topology
        SCALE-Sim topology file.
    onnx
        ONNX graph (needs the onnx extra).
    dim
        Sizes that the ONNX graph or topology file leaves open: NAME=SIZE.
    input
        Height and width of a model's images; default: 32.
    batch
        Images of a model; default: 1.
    sparsity
        Fraction of zeros of random operands, for machines that skip zeros; default: 0.9.
        A number is that of all three, input=0.5,weight=0.9,grad_output=0.7 one for each.
    first_input_grad
        Show an input gradient of the first layer, too.
    seed
        Of the random operands; default: 0.
    layer
        Layers by name; default: all.
    accelerator
        NAME or NAME:parameter=value,...
    folds
        Folds of a product that are drawn singly; the rest is one block.
    out
        File to write: .json or .json.gz for a Chrome trace, .svg for a picture.
    """
    from elision.accelerators.design.grid import machines
    from elision.accelerators.design.schedule import schedule
    from elision.accelerators.step import FIRST_INPUT_GRAD
    from elision.common.checks import random_seed
    from elision.common.files import write_text
    from elision.common.names import lookup
    from elision.report.table import rows_as_text
    from elision.report.timeline import save_chrome_trace, timeline_svg

    kinds = (".json", ".json.gz", ".svg")
    if not out.name.endswith(kinds):
        raise ValueError(f"{out}: the name must end in one of {', '.join(kinds)}")
    arrays = {machine.spec: machine.build() for machine in machines(accelerator)}
    given = {"trace": trace, "model": model, "topology": topology, "onnx": onnx}
    named = [f"--{name}" for name, source in given.items() if source is not None]
    if len(named) > 1:
        raise ValueError(f"a timeline is of one source: give one of {', '.join(named)}")
    if trace is not None:
        recorded_fixes(
            dim=dim or None,
            input=input,
            batch=batch,
            sparsity=sparsity,
            first_input_grad=first_input_grad,
            seed=seed,
        )
        products = _last_step(trace)
    else:
        topologies, graphs = ([path] if path else [] for path in (topology, onnx))
        models = () if topology or onnx else (model or DEFAULT_MODEL,)
        networks = layers_by_network(models, topologies, graphs, input, batch, dim)
        (layers,) = networks.values()
        (share,) = sparsities_of([sparsity or "0.9"])
        number = random_seed("timeline", "seed", seed or 0)
        blind = all(array.value_blind for array in arrays.values())
        products = _products(layers, share, number, bool(first_input_grad), blind)
    known = dict.fromkeys(product.name for product in products)
    for name in layer:
        lookup("layer", name, known)
    chosen = [p for p in products if not layer or p.name in layer]
    schedules = {
        spec: schedule(machine, chosen, folds) for spec, machine in arrays.items()
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".svg":
        write_text(out, timeline_svg(schedules))
    else:
        save_chrome_trace(schedules, out)
    rows = [
        {
            "machine": spec,
            "products": sum(piece.track == "product" for piece in slices),
            "cycles": max(s.end for s in slices if s.track == "product"),
            "slices": len(slices),
        }
        for spec, slices in schedules.items()
    ]
    print(rows_as_text(rows))
    if trace is None:
        print(f"\nA training step {FIRST_INPUT_GRAD[bool(first_input_grad)]}.")
    print(f"\ntimeline: {out}")


def _last_step(path: Path) -> "list[LayerProduct]":
    """The products of the last step of a trace's first recipe."""
    from elision.products import Trace

    found = Trace.load(path)
    if not len(found):
        raise ValueError(f"{path}: the trace holds no product")
    products = list(found.of_recipe(found.recipes[0]).multiplied())
    last = max(product.step for product in products)
    return [product for product in products if product.step == last]


def _products(
    layers: "Layers",
    sparsity: "float | dict[str, float]",
    seed: int,
    first_input_grad: bool,
    blind: bool,
) -> "list[LayerProduct]":
    """The products of a step; with random operands unless all machines are ``blind``."""
    from elision.accelerators.design.sweep import shares_by_operand
    from elision.accelerators.step import blind_products, training_products
    from elision.products import synthetic_products

    shares = shares_by_operand(sparsity)
    if blind:
        return blind_products(layers, first_input_grad)
    drawn = synthetic_products(layers, shares, seed)
    return list(training_products(drawn, first_input_grad))
