"""The measured tables are made of measurements that agree with one another."""

import csv
from dataclasses import replace

import pytest
import torch

from elision.memory.measures.measure import SAVE_ON_CPU, measure_policies
from elision.study.papers.memory.paper import (
    SavedActivations,
    largest_batches,
    measure_network,
)
from elision.study.papers.memory.published import PUBLISHED
from elision.study.papers.memory.training import train_policies
from elision.workloads import find_workload


@pytest.fixture(scope="module")
def workload():
    chosen = find_workload("digits-cnn")
    return chosen, chosen.load_dataset().limited(256, 128)


def test_rows_agree_with_themselves(workload):
    chosen, dataset = workload
    torch.manual_seed(0)
    model = chosen.make_model(dataset)
    images, labels = next(iter(dataset.train_batches(64, seed=0, epoch=0)))
    before = {n: b.clone() for n, b in model.named_buffers()}
    policies = ["none", "exact", "bits(4)", SAVE_ON_CPU]
    rows = list(measure_policies(model, images, labels, policies, rounds=2))
    assert all(torch.equal(b, before[n]) for n, b in model.named_buffers())
    assert [row.policy for row in rows] == policies
    for row in rows:
        expected = row.stored_bytes - row.batch_bytes
        assert row.held_bytes == pytest.approx(expected, rel=0.1, abs=20_000)
        assert len(row.time_ratios) == 2
        assert row.own_errors.keys() == row.gradient_errors.keys()
    none, exact, four, peer = rows
    assert none.tensor_ratio == 1
    for row in (none, exact, peer):
        assert not any({*row.gradient_errors.values(), *row.own_errors.values()})
    for name, error in four.gradient_errors.items():
        # Later layers' errors come on top of a layer's own; the last has only its own.
        assert error >= 0.8 * four.own_errors[name], name
    assert max(four.gradient_errors.values()) > 0
    assert four.tensor_ratio > exact.tensor_ratio > 1 > peer.tensor_ratio
    assert four.peak_bytes < none.peak_bytes


def test_training_at_four_bits_ends_where_plain_training_ends(workload):
    chosen, dataset = workload
    plain, exact, four = train_policies(chosen, dataset, ["exact", "bits(4)"], (0, 1))
    assert plain.accuracies == exact.accuracies
    assert plain.losses == exact.losses
    for a, b in zip(plain.losses, four.losses, strict=True):
        assert b == pytest.approx(a, rel=0.2)
        assert b != a


def test_bits_can_be_shared_out_by_what_was_measured():
    config = SavedActivations(
        policy=("bits(3)", "bits(3, measured)"), batch=4, size=16, rounds=1
    )
    alike, measured = measure_network(config, "resnet8")["rows"]
    assert measured["policy"] == "bits(3, measured)"
    assert measured["stored_bytes"] == pytest.approx(alike["stored_bytes"], rel=0.1)
    assert measured["gradient_errors"] != alike["gradient_errors"]


def test_more_of_a_batch_fits_under_a_lossy_policy():
    config = SavedActivations(policy=("bits(4)",), size=8)
    # Enough for several examples: one alone may peak in a convolution's own workspace.
    found = largest_batches("resnet8", config, 2**21)
    assert found["bits(4)"] > found["plain"] > 0


def test_what_was_measured_is_written_once(tmp_path):
    config = SavedActivations(
        network=("resnet8",), policy=("int8",), batch=4, rounds=1, workload="none"
    )
    lines = []
    tables = config.run(tmp_path, report=lines.append)
    assert len(lines) == 1
    assert config.run(tmp_path, report=lines.append) == tables
    assert len(lines) == 1
    with (tmp_path / "layers.csv").open() as file:
        layers = list(csv.DictReader(file))
    assert len(layers) == 8
    assert float(layers[0]["gradient error"]) > 0
    (row,) = tables[0].rows
    assert row["tensors"] > 3
    assert not (tmp_path / "trainings.csv").exists()
    replace(config, batch=5).run(tmp_path, report=lines.append)
    assert len(lines) == 2


def test_without_rounds_only_peaks_are_measured(tmp_path):
    config = SavedActivations(
        network=("resnet8",), policy=("bits(4)",), rounds=0, workload="none", size=16
    )
    plain, four = config.run(tmp_path)[0].rows
    assert plain["peak"] == 1 < four["peak"]


def test_every_published_figure_has_a_source():
    assert all(figure.source and figure.figure for figure in PUBLISHED)


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"rounds": -1}, {"limit_mib": 0.0}])
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SavedActivations(**wrong)
