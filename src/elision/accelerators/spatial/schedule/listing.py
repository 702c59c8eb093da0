"""Listings: schedules as text, in the form of T2S.

A listing states sizes, loops, the recurrence and the primitives, one after the other::

    size   M = 512, N = 512, K = 512
    loop   i < M, j < N, k < K                  # from the outermost in
    C[i, j] += A[i, k] * B[k, j]
    tile(k, j, i, kk, jj, ii, 64, 16, 6)        # the innermost first, as in Halide
    unroll(jj, ii)
    isolate_producer_chain(A, A_loader, A_feeder)
    A_feeder.buffer(k, Double).forward({1,0})

``#`` and ``//`` begin a comment; a statement ends with its line, or goes on while a
bracket is open. ``A_feeder.buffer(k, Double)`` and ``buffer(A_feeder, k, Double)`` are the
same, and so are ``C[i, j]`` and ``C(i, j)``, ``Double`` and ``BufferStrategy::Double``.
``tensor X[N, C, H, W]`` gives a shape that indices may leave, into the padding. Sizes
stay open in the code that is made; ``const KK = 64`` is a number in it.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import resources
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple, NoReturn

from elision.accelerators.spatial.schedule.affine import Affine, AffineError
from elision.accelerators.spatial.schedule.primitives import PRIMITIVES
from elision.accelerators.spatial.schedule.recurrence import Recurrence
from elision.accelerators.spatial.schedule.schedule import Schedule
from elision.common.names import lookup

__all__ = ["LISTINGS", "ListingError", "parse", "read", "sizes_in"]

_TOKEN = re.compile(
    r"(?P<space>[ \t\r]+|#[^\n]*|//[^\n]*)|(?P<line>\n|;)|(?P<number>\d+)"
    r"|(?P<name>[A-Za-z_]\w*)|(?P<sign>\+=|::|[-+*/(){}\[\],.=<])"
)

_HERE = "elision.accelerators.spatial.schedule"

#: Listings that come with the library.
LISTINGS = tuple(
    sorted(
        entry.name
        for entry in (resources.files(_HERE) / "listings").iterdir()
        if entry.name.endswith(".t2s")
    )
)

_STATEMENTS = "size, const, loop, tensor, a recurrence C[i, j] += A[i, k] * B[k, j]"


class ListingError(ValueError):
    """A listing that cannot be read; the message says where, what and what is allowed."""


class _Token(NamedTuple):
    kind: str
    text: str
    start: int


def read(path: str | Path, sizes: Mapping[str, int] | None = None) -> Schedule:
    """Read a listing from a file, or one of :data:`LISTINGS` by its name.

    Args:
        path: of the file.
        sizes: values of sizes and constants in place of those of the listing.

    Raises:
        ListingError: what :func:`parse` refuses.
        ValueError: there is no such file.

    Example:
        >>> print(read("gemm.t2s").recurrence)
        C[i, j] += A[i, k] * B[k, j]
    """
    return parse(_text_of(path), str(path), sizes)


def sizes_in(path: str | Path) -> dict[str, int]:
    """Sizes and constants of a listing, with their values; errors as of :func:`read`.

    Example:
        >>> sizes_in("gemm.t2s")
        {'M': 512, 'N': 512, 'K': 512}
    """
    reader = _Reader(_text_of(path), str(path), {})
    reader.schedule()
    return {**reader.sizes, **reader.constants}


def _text_of(path: str | Path) -> str:
    file = Path(path)
    try:
        if not file.exists() and str(path) in LISTINGS:
            return (resources.files(_HERE) / "listings" / str(path)).read_text("utf-8")
        return file.read_text("utf-8")
    except OSError as error:
        raise ValueError(
            f"no listing {str(path)!r} ({error.strerror}); give a file, or one that comes "
            f"with the library: {', '.join(LISTINGS)}"
        ) from error
    except UnicodeDecodeError as error:
        raise ListingError(f"{path}: is no text in UTF-8") from error


def parse(
    text: str, name: str = "<listing>", sizes: Mapping[str, int] | None = None
) -> Schedule:
    r"""The schedule that a listing states.

    Args:
        text: of the listing.
        name: of the file, for messages.
        sizes: values of sizes and constants in place of those of the listing.

    Raises:
        ListingError: a line that is not understood or a step that is refused; the
            message gives file, line and column.

    Example:
        >>> made = parse('''
        ... size M = 8, N = 8, K = 8
        ... loop i < M, j < N, k < K
        ... C[i, j] += A[i, k] * B[k, j]
        ... unroll(j, i).forward(A, {1,0}).forward(B, {0,1})
        ... ''')
        >>> made.design().makespan
        22
        >>> parse("size M = 8; loop i < M*M", "squared.t2s")
        Traceback (most recent call last):
        elision.accelerators.spatial.schedule.listing.ListingError: squared.t2s:1:...
    """
    reader = _Reader(text, name, sizes or {})
    made = reader.schedule()
    for given in sizes or {}:
        lookup(f"size of {name}", given, {**reader.sizes, **reader.constants})
    return made


class _Reader:
    """State of a listing that is being read."""

    def __init__(self, text: str, name: str, given: Mapping[str, int]) -> None:
        self.text, self.name, self.given = text, name, given
        self.tokens = list(self._tokens())
        self.at = 0
        self.sizes: dict[str, int] = {}
        self.constants: dict[str, int] = {}
        self.loops: dict[str, Affine] = {}
        self.shapes: dict[str, tuple[Affine, ...]] = {}
        self.made: Schedule | None = None

    def _tokens(self) -> Iterator[_Token]:
        place, depth = 0, 0
        while place < len(self.text):
            found = _TOKEN.match(self.text, place)
            if found is None:
                self.fail(place, f"{self.text[place]!r} is no sign of a listing")
            kind = found.lastgroup or ""
            if kind == "sign":
                depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(
                    found[0], 0
                )
            if kind != "space" and not (found[0] == "\n" and depth > 0):
                yield _Token(kind, found[0], place)
            place = found.end()
        yield _Token("line", "\n", len(self.text))
        yield _Token("end", "", len(self.text))

    def fail(self, place: int, message: str) -> NoReturn:
        before = self.text[:place]
        line = before.count("\n") + 1
        column = place - (before.rfind("\n") + 1) + 1
        raise ListingError(f"{self.name}:{line}:{column}: {message}")

    @property
    def token(self) -> _Token:
        return self.tokens[self.at]

    def take(self) -> _Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def expect(self, text: str, why: str) -> _Token:
        if self.token.text != text:
            self.fail(self.token.start, f"{self._given()} where {text!r} {why}")
        return self.take()

    def name_of(self, what: str) -> _Token:
        if self.token.kind != "name":
            self.fail(
                self.token.start, f"{self._given()} where the name of {what} must be"
            )
        return self.take()

    def _given(self) -> str:
        kind, text, _ = self.token
        if kind == "end" or text == "\n":
            return "the line ends"
        return f"{text!r} stands"

    def schedule(self) -> Schedule:
        while self.token.kind != "end":
            if self.token.kind == "line":
                self.take()
                continue
            self.statement()
            # A call on a line of its own may go on with the next line's ".name(...)".
            if self.token.kind not in ("line", "end"):
                self.fail(self.token.start, f"{self._given()} where the line must end")
        if self.made is None:
            self.fail(
                len(self.text), "the recurrence is missing: C[i, j] += A[i, k] * ..."
            )
        return self.made

    def statement(self) -> None:
        first = self.name_of("a statement")
        if first.text == "size":
            self.series(lambda: self.one_size(self.sizes))
        elif first.text == "const":
            self.series(lambda: self.one_size(self.constants))
        elif first.text == "loop":
            self.series(self.one_loop)
        elif first.text == "tensor":
            self.series(self.one_shape)
        elif self.token.text == "[" or self.is_access(first):
            self.recurrence(first)
        elif self.token.text in ("(", "."):
            self.calls(first)
        else:
            self.fail(
                first.start,
                f"{first.text!r} begins no statement; allowed: {_STATEMENTS}, "
                f"{', '.join(PRIMITIVES)}",
            )

    def is_access(self, first: _Token) -> bool:
        """Whether ``C(`` begins a recurrence, as in Halide, and no call."""
        if self.token.text != "(" or self.made is not None:
            return False
        rest = (token.text for token in self.tokens[self.at :])
        line = takewhile(lambda text: text not in ("\n", ";"), rest)
        return first.text not in PRIMITIVES and "+=" in line

    def series(self, one: Callable[[], None]) -> None:
        if self.made is not None:
            self.fail(
                self.token.start, "sizes, loops and shapes stand before the recurrence"
            )
        one()
        while self.token.text == ",":
            self.take()
            one()

    def fresh(self, what: str) -> _Token:
        token = self.name_of(what)
        if token.text in (*self.sizes, *self.constants, *self.loops, *self.shapes):
            self.fail(token.start, f"{token.text} is a name already; choose another")
        return token

    def one_size(self, table: dict[str, int]) -> None:
        token = self.fresh("a size")
        self.expect("=", "must be")
        if self.token.kind != "number":
            self.fail(self.token.start, f"{self._given()} where a whole number must be")
        value = int(self.take().text)
        table[token.text] = self.given.get(token.text, value)

    def one_loop(self) -> None:
        token = self.fresh("a loop")
        self.expect("<", f"and the number of iterations of {token.text} must be")
        bound = self.affine((",",), f"bound of {token.text}", ())
        extent = bound.value(self.sizes)
        if extent < 1:
            self.fail(
                token.start,
                f"loop {token.text} has {extent} iterations; it needs 1 or more",
            )
        self.loops[token.text] = bound

    def one_shape(self) -> None:
        token = self.fresh("a tensor")
        self.shapes[token.text] = self.indices(f"shape of {token.text}", ())

    def indices(self, what: str, loops: Iterable[str]) -> tuple[Affine, ...]:
        closing = {"[": "]", "(": ")"}.get(self.token.text)
        if closing is None:
            self.fail(self.token.start, f"{self._given()} where '[' must be")
        self.take()
        found = [self.affine((",", closing), what, loops)]
        while self.token.text == ",":
            self.take()
            found.append(self.affine((",", closing), what, loops))
        self.expect(closing, "must be")
        return tuple(found)

    def affine(self, ends: tuple[str, ...], what: str, loops: Iterable[str]) -> Affine:
        start = self.token.start
        while self.token.kind not in ("line", "end") and self.token.text not in ends:
            self.take()
        text = self.text[start : self.token.start].split("#")[0].split("//")[0]
        try:
            return Affine.parse(text, loops, self.sizes, self.constants)
        except AffineError as error:
            self.fail(start + error.offset, f"{what}: {error}")

    def access(self, token: _Token) -> tuple[Affine, ...]:
        if token.text in (*self.sizes, *self.constants, *self.loops):
            self.fail(token.start, f"{token.text} is no tensor but a size or a loop")
        return self.indices(f"index of {token.text}", self.loops)

    def recurrence(self, first: _Token) -> None:
        if self.made is not None:
            self.fail(first.start, "there is a recurrence already; a listing has one")
        if not self.loops:
            self.fail(first.start, "loops are missing: write loop i < M, ... before")
        accesses = {}
        output = self.access(first)
        self.expect("+=", "must be: the recurrence adds to its output")
        while True:
            token = self.name_of("a tensor")
            if token.text in accesses or token.text == first.text:
                self.fail(token.start, f"{token.text} occurs twice; give it two names")
            accesses[token.text] = self.access(token)
            if self.token.text != "*":
                break
            self.take()
        if len(accesses) != 2:
            self.fail(first.start, "the recurrence must multiply two tensors")
        accesses[first.text] = output
        for name in self.shapes:
            if name not in accesses:
                self.fail(first.start, f"tensor {name} has a shape but no place here")
        shapes = {name: self.shape(first, name, a) for name, a in accesses.items()}
        self.made = self.checked(
            first.start,
            lambda: Schedule(
                Recurrence(self.sizes, self.loops, accesses, first.text, shapes)
            ),
        )
        for loop in self.loops:
            if not any(loop in i.loops for a in accesses.values() for i in a):
                self.fail(first.start, f"loop {loop} indexes no tensor")

    def shape(
        self, first: _Token, tensor: str, indices: tuple[Affine, ...]
    ) -> tuple[Affine, ...]:
        given = self.shapes.get(tensor)
        if given is not None:
            if len(given) != len(indices):
                self.fail(
                    first.start,
                    f"{tensor} has {len(indices)} indices, its shape {len(given)} axes",
                )
            return given
        found = []
        for index in indices:
            loop = index.one_loop()
            if loop is None:
                self.fail(
                    first.start,
                    f"{tensor} is indexed by the sum {index}: say its shape before, such "
                    f"as tensor {tensor}[...]",
                )
            found.append(self.loops[loop])
        return tuple(found)

    def checked(self, place: int, make: Callable[[], Schedule]) -> Schedule:
        try:
            return make()
        except ListingError:
            raise
        except ValueError as error:
            self.fail(place, str(error))

    def calls(self, first: _Token) -> None:
        """``primitive(...)``, ``SUBJECT.primitive(...)``, and more of them by dots."""
        subject = ""
        if self.token.text == ".":
            subject, token = first.text, self.take() and self.name_of("a primitive")
        else:
            token = first
        while True:
            self.call(subject, token)
            place = self.at
            while self.token.text == "\n":
                self.take()
            if self.token.text != ".":
                self.at = place
                return
            self.take()
            token = self.name_of("a primitive")

    def call(self, subject: str, token: _Token) -> None:
        made = self.made
        if made is None:
            self.fail(token.start, f"{token.text} stands before the recurrence")
        try:
            primitive = lookup("primitive", token.text, PRIMITIVES)
        except ValueError as error:
            self.fail(token.start, str(error))
        arguments = self.arguments(primitive.form)
        recurrence = made.recurrence
        if not primitive.subject:
            # The compute kernel is the only one of these: C.tile(...) is tile(...).
            if subject not in ("", *recurrence.accesses):
                self.fail(
                    token.start,
                    f"{token.text} is of the whole recurrence; write {primitive.form}",
                )
            subject = ""
        elif subject in ("", recurrence.output) or (
            # Behind a dot of another tensor's call, the first argument may be the subject.
            arguments
            and subject in recurrence.accesses
            and subject not in self.kernels()
        ):
            known = {*recurrence.accesses, *self.kernels()}
            if arguments and isinstance(arguments[0], str) and arguments[0] in known:
                subject, arguments = arguments[0], arguments[1:]
            elif not subject:
                given = arguments[0] if arguments else "nothing"
                self.fail(
                    token.start,
                    f"{token.text} is applied to {given!r}, which is neither a tensor nor "
                    f"a kernel; known: {', '.join(sorted(known))}; write {primitive.form}",
                )
        self.made = self.checked(
            token.start, lambda: made.then(token.text, subject, *arguments)
        )

    def kernels(self) -> tuple[str, ...]:
        assert self.made is not None
        return tuple(self.made.structure.kernels)

    def arguments(self, form: str) -> tuple[str | int | tuple[int, ...], ...]:
        self.expect("(", f"must be: {form}")
        found: list[str | int | tuple[int, ...]] = []
        while self.token.text != ")":
            found.append(self.argument(form))
            if self.token.text != ",":
                break
            self.take()
        self.expect(")", f"must be: {form}")
        return tuple(found)

    def argument(self, form: str) -> str | int | tuple[int, ...]:
        if self.token.text == "{":
            self.take()
            hop = [self.step()]
            while self.token.text == ",":
                self.take()
                hop.append(self.step())
            self.expect("}", "must be")
            return tuple(hop)
        if self.token.kind == "number":
            return int(self.take().text)
        token = self.name_of(f"a loop, a kernel or a size ({form})")
        while self.token.text == "::":  # BufferStrategy::Double is Double
            self.take()
            token = self.name_of("a strategy")
        if token.text in self.sizes:
            self.fail(
                token.start,
                f"{token.text} is a size, which stays open; write const {token.text} = "
                f"{self.sizes[token.text]} for a number",
            )
        return self.constants.get(token.text, token.text)

    def step(self) -> int:
        sign = 1
        if self.token.text in ("-", "+"):
            sign = -1 if self.take().text == "-" else 1
        if self.token.kind != "number":
            self.fail(
                self.token.start, f"{self._given()} where a step -1, 0 or 1 must be"
            )
        return sign * int(self.take().text)
