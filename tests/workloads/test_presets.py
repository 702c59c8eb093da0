"""The presets, and one of them trained."""

import dataclasses
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from elision.workloads import (
    ALL_MODELS,
    DATASETS,
    DEFAULT_WORKLOAD,
    WORKLOADS,
    Workload,
    find_workload,
    layer_shapes,
    make_model,
)


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS)
def test_a_preset_names_things_that_exist(workload):
    assert workload.dataset in DATASETS
    assert workload.model in ALL_MODELS
    assert Workload(**dataclasses.asdict(workload)) == workload
    with torch.device("meta"):
        make_model(workload.model, **workload.model_options)
    warm = dataclasses.replace(workload, warmup=0)
    rates = [warm.learning_rate_at(e, 1) for e in range(workload.epochs)]
    assert rates[0] == workload.learning_rate
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < rates[0]
    assert all(0 < m < workload.epochs for m in workload.milestones)


def test_the_default_preset_has_planes_of_16_and_more_and_needs_no_file():
    workload = find_workload(DEFAULT_WORKLOAD)
    dataset = workload.load_dataset()
    shapes = layer_shapes(workload.make_model(dataset), (1, 3, *dataset.image_size))
    sizes = {g.out_height for _, g in shapes if hasattr(g, "out_height")}
    assert {32, 16} <= sizes


def test_a_step_schedule_changes_at_its_milestones():
    workload = Workload(
        name="w",
        dataset="digits",
        model="cnn",
        learning_rate=1.0,
        schedule="step",
        milestones=(1, 3),
        decay=0.5,
    )
    rates = [workload.learning_rate_at(step, 2) for step in range(8)]
    assert rates == [1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_a_cosine_schedule_is_torchs():
    workload = Workload(name="w", dataset="digits", model="cnn", epochs=3)
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=workload.learning_rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 3 * 4)
    for step in range(12):
        rate = optimiser.param_groups[0]["lr"]
        assert workload.learning_rate_at(step, 4) == pytest.approx(rate, abs=1e-9)
        optimiser.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 1e-5),
        (100, 1e-4),
        (200, 1e-3),
        (1997, 1e-3),
        (1998, 5e-4),
        (2248, 2.5e-4),
        (2748, 6.25e-5),
        (2999, 6.25e-5),
    ],
)
def test_the_rates_of_gnmt_in_mlperf(step, rate):
    workload = Workload(
        name="w",
        dataset="digits",
        model="cnn",
        epochs=3,
        learning_rate=1e-3,
        schedule="halving",
        warmup=200,
    )
    assert workload.learning_rate_at(step, 1000) == pytest.approx(rate)


def test_a_warm_up_rises_to_any_schedule():
    workload = Workload(name="w", dataset="digits", model="cnn", warmup=8)
    whole = dataclasses.replace(workload, warmup=0)
    shares = [
        workload.learning_rate_at(step, 4) / whole.learning_rate_at(step, 4)
        for step in range(12)
    ]
    assert shares[:9:4] == pytest.approx([0.01, 0.1, 1])
    assert shares[8:] == [1] * 4


def test_a_long_gradient_is_scaled_down_behind_the_masks():
    """Behind: what a rule only looks at, to grow weights, is no part of the norm."""
    workload = Workload(name="w", dataset="digits", model="cnn", clip_norm=0.5)
    model = torch.nn.Linear(2, 1)
    optimiser = workload.make_optimizer(model)
    hidden = torch.tensor([[0.0, 40.0]])

    def hide(*_):
        model.weight.grad -= hidden

    optimiser.register_step_pre_hook(hide)
    workload.clip_gradients(optimiser)
    for given, wanted in (([3.0, 40.0, 4.0], 0.5), ([0.03, 40.0, 0.04], 0.05)):
        *weight, bias = given
        model.weight.grad, model.bias.grad = (
            torch.tensor([weight]),
            torch.tensor([bias]),
        )
        optimiser.step()
        found = torch.cat((model.weight.grad[0], model.bias.grad))
        assert found.norm().item() == pytest.approx(wanted, rel=1e-4)
        assert found[2].item() / found[0].item() == pytest.approx(4 / 3)


def test_settings_at_their_usual_values_are_not_written_down():
    usual = Workload(name="w", dataset="digits", model="cnn")
    assert not {"warmup", "clip_norm"} & usual.to_dict().keys()
    own = dataclasses.replace(usual, warmup=3, clip_norm=5.0)
    assert Workload.from_dict(own.to_dict()) == own


def test_the_small_preset_learns():
    workload = find_workload("digits-cnn")
    dataset = workload.load_dataset()
    torch.manual_seed(0)
    model = workload.make_model(dataset)
    optimiser = torch.optim.SGD(
        model.parameters(), workload.learning_rate, momentum=workload.momentum
    )
    for images, labels in dataset.train_batches(workload.batch_size, seed=0, epoch=0):
        optimiser.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimiser.step()
    model.eval()
    right = [(model(x).argmax(1) == y) for x, y in dataset.test_batches(360)]
    assert torch.cat(right).float().mean() > 0.7


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"batch_size": 0}, r"batch_size=0\): must be an integer >= 1"),
        ({"epochs": 1.5}, r"epochs=1.5\): must be an integer >= 1"),
        ({"train_images": 0}, r"train_images=0\): must be an integer >= 1"),
        ({"learning_rate": 0.0}, r"learning_rate=0.0\): must be a number > 0"),
        ({"learning_rate": float("nan")}, r"learning_rate=nan\): must be a number > 0"),
        ({"momentum": 1.0, "nesterov": False}, r"=1.0\): must be a number in \[0, 1\)"),
        ({"momentum": 0.0}, r"momentum=0.0\): must be a number in \(0, 1\)"),
        ({"weight_decay": -1.0}, r"weight_decay=-1.0\): must be a number >= 0"),
        ({"decay": 0.0}, r"decay=0.0\): must be a number in \(0, 1\]"),
        ({"schedule": "linear"}, r"schedule='linear'\): must be 'cosine' or 'step' or"),
        ({"warmup": -1}, r"warmup=-1\): must be an integer >= 0"),
        ({"clip_norm": 0.0}, r"clip_norm=0.0\): must be a number > 0"),
        ({"task_name": "nothing"}, "unknown task 'nothing'; known: classification"),
    ],
)
def test_a_workload_that_cannot_be_is_refused(change, says):
    match = says if "task" in says else rf"workload 'w': Workload\(.*{says}"
    with pytest.raises(ValueError, match=match):
        Workload(**({"name": "w", "dataset": "digits", "model": "cnn"} | change))


def test_an_unknown_workload_lists_the_known():
    with pytest.raises(ValueError, match=r"unknown workload 'photo'.*photo-resnet8"):
        find_workload("photo")


def test_importing_the_workloads_imports_no_extra_and_nothing_heavy():
    heavy = ("sklearn", "skimage", "PIL", "matplotlib", "timm", "torchvision", "numba")
    code = (
        "import sys, elision.workloads, elision.integrations; "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("option", ["name", "classes"])
def test_an_option_that_the_data_say_already_is_refused(option: str) -> None:
    workload = Workload(
        name="mine", dataset="digits", model="cnn", model_options={option: 3}
    )
    with pytest.raises(ValueError, match=f"model_options: {option}: the data"):
        workload.make_model(workload.load_dataset())
