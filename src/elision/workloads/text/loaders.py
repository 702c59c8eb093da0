"""Data sets of text, as a workload names them."""

from pathlib import Path

from elision.workloads.text.corpus import read_pairs
from elision.workloads.text.sentences import Sentences, read_sentences
from elision.workloads.text.translations import Translations
from elision.workloads.text.verses import read_english_verses, read_verses

__all__ = ["load_english_verses", "load_pairs", "load_sentences", "load_verses"]


def load_verses(
    path: Path | None = None,
    *,
    vocabulary: int = 2000,
    max_words: int = 40,
    every: int = 30,
) -> Translations:
    """28,000 verses, English to Spanish (two packages of Debian, see the documentation).

    Args:
        path: folder of the SWORD texts; default: where Debian's packages put them.
        vocabulary: most tokens, of both languages.
        max_words: most words of a sentence.
        every: every so manieth verse is for test.

    Raises:
        FileNotFoundError, ModuleNotFoundError, ValueError: as :func:`read_verses` does.
    """
    return Translations.of(
        read_verses(path, max_words=max_words, every=every), vocabulary
    )


def load_pairs(
    path: Path | None = None, *, vocabulary: int = 2000, every: int = 10
) -> Translations:
    """Your own sentence pairs: a file of one in a line, with a tab between (needs a path).

    Args:
        path: the file, UTF-8.
        vocabulary: most tokens, of both languages.
        every: every so manieth pair is for test.

    Raises:
        ValueError: there is no path, or the file is not of that form.
        OSError: the file cannot be read.
    """
    if path is None:
        raise ValueError(
            "data set 'pairs' needs the path of a file with a sentence, a tab and its "
            "translation in each line"
        )
    return Translations.of(read_pairs(path, every=every), vocabulary)


def load_english_verses(
    path: Path | None = None,
    *,
    vocabulary: int = 2000,
    max_words: int = 40,
    every: int = 30,
) -> Sentences:
    """The English verses alone (Debian's sword-text-web, see the documentation).

    Args:
        path: folder of the SWORD text; default: where Debian's package puts it.
        vocabulary: most tokens.
        max_words: most words of a sentence.
        every: every so manieth verse is for test.

    Raises:
        FileNotFoundError, ModuleNotFoundError, ValueError: as
            :func:`read_english_verses` does.
    """
    return Sentences.of(
        "verses-english",
        read_english_verses(path, max_words=max_words),
        every=every,
        size=vocabulary,
        source="World English Bible, in the public domain",
    )


def load_sentences(
    path: Path | None = None, *, vocabulary: int = 2000, every: int = 10
) -> Sentences:
    """Your own sentences: a file of one in a line (needs a path).

    Args:
        path: the file, UTF-8.
        vocabulary: most tokens.
        every: every so manieth sentence is for test.

    Raises:
        ValueError: there is no path, or the file is not of that form.
        OSError: the file cannot be read.
    """
    if path is None:
        raise ValueError(
            "data set 'sentences' needs the path of a file with a sentence in each line"
        )
    return read_sentences(path, size=vocabulary, every=every)
