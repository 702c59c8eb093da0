"""Kinds of files of trained networks, of what crosses between processes, of vocabularies."""

from pathlib import Path
from typing import Any

from campaigns.poison.forms import JSON, SEALED, resealed_facts
from campaigns.poison.kind import Kind, in_process

__all__ = ["KINDS"]


def _linear() -> Any:
    import torch

    torch.manual_seed(0)
    return torch.nn.Linear(64, 8)


def _ternary(folder: Path) -> None:
    import torch

    from elision.precision import save_ternary, ternary_residual

    model = ternary_residual(_linear(), torch.randn(9, 64), None, budget=2)
    save_ternary(model, folder / "ternary.safetensors")


def _read_ternary(folder: Path) -> str:
    from elision.precision import load_ternary

    model = load_ternary(_linear(), folder / "ternary.safetensors")
    return str(float(model.weight.sum()))


def _sparse(folder: Path) -> None:
    import torch

    from elision.export import save_sparse

    model = _linear()
    with torch.no_grad():
        model.weight[:, ::2] = 0
    save_sparse(model, folder / "sparse.safetensors")


def _read_sparse(folder: Path) -> str:
    from elision.export import load_sparse

    state = load_sparse(folder / "sparse.safetensors")
    return str({name: float(value.sum()) for name, value in state.items()})


def _lessons(folder: Path) -> None:
    import torch

    from elision.distill.cache import LessonCache

    LessonCache(folder).write({"epoch": 0}, {"scores": torch.arange(8.0)})


def _read_lessons(folder: Path) -> str:
    from elision.distill.cache import LessonCache

    found = LessonCache(folder).read({"epoch": 0})
    return str(found and found["scores"].tolist())


def _message(folder: Path) -> None:
    """A job of a federated round, as it goes to another machine."""
    import torch

    from elision.training.parallel.federated.client import Job
    from elision.training.parallel.federated.flower import to_wire

    job = Job(3, 0, slow=False, weights=[torch.ones(2)], buffers={}, told=[{}])
    record = to_wire(job)
    (folder / "tensors").write_bytes(record["tensors"])
    (folder / "rest.json").write_text(record["rest"], encoding="utf-8")


def _read_message(folder: Path) -> str:
    from elision.training.parallel.federated.client import Job
    from elision.training.parallel.federated.flower import from_wire

    rest = (folder / "rest.json").read_bytes().decode("utf-8", "replace")
    record = {"tensors": (folder / "tensors").read_bytes(), "rest": rest}
    return str(from_wire(record, Job).client)


def _vocabulary(folder: Path) -> None:
    from elision.workloads.text.vocabulary import BytePairs

    pieces = BytePairs.learned(["low lower lowest", "new newer newest"], size=24)
    (folder / "pieces.json").write_text(pieces.to_text(), encoding="utf-8")


def _read_vocabulary(folder: Path) -> str:
    from elision.workloads.text.vocabulary import BytePairs

    text = (folder / "pieces.json").read_bytes().decode("utf-8", "replace")
    pieces = BytePairs(text)
    return pieces.decode(pieces.encode("newer low")) + str(len(pieces))


KINDS = (
    Kind(
        "ternary network",
        _ternary,
        ("ternary.safetensors",),
        in_process(_read_ternary),
        SEALED,
        sealed=True,
    ),
    Kind(
        "forged ternary network",
        _ternary,
        ("ternary.safetensors",),
        in_process(_read_ternary),
        (resealed_facts,),
    ),
    Kind(
        "sparse network",
        _sparse,
        ("sparse.safetensors",),
        in_process(_read_sparse),
        SEALED,
        sealed=True,
    ),
    Kind(
        "forged sparse network",
        _sparse,
        ("sparse.safetensors",),
        in_process(_read_sparse),
        (resealed_facts,),
    ),
    Kind(
        "lessons",
        _lessons,
        ("*.safetensors",),
        in_process(_read_lessons),
        SEALED,
        sealed=True,
    ),
    Kind(
        "message of a client",
        _message,
        ("tensors",),
        in_process(_read_message),
        SEALED,
    ),
    Kind(
        "facts of a message",
        _message,
        ("rest.json",),
        in_process(_read_message),
        JSON,
    ),
    Kind(
        "vocabulary",
        _vocabulary,
        ("pieces.json",),
        in_process(_read_vocabulary),
        JSON,
    ),
)
