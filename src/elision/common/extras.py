"""The extras of this package: what each gives, and what of it is installed here."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any

from packaging.requirements import Requirement

__all__ = [
    "EXTRAS",
    "Extra",
    "check_installed",
    "found_extras",
    "imported",
    "not_installed",
]

#: What each extra gives. ``all`` has most of them; see ``pyproject.toml``.
EXTRAS = {
    "accelerate": "training under Accelerate's loop",
    "deepspeed": "training under DeepSpeed's loop",
    "energy": "joules of NVIDIA GPUs, from their counters",
    "flower": "federated training with Flower's clients",
    "gpu": "kernels of saved activations on NVIDIA's GPUs",
    "lightning": "training under Lightning's loop",
    "litert": "export to LiteRT, run beside the network",
    "mlflow": "training runs in MLflow's stores",
    "mnist5k": "5,000 of MNIST's digits without a download",
    "onnx": "layers of ONNX graphs",
    "onnx-runtime": "export to ONNX, run beside the network",
    "pandas": "sweeps as data frames",
    "photos": "20 of ImageNet's photographs without a download",
    "privacy": "the account of differential privacy",
    "ray": "sweeps and searches over a Ray cluster",
    "search": "TPE and NSGA-II, of Optuna",
    "sz3": "saved activations in SZ3's bounds of error",
    "tensorboard": "training runs in TensorBoard's event files",
    "timm": "networks as timm:NAME",
    "torchvision": "networks as torchvision:NAME",
    "transformers": "training under Transformers' loop",
    "translation": "words of translating networks, and BLEU",
    "verify": "proofs of schedules and of products",
    "wandb": "training runs in Weights & Biases",
    "zfp": "saved activations in zfp's bounds of error",
}


@dataclass(frozen=True)
class Extra:
    """One extra, as it is found here.

    Attributes:
        name: as in ``pip install 'elision[NAME]'``.
        gives: what works with it.
        versions: of its packages that are installed and fit.
        missing: its packages that are not, in words.
        differs: its packages that are installed in a version that is not allowed, in
            words.

    Example:
        >>> Extra("timm", "networks", ("timm 1.0.31",), ("torchvision",), ()).is_whole
        False
    """

    name: str
    gives: str
    versions: tuple[str, ...]
    missing: tuple[str, ...]
    differs: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether everything that it asks for is installed."""
        return not self.missing and not self.differs


def check_installed(package: str, extra: str, what: str) -> None:
    """Raise ModuleNotFoundError if a package that something needs is not installed.

    Args:
        package: the module's name.
        extra: it comes with.
        what: needs it, for the message.

    Example:
        >>> check_installed("elision", "timm", "a network of timm's")
    """
    if find_spec(package) is None:
        raise ModuleNotFoundError(
            f"{what} needs {package}, which {not_installed(extra)}", name=package
        )


def imported(module: str, extra: str, what: str) -> Any:
    """A module of a package that an extra installs.

    What the package itself lacks is raised as it is.

    Args:
        module: its dotted name.
        extra: the package comes with.
        what: needs it, for the message.

    Raises:
        ModuleNotFoundError: the package is not installed; the message says how to.

    Example:
        >>> imported("json.decoder", "timm", "a test").__name__
        'json.decoder'
    """
    check_installed(module.partition(".")[0], extra, what)
    return import_module(module)


def not_installed(extra: str) -> str:
    """What is said of a package of an extra, where it is missing, and how to mend it.

    Example:
        >>> not_installed("timm")
        "is not installed: pip install 'elision[timm]'"
    """
    return f"is not installed: pip install 'elision[{extra}]'"


def found_extras(requirements: Iterable[str] | None = None) -> list[Extra]:
    """All extras, as they are found in this environment.

    Args:
        requirements: those of the package, as its metadata has them; None: read from it.

    Raises:
        ModuleNotFoundError: the package is not installed, only on the path, so that
            nothing says what its extras ask for.

    Example:
        >>> (timm,) = found_extras(['no-such-package>=1; extra == "timm"'])
        >>> timm.gives, timm.missing
        ('networks as timm:NAME', ('no-such-package>=1',))
    """
    lines = metadata.requires("elision") or [] if requirements is None else requirements
    asked: dict[str, list[Requirement]] = {}
    for requirement in map(Requirement, lines):
        for name in EXTRAS:
            if requirement.marker and requirement.marker.evaluate({"extra": name}):
                asked.setdefault(name, []).append(requirement)
    return [_found(name, asked[name]) for name in sorted(asked)]


def _found(name: str, asked: list[Requirement]) -> Extra:
    versions, missing, differs = [], [], []
    for requirement in asked:
        needed = f"{requirement.name}{requirement.specifier}"
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            missing.append(needed)
            continue
        if requirement.specifier.contains(version, prereleases=True):
            versions.append(f"{requirement.name} {version}")
        else:
            differs.append(f"{requirement.name} {version}, where {needed} is needed")
    return Extra(name, EXTRAS[name], tuple(versions), tuple(missing), tuple(differs))
