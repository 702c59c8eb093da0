"""Examples of a campaign: from the whole test set, however it is sorted."""

import torch

from elision.study.faults import test_examples as examples_of
from elision.workloads import find_workload


def test_few_examples_of_a_sorted_set_have_every_class() -> None:
    dataset = find_workload("photo-resnet8").load_dataset(None)
    assert len(dataset.test_labels[:64].unique()) == 1
    inputs, classes = examples_of(dataset, 64)
    assert inputs.shape[0] == len(classes) == 64
    assert classes.bincount(minlength=10).min() >= 6


def test_all_examples_are_taken_once_and_in_order() -> None:
    dataset = find_workload("digits-cnn").load_dataset(None)
    _, classes = examples_of(dataset, 10**6)
    assert torch.equal(classes, dataset.test_labels)
