"""Kinds of files of machines: shapes, prices, sweeps, profiles, counters of energy."""

from collections.abc import Callable
from pathlib import Path

from campaigns.mutate import changed_bytes
from campaigns.poison.forms import JSON, TEXT
from campaigns.poison.kind import Kind, command, in_process, writes

__all__ = ["KINDS"]


def _text(name: str, content: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).write_text(content, encoding="utf-8")

    return make


def _energy(folder: Path) -> None:
    from elision.accelerators import energy

    shipped = Path(energy.__file__).parent / "tables"
    text = next(iter(sorted(shipped.glob("*.toml")))).read_text("utf-8")
    (folder / "mine.toml").write_text(text, encoding="utf-8")


def _onnx(folder: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    weights = [
        helper.make_tensor("w", TensorProto.FLOAT, (4, 3, 3, 3), [0.5] * 108),
        helper.make_tensor("v", TensorProto.FLOAT, (144, 5), [0.25] * 720),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], pads=[0, 0, 0, 0]),
        helper.make_node("Relu", ["y"], ["z"]),
        helper.make_node("Flatten", ["z"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, (1, 5))],
        weights,
    )
    onnx.save(helper.make_model(graph), str(folder / "small.onnx"))


_SWEEP = (
    *("simulate", "--model", "cnn", "--input", "8", "--sparsity", "0.5"),
    *("--accelerator", "dense", "systolic:rows=4,columns=4", "--out"),
)


_PROFILE = """node1 -- Input0 -- forward_compute_time=0.000, backward_compute_time=0.000, \
activation_size=0.0, parameter_size=0.000
node2 -- Conv2d(3, 64) -- forward_compute_time=3.125, backward_compute_time=6.250, \
activation_size=3211264.0, parameter_size=7168.000
node3 -- Linear(64, 10) -- forward_compute_time=1.000, backward_compute_time=2.000, \
activation_size=1280.0, parameter_size=2600.000
\tnode1 -- node2
\tnode2 -- node3
"""

_TOPOLOGY = """Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, \
Channels, Num Filter, Strides,
conv1, 10, 10, 3, 3, 3, 8, 1,
conv2, 8, 8, 3, 3, 8, 8, 2,
fc, 1, 1, 1, 1, 72, 10, 1,
"""


def _counters(folder: Path) -> None:
    zone = folder / "intel-rapl:0"
    zone.mkdir()
    (zone / "name").write_text("package-0\n")
    (zone / "energy_uj").write_text("123456789\n")
    (zone / "max_energy_range_uj").write_text("262143328850\n")


def _read_counters(folder: Path) -> str:
    from elision.energy.meters.rapl import Rapl

    found = Rapl.found(folder)
    return "none" if found is None else f"{found.domains}: {found.joules()}"


_SYSTOLIC = ("--accelerator", "systolic:rows=4,columns=4", "dense")

KINDS = (
    Kind(
        "energy table",
        _energy,
        ("mine.toml",),
        command(
            *("simulate", "--model", "cnn", "--input", "8", "--sparsity", "0.5"),
            *("--accelerator", "dense", "--energy", "{}/mine.toml"),
        ),
        TEXT,
    ),
    Kind(
        "topology",
        _text("net.csv", _TOPOLOGY),
        ("net.csv",),
        command("simulate", "--topology", "{}/net.csv", *_SYSTOLIC),
        TEXT,
    ),
    Kind(
        "onnx",
        _onnx,
        ("small.onnx",),
        command("shapes", "--onnx", "{}/small.onnx"),
        (changed_bytes,),
    ),
    Kind(
        "sweep in CSV",
        writes(*_SWEEP, "{}/rows.csv"),
        ("rows.csv",),
        command(*_SWEEP, "{}/rows.csv"),
        TEXT,
    ),
    Kind(
        "sweep in JSON",
        writes(*_SWEEP, "{}/rows.json"),
        ("rows.json",),
        command(*_SWEEP, "{}/rows.json"),
        JSON,
    ),
    Kind(
        "profile",
        _text("graph.txt", _PROFILE),
        ("graph.txt",),
        command(
            *("pipeline", "--profile", "{}/graph.txt", "--processors", "2"),
            *("--schedule", "1f1b", "--out", "{}/run"),
        ),
        TEXT,
    ),
    Kind(
        "energy counters",
        _counters,
        ("intel-rapl:0/*",),
        in_process(_read_counters),
        TEXT,
    ),
)
