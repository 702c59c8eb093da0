"""What a token costs a model that knows the frequencies of the tokens alone."""

import math
from collections import Counter
from collections.abc import Iterable

__all__ = ["unigram_nll"]


def unigram_nll(
    learned: Iterable[Iterable[int]], tested: Iterable[Iterable[int]], vocabulary: int
) -> float:
    """Nats a token of test sentences under the frequencies of the training's.

    Every token of the vocabulary is counted once more than it occurs, so that none has
    the probability zero (Laplace's rule).

    Args:
        learned: tokens of the training sentences, with those that end them.
        tested: of the test sentences, at least one token.
        vocabulary: number of tokens that there are.

    Example:
        >>> round(unigram_nll([[4, 3]], [[5, 3]], vocabulary=6), 3)  # 1/8 and 2/8
        1.733
    """
    counts = Counter(token for sentence in learned for token in sentence)
    total = counts.total() + vocabulary
    tokens = [token for sentence in tested for token in sentence]
    return -sum(math.log((counts[t] + 1) / total) for t in tokens) / len(tokens)
