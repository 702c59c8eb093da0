"""The sensitivity of one trained network: measured, allotted, written to a folder.

What is measured is in :mod:`elision.precision`; here it is joined to a network and its
data, and its tables and figures become files.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from elision.common.checks import integer, number
from elision.common.files import (
    check_no_links_out,
    to_csv,
    without_nan,
    write_json,
    write_text,
)
from elision.layers import Recipe, elide, restore
from elision.precision import (
    Perturbation,
    Sensitivity,
    TopClasses,
    allocate,
    arithmetic,
    folded,
    perturbation,
    rounding,
    sensitivity,
    top_classes,
    uniform_recipe,
)
from elision.precision.arithmetic import bits_of
from elision.precision.noise import relative_error
from elision.products import Product
from elision.study.page.subject import SubjectPage
from elision.study.trained import trained_for
from elision.training.loop import Progress
from elision.workloads import Dataset, Workload
from elision.workloads.data.photographs import (
    Photographs,
    class_names,
    imagenet_photographs,
)
from elision.workloads.models.trained import trained_mobilenet_v2

__all__ = [
    "Examination",
    "PhotoView",
    "check_choices",
    "examined",
    "photo_view",
    "trained_plainly",
    "write_folder",
]


@dataclass(frozen=True)
class Examination:
    """A trained network, its noise and what a budget of bits makes of it.

    Attributes:
        perturbation: all layers together in each arithmetic.
        sensitivity: one operand at a time; None: no operand was asked for.
        allotted: rows: the allocation beside uniform bits, predicted and measured.
        bits: a row for each layer with the format of each operand, of the allocation.
    """

    perturbation: Perturbation
    sensitivity: Sensitivity | None = None
    allotted: tuple[dict[str, Any], ...] = ()
    bits: tuple[dict[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "perturbation": self.perturbation.to_dict(),
            "sensitivity": self.sensitivity and self.sensitivity.to_dict(),
            "allotted": list(self.allotted),
            "bits": list(self.bits),
        }


def trained_plainly(
    workload: Workload,
    dataset: Dataset,
    seed: int = 0,
    progress: Progress | None = None,
) -> nn.Module:
    """The workload's network, trained with nothing left out, in evaluation mode."""
    model = trained_for(workload, "dense", dataset, seed=seed, progress=progress)
    return restore(model).eval()


def check_choices(
    arithmetics: Sequence[str],
    formats: Sequence[str],
    operands: Sequence[str],
    budget: float,
    examples: int,
) -> None:
    """Check what :func:`examined` is asked for, before a network is trained for it.

    Args:
        arithmetics: of all layers together.
        formats: of one operand at a time.
        operands: that are rounded one at a time.
        budget: mean bits of the weights, and of the inputs.
        examples: for the sensitivities.

    Raises:
        ValueError: an unknown arithmetic, format or operand, a format that an operand
            cannot have, a budget below the fewest bits, or no examples.

    Example:
        >>> check_choices(["8a-4w"], ["4", "8"], ["weight"], 3.0, 64)
        Traceback (most recent call last):
        ValueError: sensitivity(budget=3.0): must be a number >= 4
    """
    for text in arithmetics:
        arithmetic(text)
    for operand in operands:
        for format in formats:
            rounding(format, operand)
    integer("sensitivity", "examples", examples)
    if any(operand in Product.FORWARD.operands for operand in operands):
        number("sensitivity", "budget", budget, f">= {min(map(bits_of, formats))}")


def examined(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    arithmetics: Sequence[str],
    formats: Sequence[str] = (),
    operands: Sequence[str] = (),
    budget: float = 4.0,
    examples: int = 64,
    seed: int = 0,
) -> Examination:
    """Examine a network on test data, batch normalisation folded.

    Args:
        model: trained; unchanged.
        inputs: test examples.
        labels: of these.
        arithmetics: of all layers together.
        formats: of one operand at a time.
        operands: that are rounded one at a time; none: only all together.
        budget: mean bits of the weights, and of the inputs.
        examples: the first so many are for the sensitivities; an allocation is measured on
            the others, or on these where there are none.
        seed: of the Hessian's probes.

    Raises:
        ValueError: see :func:`elision.precision.sensitivity` and
            :func:`elision.precision.allocate`.
    """
    made = folded(restore(copy.deepcopy(model)), inputs[:2])
    together = perturbation(made, (inputs, labels), arithmetics)
    if not operands:
        return Examination(together)
    few = inputs[:examples], labels[:examples]
    alone = sensitivity(made, few, formats, operands, seed=seed)
    read = [o for o in ("input", "weight") if o in operands]
    if not read:
        return Examination(together, alone)
    rest = (inputs[examples:], labels[examples:]) if len(inputs) > examples else few
    chosen = allocate(alone, budget)
    arms = {"allocated": (chosen.recipe(), chosen.bits, chosen.damage)}
    uniform = [f for f in formats if f.isdecimal() and int(f) <= budget]
    if uniform:
        same = max(uniform, key=int)
        damage = sum(
            row.score_noise**2
            for row in alone.rows
            if row.operand in read and row.format == same
        )
        bits = dict.fromkeys(chosen.bits, float(same))
        arms[f"{same} bits everywhere"] = uniform_recipe(same, read), bits, damage
    rows = [
        {
            "formats": name,
            **{f"{operand}, mean bits": mean for operand, mean in bits.items()},
            "score error, predicted": damage**0.5,
            **_measured(made, recipe, *rest),
        }
        for name, (recipe, bits, damage) in arms.items()
    ]
    return Examination(together, alone, tuple(rows), tuple(chosen.rows()))


@torch.no_grad()
def _measured(
    model: nn.Module, recipe: Recipe, inputs: Tensor, labels: Tensor
) -> dict[str, Any]:
    exact = model(inputs)
    scores = elide(copy.deepcopy(model), recipe, engine="torch")(inputs)
    right = float((scores.argmax(1) == labels).double().mean())
    return {
        "score error, measured": relative_error(scores, exact),
        "right": f"{100 * right:.1f} % of {len(labels)}",
        "float": f"{100 * float((exact.argmax(1) == labels).double().mean()):.1f} %",
    }


@dataclass(frozen=True)
class PhotoView:
    """MobileNetV2 on real photographs in a series of arithmetics.

    Attributes:
        perturbation: all layers together.
        photos: the photographs.
        tops: their five likeliest classes, the network as it is first.
        names: of the classes.
    """

    perturbation: Perturbation
    photos: Photographs
    tops: tuple[TopClasses, ...]
    names: tuple[str, ...]

    def rows(self) -> list[dict[str, Any]]:
        """The table of formats with top-1 and top-5, where classes are known."""
        rows = self.perturbation.rows()
        if bool((self.photos.labels >= 0).all()):
            for row, top in zip(rows, self.tops, strict=True):
                inside = int(top.holds(self.photos.labels).sum())
                row["in the first five"] = f"{inside} of {len(self.photos)}"
        return rows


def photo_view(
    arithmetics: Sequence[str], photos: Photographs | None = None
) -> PhotoView:
    """MobileNetV2 with ImageNet's weights, batch normalisation folded, on photographs.

    Args:
        arithmetics: of all layers together.
        photos: None: the 20 of the extra ``photos``.

    Raises:
        ModuleNotFoundError: a package is not installed; the message says which.
    """
    model = trained_mobilenet_v2()
    chosen = imagenet_photographs() if photos is None else photos
    made = folded(model, chosen.images[:1])
    return PhotoView(
        perturbation(made, (chosen.images, chosen.labels), arithmetics),
        chosen,
        tuple(top_classes(made, chosen.images, arithmetics)),
        class_names(),
    )


def write_folder(
    folder: Path,
    page: SubjectPage,
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    summary: Mapping[str, Any],
) -> None:
    """Write ``report.html``, ``summary.json``, ``tables/*.csv`` and ``figures/*.svg``.

    Args:
        folder: made if it is not there.
        page: of the report.
        tables: name -> rows.
        summary: plain values; NaN becomes null.

    Raises:
        ValueError: the folder has a link to a folder outside.
        OSError: the folder cannot be written.
    """
    check_no_links_out(folder)
    for name in ("tables", "figures"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        write_text(folder / "tables" / f"{name}.csv", to_csv([dict(r) for r in rows]))
    for name, figure in page.figures.items():
        write_text(folder / "figures" / f"{name}.svg", figure)
    write_json(folder / "summary.json", without_nan({"layout": 1, **summary}))
    write_text(folder / "report.html", page.html())
