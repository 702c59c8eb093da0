"""Seeds and their spread, and runs at NaN, in tables, files and comparisons."""

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_runs import run_folder
from torch import nn

from elision.cli.compare import compare
from elision.layers import elide
from elision.methods import Dense
from elision.products import Product, Trace
from elision.report.table import (
    rows_as_html,
    rows_as_latex,
    rows_as_markdown,
    rows_as_text,
)
from elision.study import (
    RecipeOutcome,
    StudyConfig,
    StudyOutcome,
    compared,
    study,
)
from elision.study.compared_table import short_rows
from elision.study.comparison import contests
from elision.study.outcome import metric_rows
from elision.study.page.overview import study_table
from elision.study.page.page import study_page
from elision.study.page.sections.stationarity import stationarity
from elision.study.probes import Stationarity, Trained
from elision.study.restored import restored
from elision.training import TrainingDivergedError
from elision.training.checkpoint import EpochMetrics
from elision.workloads import TASKS, Metric, Workload

NAN = math.nan
ACCURACY = Metric("test_accuracy", percent=True)
PERPLEXITY = Metric("perplexity", higher_is_better=False)


def outcome(spec: str, *scores: float) -> RecipeOutcome:
    histories = {
        seed: [
            EpochMetrics(0, loss=2.0, score=0.1, learning_rate=0.1),
            EpochMetrics(1, loss=score, score=score, learning_rate=0.1),
        ]
        for seed, score in enumerate(scores)
    }
    work = {product.value: 1.0 for product in Product}
    return RecipeOutcome(spec, Dense(), histories, 1.0, work, [], [], [])


def study_of(**scores: tuple[float, ...]) -> StudyOutcome:
    seeds = len(next(iter(scores.values())))
    config = StudyConfig(
        workload="digits-cnn", recipes=tuple(scores), accelerators=(), seeds=seeds
    )
    outcomes = [outcome(spec, *found) for spec, found in scores.items()]
    return StudyOutcome(config, outcomes, {}, {}, "scikit-learn", Trace())


@pytest.mark.parametrize("metric", [ACCURACY, PERPLEXITY])
def test_nan_is_better_than_nothing_and_says_diverged(metric: Metric) -> None:
    assert not metric.better(NAN, 0.5)
    assert not metric.better(NAN, NAN)
    assert metric.better(0.5, NAN)
    assert metric.text(NAN) == metric.text(NAN, NAN) == "NaN (diverged)"
    assert metric.difference_text(NAN, 0.5) == "NaN (diverged)"
    assert metric.difference_text(0.5, NAN) == "the first diverged"


def test_a_network_at_nan_is_right_about_nothing() -> None:
    # The largest of NaNs is the first, and the first class is the right one.
    class Lost(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.full((len(x), 3), NAN)

    class Half(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.eye(3)[[0] * len(x)].masked_fill(x[:, :1] > 1, NAN)

    task = TASKS["classification"]
    labels = torch.zeros(2, dtype=torch.int64)
    good, bad = (torch.zeros(2, 3), labels), (torch.full((2, 3), 2.0), labels)
    assert math.isnan(task.evaluate(Lost(), [good]))
    assert task.evaluate(Half(), [good]) == 1
    assert math.isnan(task.evaluate(Half(), [good, bad]))


def test_tables_and_page_say_how_many_seeds() -> None:
    one, three = (
        study_of(dense=(0.5,), swat=(0.25,)),
        study_of(dense=(0.5, 0.6, 0.7), swat=(0.4, 0.3, 0.2)),
    )
    assert [row["seeds"] for row in study_table(one)] == ["1 seed", "1 seed"]
    row = study_table(three)[1]
    assert (row["test accuracy"], row["seeds"]) == ("30.0 ± 10.0 %", "3 seeds")
    page = study_page(one)
    assert "25.0 % (1 seed)" in page
    assert "Of 1 seed." in page
    assert "-25.0 points" in page
    page = study_page(three)
    # Seed by seed the differences are -10, -30 and -50 points.
    assert "-30.0 ± 20.0 points" in page
    assert "Mean and standard deviation of 3 seeds." in page
    assert "simulated and probed is of seed 0" in page


def test_a_diverged_recipe_is_named_everywhere_and_json_stays_json() -> None:
    found = study_of(dense=(0.5, 0.75), swat=(0.5, NAN))
    assert study_table(found)[1]["test accuracy"] == "NaN (diverged)"
    page = study_page(found)
    assert "NaN (diverged) (2 seeds)" in page
    assert "nan" not in page.partition('<h2 id="accuracy"')[0].partition("<h1>")[2]
    facts = found.summary()["recipes"]["swat"]
    json.dumps(facts, allow_nan=False)
    assert facts["test_accuracy"] is None
    assert facts["test_accuracy_by_seed"] == [0.5, None]
    assert facts["diverged"] == {"1": "the trained network's scores are NaN"}
    assert "diverged" not in found.summary()["recipes"]["dense"]
    assert len(metric_rows(found.outcomes[1], "test_accuracy")) == 4


def test_runs_of_one_configuration_are_one_row(tmp_path: Path) -> None:
    first = run_folder(tmp_path / "a", {"dense": [0.5], "ant": [0.25]}, seed=0)
    second = run_folder(tmp_path / "b", {"dense": [0.75]}, seed=1)
    again = run_folder(tmp_path / "c", {"dense": [0.5]}, seed=0)
    other = run_folder(tmp_path / "d", {"dense": [0.75]}, seed=1, engine="auto")
    rows = compared([first, second, again, other])
    assert [(r["run"], r["recipe"], r["seeds"]) for r in rows] == [
        ("a, b, c", "dense", 2),  # the run's own order, and a seed counts once
        ("a", "ant", 1),
        ("d", "dense", 1),
    ]
    assert rows[0]["test_accuracy"] == 0.625
    assert rows[0]["test_accuracy_spread"] == pytest.approx(0.25 / math.sqrt(2))
    # c is a copy of a, and counts once.
    assert rows[0]["training_macs_ratio"] == pytest.approx((0.5 + 0.6) / 2)
    assert rows[1]["test_accuracy_spread"] is None
    assert [r["seeds"] for r in compared([first / "summary.json"])] == [1, 1]


def test_the_formats_of_a_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_folder(
        tmp_path / "r_1",
        {"dense": [0.5, 0.75], "n_m:x=[ | 50%": [0.5, 0.5], "bad": [0.5, None]},
    )
    printed = {}
    for form in ("text", "markdown", "latex", "csv"):
        compare(run, format=form)  # pyright: ignore[reportArgumentType]
        printed[form] = capsys.readouterr().out
    lines = {form: table.splitlines() for form, table in printed.items()}
    assert {form: len(found) for form, found in lines.items()} == {
        "text": 4,
        "markdown": 5,
        "latex": 11,
        "csv": 4,
    }
    for words in ("62.5 ± 17.7 %", "-12.5 ± 17.7 points", "baseline"):
        assert words in printed["text"]
        assert words in printed["markdown"]
    # A paper's table has five columns, and says in a comment what its ± is.
    assert lines["latex"][0].startswith("% ± is the standard deviation over seeds")
    assert lines["latex"][1:5] == [
        r"\begin{tabular}{lrrrr}",
        r"\toprule",
        r"recipe & test accuracy & difference & seeds & work left out \\",
        r" & \% & points &  & \% \\",
    ]
    assert lines["latex"][7] == (
        r"n\_m:x={[} \textbar{} 50\% & 50.0 $\pm$ 0.0 & $-$12.5 $\pm$ 17.7 & 2 & 50.0 \\"
    )
    assert "RCP weight_grad | runs |" in printed["markdown"]
    for form in ("text", "markdown", "latex"):
        assert printed[form].count("NaN (diverged)") == 2
        assert "nan" not in printed[form]
    dense, _, bad = csv.DictReader(io.StringIO(printed["csv"]))
    assert float(dense["test_accuracy"]) == 0.625
    assert dense["runs"] == "r_1"
    assert math.isnan(float(bad["test_accuracy"]))
    for name, starts in (
        ("t.md", "| recipe"),
        ("t.tex", "% ±"),
        ("t.csv", "workload,recipe,options,"),
    ):
        compare(run, out=tmp_path / name)
        assert (tmp_path / name).read_text().startswith(starts)
        assert f"table: {tmp_path / name}" in capsys.readouterr().out


def test_a_recipe_that_diverges_is_a_result_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wild.py").write_text(
        "from dataclasses import dataclass\n"
        "from elision.layers import Recipe, Table\n"
        "from elision.operands import Transform\n"
        "from elision.products import Product\n"
        "@dataclass(frozen=True)\n"
        "class Blow(Transform):\n"
        "    def __str__(self):\n"
        "        return 'far too large'\n"
        "    def apply(self, x, state, training):\n"
        "        return x * 1e30\n"
        "BLOW = Recipe('blow', Table({Product.WEIGHT_GRAD: {'input': Blow()}}))\n"
    )
    monkeypatch.chdir(tmp_path)
    workload = Workload.from_dict(
        {"dataset": "digits", "model": "mlp(width=8)", "epochs": 2, "train_images": 640}
    )
    config = StudyConfig(
        workload=workload,
        recipes=("wild:BLOW", "dense"),
        accelerators=("scnn", "ant"),
        probes=("memory(rounds=1,batches=2)",),
        seeds=2,
    )
    said: list[str] = []
    found = study(
        config,
        tmp_path / "run",
        lambda spec, done, of, metrics: said.append(
            f"{spec} {metrics.score}" if metrics else ""
        ),
    )
    blow, dense = found.outcomes
    assert set(blow.diverged) == {0, 1}
    assert "the loss is nan at step" in blow.diverged[0]
    assert "wild:BLOW, seed 1 nan" in said
    assert len(blow.history) == len(dense.history) == 2
    assert dense.findings
    assert not blow.findings
    facts = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert facts["recipes"]["wild:BLOW"]["products"] is None
    assert set(facts["accelerators"]["ant"]) == {"dense"}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Diverged: wild:BLOW, seed 0: the loss is nan" in page
    assert ">nan" not in page
    assert study_page(restored(tmp_path / "run").outcome) == page
    (contest,) = contests([tmp_path / "run"])
    assert [row["against the first"] for row in short_rows(contest)] == [
        "baseline",
        "the first diverged",
    ]
    # Adding to it trains the rest only, and what diverged says so again.
    grown = replace(config, accelerators=(*config.accelerators, "dense"))
    again = study(grown, tmp_path / "run")
    assert again.outcomes[0].diverged == blow.diverged
    with pytest.raises(TrainingDivergedError, match="the loss is nan at step"):
        study(replace(config, recipes=("wild:BLOW",)), tmp_path / "alone")
    assert not (tmp_path / "alone" / "report.html").exists()


def test_a_probe_that_diverges_says_so() -> None:
    small = Workload(name="small", dataset="digits", model="mlp", learning_rate=1e30)
    dataset = small.load_dataset()
    model = elide(small.make_model(dataset), Dense())
    trained = Trained(model, Dense(), small, dataset, seed=0)
    finding = Stationarity(steps=40, rate=1.0).run(trained)
    assert finding["verdict"] == "diverged"
    assert "the loss is nan at step" in finding["reasons"][0]
    json.dumps(finding, allow_nan=False)
    found = study_of(dense=(0.5,))
    found.outcomes[0].findings["stationarity"] = finding
    section = stationarity(found)
    assert section is not None
    assert "diverged" in section.sheets[0]


def test_tables_show_nan_as_nan() -> None:
    rows = [{"name": "x", "value": NAN}]
    for write in (rows_as_text, rows_as_markdown, rows_as_html, rows_as_latex):
        assert "NaN" in write(rows)
        assert "nan" not in write(rows)
