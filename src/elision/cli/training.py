"""Flags that name what is trained, and the folder of a run that was given none."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from elision.cli.flags import Integer, Integers

if TYPE_CHECKING:
    from elision.study import StudyConfig
    from elision.workloads import Workload

__all__ = ["WorkloadFlags", "folder_for"]


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


def folder_for(config: "StudyConfig", out: Path | None, name: str) -> Path:
    """The folder that was asked for, or one of the usual name that the run can have."""
    from elision.study import default_folder

    return default_folder(config, Path("runs") / name) if out is None else out
