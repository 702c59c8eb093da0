"""Planned memory beside what interpreters allocate for the exported networks.

For each network: the plan, the plan in the form in which TFLite kernels pad, the static
array of the C program (from its object file), and, where their interpreters are given, the
head of TFLite Micro's arena for the .tflite file that LiteRT's converter and quantiser
write, the plans of that file's own graph, and the memory that ExecuTorch plans. These
need environments of their own:

    python -m venv litert && litert/bin/pip install litert-torch ai-edge-quantizer
    python -m venv tflm && tflm/bin/pip install --pre tflite-micro
    python -m venv executorch && executorch/bin/pip install executorch
    python benchmarks/arena.py [--litert litert/bin/python] [--tflm tflm/bin/python]
        [--executorch executorch/bin/python] [--only NAME ...] [--out FILE]
        [--figure FILE]

Weights are random, batch norms have statistics of random images: neither changes a shape.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

#: Name -> network, its options, input of one example.
NETWORKS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "three convolutions": ("", {}, (1, 3, 32, 32)),
    "resnet8": ("resnet8", {"classes": 10}, (1, 3, 32, 32)),
    "resnet20": ("resnet20", {"classes": 10}, (1, 3, 32, 32)),
    "tiny-resnet8": ("tiny-resnet8", {"classes": 10}, (1, 3, 32, 32)),
    "ds-cnn": ("ds-cnn", {"classes": 12, "in_channels": 1}, (1, 1, 49, 10)),
    "mobilenet-v1, 0.25, 96": (
        "mobilenet-v1",
        {"classes": 2, "width": 0.25},
        (1, 3, 96, 96),
    ),
    "mobilenet-v2, 0.35, 96": (
        "mobilenet-v2",
        {"classes": 10, "width": 0.35},
        (1, 3, 96, 96),
    ),
    "mobilenet-v2, 224": ("mobilenet-v2", {"classes": 1000}, (1, 3, 224, 224)),
}


def network(name: str) -> Any:
    """The network, in evaluation mode, and its example."""
    import torch
    from torch import nn

    kind, options, shape = NETWORKS[name]
    torch.manual_seed(0)
    if kind:
        from elision.workloads import make_model

        model = make_model(kind, **options)
    else:
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.ReLU()]
        model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 10))
    model.train()
    with torch.no_grad():
        for _ in range(10):
            model(torch.randn(8, *shape[1:]))
    return model.eval(), torch.randn(shape)


# In the environment of litert-torch.


def convert(names: list[str], folder: Path) -> None:
    """Write float and int8 .tflite files, and their graphs as JSON."""
    import numpy as np

    litert_torch = import_module("litert_torch")
    Interpreter = import_module("ai_edge_litert.interpreter").Interpreter
    quantizer = import_module("ai_edge_quantizer.quantizer")
    recipe = import_module("ai_edge_quantizer.recipe")

    for name in names:
        model, example = network(name)
        model = litert_torch.to_channel_last_io(model, args=[0])
        example = example.permute(0, 2, 3, 1).contiguous()
        floats = folder / f"{name}-float.tflite"
        litert_torch.convert(model, (example,)).export(str(floats))
        maker = quantizer.Quantizer(str(floats))
        maker.load_quantization_recipe(recipe.static_wi8_ai8())
        ((key, signature),) = Interpreter(str(floats)).get_signature_list().items()
        random = np.random.default_rng(0)
        images = [
            {signature["inputs"][0]: random.standard_normal(example.shape, np.float32)}
            for _ in range(8)
        ]
        integers = folder / f"{name}-int8.tflite"
        maker.quantize(maker.calibrate({key: images})).export_model(str(integers))
        for path in (floats, integers):
            inline(path)
            path.with_suffix(".json").write_text(json.dumps(graph_of(path)))


def inline(path: Path) -> None:
    """Move constants from behind the flatbuffer into it, where TFLite Micro reads them."""
    import numpy as np

    flatbuffers = import_module("flatbuffers")
    schema = import_module("ai_edge_litert.schema_py_generated")
    raw = path.read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(raw, 0))
    for buffer in model.buffers:
        if buffer.offset and buffer.offset > 1:
            ends = buffer.offset, buffer.offset + buffer.size
            buffer.data = np.frombuffer(raw[ends[0] : ends[1]], np.uint8)
            buffer.offset = buffer.size = 0
    builder = flatbuffers.Builder(len(raw))
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())


def graph_of(path: Path) -> dict[str, Any]:
    """Tensors and operations of a .tflite file."""
    import numpy as np

    schema = import_module("ai_edge_litert.schema_py_generated")
    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    graph = model.Subgraphs(0)
    kinds = {v: k for k, v in vars(schema.BuiltinOperator).items() if k[0] != "_"}
    wide = {schema.TensorType.INT8: 1, schema.TensorType.FLOAT32: 4}
    sizes = {}
    for i in range(graph.TensorsLength()):
        tensor = graph.Tensors(i)
        if not model.Buffers(tensor.Buffer()).DataLength():
            shape = np.atleast_1d(tensor.ShapeAsNumpy())
            sizes[i] = int(np.prod(shape)) * wide.get(tensor.Type(), 4)
    operations = []
    for i in range(graph.OperatorsLength()):
        own = graph.Operators(i)
        code = model.OperatorCodes(own.OpcodeIndex())
        kind = kinds[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        reads = [int(n) for n in own.InputsAsNumpy() if int(n) in sizes]
        operations.append([kind, reads, [int(n) for n in own.OutputsAsNumpy()]])
    return {
        "sizes": sizes,
        "operations": operations,
        "inputs": [int(n) for n in graph.InputsAsNumpy()],
        "outputs": [int(n) for n in graph.OutputsAsNumpy()],
    }


# In the environment of tflite-micro.


def allocate(path: Path) -> None:
    """Print what TFLite Micro allocates for a file."""
    runtime = import_module("tflite_micro").runtime
    runtime.Interpreter.from_file(str(path)).print_allocations()


# In the environment of ExecuTorch.


def executorch(names: list[str]) -> None:
    """Print the bytes that ExecuTorch plans for float networks, as JSON."""
    import torch

    to_edge = import_module("executorch.exir").to_edge
    found = {}
    for name in names:
        model, example = network(name)
        program = to_edge(torch.export.export(model, (example,))).to_executorch()
        (plan,) = program.executorch_program.execution_plan
        found[name] = [int(n) for n in plan.non_const_buffer_sizes]
    print(json.dumps(found))


# Here.


def child(python: str, *arguments: str) -> str:
    """Output of this script under another interpreter."""
    source = str(Path(__file__).parents[1] / "src")
    done = subprocess.run(
        [python, __file__, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": source},
        check=False,
    )
    if done.returncode:
        return f"failed: {done.stderr.strip().splitlines()[-1]}"
    return done.stdout + done.stderr


def of_tflite(facts: dict[str, Any]) -> dict[str, int]:
    """Plans of a .tflite file's graph, in its own order and in the best."""
    from elision.export.planning import Graph, Operation
    from elision.export.planning.arena import plan

    def named(numbers: list[int]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(map(str, numbers)))

    graph = Graph(
        facts["sizes"],
        tuple(
            Operation(f"{i} {kind}", kind, named(reads), named(writes))
            for i, (kind, reads, writes) in enumerate(facts["operations"])
        ),
        named(facts["inputs"]),
        named(facts["outputs"]),
    )
    return {
        planner: plan(graph, planner=planner, alignment=16).arena_bytes
        for planner in ("least", "tflite-micro")
    }


def of_network(name: str) -> dict[str, Any]:
    """Our plans, and the static array of our C."""
    import torch

    from elision.export import arena, c_program, quantised
    from elision.export.c_arrays import c_compiler

    model, example = network(name)
    plan = arena(model, example)
    found: dict[str, Any] = {
        "macs": plan.macs,
        "parameters": plan.parameters,
        "flash_bytes": plan.flash_bytes,
        "peak_bytes": plan.peak_bytes,
        "arena_bytes": plan.arena_bytes,
        "optimal": plan.optimal,
    }
    for bits, kind in ((8, "int8"), (32, "float")):
        for planner in ("least", "tflite-micro"):
            planned = arena(
                model, example, bits, padding="copied", alignment=16, planner=planner
            )
            found[f"{planner} {kind}"] = planned.arena_bytes
        found["float peak"] = arena(model, example, 32).peak_bytes
    graph = quantised(model, torch.randn(8, *example.shape[1:]))
    for in_place in (True, False):
        program = c_program(graph, "net", in_place=in_place)
        key = "C in place" if in_place else "C"
        found[f"{key} plan"] = program.arena.arena_bytes
        with tempfile.TemporaryDirectory() as folder:
            _, source = program.write(folder)
            made = Path(folder) / "net.o"
            command = [c_compiler(), "-std=c99", "-Os", "-c", str(source), "-o"]
            subprocess.run([*command, str(made)], check=True)
            listed = subprocess.run(
                ["nm", "-S", str(made)], capture_output=True, text=True, check=True
            ).stdout
            sized = subprocess.run(
                ["size", str(made)], capture_output=True, text=True, check=True
            ).stdout
        (size,) = re.findall(r"^\w+ (\w+) b arena$", listed, re.MULTILINE)
        found[f"{key} array"] = int(size, 16)
        found[f"{key} text"] = int(sized.splitlines()[1].split()[0])
    return found


def main() -> None:
    if sys.argv[1:2] == ["convert"]:
        convert(sys.argv[3:], Path(sys.argv[2]))
        return
    if sys.argv[1:2] == ["allocate"]:
        allocate(Path(sys.argv[2]))
        return
    if sys.argv[1:2] == ["executorch"]:
        executorch(sys.argv[2:])
        return
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--litert")
    options.add_argument("--tflm")
    options.add_argument("--executorch")
    options.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    from elision.common.files import write_json
    from elision.engines.bench import machine
    from elision.report.table import rows_as_text

    found: dict[str, Any] = {name: of_network(name) for name in given.only}
    if given.litert:
        with tempfile.TemporaryDirectory() as folder:
            for name, facts in found.items():
                said = child(given.litert, "convert", folder, name)
                for kind in ("int8", "float"):
                    path = Path(folder) / f"{name}-{kind}.tflite"
                    if not path.with_suffix(".json").exists():
                        facts[f"tflite {kind}"] = said[:200]
                        continue
                    graph = json.loads(path.with_suffix(".json").read_text())
                    facts[f"tflite {kind}"] = of_tflite(graph)
                    facts[f"tflite {kind} bytes"] = path.stat().st_size
                    if given.tflm:
                        said = child(given.tflm, "allocate", str(path))
                        head = re.search(r"head (\d+) bytes", said)
                        tail = re.search(r"tail (\d+) bytes", said)
                        facts[f"TFLM {kind} head"] = (
                            int(head[1]) if head else said[:200]
                        )
                        facts[f"TFLM {kind} tail"] = int(tail[1]) if tail else None
    if given.executorch:
        said = child(given.executorch, "executorch", *found)
        (line,) = [line for line in said.splitlines() if line.startswith("{")]
        for name, sizes in json.loads(line).items():
            found[name]["ExecuTorch float"] = sum(sizes)
    rows = []
    for name, facts in found.items():
        for kind in ("int8", "float"):
            head, own = facts.get(f"TFLM {kind} head"), facts.get(f"tflite {kind}")
            planned = facts[f"tflite-micro {kind}"]
            measured = isinstance(head, int)
            rows.append(
                {
                    "network": name,
                    "values": kind,
                    "least arena": facts[f"least {kind}"],
                    "planned as TFLM": planned,
                    "TFLM head": head if measured else "-",
                    "head / planned": round(head / planned, 4) if measured else "-",
                    "file's graph": own["tflite-micro"] if measured else "-",
                    "its least": own["least"] if measured else "-",
                }
            )
    print(rows_as_text(rows))
    if given.out:
        write_json(given.out, {"machine": machine(), "networks": found})


if __name__ == "__main__":
    main()
