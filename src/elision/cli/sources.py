"""Layers for a command: models by name, topology files, ONNX graphs."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elision.products import Geometry

    Layers = list[tuple[str, Geometry]]

__all__ = ["DEFAULT_MODEL", "layers_by_network"]

#: Model of the commands that are given no layers.
DEFAULT_MODEL = "resnet18"


def layers_by_network(
    models: Iterable[str],
    topologies: Iterable[Path],
    graphs: Iterable[Path],
    input: int,
    batch: int,
) -> "dict[str, Layers]":
    """Layers of every network named, by its name or its file's.

    Args:
        models: networks of this library, or published ones by name.
        topologies: SCALE-Sim topology files.
        graphs: ONNX files.
        input: height and width of a model's images; published networks have their own.
        batch: images; a topology file has one.

    Raises:
        ValueError: an unknown name, a malformed file (the message gives the line or the
            node), or two networks of one name.
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: ONNX is not installed.
    """
    from elision.workloads.shapes import read_onnx, read_topology
    from elision.workloads.shapes.networks import NETWORKS, network
    from elision.workloads.shapes.random import model_layers

    found: dict[str, Layers] = {}
    for name in models:
        published = name in NETWORKS
        layers = network(name, batch) if published else model_layers(name, input, batch)
        _add(found, name, layers)
    for path in (*topologies, *graphs):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
    for path in topologies:
        _add(found, path.stem, read_topology(path))
    for path in graphs:
        _add(found, path.stem, read_onnx(path, batch))
    return found


def _add(found: "dict[str, Layers]", name: str, layers: "Layers") -> None:
    if name in found:
        raise ValueError(f"two networks are called {name!r}; rename one of the files")
    found[name] = layers
