"""Parallel text and its tokens: what a network that translates is trained on."""

from dataclasses import dataclass, replace
from functools import cached_property

from elision.workloads.text.corpus import Pair, ParallelText
from elision.workloads.text.vocabulary import BytePairs

__all__ = ["TokenPair", "Translations"]

#: Tokens of a sentence and of its translation, without those that begin and end it.
TokenPair = tuple[list[int], list[int]]


@dataclass(frozen=True, eq=False)
class Translations:
    """Sentence pairs as text and as tokens.

    Attributes:
        text: the pairs.
        vocabulary: learned from the training text alone.

    Example:
        >>> text = ParallelText("two", ("en", "es"), (("go", "ve"),), (("no", "no"),), "made")
        >>> data = Translations.of(text, size=12)
        >>> data, data.vocabulary.decode(data.train_tokens[0][1])
        (Translations('two', en-es, 1 + 1 pairs, 9 tokens), 've')
    """

    text: ParallelText
    vocabulary: BytePairs

    @classmethod
    def of(cls, text: ParallelText, size: int) -> "Translations":
        """A text with a vocabulary of at most ``size`` tokens, learned from it.

        Raises:
            ValueError: the text has more characters than ``size`` allows.
            ModuleNotFoundError: ``tokenizers`` is not installed.
        """
        sentences = (sentence for pair in text.train for sentence in pair)
        return cls(text, BytePairs.learned(sentences, size))

    @property
    def name(self) -> str:
        """Name of the text."""
        return self.text.name

    @cached_property
    def train_tokens(self) -> list[TokenPair]:
        """Tokens of the training pairs."""
        return self._tokens(self.text.train)

    @cached_property
    def test_tokens(self) -> list[TokenPair]:
        """Tokens of the test pairs."""
        return self._tokens(self.text.test)

    def _tokens(self, pairs: tuple[Pair, ...]) -> list[TokenPair]:
        sides = (self.vocabulary.encode_all(side) for side in zip(*pairs, strict=True))
        return list(zip(*sides, strict=True))

    def limited(
        self, train: int | None = None, test: int | None = None
    ) -> "Translations":
        """At most so many pairs, spread evenly, and the same vocabulary."""
        return replace(self, text=self.text.limited(train, test))

    def __repr__(self) -> str:
        """Name and sizes, never the text."""
        return f"{repr(self.text)[:-1]}, {len(self.vocabulary)} tokens)".replace(
            "ParallelText", type(self).__name__, 1
        )
