"""Training with a teacher: lessons kept or not, killed or not, the same bits."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from elision.distill import LessonCache, Teaching, make_distillations
from elision.methods import make_recipe
from elision.training import Execution, RunPlan, TrainResult, checkpoint, train
from elision.workloads import Dataset, Workload

SMALL = Workload(
    name="small",
    dataset="digits",
    model="cnn",
    model_options={"width": 4},
    epochs=2,
    train_images=72,
    test_images=40,
    batch_size=32,
)
DIGITS: Dataset = SMALL.load_dataset()
#: Layers of the small network: features.2 and .5 answer with maps.
EVERY = (
    "hinton(2, 0.4)+hints(features.5, weight=0.01)+attention((features.2, features.5))"
    "+relational(features.8)+born-again(1, 0.3)"
)


def teacher(width: int = 4) -> nn.Module:
    torch.manual_seed(7)
    made = SMALL.changed(model=f"cnn(width={width})").make_model(DIGITS)
    return made.requires_grad_(False)


def run(
    spec: str | None,
    *,
    recipe: str = "dense",
    augment: bool = False,
    cache: LessonCache | None = None,
    folder: Path | None = None,
    width: int = 4,
    execution: Execution | None = None,
) -> TrainResult:
    workload = replace(SMALL, augment=augment)
    teaching = None
    if spec is not None:
        by = make_distillations(spec)
        own = all(part.own_teacher for part in by)
        network = None if own else teacher(width)
        teaching = Teaching(by=by, teacher=network, cache=cache)
    return train(
        workload,
        make_recipe(recipe, steps=6),
        DIGITS,
        RunPlan(seed=1, meter_every=2, record_epochs=(1,)),
        execution=execution,
        folder=folder,
        teaching=teaching,
    )


def assert_same(one: TrainResult, other: TrainResult) -> None:
    assert one.history == other.history
    assert one.meter.to_json() == other.meter.to_json()
    own, its = one.model.state_dict(), other.model.state_dict()
    assert own.keys() == its.keys()
    for name, value in own.items():
        assert torch.equal(value, its[name]), name


def test_weight_zero_is_plain_training_bit_for_bit() -> None:
    assert_same(run(None), run("hinton:weight=0+hints(features.5, weight=0)"))


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("spec", ["hinton", EVERY])
def test_with_and_without_lessons_on_disk_the_bits_are_the_same(
    tmp_path: Path, spec: str, augment: bool
) -> None:
    cache = LessonCache(tmp_path)
    free = run(spec, augment=augment)
    written = run(spec, augment=augment, cache=cache)
    files = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert len(files) == (SMALL.epochs if augment else 1)
    read = run(spec, augment=augment, cache=cache)
    assert files == {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert_same(free, written)
    assert_same(free, read)
    assert free.history != run(None, augment=augment).history


def test_lessons_on_disk_are_what_is_read(tmp_path: Path) -> None:
    cache = LessonCache(tmp_path)
    free = run("hinton", cache=cache)
    (file,) = tmp_path.iterdir()
    asked: list[int] = []
    original = LessonCache.read

    def changed(self: LessonCache, question: dict[str, object]) -> object:
        found = original(self, question)
        assert found is not None
        asked.append(len(found["0"]))
        return {"0": found["0"].flip(1)}

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LessonCache, "read", changed)
        turned = run("hinton", cache=cache)
    assert asked == [72]
    assert turned.history != free.history
    assert file.is_file()


def test_lessons_are_bounded_and_belong_to_one_teacher(tmp_path: Path) -> None:
    run("hinton", cache=LessonCache(tmp_path, limit_bytes=100))
    run("hinton", cache=LessonCache(tmp_path, limit_bytes=100), augment=True)
    assert not list(tmp_path.iterdir())
    run("hinton", cache=LessonCache(tmp_path))
    run("hinton(3)", cache=LessonCache(tmp_path))  # asks something else
    run("hinton", cache=LessonCache(tmp_path), width=8)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("spec", "augment"), [(EVERY, True), ("average(decay=0.9)", False)]
)
def test_killed_and_resumed_ends_as_a_run_that_was_not(
    tmp_path: Path, spec: str, augment: bool
) -> None:
    whole = run(spec, augment=augment)
    original = checkpoint.save

    def killed(*args: object) -> None:
        original(*args)  # pyright: ignore[reportArgumentType]
        raise KeyboardInterrupt

    cache = LessonCache(tmp_path / "lessons")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(checkpoint, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            run(spec, augment=augment, folder=tmp_path / "run", cache=cache)
    torch.manual_seed(99)
    resumed = run(spec, augment=augment, folder=tmp_path / "run", cache=cache)
    assert_same(whole, resumed)


@pytest.mark.parametrize(
    ("recipe", "execution"),
    [
        ("rigl:sparsity=0.8,every=2", {}),
        ("swat:sparsity=0.95", {"engine": "native"}),
        ("fp8", {}),
        ("dense", {"memory": "bits(4)"}),
        ("twn", {"precision": "bf16"}),
        ("swat+fp8", {"memory": "bits(4)"}),
    ],
)
def test_it_goes_with_masks_formats_and_memory(
    recipe: str, execution: dict[str, str]
) -> None:
    taught = run(EVERY, recipe=recipe, execution=Execution(**execution))
    alone = run(None, recipe=recipe, execution=Execution(**execution))
    assert taught.history != alone.history
    assert taught.model.state_dict().keys() == alone.model.state_dict().keys()
    if "memory" in execution:  # what is packed is the student's own, and no more
        assert taught.saved_bytes is not None
        assert alone.saved_bytes is not None
        assert taught.saved_bytes[0] == alone.saved_bytes[0]
    assert taught.meter.total().dense_macs == alone.meter.total().dense_macs


def test_teachers_that_do_not_fit_are_refused_before_a_step() -> None:
    def refused(spec: str, network: nn.Module | None) -> str:
        def begun() -> None:
            teaching = Teaching(by=make_distillations(spec), teacher=network)
            train(SMALL, make_recipe("dense"), DIGITS, RunPlan(), teaching=teaching)

        with pytest.raises(ValueError, match=r".+") as error:
            begun()
        return str(error.value)

    colours = Workload(name="c", dataset="photo-patches", model="cnn")
    other = colours.make_model(colours.load_dataset())
    assert "does not take the student's data" in refused("hinton", other)
    eight = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))
    assert "8 classes, the student with 10" in refused("hinton", eight)
    assert "known: features" in refused("hints(layer3)", teacher())
    assert "another network than the student" in refused("born-again", teacher(8))
    assert "needs a teacher" in refused("hinton", None)
    wide = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 10))
    said = refused("attention(features.2, 0)", wide)
    assert "must be text" in said
    said = refused("attention(features.2, '0')", wide)
    assert "maps of 64 and 36 places" in said
