"""Other people's training loops: Accelerate, Transformers, Lightning, torchvision.

What needs a library that is not installed is skipped; continuous integration installs
all of them.
"""

import importlib
import importlib.util

import pytest
import torch
import torch.nn.functional as F
from sparse_models import MOVING, batch, elided, sgd, small_net, train
from torch import nn

import elision
from elision import methods


def imported(name):
    """An optional library; torchvision, which they import, made to load first."""
    if importlib.util.find_spec("torchvision") is not None:
        from elision.workloads.libraries.torchvision import import_torchvision

        import_torchvision()
    return pytest.importorskip(name)


def test_accelerate_takes_the_same_steps():
    accelerate = pytest.importorskip("accelerate")
    from elision.training.loops.accelerate import attach_prepared

    accelerator = accelerate.Accelerator(cpu=True)
    model = elision.elide(small_net(), MOVING["rigl"], engine="torch")
    plain_optimizer = sgd(model)
    prepared, optimizer = accelerator.prepare(model, plain_optimizer)
    with pytest.raises(ValueError, match="was not prepared"):
        attach_prepared(accelerator, prepared, plain_optimizer)
    topology = attach_prepared(accelerator, prepared, optimizer)
    for step in range(7):
        images, labels = batch(step)
        optimizer.zero_grad()
        accelerator.backward(F.cross_entropy(prepared(images), labels))
        optimizer.step()
    alone, own, expected = elided(MOVING["rigl"])
    train(alone, own, range(7))
    assert topology.digest() == expected.digest()


# What transformers and its dependencies warn of among themselves is not ours.
@pytest.mark.filterwarnings("ignore")
def test_the_trainer_moves_masks(tmp_path):
    transformers = imported("transformers")
    pytest.importorskip("accelerate")
    from elision.training.loops.transformers import callback

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small_net()

        def forward(self, images, labels):
            scores = self.net(images)
            return {"loss": F.cross_entropy(scores, labels), "logits": scores}

    model = elision.elide(Classifier(), MOVING["rigl"])
    images, labels = batch(0)
    rows = [{"images": i, "labels": c} for i, c in zip(images, labels, strict=True)]
    watcher = callback()
    arguments = transformers.TrainingArguments(
        str(tmp_path),
        max_steps=7,
        per_device_train_batch_size=8,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=rows, callbacks=[watcher]
    )
    trainer.train()
    assert watcher.topology.step == 8
    assert any(move.grown for move in watcher.topology.history)


@pytest.mark.filterwarnings("ignore")
def test_lightning_moves_masks_and_resumes(tmp_path):
    lightning = imported("lightning.pytorch")
    from elision.training.loops.lightning import callback

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = small_net()

        def training_step(self, item, index):
            images, labels = item
            return F.cross_entropy(self.net(images), labels)

        def configure_optimizers(self):
            return sgd(self)

    def run(steps, resume=None):
        module, watcher = Module(), callback(MOVING["rigl"], engine="torch")
        trainer = lightning.Trainer(
            max_steps=steps,
            accelerator="cpu",
            logger=False,
            callbacks=[watcher],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        loader = torch.utils.data.DataLoader([batch(0)], batch_size=None)
        trainer.fit(module, loader, ckpt_path=resume)
        return trainer, watcher.topology

    trainer, topology = run(7)
    assert any(move.grown for move in topology.history)
    trainer.save_checkpoint(tmp_path / "seven.ckpt")
    _, whole = run(13)
    _, resumed = run(13, resume=tmp_path / "seven.ckpt")
    assert whole.step == resumed.step == 14
    assert whole.digest() == resumed.digest()


@pytest.mark.filterwarnings("ignore")
def test_lightning_fits_the_schedule_and_follows_several_optimisers() -> None:
    lightning = imported("lightning.pytorch")
    from elision.training.loops.lightning import callback

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.automatic_optimization = small_net(), False

        def training_step(self, item, index) -> None:
            images, labels = item
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            self.manual_backward(F.cross_entropy(self.net(images), labels))
            for optimizer in self.optimizers():
                optimizer.step()

        def configure_optimizers(self):
            parts = (self.net[:7], self.net[7:])
            return [torch.optim.SGD(part.parameters(), 0.1) for part in parts]

    watcher = callback(methods.RigL(0.8), engine="torch", fit=True)
    trainer = lightning.Trainer(
        max_epochs=24,
        accelerator="cpu",
        logger=False,
        callbacks=[watcher],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = torch.utils.data.DataLoader([batch(0)], batch_size=None)
    trainer.fit(Module(), loader)
    assert [part.step for part in watcher.topology.parts] == [25, 25]
    assert {move.step for move in watcher.topology.history} == {5, 10, 15}


@pytest.mark.filterwarnings("ignore")
def test_the_trainer_fits_the_schedule(tmp_path) -> None:
    transformers = imported("transformers")
    pytest.importorskip("accelerate")
    from elision.training.loops.transformers import callback

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net()

        def forward(self, images, labels):
            scores = self.net(images)
            return {"loss": F.cross_entropy(scores, labels), "logits": scores}

    model = elision.elide(Classifier(), methods.RigL(0.8), engine="torch")
    images, labels = batch(0)
    rows = [{"images": i, "labels": c} for i, c in zip(images, labels, strict=True)]
    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=12, report_to=[], use_cpu=True, save_strategy="no"
    )
    watcher = callback(fit=True)
    transformers.Trainer(
        model=model, args=arguments, train_dataset=rows, callbacks=[watcher]
    ).train()
    assert {move.step for move in watcher.topology.history} == {5}


@pytest.mark.parametrize("method", [methods.RigL(0.9, every=2), methods.Swat(0.9)])
def test_a_network_of_torchvision_trains_in_a_few_more_lines(method):
    imported("torchvision")
    resnet = importlib.import_module("torchvision.models.resnet")

    def make():
        return resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=4)

    torch.manual_seed(0)
    model, images, labels = make(), torch.randn(4, 3, 32, 32), torch.arange(4)

    elision.elide(model, method)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    topology = elision.topology.attach(model, optimizer)
    losses = []
    for _ in range(5):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < losses[0]
    if isinstance(method, methods.RigL):
        assert topology.nnz == round(
            0.1 * sum(m.numel() for m in topology.masks().values())
        )
        assert any(move.grown for move in topology.history)
    plain = elision.export.finalize(model.eval())
    weights = [m.weight for m in plain.modules() if isinstance(m, nn.Conv2d)]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    assert zeros > 0.85 * sum(weight.numel() for weight in weights)
    assert plain.state_dict().keys() == make().state_dict().keys()
