"""Flags that name what is trained, and the folder of a run that was given none."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from elision.cli.flags import Integer, Integers

if TYPE_CHECKING:
    from elision.energy import Grid
    from elision.study import StudyConfig
    from elision.workloads import Workload

__all__ = ["GridFlags", "WorkloadFlags", "folder_for"]


def _help(text: str) -> Any:
    return Parameter(help=text)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class WorkloadFlags:
    """Flags that replace settings of the workload; see :class:`elision.workloads.Workload`.

    Example:
        >>> WorkloadFlags(model="mlp", batch=16).workload("digits-cnn").name
        'digits-mlp-batch-size-16'
    """

    dataset: Annotated[
        str | None,
        _help(
            "Data set instead of the workload's, such as folder (your own images: --data "
            "with a folder a class), or package.module:NAME for a function of your own; "
            "with options: 'folder(side=64)'."
        ),
    ] = None
    model: Annotated[
        str | None,
        _help(
            "Network instead of the workload's: a name that `elision data` lists, "
            "timm:NAME, torchvision:NAME, or package.module:NAME for a class or function "
            "of your own, called with num_classes=, in_channels= and image_size= as far "
            "as it takes them; with options: 'resnet8(width=32)'."
        ),
    ] = None
    batch: Annotated[Integer | None, _help("Examples in a batch.")] = None
    lr: Annotated[float | None, _help("Learning rate at the start.")] = None
    optimizer: Annotated[Literal["sgd", "adamw"] | None, _help("Optimiser.")] = None
    momentum: Annotated[
        float | None, _help("Of sgd; of adamw the decay of its mean gradient.")
    ] = None
    weight_decay: Annotated[float | None, _help("Of every parameter.")] = None
    schedule: Annotated[
        Literal["cosine", "step", "halving", "constant"] | None,
        _help(
            "Of the learning rate; step divides it at the --milestones, halving halves it "
            "four times in the last third of the run."
        ),
    ] = None
    milestones: Annotated[Integers, _help("Epochs, counted from 0.")] = ()
    warmup: Annotated[
        Integer | None,
        _help("Steps in which the rate rises from a hundredth of its schedule."),
    ] = None
    clip_norm: Annotated[
        float | None,
        _help("Largest norm of the gradient of all parameters together."),
    ] = None
    augment: Annotated[bool | None, _help("Random crops and mirror images.")] = None

    def workload(self, name: str) -> "Workload":
        """The workload of a name or a file, changed by these flags."""
        from elision.workloads import find_workload

        settings = {**vars(self), "milestones": self.milestones or None}
        return find_workload(name).changed(**settings)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class GridFlags:
    """Flags that say what the electricity is; see :class:`elision.energy.Grid`.

    Example:
        >>> str(GridFlags(pue=1.2, grid="400").chosen())
        'PUE 1.2, 400 g/kWh (PUE given; intensity given)'
        >>> GridFlags().chosen() is None
        True
    """

    pue: Annotated[
        float | None,
        _help(
            "Power usage effectiveness: energy of the building over that of its machines, 1 "
            "for a machine at home. Default: that of the run folder, else 1.54, the average "
            "of the Uptime Institute's survey of 2025."
        ),
    ] = None
    grid: Annotated[
        str | None,
        _help(
            "Grams of CO2e a kWh from the grid, or the mean of world, china, france, "
            "germany, india, uk or us. Default: that of the run folder, else world."
        ),
    ] = None

    def chosen(self) -> "Grid | None":
        """The grid that these flags say; None where neither is given."""
        from elision.energy import grid_named

        if self.pue is None and self.grid is None:
            return None
        return grid_named(self.grid, self.pue)


def folder_for(config: "StudyConfig", out: Path | None, name: str) -> Path:
    """The folder that was asked for, or one of the usual name that the run can have."""
    from elision.study import default_folder

    return default_folder(config, Path("runs") / name) if out is None else out
