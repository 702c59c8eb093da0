"""Beam search against greedy search, and against all translations there are."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elision.workloads.decoding import (
    beam_search,
    coverage_penalty,
    length_penalty,
)
from elision.workloads.models.gnmt import Gnmt
from elision.workloads.tokens import BOS, EOS, PAD


def small(seed: int = 0, vocabulary: int = 11) -> Gnmt:
    """A random network whose opinions are strong, so that its beams differ."""
    torch.manual_seed(seed)
    model = Gnmt(vocabulary=vocabulary, width=6, layers=2).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(3)
        model.decoder.attention.scale.mul_(8)
    return model


def padded(lengths: list[int], vocabulary: int = 11, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randint(4, vocabulary, (len(lengths), max(lengths)), generator=draw)
    beyond = torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None]
    return tokens.masked_fill(beyond, PAD)


@torch.no_grad()
def scored(model: Gnmt, source: Tensor, tokens: list[int], alpha: float, beta: float):
    """Log-probability and score of one translation, in one pass over all its tokens."""
    encoded = model.encode(source[None])
    scores, _, attention = model.decode(torch.tensor([[BOS, *tokens[:-1]]]), encoded)
    log_p = scores[0].log_softmax(-1)[range(len(tokens)), tokens].sum().item()
    covered = attention[0].sum(0).clamp(max=1).log().sum().item()
    return log_p, log_p / ((5 + len(tokens)) / 6) ** alpha + beta * covered


def test_the_length_penalty_turns_an_order():
    assert length_penalty(5) == pytest.approx(1.3587, abs=5e-5)
    assert length_penalty(10) == pytest.approx(1.7329, abs=5e-5)
    shorter, longer = -4.0 / length_penalty(5), -6.0 / length_penalty(10)
    assert shorter == pytest.approx(-2.944, abs=5e-4)
    assert longer == pytest.approx(-3.462, abs=5e-4)
    assert -4.0 / length_penalty(5, 0) == -4


def test_the_coverage_penalty_by_hand():
    attention = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1]])
    found = float(coverage_penalty(attention.sum(0)))  # log 1 + log 0.8 + log 0.1
    assert found == pytest.approx(-2.5257, abs=5e-5)
    assert 0.2 * found == pytest.approx(-0.5051, abs=5e-5)
    unseen = coverage_penalty(torch.tensor([[1.0, 0.0], [1.0, 1e-3]]))
    assert unseen.isfinite().all()
    assert unseen[0] < unseen[1]


@torch.no_grad()
def greedy(model: Gnmt, source: Tensor, steps: int) -> list[int]:
    """The likeliest next token, again and again, of the tokens so far."""
    encoded, tokens = model.encode(source[None]), [BOS]
    while len(tokens) <= steps and tokens[-1] != EOS:
        scores = model.decode(torch.tensor([tokens]), encoded)[0][0, -1]
        scores[[PAD, BOS]] = -math.inf
        tokens.append(int(scores.argmax()))
    return [t for t in tokens[1:] if t != EOS]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_a_beam_of_one_is_greedy_search(seed, lengths):
    model, source = small(seed), padded(lengths, seed=seed)
    found = beam_search(model, source, beam=1, max_length=12)
    for b, length in enumerate(lengths):
        assert [list(h.tokens) for h in found[b]] == [
            greedy(model, source[b, :length], 12)
        ]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 0.0), (0.6, 0.1), (1.0, 2.0)])
def test_a_beam_that_holds_every_hypothesis_finds_the_best_of_all(seed, alpha, beta):
    vocabulary, steps = 6, 4  # 4 tokens of text or none, 3 of them at most, and the end
    model = small(seed, vocabulary)
    source = padded([3], vocabulary, seed)
    text = [t for t in range(vocabulary) if t not in (PAD, BOS, EOS)]
    everything = [
        [*tokens, EOS]
        for length in range(steps)
        for tokens in itertools.product(text, repeat=length)
    ]
    wanted = {
        tuple(tokens[:-1]): scored(model, source[0], tokens, alpha, beta)
        for tokens in everything
    }
    (found,) = beam_search(
        model, source, beam=200, alpha=alpha, beta=beta, max_length=steps
    )
    assert {h.tokens for h in found} == set(wanted)
    for h in found:
        assert h.ended
        assert (h.log_probability, h.score) == pytest.approx(wanted[h.tokens], abs=1e-4)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


@pytest.mark.parametrize("seed", range(8))
def test_attention_goes_with_its_beam(seed):
    """Each score is that of its own tokens, whichever beams it was found on.

    The sources are longer than the targets, or every one of their tokens would be covered
    and the penalty 0 for any attention.
    """
    model, source = small(seed), padded([15, 12], seed=seed)
    found = beam_search(model, source, beam=4, beta=1.0, max_length=7)
    for b, length in enumerate((15, 12)):
        for h in found[b]:
            tokens = [*h.tokens, EOS] if h.ended else list(h.tokens)
            wanted = scored(model, source[b, :length], tokens, 0.6, 1.0)
            assert (h.log_probability, h.score) == pytest.approx(wanted, abs=1e-4)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 99),
    st.permutations([1, 2, 3, 4, 6]),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_neither_the_order_of_a_batch_nor_its_padding_changes_a_translation(
    seed, order, beam, wider
):
    model = small(seed)
    alone = {}
    for length in order:
        sentence = padded([length], seed=length)
        alone[length] = beam_search(model, sentence, beam=beam, max_length=8)[0]
    together = torch.full((len(order), max(order) + wider), 7)
    for row, length in zip(together, order, strict=True):
        row[:length] = padded([length], seed=length)[0]
    found = beam_search(
        model, together, lengths=torch.tensor(order), beam=beam, max_length=8
    )
    for length, hypotheses in zip(order, found, strict=True):
        assert [h.tokens for h in hypotheses] == [h.tokens for h in alone[length]]
        assert [h.score for h in hypotheses] == pytest.approx(
            [h.score for h in alone[length]], abs=1e-4
        )


def test_a_wider_beam_finds_no_less_likely_translation_on_the_whole():
    gains = []
    for seed in range(8):
        model, source = small(seed), padded([4, 6, 2], seed=seed)
        likelihood = [
            sum(
                max(h.log_probability for h in one)
                for one in beam_search(
                    model, source, beam=beam, alpha=0, beta=0, max_length=10
                )
            )
            for beam in (1, 8)
        ]
        gains.append(likelihood[1] - likelihood[0])
    assert sum(gains) > 0


def test_a_sentence_that_does_not_end_is_cut_off():
    model = small()
    with torch.no_grad():
        model.classifier.bias[EOS] = -1e4
    (found,) = beam_search(model, padded([3]), beam=3, max_length=5)
    assert len(found) == 3
    assert all(len(h.tokens) == 5 and not h.ended for h in found)


def test_a_sentence_that_ends_at_once_is_empty():
    model = small()
    with torch.no_grad():
        model.classifier.bias[EOS] = 1e4
    (found,) = beam_search(model, padded([3]), beam=1, max_length=5)
    assert [(h.tokens, h.ended) for h in found] == [((), True)]
    assert found[0].log_probability == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"beam": 0}, r"beam_search\(beam=0\): must be an integer >= 1"),
        ({"max_length": 0}, r"max_length=0\)"),
        ({"alpha": 1.5}, r"alpha=1.5\): must be a number in \[0, 1\]"),
        ({"beta": -0.1}, r"beta=-0.1\): must be a number >= 0"),
        ({"lengths": torch.tensor([0])}, "sentence 0 of the batch has 0 tokens"),
    ],
)
def test_bad_arguments_are_refused(how, message):
    with pytest.raises(ValueError, match=message):
        beam_search(small(), padded([3]), **how)
