"""English and Spanish verses: two translations of the Bible, both in the public domain.

The World English Bible (2020) and the Reina-Valera of 1909 are packages of Debian, in the
format of the SWORD project, which the package pysword reads::

    apt-get install sword-text-web sword-text-sparv
    pip install 'elision[translation]'

Without root, ``apt-get download`` them, unpack each with ``dpkg-deb -x FILE FOLDER``, and
give the path ``FOLDER/usr/share/sword``. Nothing of the text is part of this library.
"""

import functools
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from elision.common.checks import integer
from elision.common.extras import imported
from elision.workloads.text.corpus import Pair, ParallelText, split

__all__ = ["FOLDER", "plain_text", "read_english_verses", "read_verses"]

#: Where Debian's packages put the texts.
FOLDER = Path("/usr/share/sword")

#: Modules of the texts, and the packages of Debian that they are in.
_ENGLISH, _SPANISH = "engWEB2015eb", "spaRV1909eb"
_PACKAGES = {_ENGLISH: "sword-text-web", _SPANISH: "sword-text-sparv"}

#: Book, chapter and verse.
Place = tuple[str, int, int]

#: Fewest words of a sentence that is kept.
_FEWEST = 3

#: Log-ratios of the lengths of a pair are kept within so many standard deviations: the
#: two texts do not divide every chapter alike.
_DEVIATIONS = 3.0

# Notes and headings are no text of the verse; the heading of a psalm is, for the Spanish
# text has it as part of the first verse.
_ASIDE = re.compile(
    r'<(note|rdg|catchWord)\b.*?</\1>|<title(?![^>]*canonical="true").*?</title>', re.S
)
#: Tags that separate words; all others stand inside a word or around it.
_BREAK = re.compile(r"</?(?:l|lb|lg|div|title|list|item|chapter|q)\b[^>]*>")
_TAG = re.compile(r"<[^>]*>")
_GLUED = re.compile(r"(?<=[a-záéíóúñü])(?=[A-ZÁÉÍÓÚÑ])")
_BEFORE_STOP = re.compile(r"\s+(?=[,.;:!?”’)])")


def read_verses(
    path: Path | None = None, *, max_words: int = 40, every: int = 30
) -> ParallelText:
    """The verses that both texts have, English to Spanish.

    Kept are verses of 3 to ``max_words`` words in both languages, the ratio of whose
    lengths is not far from the usual one.

    Args:
        path: folder of the SWORD texts; default: :data:`FOLDER`.
        max_words: most words of a sentence.
        every: every so manieth verse is for test.

    Raises:
        FileNotFoundError: the folder lacks a text; the message says how to install it.
        ModuleNotFoundError: pysword is not installed.
        ValueError: a number is out of range.
    """
    integer("verses", "max_words", max_words, f">= {_FEWEST}")
    english, spanish = map(dict, _bibles("verses", path, (_ENGLISH, _SPANISH)))
    both = [(english[k], spanish[k]) for k in english if k in spanish]
    train, test = split(_alike(both, max_words), every)
    return ParallelText(
        "verses",
        ("en", "es"),
        train,
        test,
        "World English Bible and Reina-Valera 1909, both in the public domain",
    )


def read_english_verses(path: Path | None = None, *, max_words: int = 40) -> list[str]:
    """The verses of the World English Bible of 3 to ``max_words`` words, in its order.

    Args:
        path: folder of the SWORD texts; default: :data:`FOLDER`. The English one suffices.
        max_words: most words of a sentence.

    Raises:
        FileNotFoundError, ModuleNotFoundError, ValueError: as :func:`read_verses` does.
    """
    integer("verses-english", "max_words", max_words, f">= {_FEWEST}")
    (verses,) = _bibles("verses-english", path, (_ENGLISH,))
    return [text for _, text in verses if _is_usual(text, max_words)]


def plain_text(marked: str) -> str:
    """The text of a verse in OSIS, without notes and tags.

    Example:
        >>> plain_text('<w a="1">God</w><note>Elohim</note><w>created</w> <l/>it <l/>, so')
        'God created it, so'
    """
    text = _TAG.sub("", _BREAK.sub(" ", _ASIDE.sub(" ", marked)))
    text = " ".join(_GLUED.sub(" ", text).split())
    return _BEFORE_STOP.sub("", text)


def _bibles(
    dataset: str, path: Path | None, names: tuple[str, ...]
) -> list[Iterator[tuple[Place, str]]]:
    """The verses of each of these texts, by their places."""
    folder = FOLDER if path is None else path
    modules = imported("pysword.modules", "translation", f"data set {dataset!r}")
    for module in names:
        if not (folder / "mods.d" / f"{module}.conf").is_file():
            raise FileNotFoundError(
                f"data set {dataset!r}: {folder} has no text {module}: apt-get install "
                f"{_PACKAGES[module]}, or give the folder of an unpacked package, "
                ".../usr/share/sword"
            )
    library = modules.SwordModules(str(folder))
    library.parse_modules()
    return [_verses(library.get_bible_from_module(module)) for module in names]


def _verses(bible: Any) -> Iterator[tuple[Place, str]]:
    """Text of each verse."""
    # It would decompress a whole book again for each of its verses.
    bible._decompressed_text = functools.lru_cache(1)(bible._decompressed_text)
    for books in bible.get_structure().get_books().values():
        for book in books:
            for chapter in range(1, book.num_chapters + 1):
                found = bible.get_iter(
                    books=[book.name], chapters=[chapter], clean=False
                )
                for verse, text in enumerate(found, 1):
                    yield (book.osis_name, chapter, verse), plain_text(text)


def _is_usual(sentence: str, max_words: int) -> bool:
    return _FEWEST <= len(sentence.split()) <= max_words


def _alike(pairs: Iterable[Pair], max_words: int) -> list[Pair]:
    """Pairs of a permitted length, without those whose lengths do not belong together."""
    kept = [p for p in pairs if all(_is_usual(side, max_words) for side in p)]
    if not kept:
        return []
    ratio = np.array([math.log(len(a) / len(b)) for a, b in kept])
    near = np.abs(ratio - ratio.mean()) <= _DEVIATIONS * ratio.std()
    return [pair for pair, keep in zip(kept, near, strict=True) if keep]
