"""elision timeline."""

from pathlib import Path
from typing import TYPE_CHECKING

from elision.cli.flags import Names, Specs

if TYPE_CHECKING:
    from elision.products import Geometry, LayerProduct

    Layers = list[tuple[str, Geometry]]

__all__ = ["timeline"]


def timeline(
    *,
    trace: Path | None = None,
    model: str = "resnet18",
    topology: Path | None = None,
    onnx: Path | None = None,
    dim: Names = (),
    input: int | None = None,
    batch: int | None = None,
    sparsity: float = 0.9,
    seed: int = 0,
    layer: Names = (),
    accelerator: Specs = ("systolic", "intergrad"),
    folds: int = 16,
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
        Network by name, if no file is given.
    topology
        SCALE-Sim topology file.
    onnx
        ONNX graph (needs the onnx extra).
    dim
        Sizes of the dimensions that the ONNX graph leaves open: NAME=SIZE.
    input
        Height and width of a model's images; default: 32.
    batch
        Images of a model; default: 1.
    sparsity
        Fraction of zeros of random operands, for machines that skip zeros.
    seed
        Of the random operands.
    layer
        Layers by name; default: all.
    accelerator
        NAME or NAME:parameter=value,...
    folds
        Folds of a product that are drawn singly; the rest is one block.
    out
        File to write: .json or .json.gz for a Chrome trace, .svg for a picture.
    """
    from elision.accelerators import ACCELERATORS
    from elision.accelerators.design.schedule import schedule
    from elision.cli.sources import layers_by_network
    from elision.common.files import write_text
    from elision.common.names import lookup
    from elision.common.specs import build
    from elision.report.table import rows_as_text
    from elision.report.timeline import save_chrome_trace, timeline_svg

    kinds = (".json", ".json.gz", ".svg")
    if not out.name.endswith(kinds):
        raise ValueError(f"{out}: the name must end in one of {', '.join(kinds)}")
    machines = {spec: build("accelerator", spec, ACCELERATORS) for spec in accelerator}
    if trace is not None:
        products = _last_step(trace)
    else:
        topologies, graphs = ([path] if path else [] for path in (topology, onnx))
        models = () if topology or onnx else (model,)
        networks = layers_by_network(models, topologies, graphs, input, batch, dim)
        if len(networks) > 1:
            raise ValueError("a timeline is of one network: give --topology or --onnx")
        (layers,) = networks.values()
        blind = all(machine.value_blind for machine in machines.values())
        products = _products(layers, None if blind else sparsity, seed)
    known = dict.fromkeys(product.name for product in products)
    for name in layer:
        lookup("layer", name, known)
    chosen = [p for p in products if not layer or p.name in layer]
    schedules = {
        spec: schedule(machine, chosen, folds) for spec, machine in machines.items()
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
    print(f"{rows_as_text(rows)}\n\ntimeline: {out}")


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
    layers: "Layers", sparsity: float | None, seed: int
) -> "list[LayerProduct]":
    """The products of a step, with random operands unless ``sparsity`` is None.

    The first layer needs no input gradient.
    """
    from elision.accelerators.step import blind_products
    from elision.products import Product, synthetic_products

    if sparsity is None:
        return blind_products(layers)
    products = list(synthetic_products(layers, sparsity, seed))
    first = next(p for p in products if p.kind is Product.INPUT_GRAD)
    return [product for product in products if product is not first]
