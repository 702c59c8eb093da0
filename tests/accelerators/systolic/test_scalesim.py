"""Against what SCALE-Sim 3.0.0 reports, to the cycle and to the word.

``scalesim-3.0.0.csv`` was recorded by running it on convolutions (sizes already padded) and
matrix products, bandwidth CALC, 64 KB buffers: "Total Cycles" of its compute report, and
SRAM reads and writes of its access report. First small products on small arrays, then, on
arrays of 16x64, 128x128 and 12x14, layers of AlexNet, ResNet, DenseNet, Inception and
MobileNet, some with fewer channels or pixels to be simulated in minutes.
"""

import csv
import math
from pathlib import Path

import pytest

from elision.accelerators import Systolic
from elision.products import Conv2dGeometry, LayerProduct, MatmulGeometry, Product
from elision.workloads.shapes.networks import NETWORKS, network

RECORDED = Path(__file__).with_name("scalesim-3.0.0.csv")
with RECORDED.open(encoding="utf-8") as file:
    ROWS = list(csv.DictReader(file))


def geometry_of(row):
    n = {name: int(value) for name, value in row.items() if value.isdigit()}
    if "m" in n:
        return MatmulGeometry(rows=n["m"], inner=n["k"], columns=n["n"])
    return Conv2dGeometry(
        n["batch"],
        n["channels"],
        n["height"],
        n["width"],
        n["filters"],
        (n["kernel_rows"], n["kernel_columns"]),
        n["stride"],
    )


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_cycles_and_accesses_are_those_of_scale_sim(dataflow):
    rows = [row for row in ROWS if row["dataflow"] == dataflow]
    assert len(rows) == 69
    for row in rows:
        array = (int(row["rows"]), int(row["columns"]), dataflow)
        product = LayerProduct(Product.FORWARD, geometry_of(row))
        cost = Systolic(*array, counting="scalesim").cost(product)
        assert cost.cycles == int(row["total_cycles"]), row
        assert cost.accesses["input_sram.read"] == int(row["input_reads"]), row
        assert cost.accesses["weight_sram.read"] == int(row["filter_reads"]), row
        if dataflow == "os":  # its count of these is known to be wrong (its issue 166)
            assert cost.accesses["output_sram.write"] == product.result_size
        else:
            writes = int(row["output_writes"])
            assert cost.accesses["output_sram.write"] == writes, row


def its_outputs(layer: Conv2dGeometry) -> list[int]:
    """Its ceil((H - R + t)/t), of the padded size."""
    return [
        math.ceil((size + 2 * padding - taps + stride) / stride)
        for size, padding, taps, stride in zip(
            layer.sizes, layer.padding, layer.kernel, layer.stride, strict=True
        )
    ]


@pytest.mark.parametrize(
    ("size", "taps", "stride", "its", "own"),
    [(224, 7, 2, 110, 109), (28, 1, 2, 15, 14), (27, 1, 2, 14, 14), (8, 3, 4, 3, 2)],
)
def test_a_stride_that_leaves_a_rest_counts_one_more_window_there(
    size: int, taps: int, stride: int, its: int, own: int
) -> None:
    layer = Conv2dGeometry(2, 3, size, size, 8, taps, stride)
    assert its_outputs(layer) == [its, its]
    assert layer.out_sizes == (own, own)
    inner = 3 * taps * taps
    for kind in Product:
        product = LayerProduct(kind, layer)
        compared = Systolic(4, 4, counting="scalesim")
        assert compared.cost(product).multiplies == 2 * its**2 * inner * 8
        assert Systolic(4, 4).cost(product).multiplies == layer.dense_macs
        assert compared.cycles(compared.lower(product)) == (
            compared.timing((product,)).cycles
        )
    forward = compared.cost(LayerProduct(Product.FORWARD, layer))
    assert forward.cycles == its_cycles("ws", 2 * its**2, inner, 8, 4, 4)


def its_cycles(dataflow, m, k, n, rows, columns):
    """What its source counts for (m x k)·(k x n), less one for the last index."""
    held, streamed = {
        "ws": ((k, n), m + rows),
        "is": ((k, m), n + rows),
        "os": ((m, n), k),
    }[dataflow]
    folds = -(-held[0] // rows) * -(-held[1] // columns)
    return folds * (streamed + rows + columns - 2) - 1


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_of_a_network_follows_its_closed_form(name):
    for _, layer in network(name, batch=2):
        if isinstance(layer, MatmulGeometry):
            m, k, n = layer.rows, layer.inner, layer.columns
        elif layer.groups > 1:
            continue  # it knows no groups
        else:
            m = layer.batch * math.prod(its_outputs(layer))
            k = layer.in_channels * layer.kernel[0] * layer.kernel[1]
            n = layer.out_channels
        for rows, columns, dataflow in [(32, 32, "ws"), (8, 128, "is"), (128, 8, "os")]:
            machine = Systolic(rows, columns, dataflow, counting="scalesim")
            forward = machine.cost(LayerProduct(Product.FORWARD, layer))
            assert forward.cycles == its_cycles(dataflow, m, k, n, rows, columns)
            gradient = machine.cost(LayerProduct(Product.WEIGHT_GRAD, layer))
            assert gradient.cycles == its_cycles(dataflow, k, m, n, rows, columns)
