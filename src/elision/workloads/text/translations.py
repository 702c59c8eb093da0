"""Parallel text and its tokens: what a network that translates is trained on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from elision.workloads.examples import Examples, held_out_places
from elision.workloads.text.corpus import Pair, ParallelText
from elision.workloads.text.vocabulary import BytePairs

__all__ = ["TokenPair", "Translations"]

#: Tokens of a sentence and of its translation, without those that begin and end it.
TokenPair = tuple[list[int], list[int]]


@dataclass(frozen=True, eq=False)
class Translations(Examples):
    """Sentence pairs as text and as tokens.

    Attributes:
        text: the pairs.
        vocabulary: learned from the training text alone.
        name, source: those of the text.

    Example:
        >>> text = ParallelText("two", ("en", "es"), (("go", "ve"),), (("no", "no"),), "made")
        >>> data = Translations.of(text, size=12)
        >>> data, data.vocabulary.decode(data.train_tokens[0][1])
        (Translations('two', en-es, 1 + 1 pairs, 9 tokens), 've')
    """

    text: ParallelText
    vocabulary: BytePairs
    name: str = field(init=False)
    source: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.text.name)
        object.__setattr__(self, "source", self.text.source)

    @classmethod
    def of(cls, text: ParallelText, size: int) -> "Translations":
        """A text with a vocabulary of at most ``size`` tokens, learned from it.

        Raises:
            ValueError: the text has more characters than ``size`` allows.
            ModuleNotFoundError: ``tokenizers`` is not installed.
        """
        sentences = (sentence for pair in text.train for sentence in pair)
        return cls(text, BytePairs.learned(sentences, size))

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

    def part(self, which: Sequence[int]) -> "Translations":
        """The training pairs at these places, all of the test, the same vocabulary."""
        pairs = tuple(self.text.train[i] for i in which)
        return replace(self, text=replace(self.text, train=pairs))

    def held_out(self, share: float = 0.2) -> "Translations":
        """Training pairs alone, some in place of the test; the same vocabulary.

        Pairs that share a text with one that is held out are left out of training.
        """
        kept, held = held_out_places(len(self.text.train), share)
        test = tuple(self.text.train[i] for i in held)
        sources, targets = ({pair[side] for pair in test} for side in (0, 1))
        train = tuple(
            (source, target)
            for source, target in (self.text.train[i] for i in kept)
            if source not in sources and target not in targets
        )
        return replace(self, text=replace(self.text, train=train, test=test))

    def content(self) -> Iterable[bytes]:
        """The vocabulary and the pairs."""
        yield self.vocabulary.to_text().encode()
        yield repr((self.text.train, self.text.test)).encode()

    def __repr__(self) -> str:
        """Name and sizes, never the text."""
        return f"{repr(self.text)[:-1]}, {len(self.vocabulary)} tokens)".replace(
            "ParallelText", type(self).__name__, 1
        )
