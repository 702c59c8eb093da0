"""Beam search: the translations of highest score that a network can be led to.

Wu et al., arXiv 1609.08144, section 7: a hypothesis Y of a source of S tokens scores
``log P(Y)/lp(Y) + β·Σ_s log(min(Σ_t p[t, s], 1))`` with ``lp(Y) = ((5 + |Y|)/6)^α`` and
p[t, s] the attention that the target's token t pays to the source's token s. ``|Y|`` counts
the token that ends a sentence. While they grow, hypotheses are compared by log P, for
they are of one length; the penalties decide between those that are finished.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from elision.common.checks import integer, number
from elision.workloads.models.gnmt import Encoded, Gnmt, States
from elision.workloads.tokens import BOS, EOS, PAD

__all__ = ["Hypothesis", "beam_search", "coverage_penalty", "length_penalty"]


@dataclass(frozen=True)
class Hypothesis:
    """One translation.

    Attributes:
        tokens: without the ones that begin and end a sentence.
        score: log-probability with both penalties; higher is better.
        log_probability: of all tokens, the ending one included.
        ended: False where the greatest length cut it off.

    Example:
        >>> Hypothesis((5, 7), score=-0.9, log_probability=-1.2).ended
        True
    """

    tokens: tuple[int, ...]
    score: float
    log_probability: float
    ended: bool = True


def length_penalty(length: int, alpha: float = 0.6) -> float:
    """``((5 + length)/6)^α``: what the log-probability is divided by.

    Example:
        >>> round(length_penalty(5), 4), round(length_penalty(10), 4)
        (1.3587, 1.7329)
    """
    return ((5 + length) / 6) ** alpha


def coverage_penalty(coverage: Tensor) -> Tensor:
    """``Σ_s log(min(coverage[s], 1))``, at most 0: source tokens that were not looked at.

    Args:
        coverage: ``(..., S)``, attention summed over the target's tokens.

    Returns:
        ``(...)``. A coverage of zero counts as the smallest positive number, so that such
        hypotheses keep an order.

    Example:
        >>> attention = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1]])
        >>> round(float(coverage_penalty(attention.sum(0))), 4)
        -2.5257
    """
    return coverage.clamp(torch.finfo(coverage.dtype).tiny, 1).log().sum(-1)


@torch.no_grad()
def beam_search(
    model: Gnmt,
    source: Tensor,
    *,
    lengths: Tensor | None = None,
    beam: int = 5,
    alpha: float = 0.6,
    beta: float = 0.1,
    max_length: int = 50,
) -> list[list[Hypothesis]]:
    """Translate a batch; the model should be in evaluation mode.

    A sentence's search ends when ``beam`` hypotheses have ended among its best, or at
    ``max_length``, where those that are left are cut off.

    Args:
        model: a network that encodes and decodes as :class:`Gnmt` does.
        source: ``(B, S)``, int64, padded on the right.
        lengths: ``(B,)``, tokens of each sentence; default: those that are no padding.
        beam: hypotheses followed at a time; 1 is greedy search.
        alpha: exponent of the length penalty, in [0, 1]; 0: none.
        beta: weight of the coverage penalty, >= 0. MLPerf and NVIDIA take 0.1, the paper
            0.2.
        max_length: most tokens of a translation, the ending one included.

    Returns:
        For each sentence up to ``beam`` hypotheses that ended, or those cut off if none
        did; the best first.

    Raises:
        ValueError: a number is out of range, or the source is not valid.

    Example:
        >>> model = Gnmt(vocabulary=9, width=8, layers=2).eval()
        >>> found = beam_search(model, torch.tensor([[4, 5, 3]]), beam=2, max_length=4)
        >>> len(found), len(found[0][0].tokens) <= 4
        (1, True)
    """
    integer("beam_search", "beam", beam)
    integer("beam_search", "max_length", max_length)
    number("beam_search", "alpha", alpha, "[0, 1]")
    number("beam_search", "beta", beta, ">= 0")
    search = _Search(model.encode(source, lengths), beam, alpha, beta)
    states: States | None = None
    encoded = search.encoded
    while not search.done and search.length < max_length:
        last = search.tokens[:, :, -1].reshape(-1, 1)
        scores, states, attention = model.decode(last, encoded, states)
        rows = search.extend(scores[:, 0].float().log_softmax(-1), attention[:, 0])
        states = tuple((h[:, rows], c[:, rows]) for h, c in states)
    return search.results()


class _Search:
    """The hypotheses of B sentences: what they are, and how they grow by a token.

    Beams lie in rows: hypothesis k of sentence b is row ``b·beam + k`` of the decoder.
    """

    def __init__(self, encoded: Encoded, beam: int, alpha: float, beta: float) -> None:
        count, device = len(encoded.mask), encoded.mask.device
        self.beam, self.alpha, self.beta = beam, alpha, beta
        self.sentence = torch.arange(count, device=device).repeat_interleave(beam)
        self.encoded = encoded.of(self.sentence)
        self.mask = encoded.mask
        self.tokens = torch.full((count, beam, 1), BOS, device=device)
        # All beams but the first begin as impossible: they would be its copies.
        self.log_p = torch.full((count, beam), -torch.inf, device=device)
        self.log_p[:, 0] = 0
        self.coverage = torch.zeros(count, beam, self.mask.shape[1], device=device)
        self.ended: list[list[Hypothesis]] = [[] for _ in range(count)]

    @property
    def length(self) -> int:
        """Tokens of the hypotheses so far."""
        return self.tokens.shape[2] - 1

    @property
    def done(self) -> bool:
        """Whether every sentence has enough hypotheses."""
        return all(len(found) >= self.beam for found in self.ended)

    def extend(self, log_p: Tensor, attention: Tensor) -> Tensor:
        """Give every hypothesis its best next tokens, and keep the best of all.

        Args:
            log_p: ``(B·beam, V)``, of the next token.
            attention: ``(B·beam, S)``, paid for it.

        Returns:
            ``(B·beam,)``: the row that each new hypothesis continues.
        """
        count, beam = self.log_p.shape
        vocabulary = log_p.shape[-1]
        log_p = log_p.index_fill(
            -1, torch.tensor([PAD, BOS], device=log_p.device), -torch.inf
        )
        total = self.log_p[..., None] + log_p.view(count, beam, vocabulary)
        # Each hypothesis may end once, so that among twice as many at least `beam` go on.
        best, place = total.flatten(1).topk(min(2 * beam, beam * vocabulary), dim=1)
        parent, token = place // vocabulary, place % vocabulary
        self.coverage = self.coverage + attention.view(count, beam, -1)
        ends = token == EOS
        self._end(best[:, :beam], parent[:, :beam], ends[:, :beam])
        # The best that go on, in their order: a stable sort moves the ends behind them.
        going = ends.to(torch.int8).argsort(dim=1, stable=True)[:, :beam]
        self.log_p = best.gather(1, going).masked_fill(
            ends.gather(1, going), -torch.inf
        )
        parent, token = parent.gather(1, going), token.gather(1, going)
        sentence = torch.arange(count, device=parent.device)[:, None]
        self.coverage = self.coverage[sentence, parent]
        self.tokens = torch.cat((self.tokens[sentence, parent], token[..., None]), -1)
        return (sentence * beam + parent).flatten()

    def _end(self, log_p: Tensor, parent: Tensor, ends: Tensor) -> None:
        """Note the hypotheses that ended; as many as are wanted, the likeliest first."""
        for b, k in (ends & log_p.isfinite()).nonzero().tolist():
            if len(self.ended[b]) < self.beam:
                self.ended[b].append(
                    self._hypothesis(b, int(parent[b, k]), float(log_p[b, k]), 1)
                )

    def _hypothesis(self, b: int, k: int, log_p: float, end: int) -> Hypothesis:
        tokens = self.tokens[b, k, 1:].tolist()
        score = log_p / length_penalty(len(tokens) + end, self.alpha)
        if self.beta:
            covered = self.coverage[b, k][self.mask[b]]
            score += self.beta * float(coverage_penalty(covered))
        return Hypothesis(tuple(tokens), score, log_p, bool(end))

    def results(self) -> list[list[Hypothesis]]:
        """Of each sentence, those that ended, or else those that are left."""
        found = [
            ended
            or [
                self._hypothesis(b, k, p, 0)
                for k, p in enumerate(log_p)
                if p > -torch.inf
            ]
            for b, (ended, log_p) in enumerate(
                zip(self.ended, self.log_p.tolist(), strict=True)
            )
        ]
        return [sorted(one, key=lambda h: h.score, reverse=True) for one in found]
