"""Sentences of one language and their tokens: what a language model is trained on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from elision.workloads.examples import Examples, held_out_places
from elision.workloads.text.corpus import split, spread
from elision.workloads.text.vocabulary import BytePairs

__all__ = ["Sentences", "read_sentences"]


@dataclass(frozen=True, eq=False)
class Sentences(Examples):
    """Sentences as text and as tokens.

    Attributes:
        name: short name.
        train, test: the sentences; none of the test is in training.
        vocabulary: learned from the training text alone.
        source: where the text comes from.

    Raises:
        ValueError: a part is empty, or a sentence of the test is in training.

    Example:
        >>> data = Sentences.of("three", ["go", "no", "on", "go"], every=3, size=12)
        >>> data, data.vocabulary.decode(data.test_tokens[0])
        (Sentences('three', 2 + 1 sentences, 8 tokens), 'on')
    """

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    vocabulary: BytePairs
    source: str

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            if not getattr(self, part):
                raise ValueError(
                    f"text {self.name!r}: there is no sentence to {part} on"
                )
        for both in set(self.train) & set(self.test):
            raise ValueError(
                f"text {self.name!r}: a test sentence is in training, too: {both!r}"
            )

    @classmethod
    def of(
        cls,
        name: str,
        sentences: Iterable[str],
        *,
        every: int,
        size: int,
        source: str = "given",
    ) -> "Sentences":
        """Sentences, every so manieth of them for test, and a vocabulary.

        Args:
            name: short name.
            sentences: those that repeat are kept once.
            every: at least 2.
            size: most tokens of the vocabulary, which is learned from the training part.
            source: where the text comes from.

        Raises:
            ValueError: a number is out of range, or a part would be empty.
            ModuleNotFoundError: ``tokenizers`` is not installed.
        """
        # A sentence is a pair with itself to the rule that keeps the test out of training.
        parts = split(((one, one) for one in sentences), every)
        train, test = (tuple(one for one, _ in part) for part in parts)
        return cls(name, train, test, BytePairs.learned(train, size), source)

    @cached_property
    def train_tokens(self) -> list[list[int]]:
        """Tokens of the training sentences."""
        return self.vocabulary.encode_all(self.train)

    @cached_property
    def test_tokens(self) -> list[list[int]]:
        """Tokens of the test sentences."""
        return self.vocabulary.encode_all(self.test)

    def limited(self, train: int | None = None, test: int | None = None) -> "Sentences":
        """At most so many sentences, spread evenly, and the same vocabulary."""
        return replace(
            self, train=spread(self.train, train), test=spread(self.test, test)
        )

    def part(self, which: Sequence[int]) -> "Sentences":
        """The training sentences at these places, all of the test, the same vocabulary."""
        return replace(self, train=tuple(self.train[i] for i in which))

    def held_out(self, share: float = 0.2) -> "Sentences":
        """Training sentences alone, some in place of the test; the same vocabulary.

        Sentences that are held out are nowhere in training.
        """
        kept, held = held_out_places(len(self.train), share)
        test = tuple(self.train[i] for i in held)
        train = tuple(self.train[i] for i in kept)
        tested = set(test)
        return replace(
            self, train=tuple(t for t in train if t not in tested), test=test
        )

    def content(self) -> Iterable[bytes]:
        """The vocabulary and the sentences."""
        yield self.vocabulary.to_text().encode()
        yield repr((self.train, self.test)).encode()

    def __repr__(self) -> str:
        """Name and sizes, never the text."""
        return (
            f"{type(self).__name__}({self.name!r}, {len(self.train)} + {len(self.test)} "
            f"sentences, {len(self.vocabulary)} tokens)"
        )


def read_sentences(path: Path, *, size: int, every: int = 10) -> Sentences:
    """A file of one sentence in a line; UTF-8.

    Args:
        path: the file. Empty lines are left out, white space at the ends of a line too.
        size: most tokens of the vocabulary.
        every: every so manieth sentence is for test.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no UTF-8 text, or has too few sentences.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no UTF-8 text: {error}") from error
    sentences = [line.strip() for line in lines if line.strip()]
    return Sentences.of(path.stem, sentences, every=every, size=size, source=str(path))
