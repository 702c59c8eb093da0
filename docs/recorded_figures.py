"""The pictures of ``docs/figures`` that no command of the gallery makes, drawn anew.

``python docs/recorded_figures.py`` draws all of them, or those that are named, from the
records and from closed forms; nothing is measured.
"""

import argparse
import csv
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_type_hints

from elision.common.files import write_text

__all__ = ["FIGURES"]

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "records"

T = TypeVar("T")


def _rows(path: str) -> list[dict[str, str]]:
    """Rows of a record's table."""
    with (RECORDS / path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _typed(kind: type[T], path: str) -> list[T]:
    """Rows of a record's table as a dataclass; what it has no field for is left out."""
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]  # pyright: ignore[reportArgumentType]

    def value(hint: Any, text: str) -> Any:
        if isinstance(hint, UnionType):
            if not text:
                return None
            (hint,) = (each for each in get_args(hint) if each is not NoneType)
        return hint(text)

    return [
        kind(**{name: value(hints[name], row[name]) for name in names if name in row})
        for row in _rows(path)
    ]


def array_shapes() -> str:
    from elision.accelerators.design.sizing import ArrayShape
    from elision.report.array_shapes import array_shapes_svg

    path = "2026-11-21-intergrad/shapes.csv"
    drawn: dict[str, list[ArrayShape]] = {}
    pairs = zip(_rows(path), _typed(ArrayShape, path), strict=True)
    for row, shape in pairs:
        if row["network"] == "mobilenet-v2" and shape.rows * shape.columns == 4096:
            drawn.setdefault(row["array"], []).append(shape)
    title = "mobilenet-v2, 4,096 PEs, one training step of batch 4"
    return array_shapes_svg(drawn, title)


def intergrad_array() -> str:
    from elision.study.papers.intergrad.explained import interleave_svg

    return interleave_svg()


def intergrad_fully_connected() -> str:
    from elision.study.papers.intergrad.figures import fully_connected_svg
    from elision.study.papers.intergrad.layers import FullyConnectedRow

    path = "2026-11-21-intergrad/fully_connected.csv"
    return fully_connected_svg(_typed(FullyConnectedRow, path))


def intergrad_savings() -> str:
    from elision.study.papers.intergrad.figures import savings_svg
    from elision.study.papers.intergrad.steps import StepRow

    return savings_svg(_typed(StepRow, "2026-11-21-intergrad/steps.csv"))


def listing_array() -> str:
    from elision.accelerators.spatial.schedule import parse
    from elision.report.network_figure import network_svg

    page = (ROOT / "docs" / "from-a-listing-to-an-array.md").read_text("utf-8")
    listing = page.partition('listing = """\n')[2].partition('"""')[0]
    return network_svg(parse(listing).design(), "the listing's array")


def local_training() -> str:
    from elision.study.papers.local_training.diloco import LossRow
    from elision.study.papers.local_training.fedavg import RoundsRow
    from elision.study.papers.local_training.figure import local_training_svg

    folder = "2026-11-30-local-training"
    return local_training_svg(
        _typed(RoundsRow, f"{folder}/rounds.csv"),
        _typed(LossRow, f"{folder}/diloco.csv"),
    )


def memory_map() -> str:
    import torch

    from elision.export import arena
    from elision.report.memory_map import memory_map as drawn
    from elision.workloads import make_model

    torch.manual_seed(0)
    plan = arena(make_model("tiny-resnet8", classes=10), torch.zeros(1, 3, 32, 32))
    boxes = [(t.name, t.size_bytes, t.first, t.last, t.offset) for t in plan.tensors]
    title = f"tiny-resnet8 in int8: {plan.text().partition(';')[0]}"
    return drawn(boxes, plan.order, title=title)


def noise_by_layer() -> str:
    from elision.report.sensitivity_figures import noise_dots

    rows = _rows("2026-11-29-precision/sensitivity/layers.csv")
    noises: dict[str, list[float]] = {}
    for row in rows:
        noises.setdefault(row["arithmetic"], []).append(float(row["noise"]))
    return noise_dots(
        list(dict.fromkeys(row["layer"] for row in rows)),
        noises,
        "Each layer alone: noise to signal at its output, both operands rounded",
    )


def overlap() -> str:
    from elision.report.scaling_figure import Step, steps_svg
    from elision.training.parallel.scaling.observed import BucketTime, LayerTime

    path = RECORDS / "2026-11-30-scaling/overlap-photo-vgg16/overlap.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    zero = found["steps"][0]["forward"]  # two ranks of one machine, one clock
    steps = []
    for step in found["steps"]:
        buckets = [BucketTime(*bucket) for bucket in step["buckets"]]
        layers = [LayerTime(*layer) for layer in step["layers"]]
        steps.append(
            Step(
                found["ranks"],
                step["computed"] - zero,
                [(b.ready - zero, b.sent - zero, b.done - zero) for b in buckets],
                f"Rank {step['rank']}, measured",
                [(layer.start - zero, layer.end - zero) for layer in layers],
            )
        )
    ways = [(w["ready"], w["start"], w["end"]) for w in found["model_timeline"]]
    # The last gradient, with which the last bucket is ready, ends the backward pass.
    steps.append(Step(found["ranks"], ways[-1][0], ways, "Model"))
    return steps_svg(steps)


def pipeline_schedules() -> str:
    from elision.report.pipeline_figure import pipeline_svg
    from elision.training.pipeline import LayerCost, plan

    # Two layers a stage, for ZBV's eight stages: a unit and a MiB a stage of the others.
    layer = LayerCost(
        0.5, 0.5, 0.5, kept_bytes=2**19, parameter_bytes=2**19, unit="cycles"
    )
    names = ("gpipe", "1f1b", "zb1p", "zbv", "pipedream", "layerpipe")
    return pipeline_svg([plan([layer] * 8, 4, name, 8).panel() for name in names])


def scaling() -> str:
    from elision.cli.scale import figure_of
    from elision.training.parallel.scaling import Link, StepCosts, scaling_model
    from elision.training.parallel.scaling.overlap import Bucket

    path = RECORDS / "2026-11-30-scaling/photo-resnet8/scaling.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    step = found["step"]
    step["gradients"] = tuple(Bucket(*bucket) for bucket in step["gradients"])
    model = scaling_model(
        StepCosts(**step),
        Link.parse(found["link"], found["latency"]),
        batch=found["batch"],
        ranks=[row["ranks"] for row in found["rows"]],
    )
    return figure_of(model, found["pays_until"])


def _spatial(title: str, *map: Any) -> str:
    from elision.accelerators.spatial import LoopNest, SpaceTimeMap
    from elision.report.spatial_figure import array_svg

    return array_svg(LoopNest.matmul(3, 3, 3), SpaceTimeMap(*map), title) + "\n"


def spatial_hexagonal() -> str:
    rows = ((1, 0, -1), (0, 1, -1))
    return _spatial("all three move: hexagonal", rows, (1, 1, 1))


def spatial_output_stationary() -> str:
    times = {"i": 1, "j": 1, "k": 1}
    return _spatial("C stays: output-stationary", ("i", "j"), times)


def sufficient_formats() -> str:
    import numpy as np

    from elision.precision.arithmetic import bits_of
    from elision.report.sensitivity_figures import format_map

    rows = _rows("2026-11-29-precision/sensitivity/smallest.csv")
    layers = [row.pop("layer") for row in rows]
    names = [list(row.values()) for row in rows]
    bits = [[float(bits_of(n)) if n else np.nan for n in row] for row in names]
    columns = [name.replace(" ", "\n") for name in rows[0]]
    title = "First format with an error of at most 0.06"
    return format_map(layers, columns, names, np.array(bits), title)


#: What draws each picture, by its name.
FIGURES: dict[str, Callable[[], str]] = {
    "array-shapes-mobilenet-v2": array_shapes,
    "intergrad-array": intergrad_array,
    "intergrad-fully-connected": intergrad_fully_connected,
    "intergrad-savings": intergrad_savings,
    "listing-array": listing_array,
    "local-training": local_training,
    "memory-map": memory_map,
    "noise-by-layer": noise_by_layer,
    "overlap": overlap,
    "pipeline-schedules": pipeline_schedules,
    "scaling": scaling,
    "spatial-hexagonal": spatial_hexagonal,
    "spatial-output-stationary": spatial_output_stationary,
    "sufficient-formats": sufficient_formats,
}


def main() -> None:
    """Draw the pictures that the command line names."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    known = ", ".join(FIGURES)
    parser.add_argument("names", nargs="*", help=f"of {known}; default: all")
    names = parser.parse_args().names or list(FIGURES)
    if unknown := [name for name in names if name not in FIGURES]:
        parser.error(f"unknown picture {unknown[0]!r}; known: {known}")
    for name in names:
        write_text(ROOT / "docs" / "figures" / f"{name}.svg", FIGURES[name]())
        print(f"docs/figures/{name}.svg", flush=True)


if __name__ == "__main__":
    main()
