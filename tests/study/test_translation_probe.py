"""The probe of translations and its section, on a network that knows forty sentences."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from elision.methods import Dense
from elision.study.config import StudyConfig
from elision.study.probes import Trained, Translation
from elision.study.probes.unigram import unigram_nll
from elision.study.run import study
from elision.workloads import Workload
from elision.workloads.models.gnmt import Encoded

PAIRS = Path(__file__).parents[1] / "workloads" / "pairs.tsv"
FORTY = Workload(
    name="forty",
    dataset="pairs",
    data=str(PAIRS),
    dataset_options={"vocabulary": 120},
    model="gnmt",
    model_options={"width": 8, "layers": 2},
    batch_size=8,
    epochs=1,
    learning_rate=0.01,
    optimizer="adamw",
    task_name="translation",
)


class ByHeart(nn.Module):
    """Knows the translation of every sentence; answers in the form that GNMT has."""

    def __init__(self, pairs, vocabulary: int) -> None:
        super().__init__()
        self.known = {tuple(a): [2, *b, 3] for a, b in pairs}
        self.vocabulary = vocabulary

    def encode(self, source, lengths=None):
        del lengths
        return Encoded(source[..., None].float(), source[..., None], source != 0)

    def decode(self, target, encoded, states=None):
        place = 0 if states is None else int(states[0][0][0, 0, 0])
        scores = torch.zeros(*target.shape, self.vocabulary)
        for b, row in enumerate(encoded.keys[..., 0].tolist()):
            wanted = self.known[tuple(t for t in row if t)]
            for t in range(target.shape[1]):
                if place + t + 1 < len(wanted):
                    scores[b, t, wanted[place + t + 1]] = 9
        after = torch.full((1, len(target), 1), place + target.shape[1])
        weights = encoded.mask[:, None] / encoded.mask.sum(1)[:, None, None]
        return scores, ((after, after),), weights.expand(-1, target.shape[1], -1)

    def forward(self, source, target):
        return self.decode(target, self.encode(source))[0]


def found(**how):
    data = FORTY.load_dataset()
    model = ByHeart(data.test_tokens, len(data.vocabulary))
    return Translation(**how).run(Trained(model, Dense(), FORTY, data, 0)), data


@pytest.mark.parametrize("beam", [1, 3])
def test_a_network_that_knows_the_translations(beam):
    findings, data = found(beam=beam, samples=2)
    for source, reference, translation in findings["samples"]:
        assert (source, reference) in data.text.test
        assert translation == reference
    assert len(findings["samples"]) == 2
    assert findings["bleu"] > 80 > findings["bleu_of_copies"]
    assert findings["sentences"] == len(data.text.test)
    assert findings["nll"] < 0.1
    assert findings["nll_of_other_sources"] > 5
    assert 3 < findings["nll_of_a_unigram_model"] < math.log(120)
    assert "smooth:exp|version" in findings["signature"]


def test_a_unigram_model_by_hand():
    data = FORTY.load_dataset()
    counts = [1] * len(data.vocabulary)
    for _, target in data.train_tokens:
        for token in [*target, 3]:
            counts[token] += 1
    learned, tested = (
        [[*target, 3] for _, target in part]
        for part in (data.train_tokens, data.test_tokens)
    )
    tokens = [token for sentence in tested for token in sentence]
    total = -sum(math.log(counts[t] / sum(counts)) for t in tokens)
    assert unigram_nll(learned, tested, len(data.vocabulary)) == pytest.approx(
        total / len(tokens)
    )


def test_a_study_shows_its_translations(tmp_path):
    config = StudyConfig(
        workload=FORTY, recipes=("dense",), probes=("translation:beam=2,samples=3",)
    )
    outcome = study(config, tmp_path)
    (findings,) = outcome.outcomes[0].findings.values()
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<h2 id="translations">Translations ' in page
    assert '<h2 id="perplexity">Perplexity ' in page
    assert findings["samples"][0][1] in page
    assert f"{findings['bleu']:.1f}" in page
    assert len(findings["samples"]) == 3


def test_a_study_of_images_does_not_translate():
    digits = Workload(name="digits", dataset="digits", model="mlp")
    data = digits.load_dataset()
    trained = Trained(digits.make_model(data), Dense(), digits, data, 0)
    with pytest.raises(ValueError, match="workload 'digits' does not translate"):
        Translation().run(trained)
