"""elision size."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elision.cli.flags import Files, Integer, Names, Specs
from elision.cli.sources import DEFAULT_MODEL, layers_by_network

if TYPE_CHECKING:
    from elision.accelerators.design.sizing import ArrayShape, BufferSizing
    from elision.accelerators.systolic.array import SystolicArray

__all__ = ["size"]


def size(
    *,
    model: Names = (),
    topology: Files = (),
    onnx: Files = (),
    dim: Names = (),
    input: Integer | None = None,
    batch: Integer | None = None,
    accelerator: Specs = ("systolic", "intergrad"),
    energy: Specs = (),
    first_input_grad: bool = False,
    bandwidth: float | None = None,
    tolerance: float = 0.0,
    out: Path | None = None,
) -> None:
    """Size a systolic array: smallest buffers without stalls, best shape of the array.

    A whole training step counts: forward products and both gradients of every layer,
    without the input gradient of the first.

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
    accelerator
        systolic, systolic-mixed or intergrad; NAME or NAME:parameter=value,...
    energy
        Energy tables: names, or TOML files such as `elision data energy` prints.
    first_input_grad
        Count an input gradient of the first layer, too.
    bandwidth
        32-bit words that the DRAM moves per cycle; default: the accelerator's.
    tolerance
        Accepted stalls beyond the unavoidable ones, as a share of the cycles.
    out
        Folder for the tables, and a figure of the shapes of each network.
    """
    from elision.accelerators.design.sizing import array_shapes, smallest_buffers
    from elision.accelerators.step import FIRST_INPUT_GRAD
    from elision.report.table import rows_as_text

    arrays = _arrays(accelerator, energy)
    if not (model or topology or onnx):
        model = (DEFAULT_MODEL,)
    networks = layers_by_network(model, topology, onnx, input, batch, dim)
    buffers, best, shapes = [], [], {}
    for network, layers in networks.items():
        for spec, array in arrays.items():
            where = {"network": network, "array": spec}
            found = smallest_buffers(
                array, layers, bandwidth, tolerance, first_input_grad
            )
            buffers.append(where | _buffers_row(found))
            drawn = shapes[network, spec] = array_shapes(
                array, layers, first_input_grad
            )
            best.append(where | _shapes_row(drawn, array))
    if out is not None:
        sized = {name: f" of batch {batch or 1}" for name in model}
        _write(out, buffers, shapes, sized)
    print(f"Smallest buffers of a training step\n\n{rows_as_text(buffers)}")
    print(f"\nShapes of equal PE count\n\n{rows_as_text(best)}")
    print(f"\nTraining steps {FIRST_INPUT_GRAD[first_input_grad]}.")
    if out is not None:
        print(f"\ntables and figures: {out}")


def _arrays(
    specs: Iterable[str], energy: tuple[str, ...]
) -> "dict[str, SystolicArray]":
    from elision.accelerators import ACCELERATORS
    from elision.accelerators.design.grid import machines
    from elision.accelerators.systolic.array import SystolicArray

    found = {}
    for machine in machines(specs, {"energy": energy} if energy else {}):
        spec, array = machine.spec, machine.build()
        if not isinstance(array, SystolicArray):
            sized = (
                n for n, kind in ACCELERATORS.items() if issubclass(kind, SystolicArray)
            )
            raise ValueError(
                f"{spec!r} has no array to size; known: {', '.join(sized)}"
            )
        if not array.value_blind:
            raise ValueError(f"{spec!r}: sizing has no operands, so it gates no zeros")
        found[spec] = array
    return found


def _buffers_row(found: "BufferSizing") -> dict[str, Any]:
    sizes = found.buffers.sizes_kib
    return {
        **{f"{name} KiB": round(kib) for name, kib in sizes.items()},
        "words per cycle": found.buffers.dram_words_per_cycle,
        "cycles": found.cycles,
        "stall cycles": found.stall_cycles,
        "unavoidable": found.unavoidable_stall_cycles,
    }


def _shapes_row(shapes: "list[ArrayShape]", array: "SystolicArray") -> dict[str, Any]:
    own = next(shape for shape in shapes if shape.rows == array.rows)
    fast = min(shapes, key=lambda shape: shape.cycles)
    frugal = min(shapes, key=lambda shape: shape.energy_pj)
    return {
        "as given": f"{own.rows}x{own.columns}",
        "fewest cycles": f"{fast.rows}x{fast.columns}",
        "of those as given": f"{100 * fast.cycles / own.cycles:.1f} %",
        "least energy": f"{frugal.rows}x{frugal.columns}",
        "of that as given": f"{100 * frugal.energy_pj / own.energy_pj:.1f} %",
    }


def _write(
    folder: Path,
    buffers: list[dict[str, Any]],
    shapes: "dict[tuple[str, str], list[ArrayShape]]",
    batches: dict[str, str],
) -> None:
    """Both tables, with every shape, and a figure for each network and PE count.

    ``batches`` says the batch of the networks that a file does not fix.
    """
    from dataclasses import asdict

    from elision.common.files import to_csv, write_text
    from elision.report.array_shapes import array_shapes_svg
    from elision.study.config import file_name

    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"network": network, "array": spec, **asdict(shape)}
        for (network, spec), drawn in shapes.items()
        for shape in drawn
    ]
    write_text(folder / "buffers.csv", to_csv(buffers))
    write_text(folder / "shapes.csv", to_csv(rows))
    figures: dict[tuple[str, int], dict[str, list[ArrayShape]]] = {}
    for (network, spec), drawn in shapes.items():
        pes = drawn[0].rows * drawn[0].columns
        figures.setdefault((network, pes), {})[spec] = drawn
    for (network, pes), drawn in figures.items():
        title = f"{network}, {pes:,} PEs, one training step{batches.get(network, '')}"
        path = folder / f"shapes-{file_name(network)}-{pes}.svg"
        write_text(path, array_shapes_svg(drawn, title))
