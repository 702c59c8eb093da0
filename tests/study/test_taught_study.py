"""A study whose recipes are taught by the network of a finished run."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from elision.common.files import load_tensors, save_tensors
from elision.study import StudyConfig, record_again, study, trained_network
from elision.study.config import command_line_toml
from elision.study.teacher import place_of
from elision.training import checkpoint
from elision.workloads import Workload

SMALL = Workload(
    name="small",
    dataset="digits",
    model="mlp",
    model_options={"width": 16},
    epochs=2,
    train_images=80,
    test_images=40,
    learning_rate=0.05,
)
TEACHER = StudyConfig(
    workload=SMALL.changed(model="cnn(width=4)"),
    recipes=("dense", "swat:sparsity=0.5"),
    accelerators=(),
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    study(TEACHER, folder / "teacher")
    return folder


def student(runs: Path, spec: str = "hinton(2)", name: str = "teacher") -> StudyConfig:
    return StudyConfig(
        workload=SMALL,
        recipes=("dense", "rigl:sparsity=0.5,every=2"),
        accelerators=(),
        teacher=str(runs / name),
        distill=spec,
    )


def test_the_run_says_who_taught(runs: Path, tmp_path: Path) -> None:
    outcome = study(student(runs), tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    theirs = json.loads((runs / "teacher" / "summary.json").read_text())
    told = summary["distillation"]
    score = theirs["recipes"]["dense"]["test_accuracy"]
    assert told["spec"] == "hinton(2)"
    assert told["teacher"]["test_accuracy"] == score
    sources = json.loads((tmp_path / "run" / "sources.json").read_text())
    assert sources["teacher"] == told["teacher"]["digest"]
    assert outcome.teacher is not None
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"cnn on digits under dense, test accuracy {100 * score:.1f} %" in page
    assert '<h2 id="teacher">Teacher' in page
    (lessons,) = (tmp_path / "run" / "lessons").iterdir()  # once, for both recipes
    before = lessons.stat().st_mtime_ns
    alone = study(
        replace(student(runs), teacher=None, distill=None), tmp_path / "alone"
    )
    assert [o.history for o in alone.outcomes] != [o.history for o in outcome.outcomes]
    study(replace(student(runs), seeds=2), tmp_path / "run")  # more seeds, same lessons
    assert lessons.stat().st_mtime_ns == before
    assert f'teacher = "{runs / "teacher"}"' in command_line_toml(student(runs))


def test_another_recipe_of_the_run_teaches_where_it_is_named(
    runs: Path, tmp_path: Path
) -> None:
    name = "teacher:swat:sparsity=0.5"
    assert place_of(str(runs / name)) == (runs / "teacher", "swat:sparsity=0.5")
    outcome = study(
        replace(student(runs, name=name), recipes=("dense",)), tmp_path / "run"
    )
    assert outcome.teacher is not None
    assert outcome.teacher.recipe == "swat:sparsity=0.5"


def test_killed_and_continued_equals_uninterrupted(runs: Path, tmp_path: Path) -> None:
    study(replace(TEACHER, workload=SMALL, recipes=("dense",)), runs / "twin")
    config = student(runs, "born-again+hints(layers.2)", name="twin")
    study(config, tmp_path / "whole")
    original = checkpoint.save
    saves = []

    def killed(*args: object) -> None:
        original(*args)  # pyright: ignore[reportArgumentType]
        saves.append(args)
        if len(saves) in (1, 3):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(checkpoint, "save", killed)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                study(config, tmp_path / "part")
    study(config, tmp_path / "part")
    for name in ("summary.json", "metrics.jsonl", "trace.safetensors"):
        whole, part = (tmp_path / n / name for n in ("whole", "part"))
        assert whole.read_bytes() == part.read_bytes(), name


def test_workers_give_the_same(runs: Path, tmp_path: Path) -> None:
    config = replace(student(runs), epochs=1)
    study(config, tmp_path / "alone")
    study(config, tmp_path / "spread", workers=2)
    one, other = (
        (tmp_path / n / "summary.json").read_bytes() for n in ("alone", "spread")
    )
    assert one == other


def test_a_teacher_that_has_changed_refuses_to_go_on(
    runs: Path, tmp_path: Path
) -> None:
    shutil.copytree(runs / "teacher", tmp_path / "teacher")
    config = replace(student(tmp_path), recipes=("dense",))
    study(config, tmp_path / "run")
    (path,) = (tmp_path / "teacher" / "recipes" / "dense").glob("checkpoint*")
    tensors, facts = load_tensors(path, "checkpoint")
    name = next(n for n in tensors if n.endswith("classifier.bias"))
    save_tensors(path, {**tensors, name: tensors[name] + 1}, facts)
    with pytest.raises(ValueError, match="another teacher, which has changed"):
        study(config, tmp_path / "run")


def test_a_finished_student_needs_its_teacher_only_to_learn_on(
    runs: Path, tmp_path: Path
) -> None:
    shutil.copytree(runs / "teacher", tmp_path / "teacher")
    config = student(tmp_path, "hinton+hints(layers.1, features.5)")
    with pytest.raises(ValueError, match="two of one height and width"):
        study(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    config = replace(student(tmp_path), recipes=("dense",))
    study(config, tmp_path / "run")
    _, trace = record_again(tmp_path / "run", None, samples=1)
    _, alone, *_ = trained_network(tmp_path / "run")
    shutil.rmtree(tmp_path / "teacher")
    _, again, *_ = trained_network(tmp_path / "run")
    for one, other in zip(alone.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match="not a run folder"):
        record_again(tmp_path / "run", None, samples=1)
    assert len(list(trace)) > 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"teacher": "nothing"}, "teacher nothing: nothing: not a run folder"),
        ({"distill": None}, "nothing says what is learnt from it"),
        ({"teacher": None}, "needs a teacher; --teacher RUN"),
        ({"distill": "average"}, "has a teacher of its own"),
        ({"distill": "hints(layer9)"}, "unknown layer of the student 'layer9'.*layers"),
        ({"distill": "born-again"}, "another network than the student"),
        ({"teacher": "{}:dens"}, "did you mean 'dense'"),
        ({"workload": "photo-resnet8"}, "tells 10 classes of 'digits'"),
    ],
)
def test_what_cannot_teach_is_refused_and_leaves_nothing(
    runs: Path, tmp_path: Path, changes: dict[str, str | None], said: str
) -> None:
    given = student(runs)
    name = changes.get("teacher")
    if name:
        changes = {**changes, "teacher": name.format(given.teacher)}
    with pytest.raises(ValueError, match=said):
        study(replace(given, **changes), tmp_path / "run")  # pyright: ignore[reportArgumentType]
    assert not (tmp_path / "run").exists()
