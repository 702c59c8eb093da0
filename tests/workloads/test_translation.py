"""The translation task on forty sentences: batches, loss, metric, training, resumption."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from elision.methods import Dense, Swat
from elision.training.loop import RunPlan, train
from elision.workloads import TASKS, WORKLOADS, Translations, Workload, load_dataset
from elision.workloads.tasks.translation import token_batch
from elision.workloads.tokens import BOS, EOS, PAD

PAIRS = Path(__file__).parent / "pairs.tsv"
TASK = TASKS["translation"]


def workload(**how) -> Workload:
    settings = {
        "name": "forty",
        "dataset": "pairs",
        "data": str(PAIRS),
        "dataset_options": {"vocabulary": 120},
        "model": "gnmt",
        "model_options": {"width": 16, "layers": 2, "dropout": 0.1},
        "batch_size": 8,
        "epochs": 2,
        "learning_rate": 0.01,
        "optimizer": "adamw",
        "task_name": "translation",
    }
    return Workload(**{**settings, **how})


DATA: Translations = workload().load_dataset()


def test_a_batch_holds_its_sentences_between_their_marks():
    source, target = token_batch([([4, 5, 6], [7]), ([8], [9, 10])])
    assert source.tolist() == [[4, 5, 6], [8, PAD, PAD]]
    assert target.tolist() == [[BOS, 7, EOS, PAD], [BOS, 9, 10, EOS]]


def unpadded(batch) -> list:
    return [
        ([t for t in a if t != PAD], [t for t in b if t not in (PAD, BOS, EOS)])
        for a, b in zip(batch[0].tolist(), batch[1].tolist(), strict=True)
    ]


def test_an_epoch_holds_every_pair_once_and_another_one_in_another_order():
    epochs = []
    for epoch in (0, 1, 0):
        batches = list(workload().train_batches(DATA, seed=3, epoch=epoch))
        assert len(batches) == workload().steps_per_epoch(DATA) == 5
        found = [pair for batch in batches for pair in unpadded(batch)]
        assert sorted(found) == sorted(DATA.train_tokens)
        epochs.append(found)
    assert epochs[0] != epochs[1]
    assert epochs[0] == epochs[2]


def test_the_test_is_in_order():
    found = [p for batch in TASK.test_batches(DATA, 3) for p in unpadded(batch)]
    assert found == DATA.test_tokens


class Fixed(nn.Module):
    """Says the same scores to every token."""

    def __init__(self, scores: torch.Tensor) -> None:
        super().__init__()
        self.scores = nn.Parameter(scores)

    def forward(self, source, target):
        del source
        return self.scores.expand(*target.shape, -1)


def test_loss_and_metric_by_hand():
    p = torch.tensor([0.0, 0, 0, 0.5, 0.25, 0.25])
    model = Fixed(p.clamp(1e-9).log())
    batch = token_batch([([4], [4]), ([4, 5], [4, 5])])
    # Tokens: 4, end; 4, 5, end: three of a quarter and two of a half.
    total = 3 * math.log(4) + 2 * math.log(2)
    assert TASK.evaluate(model, [batch]) == pytest.approx(math.exp(total / 5))
    uniform = Fixed(torch.zeros(6))
    # Without the padding's class, every other one costs log 6, smoothed or not.
    assert TASK.loss(uniform, batch).item() == pytest.approx(5 * math.log(6) / 2)
    assert TASK.evaluate(uniform, [batch]) == pytest.approx(6)


def test_the_metric_does_not_depend_on_the_batches():
    model = workload().make_model(DATA)
    scores = [TASK.evaluate(model, TASK.test_batches(DATA, size)) for size in (1, 2, 4)]
    assert scores == pytest.approx([scores[0]] * 3, rel=1e-5)


def test_a_network_learns_forty_sentences_by_heart():
    learned = workload(
        epochs=40, model_options={"width": 32, "layers": 2, "dropout": 0}
    )
    result = train(learned, Dense(), DATA, RunPlan())
    first, last = result.history[0], result.history[-1]
    assert last.loss < 0.5 * first.loss
    perplexity = TASK.evaluate(result.model, [token_batch(DATA.train_tokens[:18])])
    assert perplexity < 3  # of 120 tokens


@pytest.mark.parametrize("recipe", [Dense(), Swat(0.5)])
def test_a_run_that_was_cut_ends_with_the_same_numbers(tmp_path, recipe):
    whole = train(workload(), recipe, DATA, RunPlan(seed=1))
    begun = train(
        # A constant rate, or the shorter run would be another one.
        workload(schedule="constant", epochs=1),
        recipe,
        DATA,
        RunPlan(seed=1),
        folder=tmp_path,
    )
    resumed = train(
        workload(schedule="constant"), recipe, DATA, RunPlan(seed=1), folder=tmp_path
    )
    straight = train(workload(schedule="constant"), recipe, DATA, RunPlan(seed=1))
    assert len(begun.history) == 1
    assert resumed.history == straight.history
    assert resumed.history != whole.history
    for a, b in zip(
        resumed.model.parameters(), straight.model.parameters(), strict=True
    ):
        assert torch.equal(a, b)


def test_the_work_of_every_layer_is_counted():
    result = train(workload(epochs=1), Swat(0.5), DATA, RunPlan(meter_every=1))
    assert result.meter.total().ratio < 0.75


def test_images_and_text_are_not_mixed():
    with pytest.raises(ValueError, match="augment: crops and mirror images are for"):
        next(iter(workload(augment=True).train_batches(DATA, seed=0, epoch=0)))
    with pytest.raises(ValueError, match="data set 'pairs' needs the path of a file"):
        load_dataset("pairs")
    with pytest.raises(ValueError, match=r"must answer with scores \(sentences, tok"):
        TASK.check_output(torch.zeros(2, 3), DATA)


def test_a_task_names_what_fits_it():
    digits = Workload(name="digits", dataset="digits", model="mlp")
    with pytest.raises(
        ValueError, match="'classification' needs a Dataset; begin with"
    ):
        digits.changed(dataset="pairs", data=str(PAIRS)).load_dataset()
    with pytest.raises(ValueError, match="data set 'digits' holds a Dataset, task"):
        workload(dataset="digits", data=None, dataset_options={}).load_dataset()
    with pytest.raises(ValueError, match="unknown model for classification 'gnmt'; k"):
        digits.changed(model="gnmt").make_model(digits.load_dataset())
    with pytest.raises(
        ValueError, match="unknown model for translation 'mlp'; known: "
    ):
        workload(model="mlp").make_model(DATA)


def test_a_network_of_ones_own_is_tried(monkeypatch):
    own = workload(model=f"{__name__}:own", model_options={})
    assert isinstance(own.make_model(DATA), Fixed)
    wrong = replace(own, model_options={"size": 7})
    with pytest.raises(
        ValueError, match="scores \\(sentences, tokens, 120\\); it gave"
    ):
        wrong.make_model(DATA)


def own(vocabulary: int, size: int | None = None) -> nn.Module:
    return Fixed(torch.zeros(size or vocabulary))


@pytest.mark.parametrize("name", ["gnmt-tiny", "gnmt-small"])
def test_the_presets_build_their_networks_on_any_pairs(name):
    preset = WORKLOADS[name]
    assert preset.task is TASK
    model = preset.make_model(DATA)
    assert model.vocabulary == 120
    assert preset.make_optimizer(model).defaults["weight_decay"] == 0
