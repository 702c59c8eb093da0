"""The main job: complete, resumable, and clear about what it refuses."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from elision.methods import recipe_from_toml
from elision.study import StudyConfig, study
from elision.study.folder import configuration
from elision.study.run import record_again
from elision.training import checkpoint
from elision.workloads import Workload

CONFIG = StudyConfig(
    workload="digits-cnn",
    epochs=2,
    recipes=("dense", "w-resprop:reuse=0.9"),
    accelerators=("dense", "scnn", "ant"),
)


def test_killed_and_continued_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study(CONFIG, tmp_path / "whole")
    original = checkpoint.save
    saves = []

    def killed(*args: object) -> None:
        original(*args)  # pyright: ignore[reportArgumentType]
        saves.append(args)
        if len(saves) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            study(CONFIG, tmp_path / "part")
    study(CONFIG, tmp_path / "part")
    whole, part = (
        (tmp_path / n / "summary.json").read_text() for n in ("whole", "part")
    )
    assert whole == part
    summary = json.loads(whole)
    assert summary["schema"] == 1
    assert summary["recipes"]["dense"]["training_macs_ratio"] == 1
    assert set(summary["accelerators"]["ant"]["dense"]) == {
        "forward",
        "input_grad",
        "weight_grad",
        "total",
    }
    page = (tmp_path / "whole" / "report.html").read_text()
    assert page.count("<svg") >= 5
    assert "http://" not in page.replace("http://www.w3.org", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "")


def test_a_folder_of_another_study_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('layout = 1\n[study]\nworkload = "x"\n')
    with pytest.raises(ValueError, match="another"):
        study(CONFIG, tmp_path)
    (tmp_path / "config.toml").write_text("layout = 99\n")
    with pytest.raises(ValueError, match="layout 99"):
        study(CONFIG, tmp_path)


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(ValueError, match="did you mean 'swat'"):
        StudyConfig(recipes=("swatt",))
    with pytest.raises(ValueError, match="known: "):
        StudyConfig(accelerators=("nothing",))
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        StudyConfig(recipes=("swat:sparsity=1.5",))


def test_a_recipe_of_a_module_is_kept_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "myrecipes.py"
    module.write_text(
        "from elision.layers import Recipe, Table\n"
        "from elision.operands import TopK\n"
        "from elision.products import Product\n"
        "MINE = Recipe('mine', Table({Product.FORWARD: {'weight': TopK(0.5)}}))\n"
    )
    monkeypatch.chdir(tmp_path)
    config = replace(CONFIG, epochs=1, recipes=("myrecipes:MINE",), accelerators=())
    study(config, tmp_path / "run")
    (kept,) = (tmp_path / "run" / "recipes").glob("*/recipe.toml")
    assert recipe_from_toml(kept.read_text()).name == "mine"
    module.unlink()  # what the folder holds is enough, and nothing of it is imported
    monkeypatch.delitem(sys.modules, "myrecipes")
    spec, trace = record_again(tmp_path / "run", None, samples=1)
    assert spec == "myrecipes:MINE"
    assert len(list(trace)) > 0
    kept.unlink()
    with pytest.raises(ValueError, match=r"recipe\.toml: no such file"):
        record_again(tmp_path / "run", None, samples=1)


def test_seeds_give_mean_and_spread_and_workers_the_same_summary(
    tmp_path: Path,
) -> None:
    config = replace(CONFIG, epochs=1, recipes=("dense", "swat"), seeds=3)
    alone = study(config, tmp_path / "alone")
    study(config, tmp_path / "spread", workers=2)
    first, second = (
        (tmp_path / n / "summary.json").read_bytes() for n in ("alone", "spread")
    )
    assert first == second
    for outcome in alone.outcomes:
        assert len(outcome.scores) == 3
        assert len(set(outcome.scores)) > 1
        assert outcome.score == pytest.approx(sum(outcome.scores) / 3)
    # The first of the seeds is the study of one seed.
    one = study(replace(config, seeds=1), tmp_path / "one")
    for outcome, only in zip(alone.outcomes, one.outcomes, strict=True):
        assert outcome.scores[0] == only.score


class Net(nn.Sequential):
    """A network of this module."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, 4, 3), nn.Flatten(), nn.Linear(144, num_classes)
        )


def test_a_network_of_one_s_own_is_studied_and_recorded_again(tmp_path: Path) -> None:
    mine = Workload(name="mine", dataset="digits", model=Net, epochs=1)  # pyright: ignore[reportArgumentType]
    config = replace(CONFIG, workload=mine, epochs=None, recipes=("dense",))
    study(config, tmp_path / "run")
    held = StudyConfig.from_toml(configuration(tmp_path / "run"))
    assert held == config
    again = StudyConfig(
        workload=str(tmp_path / "run" / "workload.toml"),
        recipes=config.recipes,
        accelerators=config.accelerators,
    )
    study(again, tmp_path / "again")
    first, second = (
        (tmp_path / name / "summary.json").read_bytes() for name in ("run", "again")
    )
    assert first == second
    _, trace = record_again(tmp_path / "run", None, samples=1)
    assert {p.name for p in trace} == {"0", "2"}


def test_seeds_are_a_number_or_a_list() -> None:
    assert StudyConfig(seeds=(4, 5, 6)) == StudyConfig(seed=4, seeds=3)
    several = StudyConfig(seeds=(0, 1, 7))
    assert several.all_seeds() == (0, 1, 7)
    assert several.seeds_text() == "seeds 0, 1, 7 (3 seeds)"
    assert StudyConfig.from_toml(several.to_dict()) == several
    for wrong in ((), (1, 1), (-1, 2), (0, 1.5), 0):
        with pytest.raises(ValueError, match=r"study\(seeds"):
            StudyConfig(seeds=wrong)  # pyright: ignore[reportArgumentType]
