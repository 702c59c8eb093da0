"""SCALE-Sim: cycles and accesses of a systolic array (Samajdar et al., 2018)."""

import contextlib
import importlib
import io
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers.base import OURS, Agreement, Peer, Work
from elision.accelerators import Systolic
from elision.products import Conv2dGeometry, LayerProduct, Product
from elision.workloads.models import make_model
from elision.workloads.shapes.of_model import layer_shapes
from elision.workloads.shapes.scalesim.read import read_topology
from elision.workloads.shapes.scalesim.write import write_topology

ROWS = COLUMNS = 32
#: Its configuration file: buffers in KB, bandwidth as much as is asked for.
CONFIGURATION = """[general]
run_name = peers
[architecture_presets]
ArrayHeight : {rows}
ArrayWidth : {columns}
IfmapSramSzkB : 64
FilterSramSzkB : 64
OfmapSramSzkB : 64
IfmapOffset : 0
FilterOffset : 10000000
OfmapOffset : 20000000
Bandwidth : 10
Dataflow : {dataflow}
MemoryBanks : 1
ReadRequestBuffer : 32
WriteRequestBuffer : 32
[layout]
IfmapCustomLayout : False
IfmapSRAMBankBandwidth : 10
IfmapSRAMBankNum : 10
IfmapSRAMBankPort : 2
FilterCustomLayout : False
FilterSRAMBankBandwidth : 10
FilterSRAMBankNum : 10
FilterSRAMBankPort : 2
[sparsity]
SparsitySupport : false
SparseRep : ellpack_block
OptimizedMapping : false
BlockSize : 8
RandomNumberGeneratorSeed : 40
[run_presets]
InterfaceBandwidth : CALC
UseRamulatorTrace : False
"""


def works(small: bool) -> Iterator[Work]:
    """Forward products of a network's convolutions on one array, batch 1."""
    package = importlib.import_module("scalesim.scale_sim")
    network = "resnet8"
    model = make_model(network, classes=10)
    layers = [
        (name, shape)
        for name, shape in layer_shapes(model, (1, 3, 32, 32))
        if isinstance(shape, Conv2dGeometry)
    ]
    here = Path.cwd()
    topology = write_topology(layers, here / "layers.csv")
    # Of the sizes in the file, padding typed in and without pixels that no window reaches.
    layers = read_topology(topology)
    # How words lie in banks, which only custom layouts read; a line for each layer.
    banks = here / "banks.csv"
    lines = [f"{name},{'1,' * 20}" for name, _ in (("", None), *layers)]
    banks.write_text("\n".join(lines) + "\n")
    for dataflow in ("ws",) if small else ("ws", "os"):
        configuration = here / f"{dataflow}.cfg"
        configuration.write_text(
            CONFIGURATION.format(rows=ROWS, columns=COLUMNS, dataflow=dataflow)
        )

        def theirs(configuration=configuration) -> int:
            with contextlib.redirect_stdout(io.StringIO()):
                run = package.scalesim(
                    save_disk_space=True,
                    verbose=False,
                    config=str(configuration),
                    topology=str(topology),
                    layout=str(banks),
                )
                run.run_scale(top_path=str(here))
            return sum(
                run.runner.single_layer_sim_object_list[i].get_compute_report_items()[1]
                for i in range(len(layers))
            )

        def ours(dataflow=dataflow) -> int:
            array = Systolic(ROWS, COLUMNS, dataflow, counting="scalesim")
            return sum(
                array.cost(LayerProduct(Product.FORWARD, shape)).cycles
                for _, shape in layers
            )

        yield Work(
            f"{network} on one 32x32 image, {len(layers)} convolutions, {ROWS}x{COLUMNS} "
            f"array, {dataflow}: cycles and accesses",
            {OURS: ours, "SCALE-Sim": theirs},
            (Agreement("cycles of all layers", abs(ours() - theirs()), 0),),
            "SCALE-Sim replays every address; here the same counts are closed forms. It "
            "also replays the DRAM, which is a rule here",
            rounds=3,
        )


PEER = Peer(
    "SCALE-Sim",
    "systolic arrays, simulated",
    works,
    # With NumPy 2.4 and later its 3.0.0 converts an array of one axis to an integer.
    requirements=("scalesim", "numpy<2.4"),
    distribution="scalesim",
)
