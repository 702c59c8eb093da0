"""Poison: damaged files of every kind that the library reads.

A kind is a good set of files, the ways in which it is damaged, and what reads it. A
damaged file may be refused in one line, or be another valid file (a topology with another
number). One that carries a checksum must be refused, or read as the good one is: anything
else would be wrong numbers accepted in silence.
"""

import contextlib
import gzip
import hashlib
import io
import json
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from campaigns.campaign import Campaign, Row
from campaigns.mutate import changed_bytes, changed_json, changed_text
from campaigns.trial import Outcome, tried, warmed

__all__ = ["POISON", "Kind", "poisoned"]

Damage = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes:
        name: for tables.
        make: writes the good files into a folder.
        files: names of those that are damaged, or patterns of one name.
        read: a call that reads the folder's files, by the folder.
        damages: ways of damage, drawn evenly.
        sealed: whether a file carries a checksum.
    """

    name: str
    make: Callable[[Path], None]
    files: tuple[str, ...]
    read: Callable[[Path], Callable[[], Any]]
    damages: tuple[Damage, ...]
    sealed: bool = False


@dataclass
class Found:
    """What the trials of one kind came to.

    Attributes:
        counts: outcomes by kind; ``"wrong"`` are sealed files that were read otherwise.
        bad: (number of the trial, outcome) of those that no user should meet.
    """

    counts: Counter[str] = field(default_factory=Counter)
    bad: list[tuple[int, Outcome]] = field(default_factory=list)


def poisoned(
    kind: Kind, folder: Path, trials: int, seed: int = 0, first: int = 0
) -> Found:
    """Damage a kind's files again and again, and read them.

    Args:
        kind: of files.
        folder: to work in.
        trials: their number.
        seed: trial ``n`` depends on it, the kind and ``n`` alone.
        first: number of the first trial.
    """
    good, work, found = folder / "good", folder / "work", Found()
    good.mkdir(parents=True, exist_ok=True)
    kind.make(good)
    _copy(good, work)
    warmed(kind.read(work))
    right = tried(kind.read(work))
    if right.kind != "accepted":
        raise RuntimeError(f"{kind.name}: the good files are not read: {right.said}")
    for number in range(first, first + trials):
        drawn = random.Random(f"{seed}/{kind.name}/{number}")
        _copy(good, work)
        (name,) = _names(good, drawn.choice(kind.files))
        content = (good / name).read_bytes()
        damaged = drawn.choice(kind.damages)(content, drawn)
        (work / name).write_bytes(damaged)
        outcome = tried(kind.read(work))
        if (
            outcome.kind == "accepted"
            and kind.sealed
            and outcome.result != right.result
        ):
            outcome = Outcome("wrong", f"{name} was read otherwise")
        found.counts[outcome.kind] += 1
        if not outcome.is_good:
            found.bad.append((number, outcome))
    return found


def _names(folder: Path, pattern: str) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.glob(pattern)]


def _copy(source: Path, target: Path) -> None:
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target)


def command(*words: str) -> Callable[[Path], Callable[[], Any]]:
    """A command of the library, ``{}`` in its words for the folder."""

    def read(folder: Path) -> Callable[[], Any]:
        def call() -> None:
            from elision.cli.main import main

            main([word.replace("{}", str(folder)) for word in words])

        return call

    return read


def _in_process(function: Callable[[Path], Any]) -> Callable[[Path], Callable[[], Any]]:
    return lambda folder: lambda: function(folder)


# Damage of a certain form.


def resealed_json(content: bytes, drawn: random.Random) -> bytes:
    """Safetensors whose facts are changed and whose digests fit them: forged."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    facts = json.loads(header["__metadata__"]["elision"])
    body = content[8 + length :]
    if drawn.random() < 0.8:
        facts = changed_json(facts, drawn)
    else:
        body = changed_bytes(body, drawn)
    if isinstance(facts, dict):
        _reseal(facts, header, body)
    header["__metadata__"]["elision"] = json.dumps(facts)
    text = json.dumps(header).encode("utf-8", "replace")
    return len(text).to_bytes(8, "little") + text + body


def _reseal(facts: dict[str, Any], header: dict[str, Any], body: bytes) -> None:
    """A digest as a trace has it, if this is one."""
    facts.pop("digest", None)
    tensors = facts.get("tensors")
    if not isinstance(tensors, dict):
        return
    total = hashlib.blake2b(json.dumps(facts).encode(), digest_size=16)
    for key in tensors:
        for part in ("mask", "values"):
            begin, end = header.get(f"{key}.{part}", {}).get("data_offsets", (0, 0))
            total.update(body[begin:end])
    facts["digest"] = total.hexdigest()


def json_text(content: bytes, drawn: random.Random) -> bytes:
    """JSON with one place changed."""
    return json.dumps(changed_json(json.loads(content), drawn)).encode()


def header_sizes(content: bytes, drawn: random.Random) -> bytes:
    """Safetensors whose header names other sizes, offsets or types."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    text = json.dumps(changed_json(header, drawn)).encode("utf-8", "replace")
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def unzipped(damage: Damage) -> Damage:
    """Damage of what a gzip file holds, or a bomb of 4 GB."""

    def damaged(content: bytes, drawn: random.Random) -> bytes:
        if drawn.random() < 0.02:
            return _bomb()
        if drawn.random() < 0.2:
            return changed_bytes(content, drawn)
        return gzip.compress(damage(gzip.decompress(content), drawn), 1)

    return damaged


def _bomb() -> bytes:
    """A gzip file of a few MB that inflates to 4 GB, with an IDX head."""
    head = b"\0\0\x08\x03" + (2**32 // 784).to_bytes(4, "big") + b"\0\0\0\x1c" * 2
    member = gzip.compress(b"\0" * 2**26, 9)
    return gzip.compress(head) + member * 64


# The kinds.


def _study(folder: Path) -> None:
    """A small finished run, made once and copied."""
    source = _made(folder, "study", _train)
    shutil.copytree(source, folder, dirs_exist_ok=True)


def _made(folder: Path, name: str, make: Callable[[Path], None]) -> Path:
    """What takes seconds to make, beside the folders of all kinds."""
    place = folder.parent.parent / f"made-{name}"
    if not place.exists():
        begun = place.with_name(place.name + "-begun")
        shutil.rmtree(begun, ignore_errors=True)
        begun.mkdir(parents=True)
        make(begun)
        begun.rename(place)
    return place


def _train(folder: Path) -> None:
    from elision.study import StudyConfig, study
    from elision.workloads import Workload

    small = Workload(
        name="small",
        dataset="digits",
        model="mlp",
        model_options={"width": 16},
        epochs=1,
        train_images=128,
        test_images=64,
    )
    config = StudyConfig(workload=small, recipes=("dense", "swat"), record=1, samples=1)
    study(config, folder)


def _trace(folder: Path) -> None:
    import torch

    from elision.products import Conv2dGeometry, MatmulGeometry, Trace
    from elision.products.synthetic import synthetic_products

    torch.manual_seed(0)
    layers = [
        ("fc", MatmulGeometry(2, 6, 3)),
        ("conv", Conv2dGeometry(1, 2, 5, 5, 3, kernel=3, padding=1)),
    ]
    Trace.of(synthetic_products(layers, 0.5)).save(folder / "trace.safetensors")


def _text(name: str, content: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).write_text(content, encoding="utf-8")

    return make


def _recipe(folder: Path) -> None:
    from elision.methods import make_recipe

    text = make_recipe("swat:sparsity=0.8+fp8").to_toml()
    (folder / "recipe.toml").write_text(text, encoding="utf-8")


def _read_recipe(folder: Path) -> str:
    import torch

    import elision

    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    elision.elide(model, str(folder / "recipe.toml"))
    return str(float(model(torch.ones(1, 4)).sum()))


def _workload(folder: Path) -> None:
    from elision.study.config import StudyConfig, command_line_toml

    text = command_line_toml(StudyConfig(workload="digits-mlp", recipes=("dense",)))
    (folder / "workload.toml").write_text(text, encoding="utf-8")


def _read_workload(folder: Path) -> str:
    from elision.workloads import read_workload

    workload = read_workload(folder / "workload.toml")
    return workload.name


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


def _idx(folder: Path) -> None:
    drawn = random.Random(0)
    for part, images in (("train", 20), ("t10k", 10)):
        head = b"\0\0\x08\x03" + images.to_bytes(4, "big") + b"\0\0\0\x1c" * 2
        pixels = gzip.compress(head + drawn.randbytes(images * 784), 1)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(pixels)
        head = b"\0\0\x08\x01" + images.to_bytes(4, "big")
        labels = gzip.compress(head + bytes(i % 10 for i in range(images)), 1)
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(labels)


def _cifar(folder: Path) -> None:
    drawn = random.Random(0)
    for name in (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"):
        rows = b"".join(bytes([i]) + drawn.randbytes(3072) for i in range(4))
        (folder / name).write_bytes(rows)


def _images(folder: Path) -> None:
    from PIL import Image

    drawn = random.Random(0)
    for part in ("train", "test"):
        for label in ("cats", "dogs"):
            place = folder / part / label
            place.mkdir(parents=True)
            for number in range(2):
                image = Image.frombytes("RGB", (8, 8), drawn.randbytes(192))
                image.save(place / f"{number}.png")


def _load(dataset: str) -> Callable[[Path], str]:
    def load(folder: Path) -> str:
        from elision.workloads.data import load_dataset

        found = load_dataset(dataset, folder)
        return str(float(found.train_images.float().sum()))

    return load


def _choices(folder: Path) -> None:
    from elision.engines.decision import Decision, Decisions

    kept = Decisions(folder / "decisions.json")
    kept.add(Decision("forward of fc", {"torch": 0.003, "native": 0.001}))
    kept.add(Decision("forward of conv", {"torch": 0.002}, dense=0.004))


def _read_choices(folder: Path) -> str:
    from elision.engines.decision import Decision, Decisions

    kept = Decisions(folder / "decisions.json")
    kept.add(Decision("another", {"torch": 0.003}))
    return " ".join(decision.winner for decision in kept)


def _library(folder: Path) -> None:
    """The kernels as a cache holds them."""
    source = _made(folder, "library", _built)
    for path in source.iterdir():
        shutil.copy(path, folder / path.name)


def _built(folder: Path) -> None:
    with _cache(folder):
        from elision.native.builder import build_text

        build_text('extern "C" int elision_one() { return 1; }\n')


@contextlib.contextmanager
def _cache(folder: Path) -> Iterator[None]:
    import os

    before = os.environ.get("ELISION_CACHE")
    os.environ["ELISION_CACHE"] = str(folder)
    folder.chmod(0o700)
    try:
        yield
    finally:
        os.environ.pop("ELISION_CACHE")
        if before is not None:
            os.environ["ELISION_CACHE"] = before


def _read_library(folder: Path) -> str:
    import ctypes

    with _cache(folder), contextlib.redirect_stderr(io.StringIO()):
        from elision.native.builder import build_text

        path = build_text('extern "C" int elision_one() { return 1; }\n')
    return str(ctypes.CDLL(str(path)).elision_one())


_TOPOLOGY = """Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, \
Channels, Num Filter, Strides,
conv1, 10, 10, 3, 3, 3, 8, 1,
conv2, 8, 8, 3, 3, 8, 8, 2,
fc, 1, 1, 1, 1, 72, 10, 1,
"""

_TEXT = (changed_text,)
_SEALED = (changed_bytes, header_sizes)
_SIMULATE = ("--accelerator", "scnn", "systolic:rows=4,columns=4", "dense")


def _row(kind: Kind, trials: int, seed: int) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        found = poisoned(kind, Path(folder) / "kind", trials, seed)
    bad = [f"{number}: {o.kind}: {o.said[-2000:]}" for number, o in found.bad]
    return Row(dict(found.counts), bad, {"sealed": kind.sealed})


_KINDS = (
    Kind(
        "trace",
        _trace,
        ("trace.safetensors",),
        command("simulate", "--trace", "{}/trace.safetensors", *_SIMULATE),
        _SEALED,
        sealed=True,
    ),
    Kind(
        "forged trace",
        _trace,
        ("trace.safetensors",),
        command("simulate", "--trace", "{}/trace.safetensors", *_SIMULATE),
        (resealed_json,),
    ),
    Kind(
        "checkpoint",
        _study,
        ("recipes/dense/checkpoint.safetensors",),
        command("trace", "{}"),
        _SEALED,
        sealed=True,
    ),
    Kind(
        "run configuration",
        _study,
        ("config.toml",),
        command("trace", "{}"),
        _TEXT,
    ),
    Kind(
        "summary",
        _study,
        ("summary.json",),
        command("compare", "{}", "--format", "latex"),
        (changed_bytes, json_text, json_text),
    ),
    Kind("recipe", _recipe, ("recipe.toml",), _in_process(_read_recipe), _TEXT),
    Kind(
        "workload",
        _workload,
        ("workload.toml",),
        _in_process(_read_workload),
        _TEXT,
    ),
    Kind(
        "energy table",
        _energy,
        ("mine.toml",),
        command(
            *("simulate", "--model", "cnn", "--input", "8", "--sparsity", "0.5"),
            *("--accelerator", "dense", "--energy", "{}/mine.toml"),
        ),
        _TEXT,
    ),
    Kind(
        "topology",
        _text("net.csv", _TOPOLOGY),
        ("net.csv",),
        command(
            *("simulate", "--topology", "{}/net.csv", "--accelerator"),
            *("systolic:rows=4,columns=4", "dense"),
        ),
        _TEXT,
    ),
    Kind(
        "onnx",
        _onnx,
        ("small.onnx",),
        command("shapes", "--onnx", "{}/small.onnx"),
        (changed_bytes,),
    ),
    Kind(
        "idx",
        _idx,
        ("train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
        _in_process(_load("mnist")),
        (unzipped(changed_bytes),),
    ),
    Kind(
        "cifar",
        _cifar,
        ("data_batch_2.bin",),
        _in_process(_load("cifar10")),
        (changed_bytes,),
    ),
    Kind(
        "image",
        _images,
        ("train/cats/0.png", "test/dogs/1.png"),
        _in_process(_load("folder")),
        (changed_bytes,),
    ),
    Kind(
        "choice file",
        _choices,
        ("decisions.json",),
        _in_process(_read_choices),
        (changed_bytes, json_text, changed_text),
    ),
    Kind(
        "built library",
        _library,
        ("*.so", "*.sha256"),
        _in_process(_read_library),
        (changed_bytes,),
        sealed=True,
    ),
)

POISON = Campaign(
    "poison", "trials", 700, {kind.name: partial(_row, kind) for kind in _KINDS}
)
