"""The measured table is made of measurements that agree with one another."""

import pytest
import torch

from elision.reproduce.memory import PUBLISHED, measure_policies, train_policies
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
    policies = ["none", "exact", "bits(4)"]
    rows = list(measure_policies(model, images, labels, policies, rounds=2))
    assert [row.policy for row in rows] == policies
    for row in rows:
        expected = row.stored_bytes - row.batch_bytes
        assert row.held_bytes == pytest.approx(expected, rel=0.1, abs=20_000)
        assert len(row.time_ratios) == 2
    none, exact, four = rows
    assert none.tensor_ratio == 1
    assert none.largest_error == exact.largest_error == 0 < four.median_error
    assert four.tensor_ratio > exact.tensor_ratio > 1
    assert four.peak_bytes < none.peak_bytes


def test_training_at_four_bits_ends_where_plain_training_ends(workload):
    chosen, dataset = workload
    plain, exact, four = train_policies(chosen, dataset, ["exact", "bits(4)"], (0, 1))
    assert plain.accuracies == exact.accuracies
    assert plain.losses == exact.losses
    for a, b in zip(plain.losses, four.losses, strict=True):
        assert b == pytest.approx(a, rel=0.2)
        assert b != a


def test_every_published_figure_has_a_source():
    assert all(figure.source and figure.figure for figure in PUBLISHED)
