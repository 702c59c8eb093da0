"""A saver in other people's training loops: bit-equal to one that is written by hand.

What needs a library that is not installed is skipped; continuous integration installs
all of them.
"""

import copy
import importlib.util
import warnings
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.memory import saver
from elision.training.loops.saving import Saving, around_forward

# What the libraries warn of among themselves is not ours.
pytestmark = pytest.mark.filterwarnings("ignore")


def imported(name: str) -> Any:
    """An optional library; torchvision, which they import, made to load first."""
    if importlib.util.find_spec("torchvision") is not None:
        from elision.workloads.libraries.torchvision import import_torchvision

        import_torchvision()
    return pytest.importorskip(name)


class Classifier(nn.Module):
    """Answers as the Trainer wants it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten()),
            nn.Linear(16 * 10 * 10, 4),
        )

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        scores = self.net(images)
        return {"loss": F.cross_entropy(scores, labels), "logits": scores}


def batches(count: int = 4) -> list[dict[str, Tensor]]:
    draws = torch.Generator().manual_seed(1)
    return [
        {
            "images": torch.randn(8, 3, 12, 12, generator=draws),
            "labels": torch.randint(4, (8,), generator=draws),
        }
        for _ in range(count)
    ]


def by_hand(
    model: Classifier, policy: str, every: int = 1, bf16: bool = False
) -> dict[str, Tensor]:
    """Train with a saver in a loop of one's own; returns the model's state."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for number, batch in enumerate(batches()):
        precision = torch.autocast("cpu", torch.bfloat16, enabled=bf16)
        with precision, saver(model, policy, seed=number):
            loss = model(**batch)["loss"]
        (loss / every).backward()
        if (number + 1) % every == 0:
            optimizer.step()
            optimizer.zero_grad()
    return model.state_dict()


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


def trainer_of(
    folder: Any, model: nn.Module, rows: list[Any], kind: Any = None, **how: Any
) -> Any:
    """A Trainer that takes the batches in their order, with plain SGD."""
    transformers = imported("transformers")
    imported("accelerate")

    class InOrder(kind or transformers.Trainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(rows)

    settings = {
        "per_device_train_batch_size": 8,
        "num_train_epochs": 1,
        "report_to": [],
        "use_cpu": True,
        "save_strategy": "no",
        "disable_tqdm": True,
        "optim": "sgd",
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
    }
    arguments = transformers.TrainingArguments(str(folder), **(settings | how))
    return InOrder(model=model, args=arguments, train_dataset=rows, eval_dataset=rows)


def rows_of(data: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    return [
        {name: tensor[i] for name, tensor in batch.items()}
        for batch in data
        for i in range(8)
    ]


@pytest.mark.parametrize(("every", "bf16"), [(1, False), (2, False), (2, True)])
def test_the_trainer_trains_as_a_loop_by_hand(tmp_path, every: int, bf16: bool) -> None:
    imported("transformers")
    from elision.training.loops import transformers as loops

    model = Classifier()
    expected = by_hand(copy.deepcopy(model), "bits(4)", every, bf16)
    trainer = trainer_of(
        *(tmp_path, model, rows_of(batches())),
        gradient_accumulation_steps=every,
        bf16=bf16,
        eval_strategy="steps",
        eval_steps=1,
    )
    saving = loops.saver(trainer, "bits(4)", seed=0)
    assert "no forward pass was saved" in saving.report()
    trainer.train()
    assert_same(model.state_dict(), expected)
    assert saving.passes == 4  # none of the evaluation's
    assert saving.saved.ledger.ratio > 2
    assert "4 forward passes" in saving.report()
    assert "net.3" in saving.report()


def test_a_subclass_of_the_trainer_keeps_its_loss(tmp_path) -> None:
    transformers = imported("transformers")
    from elision.training.loops import transformers as loops

    calls = []

    class Own(transformers.Trainer):
        def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Tensor:
            calls.append(len(calls))
            if len(calls) == 3:
                raise InterruptedError("in the third step")
            return F.cross_entropy(model(**inputs)["logits"], inputs["labels"]) * 2

    model = Classifier()
    trainer = trainer_of(tmp_path, model, rows_of(batches()), Own)
    saving = loops.saver(trainer, "exact")
    with pytest.raises(InterruptedError):
        trainer.train()
    assert saving.passes == 3
    # The failed step left no hooks behind.
    seen: list[Tensor] = []
    assert nn.Linear(2, 2)(torch.ones(1, 2)).grad_fn._raw_saved_mat1 is not None
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: seen.append(t) or t, lambda t: t
    ):
        nn.Linear(2, 2)(torch.ones(1, 2))
    assert seen
    calls[:] = range(10)
    trainer.train()
    assert saving.passes == 7
    saving.detach()
    assert "compute_loss" not in vars(trainer)
    trainer.train()
    assert saving.passes == 7
    with pytest.raises(TypeError, match="must have compute_loss"):
        loops.saver(model)
    with pytest.raises(ValueError, match="unknown memory policy"):
        loops.saver(trainer, "bitz(4)")


def test_the_trainers_checkpointing_is_named_once(tmp_path) -> None:
    transformers = imported("transformers")
    from elision.training.loops import transformers as loops

    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
    )
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(config)
    tokens = torch.randint(50, (32, 16))
    rows = [{"input_ids": row, "labels": torch.tensor(0)} for row in tokens]
    expected = copy.deepcopy(model)

    def train(model: nn.Module, **how: Any) -> Any:
        trainer = trainer_of(tmp_path, model, rows, max_steps=2, **how)
        saving = loops.saver(trainer, "exact")
        trainer.train()
        return saving

    train(expected)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        saving = train(model, gradient_checkpointing=True)
    assert_same(model.state_dict(), expected.state_dict())
    assert saving.saved.ledger.checkpointed == ("bert.encoder",)
    told = [str(w.message) for w in said if "elision.memory.saver" in str(w.message)]
    assert len(told) == 1
    assert "bert.encoder" in told[0]
    assert "makes the saver useless" in told[0]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("every", [1, 2])
def test_lightning_trains_as_a_loop_by_hand(every: int, compiled: bool) -> None:
    lightning = imported("lightning.pytorch")
    from elision.training.loops import lightning as loops

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = Classifier()
            if compiled:
                self.classifier.compile(backend="aot_eager")

        def training_step(self, batch: Any, index: int) -> Tensor:
            return self.classifier(**batch)["loss"]

        def validation_step(self, batch: Any, index: int) -> None:
            assert saving.saved is None or not saving.saved._uses_now
            self.classifier(**batch)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    module, saving = Module(), loops.saver("bits(4)", seed=0)
    model = Classifier()
    if compiled:
        model.compile(backend="aot_eager")
    # Rounding in a graph draws torch's own random numbers.
    torch.manual_seed(5)
    expected = by_hand(model, "bits(4)", every)
    torch.manual_seed(5)
    fit(lightning, module, saving, accumulate_grad_batches=every)
    assert saving.passes == 4
    assert saving.saved.ledger.ratio > 2
    assert "training_step" not in vars(module)
    if not compiled:
        assert_same(module.classifier.state_dict(), expected)
        assert "classifier.net.3" in saving.report()


def fit(lightning: Any, module: Any, saving: Any, **how: Any) -> None:
    loader = torch.utils.data.DataLoader(batches(), batch_size=None)
    lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        callbacks=[saving],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=1,
        **how,
    ).fit(module, loader, loader)


def test_lightning_is_left_as_it_was_by_an_exception() -> None:
    lightning = imported("lightning.pytorch")
    from elision.training.loops import lightning as loops

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.classifier, self.automatic_optimization = Classifier(), False

        def training_step(self, batch: Any, index: int) -> None:
            self.manual_backward(self.classifier(**batch)["loss"])
            if index == 2:
                raise InterruptedError("in the third step")

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    module, saving = Module(), loops.saver("exact")
    with pytest.raises(InterruptedError):
        fit(lightning, module, saving)
    assert saving.passes == 3
    assert "training_step" not in vars(module)
    assert not saving.saved._uses_now


def test_lightning_refuses_a_module_that_is_compiled_itself() -> None:
    lightning = imported("lightning.pytorch")
    from elision.training.loops import lightning as loops

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = Classifier()

        def training_step(self, batch: Any, index: int) -> Tensor:
            return self.classifier(**batch)["loss"]

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    compiled = torch.compile(Module(), backend="eager")
    with pytest.raises(ValueError, match="compile the network inside it"):
        fit(lightning, compiled, loops.saver("exact"))


def test_accelerate_trains_as_a_loop_by_hand() -> None:
    accelerate = pytest.importorskip("accelerate")
    from elision.training.loops import accelerate as loops

    model = Classifier()
    expected = by_hand(copy.deepcopy(model), "bits(4)", every=2)
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    prepared, optimizer = accelerator.prepare(
        model, torch.optim.SGD(model.parameters(), 0.1)
    )
    saving = loops.saver(prepared, "bits(4)", seed=0)
    for batch in batches():
        with accelerator.accumulate(prepared):
            accelerator.backward(prepared(**batch)["loss"])
            optimizer.step()
            optimizer.zero_grad()
    assert saving.passes == 4
    assert_same(model.state_dict(), expected)
    with torch.no_grad():
        prepared(**batches()[0])
    assert saving.passes == 4
    assert accelerator.unwrap_model(prepared) is model
    accelerator.free_memory()


@pytest.mark.parametrize("ends", [None, ZeroDivisionError])
def test_a_forward_pass_is_put_back(ends: type[Exception] | None) -> None:
    model = nn.Linear(64, 64)
    saving = around_forward(model, "exact")
    x = torch.randn(8, 64 if ends is None else 3)
    with nullcontext() if ends is None else pytest.raises(RuntimeError):
        model(x).sum().backward()
    assert saving.passes == 1
    assert not saving.saved._uses_now
    saving.detach()
    assert "forward" not in vars(model)


def test_a_compiled_model_is_packed_in_its_graphs() -> None:
    torch._dynamo.reset()  # of sizes that other tests have had
    model = Classifier()
    compiled: Any = torch.compile(model.net, backend="aot_eager")
    saving = around_forward(compiled, "bits(4)")
    compiled(batches()[0]["images"]).square().mean().backward()
    assert saving.passes == 1
    assert saving.saved.ledger.ratio > 2
    assert all(p.grad is not None for p in model.parameters())


def test_numbers_follow_the_loops_steps() -> None:
    seeds: list[int] = []

    class Noted(Saving):
        def number(self, step: tuple[int, int]) -> None:
            seeds.append(self._number(*step))
            self.passes += 1

    whole, resumed = Noted(), Noted()
    for step in ((0, 2), (0, 2), (1, 2), (1, 2), (2, 2)):
        whole.number(step)
    resumed.number((2, 2))
    assert seeds == [0, 1, 2, 3, 4, 4]
