"""ZigZag: layers mapped on accelerators, the mapping searched (Mei et al., 2021)."""

import importlib
import logging
import math
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import helper

from benchmarks.peers.base import OURS, Agreement, Peer, Work
from elision.accelerators import Systolic
from elision.products import Conv2dGeometry, LayerProduct, Product

#: Rows and columns of its array ``tpu_like``, which unrolls input and output channels.
SIDE = 32
#: Input channels, output channels, pixels a side; 3x3 kernels, padded by one.
LAYERS = ((64, 64, 56), (256, 256, 14))


def works(small: bool) -> Iterator[Work]:
    """Cycles of convolutions on a 32x32 array that keeps the weights."""
    api = importlib.import_module("zigzag.api")
    inputs = Path(str(importlib.import_module("zigzag").__file__)).parent / "inputs"
    for channels, outputs, side in LAYERS[-1:] if small else LAYERS:
        layer = Conv2dGeometry(1, channels, side, side, outputs, 3, 1, 1)
        model = _onnx(layer)

        def theirs(model=model):
            logging.disable(logging.INFO)
            _, latency, found = api.get_hardware_performance_zigzag(
                model,
                str(inputs / "hardware" / "tpu_like.yaml"),
                str(inputs / "mapping" / "tpu_like.yaml"),
                opt="latency",
                dump_folder="zigzag",
                loma_show_progress_bar=False,
            )
            return latency, found

        def ours(layer=layer):
            product = LayerProduct(Product.FORWARD, layer)
            return Systolic(SIDE, SIDE, "ws").cost(product)

        latency, found = theirs()
        here = ours()
        # Of one product a cycle and PE, without stalls.
        ideal = found[0][0].ideal_cycle
        yield Work(
            f"3x3 convolution, {channels} to {outputs} channels @ {side}x{side}, on a "
            f"{SIDE}x{SIDE} array that keeps the weights: cycles, ours of a given order "
            "of loops, ZigZag's of one it searches",
            {OURS: ours, "ZigZag": theirs},
            (
                Agreement(
                    "multiplications over processing elements, relative",
                    abs(ideal / (layer.dense_macs / SIDE**2) - 1),
                    1e-9,
                ),
            ),
            "ZigZag searches the order of the loops and counts stalls of its memories; "
            "here the order is the dataflow's and the array's filling is counted: "
            f"{latency:,.0f} cycles there, {here.cycles:,} here",
            rounds=3,
        )


def _onnx(layer: Conv2dGeometry) -> onnx.ModelProto:
    """A graph of one convolution."""
    shapes = {
        "x": (layer.batch, layer.in_channels, *layer.sizes),
        "w": (layer.out_channels, layer.in_channels, *layer.kernel),
        "y": (layer.batch, layer.out_channels, *layer.out_sizes),
    }
    told = {
        name: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    }
    node = helper.make_node(
        "Conv",
        ["x", "w"],
        ["y"],
        "conv",
        kernel_shape=layer.kernel,
        pads=[1, 1, 1, 1],
        strides=layer.stride,
        dilations=layer.dilation,
        group=1,
    )
    zeros = bytes(4 * math.prod(shapes["w"]))
    weight = helper.make_tensor("w", onnx.TensorProto.FLOAT, shapes["w"], zeros, True)
    graph = helper.make_graph([node], "layer", [told["x"]], [told["y"]], [weight])
    return helper.make_model(graph)


PEER = Peer(
    "ZigZag",
    "mappings on accelerators",
    works,
    # ZigZag imports six and does not ask for it.
    requirements=("zigzag-dse", "six"),
    distribution="zigzag-dse",
)
