"""The way of a trained network to a file: what each stage costs and is worth."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from elision.common.checks import integer, one_of
from elision.export.agreement import Agreement, agreement
from elision.export.aware import tuned
from elision.export.graph import QuantisedGraph
from elision.export.lower import refuse_unsupported
from elision.export.plain import plain
from elision.export.program import traced
from elision.export.quantise import FakeQuantised, fake_quantised
from elision.export.targets import Target
from elision.layers.finalize import to_csr
from elision.precision.folding import folded
from elision.workloads import Dataset, Workload

__all__ = [
    "EXAMPLES",
    "IMAGES",
    "QUANTISE",
    "Exported",
    "Stage",
    "check_exportable",
    "exported",
]

#: How a network becomes integers.
QUANTISE = ("post", "aware", "none")

#: Training images of the calibration, and inputs on which answers are compared (the
#: former an own choice, the latter the figure that agreement is asked for on).
IMAGES, EXAMPLES = 512, 1000

_AT_ONCE = 64


def check_exportable(workload: Workload, dataset: Any) -> None:
    """Check before a training that its network will have an integer form.

    Raises:
        ValueError: the task is not to classify images, or the network has operations
            without an integer form.
    """
    if not isinstance(dataset, Dataset):
        raise ValueError(
            f"workload {workload.name!r}: exports are of networks that classify images; "
            f"its task is {workload.task_name}"
        )
    with torch.random.fork_rng():
        model = workload.make_model(dataset).eval()
    images = dataset.normalise(dataset.test_images[:2])
    refuse_unsupported(traced(folded(model, images), images))


@dataclass(frozen=True)
class Stage:
    """The network after one stage.

    Attributes:
        name: of the stage.
        accuracy: on the test images, in [0, 1].
        bytes: of the weights and all else that is stored.
        note: what the bytes are of.

    Example:
        >>> Stage("int8", 0.9, 1000, "arrays").row()["accuracy %"]
        90.0
    """

    name: str
    accuracy: float
    bytes: int
    note: str

    def row(self) -> dict[str, Any]:
        """A row of the table of stages."""
        return {
            "stage": self.name,
            "accuracy %": round(100 * self.accuracy, 2),
            "bytes": self.bytes,
            "of": self.note,
        }


@dataclass(frozen=True)
class Exported:
    """What came of an export.

    Attributes:
        stages: in order, the files last.
        agreements: rows: whose answers, beside whose, how far apart.
        graph: of integers; None: exported without quantising.
        files: by target.
        tested: test images of the accuracies.

    Example:
        >>> found = Exported((Stage("trained", 0.5, 4, "float32"),), (), None, {}, 10)
        >>> found.rows()[0]["bytes"]
        4
    """

    stages: tuple[Stage, ...]
    agreements: tuple[dict[str, Any], ...]
    graph: QuantisedGraph | None
    files: Mapping[str, Path]
    tested: int

    def rows(self) -> list[dict[str, Any]]:
        """A row for each stage."""
        return [stage.row() for stage in self.stages]


def exported(
    model: nn.Module,
    workload: Workload,
    dataset: Dataset,
    folder: Path,
    targets: Mapping[str, Target],
    *,
    name: str = "network",
    quantise: Literal["post", "aware", "none"] = "post",
    bits: int = 8,
    calibration: int = IMAGES,
    examples: int = EXAMPLES,
    epochs: int = 1,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Exported:
    """Prune for good, fold, quantise and write a trained network; run what was written.

    Calibration is of the first training images, without augmentation. Answers are compared
    on the test images and, where there are fewer than ``examples``, on training images
    behind those of the calibration.

    Args:
        model: trained under a recipe, or plain; stays as it is.
        workload: task and settings; its task must classify images.
        dataset: the workload's data.
        folder: of the files; there must be one.
        targets: by name.
        name: of the files and the graph.
        quantise: after the training, in one more training, or not at all.
        bits: of the weights.
        calibration: training images.
        examples: inputs on which answers are compared.
        epochs: of the training with ``"aware"``.
        seed: of that training.
        progress: called with what is done, steps done and in all.

    Raises:
        ValueError: an argument out of range, a task other than classification, a network
            that has no integer form, or a target without a form in floating point where
            nothing is quantised.
        ModuleNotFoundError: a target is not installed; the message says the command.
    """
    one_of("export", "quantise", quantise, QUANTISE)
    for words, value in (
        ("calibration", calibration),
        ("examples", examples),
        ("epochs", epochs),
    ):
        integer("export", words, value)
    for target in targets.values():
        target.check()
        if quantise == "none":
            target.check_float()
    images, labels = dataset.normalise(dataset.test_images), dataset.test_labels
    inputs = _inputs(dataset, calibration, examples)

    def scored(network: Callable[[Tensor], Tensor]) -> float:
        return _accuracy(network, images, labels)

    dense = _float_bytes(model)
    stages = [
        Stage("trained", scored(model.eval()), dense, "float32, all weights stored")
    ]
    network = plain(copy.deepcopy(model))
    stages.append(
        Stage("pruned", scored(network), _sparse_bytes(network), _SPARSE_BYTES)
    )
    network = folded(network, images[:2])
    small = _float_bytes(network)
    stages.append(Stage("folded", scored(network), small, "float32, norms folded"))
    if quantise == "none":
        return _as_floats(
            network, stages, targets, folder, name, inputs, images, labels
        )
    if quantise == "aware":
        told = None if progress is None else _part(progress, "train aware")
        network = tuned(
            network,
            workload,
            dataset,
            bits=bits,
            epochs=epochs,
            seed=seed,
            progress=told,
        )
        stages.append(
            Stage("aware", scored(network), small, "float32, trained on under rounding")
        )
    examined = dataset.normalise(dataset.train_images[:calibration])
    graph, fake = fake_quantised(network, examined, bits=bits, name=name)
    stages.append(
        Stage(f"int{bits}", scored(graph), graph.weight_bytes, "arrays of the graph")
    )
    codes = graph.run(graph.encode(inputs))
    real = agreement(codes, graph, network, inputs)
    whole = Agreement.of(codes, _fake_codes(fake, graph, inputs))
    rows = [
        real.row("integer graph", "torch, float32"),
        whole.row("integer graph", "torch, fake-quantised"),
    ]
    files: dict[str, Path] = {}
    for i, (key, target) in enumerate(targets.items()):
        if progress is not None:
            progress(f"export to {key}", i, len(targets))
        path = folder / f"{name}{target.suffix}"
        target.write(graph, path)
        files[key] = path
        own = target.run(path, graph, graph.encode(inputs))
        rows += [
            Agreement.of(own, codes).row(target.interpreter, "integer graph"),
            agreement(own, graph, network, inputs).row(
                target.interpreter, "torch, float32"
            ),
        ]
        answers = graph.decode(own[: len(labels)])
        if len(own) < len(labels):
            answers = graph.decode(target.run(path, graph, graph.encode(images)))
        stages.append(
            Stage(
                key,
                (answers.argmax(1) == labels).double().mean().item(),
                *target.stored(path, graph),
            )
        )
    return Exported(tuple(stages), tuple(rows), graph, files, len(labels))


#: What is stored of a network whose weights of density below one half are sparse.
_SPARSE_BYTES = "float32, weights below density 0.5 as CSR"


def _as_floats(
    network: nn.Module,
    stages: list[Stage],
    targets: Mapping[str, Target],
    folder: Path,
    name: str,
    inputs: Tensor,
    images: Tensor,
    labels: Tensor,
) -> Exported:
    """The export of a network that is not quantised."""
    files: dict[str, Path] = {}
    rows = []
    with torch.no_grad():
        exact = torch.cat([network(part) for part in inputs.split(_AT_ONCE)])
    for key, target in targets.items():
        path = folder / f"{name}{target.suffix}"
        target.write_float(network, inputs[:2], path)
        files[key] = path
        found = target.run_float(path, inputs)
        apart = (found - exact).abs().max().item()
        same = (found.argmax(1) == exact.argmax(1)).double().mean().item()
        rows.append(
            {
                "answers of": target.interpreter,
                "beside": "torch, float32",
                "inputs": len(inputs),
                "largest difference": float(f"{apart:.3g}"),
                "same class %": round(100 * same, 2),
            }
        )
        right = target.run_float(path, images).argmax(1) == labels
        note = f"{path.name}, run by {target.interpreter}"
        stages.append(
            Stage(key, right.double().mean().item(), path.stat().st_size, note)
        )
    return Exported(tuple(stages), tuple(rows), None, files, len(labels))


def _inputs(dataset: Dataset, calibration: int, examples: int) -> Tensor:
    """Test images, then training images that the calibration does not see."""
    found = dataset.test_images[:examples]
    more = dataset.train_images[calibration : calibration + examples - len(found)]
    return dataset.normalise(torch.cat([found, more]))


@torch.no_grad()
def _accuracy(
    network: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor
) -> float:
    right = [
        (network(part).argmax(1) == own)
        for part, own in zip(
            images.split(_AT_ONCE), labels.split(_AT_ONCE), strict=True
        )
    ]
    return torch.cat(right).double().mean().item()


def _fake_codes(fake: FakeQuantised, graph: QuantisedGraph, inputs: Tensor) -> Tensor:
    parts = inputs.split(_AT_ONCE)
    return torch.cat([fake.values(part)[graph.output] for part in parts])


def _float_bytes(model: nn.Module) -> int:
    """Bytes of all weights and statistics of norms, 32 bits each."""
    held = [*model.parameters()]
    held += [b for n, b in model.named_buffers() if n.rpartition(".")[2] in _STATISTICS]
    return sum(4 * value.numel() for value in held)


_STATISTICS = ("running_mean", "running_var")


def _sparse_bytes(model: nn.Module) -> int:
    """Bytes of a plain model with its sparse weights as CSR."""
    total = _float_bytes(model)
    layers = dict(model.named_modules())
    for name, matrix in to_csr(model).items():
        total -= 4 * layers[name].weight.numel()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
        parts = (matrix.crow_indices(), matrix.col_indices(), matrix.values())
        total += sum(4 * part.numel() for part in parts)
    return total


def _part(
    progress: Callable[[str, int, int], None], what: str
) -> Callable[[int, int], None]:
    return lambda done, of: progress(what, done, of)
