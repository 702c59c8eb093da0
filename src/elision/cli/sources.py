"""Layers and data for a command: models by name, topology files, ONNX graphs, data sets."""

import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elision.products import Geometry
    from elision.workloads import Workload

    Layers = list[tuple[str, Geometry]]

__all__ = [
    "DEFAULT_MODEL",
    "dataset_or_random",
    "layers_by_network",
    "recorded_fixes",
    "sparsities_of",
]

#: Model of the commands that are given no layers.
DEFAULT_MODEL = "resnet18"


def layers_by_network(
    models: Iterable[str],
    topologies: Iterable[Path],
    graphs: Iterable[Path],
    input: int | None = None,
    batch: int | None = None,
    dim: Iterable[str] = (),
) -> "dict[str, Layers]":
    """Layers of every network named, by its name or its file's.

    Args:
        models: networks of this library, or published ones by name.
        topologies: SCALE-Sim topology files.
        graphs: ONNX files.
        input: height and width of a model's images; None: 32. Published networks and
            files have their own.
        batch: images of a network; None: 1. Files have their own.
        dim: sizes of dimensions that ONNX graphs leave open, and of symbols of topology
            files, ``NAME=SIZE``.

    What a reader says, such as what it did not read, goes to standard error.

    Raises:
        ValueError: an unknown name, a malformed file (the message gives the line or the
            node), two networks of one name, or an argument that a source does not take.
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: ONNX is not installed.
    """
    from elision.workloads.shapes import (
        open_dimensions,
        open_symbols,
        read_onnx,
        read_topology,
    )
    from elision.workloads.shapes.networks import NETWORKS, network
    from elision.workloads.shapes.random import model_layers

    models, topologies, graphs = list(models), list(topologies), list(graphs)
    _check_taken(models, [*topologies, *graphs], input, batch)
    found: dict[str, Layers] = {}
    for name in models:
        images = 1 if batch is None else batch
        if name in NETWORKS:
            layers = network(name, images)
        else:
            side = 32 if input is None else input
            layers = _told(model_layers, name, side, images)
        _add(found, name, layers)
    for path in (*topologies, *graphs):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
    files = [(path, read_topology, open_symbols) for path in topologies]
    files += [(path, read_onnx, open_dimensions) for path in graphs]
    names = {path: left_open(path) for path, _, left_open in files if dim}
    sizes = _sizes_by_file(dim, names)
    for path, read, _ in files:
        _add(found, path.stem, _told(read, path, sizes.get(path, {})))
    return found


def _check_taken(
    models: "list[str]", files: "list[Path]", input: int | None, batch: int | None
) -> None:
    """Raise ValueError if a size is given that one of the sources fixes itself."""
    from elision.workloads.shapes.networks import NETWORKS

    for flag, given in (("--input", input), ("--batch", batch)):
        if given is None:
            continue
        if not models and not files:
            raise ValueError(f"{flag} {given}: there is no model by name to size")
        if files:
            raise ValueError(
                f"{flag} {given}: {files[0]} has sizes of its own; {flag} is for models "
                "by name (--dim gives a file its open sizes)"
            )
    published = [name for name in models if name in NETWORKS]
    if input is not None and published:
        raise ValueError(
            f"--input {input}: the published network {published[0]!r} has an image size "
            "of its own"
        )


def _sizes_by_file(
    dim: Iterable[str], names: "dict[Path, list[str]]"
) -> "dict[Path, dict[str, int]]":
    """The sizes ``NAME=SIZE`` that each file takes, by the names that it leaves open."""
    sizes: dict[str, int] = {}
    for text in dim:
        name, _, size = text.rpartition("=")
        if not name or not size.isdecimal() or name in sizes:
            twice = " (given twice)" if name in sizes else ""
            raise ValueError(f"--dim {text}: must be NAME=SIZE, an integer{twice}")
        sizes[name] = int(size)
    for name in sizes:
        if not names:
            raise ValueError(f"--dim {name}: there is no file (--onnx, --topology)")
        if not any(name in left for left in names.values()):
            known = ", ".join(dict.fromkeys(n for left in names.values() for n in left))
            raise ValueError(
                f"--dim {name}: no file leaves it open; open ones: {known or 'none'}"
            )
    return {
        path: {name: size for name, size in sizes.items() if name in left}
        for path, left in names.items()
    }


def _told(read: "Callable[..., Layers]", *arguments: Any) -> "Layers":
    """What a reader gives; what it warns of goes to standard error, a line each."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        layers = read(*arguments)
    for warning in said:
        print(f"elision: {warning.message}", file=sys.stderr)
    return layers


def _add(found: "dict[str, Layers]", name: str, layers: "Layers") -> None:
    if name in found:
        raise ValueError(f"two networks are called {name!r}; rename one of the files")
    found[name] = layers


def sparsities_of(texts: Iterable[str]) -> "list[float | dict[str, float]]":
    """Shares of zeros as a person writes them: of all operands, or by operand.

    Args:
        texts: each a number, or ``OPERAND=NUMBER,...``.

    Raises:
        ValueError: something else, or an operand given twice; ranges and the operands'
            names are checked where they are used.

    Example:
        >>> sparsities_of(["0.90", "input=0.5,weight=0.9"])
        [0.9, {'input': 0.5, 'weight': 0.9}]
    """
    return [_sparsity(text) for text in texts]


def _sparsity(text: str) -> "float | dict[str, float]":
    shares: dict[str, float] = {}
    try:
        if "=" not in text:
            return float(text)
        for part in text.split(","):
            operand, share = part.split("=")
            if operand.strip() in shares:
                raise ValueError
            shares[operand.strip()] = float(share)
    except ValueError:
        raise ValueError(
            f"--sparsity {text}: write a number in [0, 1), or one for each operand once, "
            "such as input=0.5,weight=0.9,grad_output=0.7"
        ) from None
    return shares


def recorded_fixes(**given: object) -> None:
    """Raise ValueError for an argument that says what a trace holds already.

    Args:
        **given: arguments by name; None where one is not given.
    """
    for name, value in given.items():
        if value is not None:
            flag = "--" + name.replace("_", "-")
            raise ValueError(
                f"{flag}: a trace brings its own layers and operands; {flag} is for random "
                "operands"
            )


def dataset_or_random(workload: "Workload", data: Path | None, count: int) -> Any:
    """The workload's data, or random images of their shape where files were not named.

    Args:
        workload: whose data.
        data: folder of its files.
        count: random images.
    """
    from elision.workloads.data.random_images import SHAPES, random_images

    if data is None and workload.data is None and workload.dataset in SHAPES:
        return random_images(workload.dataset, count)
    return workload.load_dataset(data)
