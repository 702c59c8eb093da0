"""Parallel text: sentences and their translations, split so that no test text is learned."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from elision.common.checks import integer

__all__ = ["Pair", "ParallelText", "read_pairs", "split", "spread"]

T = TypeVar("T")

#: A sentence and its translation.
Pair = tuple[str, str]


@dataclass(frozen=True)
class ParallelText:
    """Sentence pairs for training and for test.

    Attributes:
        name: short name.
        languages: of the source and of the target.
        train, test: the pairs; no text of the test, source or target, is in training.
        source: where the text comes from.

    Raises:
        ValueError: a part is empty, or a text of the test is in training.

    Example:
        >>> ParallelText("two", ("en", "es"), (("one", "uno"),), (("two", "dos"),), "made")
        ParallelText('two', en-es, 1 + 1 pairs)
    """

    name: str
    languages: tuple[str, str]
    train: tuple[Pair, ...]
    test: tuple[Pair, ...]
    source: str

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            if not getattr(self, part):
                raise ValueError(f"text {self.name!r}: there is no pair to {part} on")
        for side, language in enumerate(self.languages):
            learned = {pair[side] for pair in self.train}
            for pair in self.test:
                if pair[side] in learned:
                    raise ValueError(
                        f"text {self.name!r}: a test sentence in {language} is in "
                        f"training, too: {pair[side]!r}"
                    )

    def limited(
        self, train: int | None = None, test: int | None = None
    ) -> "ParallelText":
        """At most ``train`` and ``test`` pairs, spread evenly; None keeps all."""
        return replace(
            self, train=spread(self.train, train), test=spread(self.test, test)
        )

    def __repr__(self) -> str:
        """Name and sizes, never the text."""
        return (
            f"ParallelText({self.name!r}, {'-'.join(self.languages)}, "
            f"{len(self.train)} + {len(self.test)} pairs)"
        )


def split(
    pairs: Iterable[Pair], every: int
) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Training and test pairs.

    Pairs that repeat are kept once. Every ``every``-th of the others is for test; those
    that share a source or a target with one of these are left out of training.

    Args:
        pairs: in any order.
        every: at least 2.

    Example:
        >>> split([("a", "A"), ("b", "B"), ("c", "C"), ("d", "B"), ("a", "A")], 2)
        ((('a', 'A'), ('c', 'C')), (('b', 'B'), ('d', 'B')))

    Raises:
        ValueError: ``every`` is out of range.
    """
    integer("split", "every", every, ">= 2")
    once = list(dict.fromkeys(pairs))
    test = tuple(once[every - 1 :: every])
    sides = [{pair[side] for pair in test} for side in (0, 1)]
    train = tuple(
        pair for pair in once if pair[0] not in sides[0] and pair[1] not in sides[1]
    )
    return train, test


def read_pairs(
    path: Path, *, languages: tuple[str, str] = ("source", "target"), every: int = 10
) -> ParallelText:
    r"""A file of one pair in a line: a sentence, a tab, its translation; UTF-8.

    Args:
        path: the file. Empty lines are left out, white space at the ends of a sentence too.
        languages: what the two columns are.
        every: every so manieth pair is for test (:func:`split`).

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is not of that form (the message has its number), or the file
            has too few pairs.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "numbers.tsv"
        ...     _ = file.write_text("one\tuno\ntwo\tdos\nthree\ttres\n")
        ...     read_pairs(file, every=2)
        ParallelText('numbers', source-target, 2 + 1 pairs)
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no UTF-8 text: {error}") from error
    pairs = [_pair(path, number, line) for number, line in enumerate(lines, 1) if line]
    return ParallelText(path.stem, languages, *split(pairs, every), source=str(path))


def _pair(path: Path, number: int, line: str) -> Pair:
    sides = [side.strip() for side in line.split("\t")]
    if len(sides) != 2 or not all(sides):
        raise ValueError(
            f"{path}, line {number}: must be a sentence, a tab and its translation, got "
            f"{line!r}"
        )
    return sides[0], sides[1]


def spread(examples: tuple[T, ...], count: int | None) -> tuple[T, ...]:
    """At most ``count`` examples, at even distances; None keeps all.

    Example:
        >>> spread(("a", "b", "c", "d"), 2)
        ('a', 'c')
    """
    if count is None or count >= len(examples):
        return examples
    return tuple(examples[i * len(examples) // count] for i in range(count))
