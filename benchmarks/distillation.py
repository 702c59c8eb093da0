"""Does a teacher help? The same student alone and taught, over seeds, on images that ship.

    python benchmarks/distillation.py [--out FILE] [--seeds N] [--only SETTING ...]

Every arm of a setting has the same student, images, recipe, seeds and epochs; only what is
learnt from the teacher differs. Arms that the file has already are not run again. A
difference is of two means over seeds, its standard error sqrt(s1²/n + s2²/n).
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from elision.common.files import write_json
from elision.distill import LessonCache, Teaching, make_distillations
from elision.engines.bench import machine
from elision.methods import make_recipe
from elision.report.table import rows_as_text
from elision.training import RunPlan, train
from elision.workloads import Workload

#: First seed of the students, and the teacher's: other seeds than those tried before.
FIRST, TEACHERS = 1000, 7

_HEAT = tuple(f"hinton(temperature={t}, weight=0.9)" for t in (1, 2, 4, 10))
_USUAL = "hinton(temperature=4, weight=0.9)"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A student, its images, and what it is taught.

    ``teacher_images`` None: all of the data set; the student then has fewer labels than
    its teacher had, unless ``images`` is None, too.
    """

    dataset: str = "digits"
    images: int | None
    student: str
    width: int
    epochs: int
    arms: tuple[str, ...]
    recipe: str = "dense"
    teacher: str = "cnn"
    teacher_width: int = 32
    teacher_images: int | None = None
    teacher_epochs: int = 30
    batch: int = 32

    def workload(self) -> Workload:
        """The student's."""
        return Workload(
            name="student",
            dataset=self.dataset,
            model=self.student,
            model_options={"width": self.width},
            batch_size=self.batch,
            epochs=self.epochs,
            learning_rate=0.05,
            train_images=self.images,
        )

    def teachers(self) -> Workload:
        """The teacher's."""
        return Workload(
            name="teacher",
            dataset=self.dataset,
            model=self.teacher,
            model_options={"width": self.teacher_width},
            epochs=self.teacher_epochs,
            learning_rate=0.05,
            augment=self.dataset != "digits",
            train_images=self.teacher_images,
        )


SETTINGS: dict[str, Setting] = {
    "few labels": Setting(
        images=100,
        student="cnn",
        width=4,
        epochs=60,
        arms=(
            *_HEAT,
            "hinton(temperature=4, weight=0.5)",
            "hinton(temperature=4, weight=1)",
            "attention((features.2, features.5), weight=1)",
            "relational(weight=1)",
            "hints(features.5, weight=0.01)",
            f"{_USUAL}+attention((features.2, features.5), weight=1)",
            "average(weight=0.5, decay=0.99)",
        ),
    ),
    "few labels, MLP": Setting(
        images=100, student="mlp", width=64, epochs=60, arms=(_USUAL,)
    ),
    "few labels, SWAT 95 %": Setting(
        images=200,
        student="cnn",
        width=8,
        epochs=60,
        recipe="swat:sparsity=0.95",
        arms=(_USUAL,),
    ),
    "few labels, ternary": Setting(
        images=200, student="cnn", width=8, epochs=60, recipe="twn", arms=(_USUAL,)
    ),
    "all labels, narrow": Setting(
        images=None, student="cnn", width=2, epochs=20, arms=(_USUAL,)
    ),
    "teacher of the same 300": Setting(
        images=300,
        student="cnn",
        width=4,
        epochs=40,
        teacher_images=300,
        teacher_epochs=100,
        arms=(_HEAT[1], _USUAL),
    ),
    "tiny MLP, teacher of the same 300": Setting(
        images=300,
        student="mlp",
        width=12,
        epochs=40,
        teacher_images=300,
        teacher_epochs=100,
        arms=(_HEAT[1], _USUAL),
    ),
    "born again, the same 300": Setting(
        images=300,
        student="cnn",
        width=4,
        epochs=40,
        teacher_width=4,
        teacher_images=300,
        teacher_epochs=40,
        arms=("born-again(temperature=1, weight=0.5)",),
    ),
    "photographs, few labels, few steps": Setting(
        dataset="photo-patches",
        images=400,
        student="resnet8",
        width=8,
        epochs=15,
        batch=64,
        teacher="resnet8",
        teacher_width=16,
        teacher_epochs=8,
        arms=(_USUAL, "hints(layer3, weight=0.001)"),
    ),
}


def trained(setting: Setting) -> tuple[nn.Module, float]:
    """The setting's teacher, and the share of test images that it has right."""
    workload = setting.teachers()
    result = train(
        workload,
        make_recipe("dense"),
        workload.load_dataset(),
        RunPlan(seed=TEACHERS, meter_every=2**30),
    )
    return result.model.requires_grad_(False), result.history[-1].score


def scores(setting: Setting, teaching: Teaching | None, seeds: range) -> list[float]:
    """Test accuracy of the student at every seed."""
    workload = setting.workload()
    dataset = workload.load_dataset()
    steps = workload.epochs * workload.steps_per_epoch(dataset)
    recipe = make_recipe(setting.recipe, steps=steps)
    found = []
    for seed in seeds:
        plan = RunPlan(seed=seed, meter_every=2**30)
        result = train(workload, recipe, dataset, plan, teaching=teaching)
        found.append(result.history[-1].score)
    return found


def compared(alone: list[float], taught: list[float]) -> tuple[float, float]:
    """Difference of two means, and its standard error."""
    errors = [statistics.variance(x) / len(x) for x in (alone, taught)]
    gain = statistics.fmean(taught) - statistics.fmean(alone)
    return gain, math.sqrt(sum(errors))


def rows(name: str, found: dict[str, Any]) -> list[dict[str, str]]:
    """A setting's table, a row an arm."""
    alone = found["arms"]["alone"]
    table = []
    for arm, values in found["arms"].items():
        own = statistics.stdev(values) / math.sqrt(len(values))
        row = {"setting": name, "student": arm, "seeds": str(len(values))}
        row["accuracy"] = f"{100 * statistics.fmean(values):.1f} ± {100 * own:.1f} %"
        if arm != "alone":
            gain, error = compared(alone, values)
            row["gain"] = f"{100 * gain:+.1f} ± {100 * error:.1f} points"
            row["in errors"] = f"{gain / error:+.1f}" if error else ""
        table.append(row)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--only", nargs="+", choices=list(SETTINGS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"settings": {}}
    if given.out and given.out.is_file():
        found = json.loads(given.out.read_text(encoding="utf-8"))
    found["machine"] = machine()
    seeds, began = range(FIRST, FIRST + given.seeds), time.process_time()
    for name in given.only or SETTINGS:
        setting = SETTINGS[name]
        kept = found["settings"].setdefault(name, {"arms": {}})
        if all(arm in kept["arms"] for arm in ("alone", *setting.arms)):
            continue
        teacher, kept["teacher_accuracy"] = trained(setting)
        kept["setting"] = asdict(setting)
        with tempfile.TemporaryDirectory() as folder:
            for arm in ("alone", *setting.arms):
                if arm in kept["arms"]:
                    continue
                by = () if arm == "alone" else make_distillations(arm)
                own = all(part.own_teacher for part in by)
                teaching = None
                if by:
                    cache = LessonCache(Path(folder))
                    teaching = Teaching(
                        by=by, teacher=None if own else teacher, cache=cache
                    )
                kept["arms"][arm] = scores(setting, teaching, seeds)
                found["seconds"] = found.get("seconds", 0) + round(
                    time.process_time() - began
                )
                began = time.process_time()
                if given.out:
                    write_json(given.out, found)
        print(rows_as_text(rows(name, kept)), flush=True)
        print(f"teacher: {100 * kept['teacher_accuracy']:.1f} %\n", flush=True)


if __name__ == "__main__":
    main()
