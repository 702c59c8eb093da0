"""Running averages of a model with masks: everything but the numbers stays exact."""

import copy
import importlib.util
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sparse_models import MOVING, batch, elided, small_net, train
from torch import Tensor, nn
from torch.optim import swa_utils

import elision
from elision import methods


def imported(name: str) -> Any:
    """An optional library; torchvision, which they import, made to load first."""
    if importlib.util.find_spec("torchvision") is not None:
        from elision.workloads.libraries.torchvision import import_torchvision

        import_torchvision()
    return pytest.importorskip(name)


def averaged(**how: Any) -> Callable[[nn.Module], Any]:
    return lambda model: swa_utils.AveragedModel(model, **how)


def of_timm(name: str, **how: Any) -> Callable[[nn.Module], Any]:
    def make(model: nn.Module) -> Any:
        return getattr(imported("timm.utils"), name)(model, **how)

    return make


def by_hand(average: Tensor, model: Tensor, count: Tensor) -> Tensor:
    return 0.1 * model + 0.9 * average


def by_difference(average: Tensor, model: Tensor, count: Tensor) -> Tensor:
    return average.add((model - average) / 10)


AVERAGES: dict[str, Callable[[nn.Module], Any]] = {
    "mean of the weights": averaged(),
    "mean of all": averaged(use_buffers=True),
    "mean of lists": averaged(
        use_buffers=True, multi_avg_fn=swa_utils.get_swa_multi_avg_fn()
    ),
    "decaying, lists": averaged(
        use_buffers=True, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9)
    ),
    "decaying": averaged(use_buffers=True, avg_fn=swa_utils.get_ema_avg_fn(0.9)),
    "by hand": averaged(use_buffers=True, avg_fn=by_hand),
    "by difference": averaged(use_buffers=True, avg_fn=by_difference),
    "timm": of_timm("ModelEma", decay=0.9),
    "timm 2": of_timm("ModelEmaV2", decay=0.9),
    "timm 3": of_timm("ModelEmaV3", decay=0.9),
    "timm 3, one by one": of_timm("ModelEmaV3", decay=0.9, foreach=False),
}


def follow(make: Callable[[nn.Module], Any], model: nn.Module, made: Any) -> nn.Module:
    """The average of a model over some steps of training."""
    average = make(model)
    update = getattr(average, "update_parameters", None) or average.update
    train(model, made, range(10), lambda _: update(model))
    return average.ema if hasattr(average, "ema") else average.module


def mask_of(model: nn.Module, layer: str) -> Tensor:
    return model.get_buffer(f"{layer}.elision_weight_for_forward_mask")


def plain_net() -> nn.Module:
    """Without normalisation, whose integer counters torch's mean of lists cannot divide."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(144, 16), nn.ReLU(), nn.Linear(16, 4))


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("name", ["rigl", "snfs", "dsr", "gradual"])
def test_an_average_keeps_masks_budget_and_label(name: str, average: str) -> None:
    net = plain_net() if average == "mean of lists" else small_net()
    model = elision.elide(net, MOVING[name], engine="torch")
    made = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    topology = elision.topology.attach(model, made)
    mean = follow(AVERAGES[average], model, made)
    assert any(move.grown or move.dropped for move in topology.history)
    ours, theirs = model.state_dict(), mean.state_dict()
    masks = [key for key in ours if key.endswith("mask")]
    assert sum(int(theirs[key].sum()) for key in masks) == topology.nnz
    for key, value in ours.items():
        if "elision_" in key and not value.is_floating_point():
            assert torch.equal(theirs[key], value), key


@pytest.mark.parametrize("average", ["mean of all", "decaying, lists", "timm 2"])
def test_an_average_computes_with_the_masks_of_its_model(average: str) -> None:
    model, made, topology = elided(MOVING["rigl"])
    mean = follow(AVERAGES[average], model, made).eval()
    images, _ = batch(0)
    expected = mean(images)
    with torch.no_grad():
        for name, mask in topology.masks().items():
            mean.get_parameter(f"{name}.weight")[~mask] += 1.0
    assert torch.equal(mean(images), expected)


def test_an_average_of_an_average_and_of_a_copy_follow() -> None:
    model, made, topology = elided(MOVING["rigl"])
    mean = swa_utils.AveragedModel(copy.deepcopy(model), use_buffers=True)
    train(model, made, range(7), lambda _: mean.update_parameters(model))
    outer = swa_utils.AveragedModel(mean.module, use_buffers=True)
    outer.update_parameters(mean.module)
    train(model, made, range(7, 10), lambda _: mean.update_parameters(model))
    outer.update_parameters(mean.module)
    for name, mask in topology.masks().items():
        for average in (mean, outer):
            assert torch.equal(mask_of(average.module, name), mask)


@pytest.mark.filterwarnings("ignore")
def test_lightning_averages_the_weights_and_keeps_the_masks() -> None:
    lightning = imported("lightning.pytorch")
    callbacks = imported("lightning.pytorch.callbacks")
    from elision.training.loops.lightning import callback

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net()

        def training_step(self, item: Any, index: int) -> Tensor:
            images, labels = item
            return nn.functional.cross_entropy(self.net(images), labels)

        def validation_step(self, item: Any, index: int) -> None:
            assert sum(masks(self)) == seen.setdefault("budget", sum(masks(self)))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    def masks(module: nn.Module) -> list[int]:
        return [int(v.sum()) for k, v in module.state_dict().items() if "mask" in k]

    seen: dict[str, int] = {}
    module, watcher = Module(), callback(MOVING["rigl"], engine="torch")
    averaging = callbacks.WeightAveraging()
    trainer = lightning.Trainer(
        max_epochs=7,
        accelerator="cpu",
        logger=False,
        callbacks=[watcher, averaging],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = torch.utils.data.DataLoader([batch(0)], batch_size=None)  # pyright: ignore[reportArgumentType]
    trainer.fit(module, loader, loader)
    assert any(move.grown for move in watcher.topology.history)
    assert sum(masks(module)) == seen["budget"] == watcher.topology.nnz


def test_a_file_holds_plain_tensors() -> None:
    model, *_ = elided(MOVING["rigl"])
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    assert {type(value) for value in saved.values()} == {Tensor}


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_a_copy_is_averaged_like_its_original(
    again: Callable[[nn.Module], nn.Module],
) -> None:
    model = again(elided(MOVING["rigl"])[0])
    made = torch.optim.SGD(model.parameters(), lr=0.1)
    topology = elision.topology.attach(model, made)
    mean = follow(AVERAGES["decaying"], model, made)
    for name, mask in topology.masks().items():
        assert torch.equal(mask_of(mean, name), mask)


def test_restore_gives_plain_buffers_back() -> None:
    model = elision.restore(elision.elide(small_net(), methods.RigL(0.5)))
    assert {type(module._buffers) for module in model.modules()} == {dict}


def exported(model: nn.Module, x: Tensor) -> Tensor:
    return torch.export.export(model, (x,)).module()(x)


def called(model: nn.Module, x: Tensor) -> Tensor:
    values = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return torch.func.functional_call(model, values, (x,))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("how", [exported, called])
def test_tracers_and_functional_calls_take_the_buffers(
    how: Callable[[nn.Module, Tensor], Tensor],
) -> None:
    model = elided(MOVING["rigl"])[0].eval()
    images, _ = batch(0)
    with torch.no_grad():
        assert torch.equal(how(model, images), model(images))
