"""Language modelling on the English side of forty sentences: data, task and sampling."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

import elision
from elision.methods import Dense, Swat
from elision.training.loop import RunPlan, train
from elision.workloads import (
    TASKS,
    WORKLOADS,
    Sentences,
    Workload,
    load_dataset,
    sample,
)
from elision.workloads.models.language import LstmLanguageModel
from elision.workloads.tasks.tokens import written
from elision.workloads.tokens import BOS, EOS, PAD

PAIRS = Path(__file__).parent / "pairs.tsv"
ENGLISH = [line.split("\t")[0] for line in PAIRS.read_text("utf-8").splitlines()]
TASK = TASKS["language-modelling"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Sentences:
    path = tmp_path_factory.mktemp("text") / "english.txt"
    path.write_text("\n \n".join(f" {s} " for s in ENGLISH), "utf-8")
    return load_dataset("sentences", path, vocabulary=120)


def workload(**how) -> Workload:
    settings = {
        "name": "english",
        "dataset": "sentences",
        "model": "lstm-lm",
        "model_options": {"width": 16, "dropout": 0.0},
        "batch_size": 8,
        "epochs": 2,
        "learning_rate": 0.02,
        "optimizer": "adamw",
        "task_name": "language-modelling",
    }
    return Workload(**{**settings, **how})


def test_the_sentences_of_a_file(data):
    assert repr(data) == "Sentences('english', 36 + 4 sentences, 120 tokens)"
    assert set(data.train) | set(data.test) == set(ENGLISH)
    assert data.test == tuple(ENGLISH[9::10])
    few = data.limited(9, 2)
    assert (few.train, few.test) == (data.train[::4], data.test[::2])
    assert few.vocabulary is data.vocabulary
    assert [*few.content()] != [*data.content()]


def test_sentences_that_repeat_stay_out_of_the_test():
    data = Sentences.of("few", ["go", "no", "on", "go", "no"], every=2, size=20)
    assert (data.train, data.test) == (("go", "on"), ("no",))
    with pytest.raises(ValueError, match="a test sentence is in training, too: 'go'"):
        Sentences("x", data.train, ("go",), data.vocabulary, "made")
    with pytest.raises(ValueError, match="text 'x': there is no sentence to test on"):
        Sentences("x", data.train, (), data.vocabulary, "made")


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="data set 'sentences' needs the path of a"):
        load_dataset("sentences")
    (tmp_path / "latin.txt").write_bytes("déjà vu".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.txt: is no UTF-8 text"):
        load_dataset("sentences", tmp_path / "latin.txt")
    with pytest.raises(FileNotFoundError, match="apt-get install sword-text-web, or"):
        load_dataset("verses-english", tmp_path)


def test_an_epoch_holds_every_sentence_once(data):
    batches = list(workload().train_batches(data, seed=3, epoch=0))
    assert len(batches) == workload().steps_per_epoch(data) == 5
    found = [
        [t for t in row if t not in (PAD, BOS, EOS)]
        for (tokens,) in batches
        for row in tokens.tolist()
    ]
    assert sorted(found) == sorted(data.train_tokens)


class Fixed(nn.Module):
    """Says the same scores to every token."""

    def __init__(self, p: list[float]) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.tensor(p).clamp(1e-9).log())
        self.embedding = nn.Embedding(1, 1)

    def forward(self, tokens):
        return self.scores.expand(*tokens.shape, -1)

    def read(self, tokens, states=None):
        return self(tokens), states


def test_loss_and_metric_by_hand():
    model, batch = Fixed([0, 0, 0, 0.5, 0.25, 0.25]), (written([[4], [4, 5]]),)
    # Tokens: 4, end; 4, 5, end: three of a quarter and two of a half.
    total = 3 * math.log(4) + 2 * math.log(2)
    assert TASK.loss(model, batch).item() == pytest.approx(total / 2)
    assert TASK.evaluate(model, [batch]) == pytest.approx(math.exp(total / 5))


def test_a_later_token_changes_no_earlier_score():
    model = LstmLanguageModel(vocabulary=9, width=6, layers=2).eval()
    tokens = torch.tensor([[BOS, 4, 5, 6]])
    whole, _ = model.read(tokens)
    first, states = model.read(tokens[:, :2])
    rest, _ = model.read(tokens[:, 2:], states)
    torch.testing.assert_close(torch.cat((first, rest), 1), whole)


def test_a_network_learns_forty_sentences_by_heart(data):
    learned = workload(epochs=30, model_options={"width": 48, "dropout": 0.0})
    model = train(learned, Dense(), data, RunPlan()).model.eval()
    assert TASK.evaluate(model, [(written(data.train_tokens),)]) < 3  # of 120 tokens
    prompts = [tokens[:4] for tokens in data.train_tokens[:8]]
    found = sample(model, prompts, top=1, max_length=20)
    known = {tuple(tokens) for tokens in data.train_tokens}
    right = [tuple(a + b) in known for a, b in zip(prompts, found, strict=True)]
    assert sum(right) >= 6


def test_a_recipe_reaches_the_lstm(data):
    result = train(workload(epochs=1), Swat(0.5), data, RunPlan(meter_every=1))
    assert result.meter.total().ratio < 0.75
    names = dict(elision.restore(result.model).named_modules())
    assert isinstance(names["lstm"], nn.LSTM)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_have_the_shares_of_the_model(temperature):
    """Of the tokens that may follow: the mark that begins a sentence and padding may not."""
    p = torch.tensor([0.3, 0.1, 0.1, 0.1, 0.1, 0.3])
    model = Fixed(p.tolist())
    draw = torch.Generator().manual_seed(0)
    found = sample(
        model, [[]] * 3000, temperature=temperature, max_length=1, generator=draw
    )
    shares = p.pow(1 / temperature).index_fill(0, torch.tensor([PAD, BOS]), 0)
    shares /= shares.sum()
    counts = torch.tensor([t[0] if t else EOS for t in found]).bincount(minlength=6)
    # Within four deviations of a share.
    assert ((counts / 3000 - shares).abs() < 4 * (shares / 3000).sqrt() + 1e-9).all()


def test_few_tokens_may_be_drawn():
    model = Fixed([0.3, 0.05, 0.05, 0.1, 0.2, 0.3])
    found = sample(model, [[4]] * 20, top=2, max_length=3)
    assert {token for tokens in found for token in tokens} == {4, 5}
    assert all(len(tokens) == 3 for tokens in found)
    for wrong in ({"temperature": 0.0}, {"top": 0}, {"max_length": 0}):
        with pytest.raises(ValueError, match=rf"sample\({next(iter(wrong))}=0"):
            sample(model, [[]], **wrong)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"layers": 0}, r"LstmLanguageModel\(layers=0\): must be an integer >= 1"),
        ({"dropout": 1.0}, r"dropout=1.0\): must be a number in \[0, 1\)"),
        ({"vocabulary": 4}, r"vocabulary=4\): must be an integer >= 5"),
    ],
)
def test_sizes_that_are_none_are_refused(how, message):
    with pytest.raises(ValueError, match=message):
        LstmLanguageModel(**{"vocabulary": 9, "width": 4, "layers": 1, **how})


def test_the_preset_builds_its_network(data):
    preset = WORKLOADS["verses-lstm"]
    assert preset.task is TASK
    assert preset.make_model(data).vocabulary == 120
    with pytest.raises(ValueError, match="unknown model for language-modelling 'gnmt'"):
        workload(model="gnmt").make_model(data)
