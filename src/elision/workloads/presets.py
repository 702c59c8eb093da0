"""Workloads by name, and from files: presets are data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elision.common.names import lookup
from elision.common.toml import from_toml
from elision.workloads.workload import Workload

__all__ = ["DEFAULT_WORKLOAD", "WORKLOADS", "find_workload", "read_workload"]

#: What ``elision study`` trains when nothing else is asked for.
DEFAULT_WORKLOAD = "photo-resnet8"


def _cifar(name: str, dataset: str, model: str, **settings: Any) -> Workload:
    """A full CIFAR run; SWAT's published settings where nothing else is said."""
    defaults: dict[str, Any] = {
        "batch_size": 128,
        "epochs": 150,
        "nesterov": False,
        "schedule": "step",
        "milestones": (50, 100),
        "augment": True,
        "source": "SWAT's CIFAR configurations: rate 0.1, / 10 at epochs 50 and 100",
    }
    return Workload(name=name, dataset=dataset, model=model, **(defaults | settings))


def _photo(model: str, name: str = "", **settings: Any) -> Workload:
    """A small network on photographs, its stem of stride 1 for patches of 32x32."""
    given: dict[str, Any] = {"learning_rate": 0.05, **settings}
    return Workload(
        name=name or f"photo-{model}", dataset="photo-patches", model=model, **given
    )


def _gnmt(
    name: str, *, width: int, vocabulary: int, max_words: int, **settings: Any
) -> Workload:
    """GNMT with two layers a side on verses: the published model's recipe, smaller."""
    defaults: dict[str, Any] = {
        "epochs": 10,
        "learning_rate": 0.004,
        "source": "MLPerf's GNMT: Adam, smoothed labels; sizes, rate and schedule our own",
    }
    return Workload(
        name=name,
        dataset="verses",
        dataset_options={"vocabulary": vocabulary, "max_words": max_words},
        model="gnmt",
        model_options={"width": width, "layers": 2, "dropout": 0.1},
        optimizer="adamw",
        weight_decay=0.0,
        task_name="translation",
        **(defaults | settings),
    )


WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        # Half the usual rate: the accuracy of the first epochs is then less erratic.
        Workload(
            name="photo-resnet8",
            dataset="photo-patches",
            model="resnet8",
            learning_rate=0.05,
        ),
        Workload(
            name="photo-vgg16",
            dataset="photo-patches",
            model="vgg16",
            learning_rate=0.05,
            model_options={"width": 16},
        ),
        Workload(
            name="photo-transformer",
            dataset="photo-patches",
            model="transformer",
            epochs=10,
            learning_rate=0.05,
        ),
        # Behind the published last rectifier four of the ten classes die.
        _photo(
            "squeezenet",
            optimizer="adamw",
            learning_rate=0.002,
            model_options={
                "width": 0.25,
                "stem_stride": 1,
                "dropout": 0.0,
                "rectified": False,
            },
        ),
        _photo("mobilenet-v1", model_options={"width": 0.25, "stem_stride": 1}),
        _photo("mobilenet-v2", model_options={"width": 0.35, "stem_stride": 1}),
        _photo(
            "mobilenet-v3-small",
            model_options={"width": 0.5, "stem_stride": 1, "norm_momentum": 0.1},
        ),
        # Under SGD at 0.05 it learns too slowly for five epochs.
        _photo(
            "efficientnet-b0",
            optimizer="adamw",
            learning_rate=0.003,
            model_options={"width": 0.25, "stem_stride": 1, "stochastic_depth": 0.0},
        ),
        # Networks of MLPerf Tiny, whose data are others.
        _photo("tiny-resnet8"),
        _photo(
            "ds-cnn",
            dataset_options={"height": 49, "width": 10, "channels": 1},
        ),
        _photo(
            "mobilenet-v1",
            "photo-mobilenet-v1-96",
            dataset_options={"height": 96, "width": 96},
            model_options={"width": 0.25},
        ),
        Workload(name="digits-cnn", dataset="digits", model="cnn", epochs=3),
        Workload(
            name="digits-mlp",
            dataset="digits",
            model="mlp",
            learning_rate=0.05,
            model_options={"width": 64},
        ),
        Workload(name="mnist5k-cnn", dataset="mnist-5k", model="cnn"),
        Workload(
            name="mnist5k-lstm",
            dataset="mnist-5k",
            model="lstm",
            learning_rate=0.5,
        ),
        Workload(
            name="fashion-resnet8",
            dataset="fashion-mnist",
            model="resnet8",
            train_images=10_000,
            test_images=2_000,
        ),
        Workload(
            name="fashion-resnet18",
            dataset="fashion-mnist",
            model="resnet18",
            batch_size=128,
            epochs=30,
            augment=True,
        ),
        _cifar(
            "cifar10-resnet20",
            "cifar10",
            "resnet20",
            epochs=164,
            weight_decay=1e-4,
            milestones=(82, 123),
            source="He et al. 2016, section 4.2: 64k steps, rate / 10 at 32k and 48k",
        ),
        _cifar("cifar10-resnet18", "cifar10", "resnet18"),
        _cifar("cifar10-vgg16", "cifar10", "vgg16"),
        _cifar(
            "cifar10-wrn16-8",
            "cifar10",
            "wrn16-8",
            epochs=200,
            nesterov=True,
            milestones=(60, 120, 160),
            decay=0.2,
            model_options={"dropout": 0.3},
            source="SWAT's CIFAR configuration, after Zagoruyko and Komodakis 2016",
        ),
        _cifar(
            "cifar10-wrn22-2",
            "cifar10",
            "wrn22-2",
            epochs=250,
            # 30,000, 60,000 and 90,000 of 391 steps an epoch, to the nearest epoch.
            milestones=(77, 153, 230),
            decay=0.2,
            source="RigL's CIFAR configuration: rate x 0.2 every 30,000 steps",
        ),
        _cifar("cifar10-densenet121", "cifar10", "densenet121"),
        _cifar("cifar100-resnet18", "cifar100", "resnet18"),
        Workload(
            name="verses-lstm",
            dataset="verses-english",
            dataset_options={"vocabulary": 2000, "max_words": 25},
            model="lstm-lm",
            epochs=3,
            learning_rate=0.006,
            optimizer="adamw",
            weight_decay=0.0,
            schedule="halving",
            warmup=100,
            clip_norm=5.0,
            task_name="language-modelling",
            source="own choice; schedule and clipping of MLPerf's GNMT",
        ),
        _gnmt(
            "gnmt-tiny",
            width=64,
            vocabulary=1000,
            max_words=14,
            batch_size=32,
            learning_rate=0.006,
            schedule="halving",
            warmup=100,
            clip_norm=5.0,
            source="MLPerf's GNMT: Adam, smoothed labels, halvings, clipping; sizes, rate "
            "and warm-up our own",
        ),
        _gnmt("gnmt-small", width=128, vocabulary=2000, max_words=25, epochs=8),
    )
}


def find_workload(name: str) -> Workload:
    """The preset called ``name``, or the workload that the file ``name.toml`` holds.

    Raises:
        ValueError: there is none; the message lists the names.
    """
    if name.endswith(".toml"):
        return read_workload(Path(name))
    return lookup("workload", name, WORKLOADS)


def read_workload(path: Path) -> Workload:
    """The workload in the table ``[workload]`` of a TOML file.

    The table has the fields of :class:`Workload`; ``preset`` names a preset whose
    settings stand where the table says nothing.

    Raises:
        ValueError: no such file or table, or a setting that is refused; the message
            names the file.
    """
    try:
        table = from_toml(path.read_text(encoding="utf-8"))
        return _from_table(table.get("workload"))
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"workload file {path}: {reason}") from error


def _from_table(values: Any) -> Workload:
    if not isinstance(values, Mapping):
        raise ValueError("it has no table [workload]")
    preset = values.get("preset")
    if preset is None:
        return Workload.from_dict(values)
    settings = {name: value for name, value in values.items() if name != "preset"}
    return lookup("workload", preset, WORKLOADS).changed(**settings)
