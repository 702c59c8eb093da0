"""Energy of a study: its account, its section and its flags."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from elision.cli.main import main
from elision.energy import Energy, Grid, grid_named
from elision.methods import Dense
from elision.products import Product, Trace
from elision.study import RecipeOutcome, StudyConfig, StudyOutcome, study
from elision.study.energy import (
    account,
    account_of_search,
    energy_curve,
    energy_of,
    kept_grid,
)
from elision.study.page.page import study_page
from elision.study.page.sections.energy import energy as section
from elision.study.search.run import TrainedSearch
from elision.study.search.space import Choice, Space
from elision.study.search.template import Template
from elision.training.checkpoint import EpochMetrics
from elision.training.spent import EpochEnergy, spent_under
from elision.workloads import Workload

GRID = Grid(pue=1.2, intensity_g_per_kwh=400, source="a test")


def spent(low: float, high: float, seconds: float) -> EpochEnergy:
    by = "RAPL" if low == high else "estimated"
    scope = "machine" if low == high else "process"
    return EpochEnergy(
        Energy(low, high, (by,), scope, seconds, seconds), 5, seconds / 10
    )


def outcome(
    spec: str, scores: list[float], by_seed: dict[int, dict[int, EpochEnergy]]
) -> RecipeOutcome:
    histories = {
        seed: [EpochMetrics(e, 1.0, score, 0.1) for e, score in enumerate(scores)]
        for seed in by_seed
    }
    work = {product.value: 1.0 for product in Product}
    return RecipeOutcome(spec, Dense(), histories, 1.0, work, [], [], [], spent=by_seed)


def study_of(*outcomes: RecipeOutcome) -> StudyOutcome:
    config = StudyConfig(
        workload="digits-cnn",
        recipes=tuple(o.spec for o in outcomes),
        accelerators=(),
        seeds=len(outcomes[0].histories),
    )
    return StudyOutcome(config, list(outcomes), {}, {}, "", Trace(), GRID)


def test_a_curve_adds_what_was_spent_until_then_and_means_the_seeds() -> None:
    o = outcome(
        "dense",
        [0.5, 0.75],
        {
            0: {0: spent(3600, 7200, 10), 1: spent(3600, 7200, 20)},
            1: {0: spent(7200, 10800, 30), 1: spent(3600, 3600, 40)},
        },
    )
    curve = energy_curve(o)
    assert curve is not None
    assert curve.scores == [0.5, 0.75]
    assert curve.cpu_seconds == [20, 50]
    assert curve.watt_hours == [(1.5, 2.5), (2.5, 4.0)]
    total = energy_of([o])
    assert total is not None
    assert total.watt_hours == (5.0, 8.0)


def test_an_epoch_of_unknown_energy_has_no_curve_and_is_said_in_the_row() -> None:
    part = outcome("dense", [0.5, 0.75], {0: {1: spent(1, 2, 3)}})
    assert energy_curve(part) is None
    made = section(study_of(part))
    assert made is not None
    text = "".join(made.sheets)
    assert "<svg" not in text
    assert "1 of 2 epochs known" in text
    assert section(study_of(outcome("dense", [0.5], {0: {}}))) is None


def test_the_section_compares_processor_seconds_first_and_never_one_number() -> None:
    dense = outcome("dense", [0.5], {0: {0: spent(18000, 36000, 100)}})
    swat = outcome("swat", [0.5], {0: {0: spent(9000, 18000, 50)}})
    made = section(study_of(dense, swat))
    assert made is not None
    assert made.tag == "estimated here"
    text = made.note + "".join(made.sheets)
    head = text.index("over the first")
    assert head < text.index("Wh, before PUE</th>")
    for words in (
        "0.50x",
        ">5 to 10<",
        ">2.5 to 5<",
        "CO2e, g",
        ">2.4 to 4.8<",
        "process",
    ):
        assert words in text
    assert "PUE 1.2, 400 g/kWh (a test)" in text
    assert "All recipes together: 7.5 to 15 Wh (estimated; process)" in text
    assert text.count("<svg") == 1


def test_a_counter_is_measured_and_has_no_range() -> None:
    dense = outcome("dense", [0.5], {0: {0: spent(18000, 18000, 100)}})
    made = section(study_of(dense))
    assert made is not None
    assert made.tag == "measured here"
    assert "5 Wh (RAPL; machine); 6 Wh from the wall, 2.4 g CO2e" in made.sheets[-1]


def test_simulated_energy_shares_no_section_with_joules() -> None:
    dense = outcome("dense", [0.5], {0: {0: spent(18000, 18000, 100)}})
    made = section(study_of(dense))
    assert made is not None
    assert "pJ" not in "".join(made.sheets)
    assert "simulated" not in "".join(made.sheets)


def test_the_account_holds_every_run_and_the_sum() -> None:
    one = outcome("dense", [0.5], {3: {0: spent(18000, 36000, 100)}})
    kept = account([one], GRID)
    run = kept["recipes"]["dense"]["3"]
    assert run["kwh"] == pytest.approx([0.006, 0.012])
    assert run["co2e_g"] == pytest.approx([2.4, 4.8])
    assert (run["epochs_known"], run["epochs"], run["step_cpu_seconds"]) == (1, 1, 10)
    assert kept["total"]["energy"] == run["energy"]
    assert "total" not in account([outcome("dense", [0.5], {0: {}})], GRID)


CONFIG = StudyConfig(
    workload="digits-mlp",
    epochs=1,
    recipes=("dense",),
    accelerators=(),
    probes=("energy",),
    record=1,
)


def test_a_study_keeps_its_energy_and_its_grid(tmp_path: Path) -> None:
    made = study(CONFIG, tmp_path, grid=GRID)
    kept = json.loads((tmp_path / "energy.json").read_text())
    assert kept["grid"] == GRID.to_dict()
    assert kept["recipes"]["dense"]["0"]["epochs_known"] == 1
    page = (tmp_path / "report.html").read_text()
    assert "Energy of the training" in page
    assert "Energy of a step by product" in page
    summary = (tmp_path / "summary.json").read_bytes()
    # What differs from run to run is in no table.
    for path in (tmp_path / "tables").glob("*.csv"):
        assert "joules" not in path.read_text()
    # Without a machine there are no costs; their table has its head.
    costs = (tmp_path / "tables" / "costs.csv").read_text()
    assert costs.startswith("recipe,accelerator,layer,")
    # Continued without a grid it keeps the old one, with another it takes that.
    again = study(CONFIG, tmp_path)
    assert again.grid == GRID
    assert again.outcomes[0].spent == made.outcomes[0].spent
    other = replace(GRID, pue=2.0)
    assert study(CONFIG, tmp_path, grid=other).grid == other
    assert kept_grid(tmp_path, None) == other
    assert (tmp_path / "summary.json").read_bytes() == summary


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("energy.json", "{}", "is no account of a study's energy"),
        ("energy.json", "[", "is no account of a study's energy"),
        ("timing.json", "", "holds no seconds per step"),
        ("timing.json", '{"dense": NaN}', "holds no seconds per step"),
        ("timing.json", '["dense"]', "holds no seconds per step"),
    ],
)
def test_damage_to_what_only_informs_is_told_in_a_line_and_stops_no_study(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    text: str,
    said: str,
) -> None:
    study(CONFIG, tmp_path)
    summary = (tmp_path / "summary.json").read_bytes()
    (tmp_path / name).write_text(text)
    study(CONFIG, tmp_path)
    (line,) = caplog.messages
    assert said in line
    assert name in line
    assert (tmp_path / "summary.json").read_bytes() == summary


def test_a_search_accounts_for_its_trials(tmp_path: Path) -> None:
    small = Workload(
        name="small",
        dataset="digits",
        model="mlp",
        epochs=2,
        batch_size=16,
        train_images=160,
    )
    search = TrainedSearch(
        template=Template(workload=small),
        space=Space((Choice("recipe", ("dense", "swat:sparsity=0.5")),)),
        count=2,
    )
    _, spent = search.run(tmp_path / "run")
    kept = json.loads((tmp_path / "run" / "energy.json").read_text())
    energy = spent_under(tmp_path / "run")
    assert energy is not None
    assert kept["total"]["energy"] == energy.to_dict()
    assert kept["grid"] == grid_named().to_dict()
    assert spent.processor_seconds is not None
    # The search's own clock has the beginning of each training in it, too.
    assert 0 < energy.cpu_seconds <= spent.processor_seconds
    assert account_of_search(tmp_path / "run", GRID) == energy
    assert kept_grid(tmp_path / "run", None) == GRID
    assert account_of_search(tmp_path) == energy
    (tmp_path / "nothing").mkdir()
    assert account_of_search(tmp_path / "nothing") is None
    assert not list((tmp_path / "nothing").iterdir())


def test_flags_reach_the_report_and_what_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--workload", "digits-mlp", "--epochs", "1", "--engine", "torch"]
    command = ["train", *flags, "--out", str(tmp_path), "--record", "1"]
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--pue", "1.25", "--grid", "france"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert "energy of the training: " in printed
    assert "PUE 1.25, 56 g/kWh (PUE given; intensity: Our World in Data" in printed
    for wrong, message in (
        (["--grid", "frankreich"], "unknown grid 'frankreich'"),
        (["--pue", "0.5"], "Grid(pue=0.5): must be a number >= 1"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main([*command, *wrong])
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err


def test_a_page_without_energy_is_as_before() -> None:
    page = study_page(study_of(outcome("dense", [0.5], {0: {}})))
    assert "Energy of the training" not in page
    assert grid_named().source not in page
