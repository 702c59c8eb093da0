"""Architectures: one network scaled in width, depth, kernel and resolution.

Multipliers are relative to a workload's own options, so a preset of width 0.25 at a factor
of 2 has width 0.5. Rounding is that of the network
(:mod:`elision.workloads.models.small_blocks`).
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch

from elision.common.checks import number
from elision.common.names import lookup
from elision.workloads import ALL_MODELS, DATASETS, Workload, layer_shapes

__all__ = ["Architecture", "architectures"]


@dataclass(frozen=True)
class Architecture:
    """A workload's network at one scale, and its size.

    Attributes:
        workload: trains it.
        width, depth, resolution: factors over the workload that it was made of.
        kernel: side of its filters; None: as it was.
        parameters: that are trained.
        macs: multiply-accumulates of a forward pass of one example, padding included.

    Example:
        >>> from elision.workloads import find_workload
        >>> digits = find_workload("digits-cnn")
        >>> [(a.parameters, a.macs) for a in architectures(digits, width=(0.5, 1.0))]
        [(6274, 41792), (24058, 157312)]
    """

    workload: Workload
    width: float
    depth: float
    kernel: int | None
    resolution: float
    parameters: int
    macs: int

    @property
    def label(self) -> str:
        """The factors that differ from one, in words."""
        parts = [
            f"{name} {value:g}"
            for name, value in (
                ("width", self.width),
                ("depth", self.depth),
                ("resolution", self.resolution),
            )
            if value != 1
        ]
        if self.kernel is not None:
            parts.append(f"kernel {self.kernel}")
        return ", ".join(parts) or "as it is"


def architectures(
    workload: Workload,
    *,
    width: Sequence[float] = (1.0,),
    depth: Sequence[float] = (1.0,),
    kernel: Sequence[int | None] = (None,),
    resolution: Sequence[float] = (1.0,),
) -> list[Architecture]:
    """The workload's network at every combination of multipliers, in the order given.

    Args:
        workload: whose network has a name.
        width: factors of its ``width``; whole numbers of channels are rounded.
        depth: factors of its ``depth``.
        kernel: values of its ``kernel``; None leaves it.
        resolution: factors of the side of its images, rounded, where the data set has the
            options ``height`` and ``width``, or ``side``.

    Raises:
        ValueError: the network has no such option, the data set no size to change, or a
            factor is not above 0; the message names what is allowed.
    """
    for name, factors in (
        ("width", width),
        ("depth", depth),
        ("resolution", resolution),
    ):
        for factor in factors:
            number("architectures", name, factor, "> 0")
    plain = workload.load_dataset()
    found = []
    for wide, deep, side, scale in product(width, depth, kernel, resolution):
        options: dict[str, Any] = {}
        if wide != 1:
            options["width"] = _scaled(workload, "width", wide)
        if deep != 1:
            options["depth"] = _scaled(workload, "depth", deep)
        if side is not None:
            _default(workload, "kernel")
            options["kernel"] = side
        made = workload.changed(
            name=workload.name,
            model_options={**workload.model_options, **options},
            dataset_options={
                **workload.dataset_options,
                **_sized(workload, plain.image_size, scale),
            },
        )
        dataset = plain if scale == 1 else made.load_dataset()
        with torch.device("meta"):
            model = made.make_model(dataset)
        shape = (1, dataset.in_channels, *dataset.image_size)
        macs = sum(geometry.dense_macs for _, geometry in layer_shapes(model, shape))
        count = sum(p.numel() for p in model.parameters())
        found.append(Architecture(made, wide, deep, side, scale, count, macs))
    return found


def _default(workload: Workload, option: str) -> Any:
    """What an option of the workload's network is where nothing is said.

    Raises:
        ValueError: it has no such option.
    """
    build = lookup("model that can be scaled", workload.model, ALL_MODELS)
    known = inspect.signature(build).parameters
    if option not in known:
        able = [
            name
            for name, other in ALL_MODELS.items()
            if option in inspect.signature(other).parameters
        ]
        raise ValueError(
            f"model {workload.model!r} has no option {option!r}; models that have it: "
            + ", ".join(able)
        )
    return known[option].default


def _scaled(workload: Workload, option: str, factor: float) -> float | int:
    default = _default(workload, option)
    value = workload.model_options.get(option, default)
    return max(1, round(value * factor)) if isinstance(default, int) else value * factor


def _sized(workload: Workload, size: tuple[int, int], factor: float) -> dict[str, int]:
    """Options of the data set that scale its images from ``size``."""
    if factor == 1:
        return {}
    able = {name: inspect.signature(load).parameters for name, load in DATASETS.items()}
    known = able.get(workload.dataset, {})
    height, width = (max(1, round(side * factor)) for side in size)
    if "height" in known:
        return {"height": height, "width": width}
    if "side" in known:
        return {"side": height}
    sizable = [n for n, options in able.items() if {"height", "side"} & set(options)]
    raise ValueError(
        f"data set {workload.dataset!r} has images of one size; data sets with a "
        f"resolution to choose: {', '.join(sizable)}"
    )
