"""The probe of continued sentences and its section."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from elision.methods import Dense
from elision.study.config import StudyConfig
from elision.study.probes import Continuation, Trained
from elision.study.run import study
from elision.workloads import Workload

PAIRS = Path(__file__).parents[1] / "workloads" / "pairs.tsv"


@pytest.fixture
def english(tmp_path) -> Workload:
    path = tmp_path / "english.txt"
    lines = PAIRS.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line.split("\t")[0] for line in lines), "utf-8")
    return Workload(
        name="english",
        dataset="sentences",
        data=str(path),
        dataset_options={"vocabulary": 120},
        model="lstm-lm",
        model_options={"width": 8},
        batch_size=8,
        epochs=1,
        learning_rate=0.01,
        optimizer="adamw",
        task_name="language-modelling",
    )


class Uniform(nn.Module):
    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary, self.embedding = vocabulary, nn.Embedding(1, 1)

    def forward(self, tokens):
        return torch.zeros(*tokens.shape, self.vocabulary)

    def read(self, tokens, states=None):
        return self(tokens), states


def test_a_network_that_knows_nothing(english):
    data = english.load_dataset()
    trained = Trained(Uniform(120), Dense(), english, data, 0)
    found = Continuation(prompt=2, samples=3).run(trained)
    tokens = sum(len(t) + 1 for t in data.test_tokens)
    characters = sum(len(text) + 1 for text in data.test)
    assert found["nll"] == pytest.approx(math.log(120))
    assert found["nll_of_a_unigram_model"] < math.log(120)
    assert found["bits_a_character"] == pytest.approx(
        math.log2(120) * tokens / characters
    )
    assert len(found["samples"]) == 3
    for given, sentence, sampled in found["samples"]:
        assert sentence in data.test
        assert sentence.startswith(given)
        assert sampled.startswith(given)
    again = Continuation(prompt=2, samples=3).run(trained)
    assert again == found


def test_a_study_shows_what_it_sampled(english, tmp_path):
    config = StudyConfig(
        workload=english,
        recipes=("dense",),
        accelerators=(),
        probes=("continuation:samples=2,top=5",),
    )
    outcome = study(config, tmp_path / "run")
    (findings,) = outcome.outcomes[0].findings.values()
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert '<h2 id="continuations">Continuations ' in page
    assert findings["samples"][0][1] in page
    assert f"{findings['bits_a_character']:.2f}" in page


def test_a_study_of_images_continues_nothing():
    digits = Workload(name="digits", dataset="digits", model="mlp")
    data = digits.load_dataset()
    trained = Trained(digits.make_model(data), Dense(), digits, data, 0)
    with pytest.raises(ValueError, match="workload 'digits' does not model sentences"):
        Continuation().run(trained)
