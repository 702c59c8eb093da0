"""elision shapes."""

from pathlib import Path

from elision.cli.flags import Files, Integer, Names
from elision.cli.sources import DEFAULT_MODEL, layers_by_network

__all__ = ["shapes"]


def shapes(
    *,
    model: Names = (),
    topology: Files = (),
    onnx: Files = (),
    dim: Names = (),
    input: Integer | None = None,
    batch: Integer | None = None,
    matmul: bool = False,
    out: Path | None = None,
) -> None:
    """List the layers of networks; write them as a SCALE-Sim topology file.

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
    matmul
        Write matrix products, each convolution as that of its patches and filters.
    out
        Topology file to write; takes one network.
    """
    from elision.report.table import rows_as_text
    from elision.workloads.shapes import write_topology

    if not (model or topology or onnx):
        model = (DEFAULT_MODEL,)
    networks = layers_by_network(model, topology, onnx, input, batch, dim)
    rows = [
        {
            "network": network,
            "layer": name,
            "input": " x ".join(map(str, geometry.shape_of("input"))),
            "weight": " x ".join(map(str, geometry.shape_of("weight"))),
            "output": " x ".join(map(str, geometry.shape_of("grad_output"))),
            "multiply-accumulates": f"{geometry.dense_macs:,}",
        }
        for network, layers in networks.items()
        for name, geometry in layers
    ]
    print(rows_as_text(rows))
    if out is None:
        return
    if len(networks) > 1:
        raise ValueError(
            f"{out}: a topology file holds one network, not {len(networks)}"
        )
    (layers,) = networks.values()
    out.parent.mkdir(parents=True, exist_ok=True)
    write_topology(layers, out, matmul=matmul)
    print(f"\ntopology: {out}")
