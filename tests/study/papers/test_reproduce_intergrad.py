import csv
import json

import pytest

from elision.accelerators import InterGrad, Systolic
from elision.accelerators.step import step_cost
from elision.accelerators.systolic.intergrad import estimated_pe_area_ratio
from elision.products import Product
from elision.study.papers.intergrad import paper as intergrad
from elision.study.papers.intergrad.layers import fully_connected
from elision.study.papers.intergrad.paper import bands
from elision.study.papers.intergrad.readings import (
    ReadingRow,
    nearest_settings,
    reading_bands,
    readings,
)
from elision.study.papers.intergrad.steps import (
    AREA_RULES,
    DRAIN_RULES,
    PUBLISHED_STEPS,
    training_steps,
)
from elision.workloads.shapes.networks import network


def test_fully_connected_band_at_batches_up_to_the_side():
    rows = fully_connected(sides=[64], batch_per_side=[0.5, 1.0])
    assert {row.batch for row in rows} == {1, 32, 64}
    by_wiring = [row for row in rows if row.drain == "by wiring"]
    # the published band is 1.4 to 2.2
    assert all(1.4 <= row.cycles_ratio <= 2.2 for row in by_wiring)
    (half,) = (row for row in by_wiring if row.batch == 32)
    assert half.accesses_ratio == pytest.approx(1.126, abs=0.001)
    assert half.accesses_ratio_with_update == pytest.approx(1.882, abs=0.001)


@pytest.fixture(scope="module")
def steps():
    return training_steps(networks=["inception-v4"], sides=[128], batches=[4])


def test_a_row_per_baseline_drain_and_area(steps):
    assert len(steps) == 3 * len(DRAIN_RULES) * len(AREA_RULES)
    assert all(row.assumptions.startswith("128x128 PEs; ") for row in steps)
    assert len({(row.baseline, row.assumptions) for row in steps}) == len(steps)


def test_savings_are_those_of_the_machines(steps):
    layers = network("inception-v4", batch=4)
    base = step_cost(Systolic(128, 128, weight_grad="faster"), layers)
    ours = step_cost(InterGrad(128, 128), layers)
    row = next(
        row
        for row in steps
        if (row.baseline, row.drain, row.area) == ("WS", "overlapped", "equal PE count")
    )
    assert row.cycles == pytest.approx(100 * (1 - ours.cycles / base.cycles))
    assert row.energy == pytest.approx(100 * (1 - ours.energy_pj / base.energy_pj))
    assert (row.baseline_cycles, row.interleaved_cycles) == (base.cycles, ours.cycles)


def test_equal_area_costs_cycles(steps):
    by_key = {(row.baseline, row.drain, row.area): row for row in steps}
    for (baseline, drain, area), row in by_key.items():
        if area == "equal area, fewer arrays":
            same = by_key[baseline, drain, "equal PE count"]
            ratio = row.interleaved_cycles / same.interleaved_cycles
            assert ratio == pytest.approx(estimated_pe_area_ratio(), abs=1e-6)
            assert row.sram == same.sram


def test_published_figures_stand_only_beside_what_they_compare(steps):
    for row in steps:
        comparable = row.baseline == "WS" and row.area != "equal PE count"
        assert (row.published_cycles is not None) == comparable
        if comparable:
            assert row.published_memory == PUBLISHED_STEPS["inception-v4"].memory


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown drain rule 'late'.*by wiring"):
        training_steps(networks=["alexnet"], drains=["late"])
    with pytest.raises(ValueError, match="unknown network 'vgg'"):
        training_steps(networks=["vgg"])


def test_bands_span_the_grid(steps):
    rows = bands(steps)
    assert {row.network for row in rows} == {"inception-v4"}
    for row in rows:
        assert row.lowest <= row.median <= row.highest


@pytest.fixture(scope="module")
def read():
    return readings(networks=["densenet-264"], sides=[32], batches=[4])


def test_a_reading_of_the_baseline_is_a_machine_and_a_scope(read):
    layers = network("densenet-264", batch=4)
    gradients = (Product.INPUT_GRAD, Product.WEIGHT_GRAD)
    row = next(
        r
        for r in read
        if (r.weight_grad, r.input_grad, r.scope, r.drain)
        == ("GtX", "gather", "gradients", "explicit")
    )
    plain = Systolic(32, 32, weight_grad="GtX", input_grad="gather")
    base = step_cost(plain, layers, kinds=gradients)
    ours = step_cost(InterGrad(32, 32, drain="explicit"), layers, kinds=gradients)
    share = ours.cycles * estimated_pe_area_ratio() / base.cycles
    assert row.cycles == pytest.approx(100 * (1 - share))
    assert len(read) == 3 * 2 * 2 * len(DRAIN_RULES)


def test_the_published_cycles_of_densenet_need_a_baseline_that_holds_x(read):
    cycles = {
        row.weight_grad: row
        for row in reading_bands(read)
        if (row.quantity, row.scope, row.input_grad) == ("cycles", "step", "scatter")
    }
    published = PUBLISHED_STEPS["densenet-264"].cycles
    assert cycles["GtX"].highest > published > cycles["XtG"].highest
    assert cycles["GtX"].reached
    assert not cycles["XtG"].reached
    assert cycles["faster"].highest <= cycles["XtG"].highest  # a stronger baseline


def test_the_nearest_setting_is_the_one_with_the_least_worst_gap():
    def setting(side, network, *saved):
        return ReadingRow(
            network, "XtG", "scatter", "step", side, 1, "explicit", *saved
        )

    rows = [
        setting(32, "inception-v4", 4, 17, 12),
        setting(32, "densenet-264", 27, 26, 10),  # 8 points from what was published
        setting(64, "inception-v4", 1, 14, 9),
        setting(64, "densenet-264", 24, 23, 15),  # 3 points, six times
    ]
    nearest = nearest_settings(rows)
    assert [(n.side, n.largest_gap) for n in nearest] == [(64, 3), (32, 8)]
    assert nearest[0].to_row()["densenet-264 energy"] == 15


def test_tables_and_figures_are_written_whole(tmp_path, monkeypatch, steps, read):
    monkeypatch.setattr(intergrad, "training_steps", lambda: steps)
    monkeypatch.setattr(intergrad, "readings", lambda: read)
    tables = intergrad.InterleavedGradients().run(tmp_path / "out")
    with (tmp_path / "out" / "steps.csv").open(encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert len(written) == len(steps)
    assert float(written[0]["cycles"]) == pytest.approx(steps[0].cycles, abs=1e-4)
    assert written[0]["assumptions"] == steps[0].assumptions
    small = json.loads((tmp_path / "out" / "intergrad.json").read_text())
    assert len(small["bands"]) == len(bands(steps))
    figure = (tmp_path / "out" / "savings.svg").read_text()
    assert "inception-v4" in figure
    assert "published band" in (tmp_path / "out" / "fully-connected.svg").read_text()
    _, shown, ranges, forms = (table.rows for table in tables)
    assert shown[0]["against WS"].startswith(f"{chosen_row(steps, 'WS').cycles:.0f}, ")
    assert len(ranges) == len(bands(steps)) / len(AREA_RULES)
    assert {row["dW of the baseline"] for row in forms} == {"XtG", "GtX", "faster"}


def chosen_row(steps, baseline):
    return next(
        row
        for row in steps
        if (row.baseline, row.drain, row.area)
        == (baseline, "by wiring", "equal PE count")
    )
