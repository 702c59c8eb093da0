"""Sensitivities against what they say they are."""

import copy
from itertools import chain

import pytest
import torch

from elision.layers import elide, restore
from elision.layers.recipe import Recipe
from elision.precision.sensitivity import rank_correlation
from elision.study.search.choices import LayerSpace, layer_space
from elision.study.search.sensitivities import SENSITIVITIES
from elision.study.search.subject import Subject, subject_of
from elision.training.loop import RunPlan, train
from elision.workloads import Workload

WORKLOAD = Workload(
    name="small",
    dataset="digits",
    model="mlp",
    epochs=3,
    train_images=640,
    model_options={"width": 16},
)
CHOICES = {"*": ("dense", "swat:sparsity=0.5,dense=()", "swat:sparsity=0.9,dense=()")}


@pytest.fixture(scope="module")
def subject() -> Subject:
    data = WORKLOAD.load_dataset().held_out(0.2)
    model = restore(train(WORKLOAD, Recipe("dense"), data, RunPlan()).model)
    return subject_of(WORKLOAD, model, data, examples=64)


@pytest.fixture(scope="module")
def space(subject: Subject) -> LayerSpace:
    return layer_space(subject.model, CHOICES)


@pytest.mark.parametrize("name", SENSITIVITIES)
def test_dense_loses_nothing_and_less_costs_more(
    subject: Subject, space: LayerSpace, name: str
) -> None:
    found = SENSITIVITIES[name](subject, space)
    assert [len(row) for row in found] == [3, 3, 3]
    for row in found:
        assert row[0] == 0
        assert row[2] > 0
        if name not in ("first", "loss"):  # signs may cancel in these two
            assert row[2] > row[1] > 0


def test_the_subject_stays_as_it_was(subject: Subject, space: LayerSpace) -> None:
    before = copy.deepcopy(subject.model.state_dict())
    for name in SENSITIVITIES:
        SENSITIVITIES[name](subject, space)
    for key, value in subject.model.state_dict().items():
        assert torch.equal(value, before[key])


def test_the_measured_loss_is_that_of_the_elided_network(
    subject: Subject, space: LayerSpace
) -> None:
    found = SENSITIVITIES["loss"](subject, space)
    made = elide(copy.deepcopy(subject.model), space.alone(1, 2)).eval()
    task = WORKLOAD.task
    with torch.no_grad():
        [batch] = subject.batches
        rise = task.loss(made, batch) - task.loss(subject.model.eval(), batch)
    assert found[1][2] == pytest.approx(float(rise), abs=1e-6)


def test_weights_are_the_share_that_is_left_out(
    subject: Subject, space: LayerSpace
) -> None:
    [first, *_] = SENSITIVITIES["weights"](subject, space)
    weight = subject.model.get_submodule(space.places[0].layer).weight.detach()  # pyright: ignore[reportCallIssue]
    smallest = weight.abs().flatten().sort().values[: weight.numel() // 2]
    share = float(smallest.square().sum() / weight.square().sum())
    assert first[1] == pytest.approx(share, rel=0.02)


def test_what_is_cheap_ranks_like_what_is_measured(
    subject: Subject, space: LayerSpace
) -> None:
    measured = list(chain(*SENSITIVITIES["loss"](subject, space)))
    for name in ("fisher", "hessian", "output", "gradient"):
        found = list(chain(*SENSITIVITIES[name](subject, space)))
        assert rank_correlation(found, measured) > 0.5


def test_masks_that_move_are_judged_by_magnitude(subject: Subject) -> None:
    masks = layer_space(subject.model, {"*": ("rigl:sparsity=0.9",)}, steps=100)
    top = layer_space(subject.model, {"*": ("swat:sparsity=0.9,dense=()",)})
    for name in ("weights", "loss", "fisher"):
        of_masks, of_top = (SENSITIVITIES[name](subject, s) for s in (masks, top))
        assert of_masks == of_top


def test_no_test_example_is_read() -> None:
    whole = WORKLOAD.load_dataset()
    data = whole.held_out(0.2)
    few = subject_of(WORKLOAD, WORKLOAD.make_model(data), data, examples=64)
    test = {row.numpy().tobytes() for row in whole.normalise(whole.test_images)}
    assert not any(
        row.numpy().tobytes() in test for batch in few.batches for row in batch[0]
    )


def test_work_is_counted(subject: Subject, space: LayerSpace) -> None:
    before = subject.examples_read
    SENSITIVITIES["loss"](subject, space)
    assert subject.examples_read - before == 64 * (
        1 + 6
    )  # dense, and two each of three
