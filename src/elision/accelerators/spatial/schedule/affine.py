"""Affine expressions: sums of loops and sizes with constant coefficients.

Indices, bounds and shapes of a recurrence are such sums. A coefficient is an integer or
one size (a stride, say), so that ``T*p + r - 1`` is affine once sizes have values and
``i*j`` and ``M*N`` are not.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from elision.common.names import lookup

__all__ = ["Affine", "AffineError", "Term"]

_TOKEN = re.compile(r"\s*(?:(\d+)|([A-Za-z_]\w*)|(.))")


class AffineError(ValueError):
    """A text that is no affine expression.

    Args:
        message: what was found and what is allowed.
        offset: characters before what was found.
    """

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


class Term(NamedTuple):
    """A product of a number, of a size and of a loop; the last two may be absent.

    Example:
        >>> str(Term(2, "T", "p"))
        '2*T*p'
    """

    number: int
    size: str = ""
    loop: str = ""

    def __str__(self) -> str:
        names = [name for name in (self.size, self.loop) if name]
        if names and self.number == 1:
            return "*".join(names)
        return "*".join([str(self.number), *names])


class Affine(NamedTuple):
    """A sum of terms.

    Example:
        >>> index = Affine.parse("T*p + r - 1", loops=("p", "r"), sizes=("T",))
        >>> str(index), index.row(("p", "r"), {"T": 2})
        ('T*p + r - 1', ((2, 1), -1))
    """

    terms: tuple[Term, ...]

    @classmethod
    def parse(
        cls,
        text: str,
        loops: Iterable[str] = (),
        sizes: Iterable[str] = (),
        constants: Mapping[str, int] | None = None,
    ) -> "Affine":
        """An expression from text; constants become their numbers.

        Raises:
            AffineError: a product of two loops or of two sizes, an unknown name (lists
                the valid ones), or a sign that is not allowed.
        """
        table = {**dict.fromkeys(loops, "loop"), **dict.fromkeys(sizes, "size")}
        return cls(tuple(_terms(text, table, constants or {})))

    @property
    def loops(self) -> tuple[str, ...]:
        """Loops that occur."""
        return tuple(dict.fromkeys(term.loop for term in self.terms if term.loop))

    @property
    def sizes(self) -> tuple[str, ...]:
        """Sizes that occur."""
        return tuple(dict.fromkeys(term.size for term in self.terms if term.size))

    @property
    def coefficients(self) -> tuple[str, ...]:
        """Sizes that multiply a loop."""
        return tuple(dict.fromkeys(t.size for t in self.terms if t.size and t.loop))

    def row(
        self, loops: Iterable[str], sizes: Mapping[str, int]
    ) -> tuple[tuple[int, ...], int]:
        """Coefficients of the loops, and the constant, with values of the sizes."""
        found = dict.fromkeys(loops, 0)
        constant = 0
        for term in self.terms:
            number = term.number * (sizes[term.size] if term.size else 1)
            if term.loop:
                found[term.loop] += number
            else:
                constant += number
        return tuple(found.values()), constant

    def value(self, sizes: Mapping[str, int]) -> int:
        """The number, of an expression without loops."""
        return self.row((), sizes)[1]

    def one_loop(self) -> str | None:
        """The loop that the expression is; None if it is anything else."""
        match self.terms:
            case (Term(1, "", str(loop)),) if loop:
                return loop
        return None

    def __str__(self) -> str:
        text = ""
        for term in self.terms:
            if not text:
                text = str(term)
            elif term.number < 0:
                text += f" - {term._replace(number=-term.number)}"
            else:
                text += f" + {term}"
        return text or "0"


def _terms(
    text: str, table: Mapping[str, str], constants: Mapping[str, int]
) -> list[Term]:
    tokens = []
    place = 0
    while text[place:].strip():
        found = _TOKEN.match(text, place)
        assert found is not None
        tokens.append((found[found.lastindex or 0], found.start(found.lastindex or 0)))
        place = found.end()
    if not tokens:
        raise AffineError("an expression is missing", len(text))
    terms, at = [], 0
    while at < len(tokens):
        number, names, first = 1, {"size": "", "loop": ""}, at
        while at < len(tokens) and tokens[at][0] in "+-":
            if at == first and terms == [] and tokens[at][0] == "+":
                raise _bad(*tokens[at])
            number *= -1 if tokens[at][0] == "-" else 1
            at += 1
        if at == first and terms:
            raise _bad(*tokens[at])
        while True:
            if at == len(tokens):
                raise AffineError(f"{text.strip()!r} ends within a sum", len(text))
            word, offset = tokens[at]
            if word.isdigit():
                number *= int(word)
            elif word in constants:
                number *= constants[word]
            elif word.isidentifier():
                kind = _kind(word, table, offset)
                if names[kind]:
                    raise AffineError(
                        f"{text.strip()!r} is not affine: it multiplies the {kind}s "
                        f"{names[kind]} and {word}; allowed: sums of loops and sizes "
                        "with constant coefficients",
                        offset,
                    )
                names[kind] = word
            else:
                raise _bad(word, offset)
            at += 1
            if at == len(tokens) or tokens[at][0] != "*":
                break
            at += 1
        if at < len(tokens) and tokens[at][0] not in "+-":
            raise _bad(*tokens[at])
        terms.append(Term(number, names["size"], names["loop"]))
    return terms


def _kind(word: str, table: Mapping[str, str], offset: int) -> str:
    try:
        return lookup("name", word, table)
    except ValueError as error:
        raise AffineError(str(error), offset) from error


def _bad(word: str, offset: int) -> AffineError:
    return AffineError(
        f"{word!r} does not fit here; allowed: sums such as '2*p + r - 1' of loops, "
        "sizes and numbers",
        offset,
    )
