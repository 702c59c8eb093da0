"""Checks of one program: its bounds, its initialisation, and schedules of it."""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from elision.verify.bind import bound
from elision.verify.program import (
    Binary,
    Element,
    Expression,
    Name,
    Number,
    Program,
    ProgramError,
    elements,
    names,
)
from elision.verify.read import read, read_index
from elision.verify.verdict import Verdict

if TYPE_CHECKING:
    from elision.verify.flow import Flow
    from elision.verify.polyhedra import Instances

__all__ = ["Instance", "Pair", "initialised", "keeps_dependences", "within_bounds"]


@dataclass(frozen=True)
class Instance:
    """An access of one instance of a statement that is out of order.

    Attributes:
        sizes: value of every size, the smallest that were found.
        statement: its text.
        at: value of every loop variable.
        element: what it touches.

    Example:
        >>> print(Instance({"M": 1}, "y[i] = x[i - 1]", {"i": 0}, "x[-1]"))
        M=1: y[i] = x[i - 1] at i=0 touches x[-1]
    """

    sizes: Mapping[str, int]
    statement: str
    at: Mapping[str, int]
    element: str

    def __str__(self) -> str:
        head = f"{_given(self.sizes)}: " if self.sizes else ""
        where = f" at {_given(self.at)}" if self.at else ""
        return f"{head}{self.statement}{where} touches {self.element}"


@dataclass(frozen=True)
class Pair:
    """Two instances whose order a schedule does not keep.

    Attributes:
        sizes: value of every size, the smallest that were found.
        first, second: text of the statements, in the order of the program.
        first_at, second_at: values of their loop variables.
        element: what both touch.

    Example:
        >>> print(Pair({}, "x = a", "y = x", {"i": 0}, {"i": 1}, "x"))
        x = a at i=0 comes before y = x at i=1, both touch x
    """

    sizes: Mapping[str, int]
    first: str
    second: str
    first_at: Mapping[str, int]
    second_at: Mapping[str, int]
    element: str

    def __str__(self) -> str:
        head = f"{_given(self.sizes)}: " if self.sizes else ""
        ours = f"{self.first} at {_given(self.first_at)}"
        theirs = f"{self.second} at {_given(self.second_at)}"
        return f"{head}{ours} comes before {theirs}, both touch {self.element}"


def _given(values: Mapping[str, int]) -> str:
    return ", ".join(f"{k}={v}" for k, v in values.items())


def within_bounds(
    program: str | Program, sizes: Mapping[str, int] | None = None
) -> Verdict:
    r"""Whether every subscript of a declared array lies in it, for all sizes.

    Args:
        program: text or program that declares extents (``A: [M, K]``, ``float A[M][K];``).
        sizes: values of some sizes.

    Returns:
        Proved, or refuted with an :class:`Instance`; unknown without islpy.

    Raises:
        ProgramError: a text that is not read or not affine, or no array is declared.

    Example:
        >>> blur = "x: [M]\nfor i in range(M): y[i] = x[i] + x[i + 1]"
        >>> print(within_bounds(blur).witness)
        M=1: y[i] = (x[i] + x[(i + 1)]) at i=0 touches x[1]
        >>> within_bounds(blur.replace("range(M)", "range(M - 1)")).status
        'proved'
    """
    flow = _flow(program, sizes)
    if flow is None:
        return _without_isl()
    extents = dict(flow.instances.program.extents)
    if not extents:
        raise ProgramError("no array's extents are declared, as A: [M, K]")
    for s in flow.instances.program.statements:
        for element in (s.assign.target, *elements(s.assign.value)):
            for index, extent in zip(
                element.indices, extents.get(element.array, ()), strict=False
            ):
                outside = Binary(
                    "or", Binary("<", index, Number(0)), Binary(">=", index, extent)
                )
                bad = flow.instances.where(s.name, outside)
                if not bad.is_empty():
                    found = _instance(flow, s.name, element, bad)
                    return Verdict("refuted", found, None, "a subscript out of bounds")
    return Verdict("proved", reason="all subscripts are within bounds")


def initialised(
    program: str | Program,
    inputs: Sequence[str] = (),
    sizes: Mapping[str, int] | None = None,
) -> Verdict:
    r"""Whether no element of an array that the program writes is read before.

    Args:
        program: text or program.
        inputs: arrays that it writes and that hold input at the start, too.
        sizes: values of some sizes.

    Returns:
        Proved, or refuted with an :class:`Instance`; unknown without islpy.

    Raises:
        ProgramError: a text that is not read or not affine.

    Example:
        >>> late = "for i in range(M):\n  y[0] += x[i]"
        >>> print(initialised(late).witness)
        M=1: y[0] += x[i] at i=0 touches y[0]
        >>> initialised(late, inputs=["y"]).status
        'proved'
    """
    flow = _flow(program, sizes)
    if flow is None:
        return _without_isl()
    whole = flow.instances.program
    for s in whole.statements:
        # What is added to is read, too.
        added = (s.assign.target,) if s.assign.adds else ()
        for element in (*added, *elements(s.assign.value)):
            if element.array not in whole.written or element.array in inputs:
                continue
            unset = flow.unset(s.name, element)
            if not unset.is_empty():
                found = _instance(flow, s.name, element, unset)
                return Verdict("refuted", found, None, "read before it is written")
    return Verdict("proved", reason="nothing is read before it is written")


def keeps_dependences(
    program: str | Program,
    time: Sequence[str | Expression] | Mapping[str, Sequence[str | Expression]],
    sizes: Mapping[str, int] | None = None,
) -> Verdict:
    r"""Whether a new order of the instances keeps every dependence, for all sizes.

    Two instances depend on one another if both touch an element and one writes it. The
    schedule keeps the dependence if the earlier one has the smaller time, compared place
    by place. Instances of one time run at once, but those of one iteration in the order
    of the text. Two additions to an element may change places, but not run at once.

    Args:
        program: text or program.
        time: index expressions of the loop variables, such as ``("i + j + k",)``, for
            every statement or by statement (``"S0"``, ``"S1"``, ... in the order of the
            text).
        sizes: values of some sizes.

    Returns:
        Proved, or refuted with a :class:`Pair`; unknown without islpy.

    Raises:
        ProgramError: a text that is not read or not affine, a statement without a time,
            or times of different lengths.

    Example:
        >>> smooth = "for i in range(M):\n  for j in range(N): y[i+1, j] = y[i, j+1]"
        >>> keeps_dependences(smooth, ("i", "j")).status
        'proved'
        >>> keeps_dependences(smooth, ("i + j",)).witness.element
        'y[1, 1]'
    """
    flow = _flow(program, sizes)
    if flow is None:
        return _without_isl()
    inst = flow.instances
    times = _times(inst, time)
    whole = inst.program.statements
    for first in whole:
        for second in whole:
            for mine, writes in _accesses(first.assign):
                for theirs, also in _accesses(second.assign):
                    if mine.array != theirs.array or not (writes or also):
                        continue
                    adds = writes and also and first.assign.adds and second.assign.adds
                    to_mine = inst.access(first.name, mine)
                    to_theirs = inst.access(second.name, theirs)
                    pairs = to_mine.apply_range(to_theirs.reverse())
                    pairs &= inst.before(first.name, second.name)
                    if pairs.is_empty():
                        continue
                    a, b = times[first.name], times[second.name]
                    late = a.lex_gt_map(b)
                    at_once = a.apply_range(b.reverse())
                    if first.loops == second.loops:
                        at_once -= _one_iteration(inst, first.name, second.name)
                    bad = pairs & (at_once if adds else late | at_once)
                    if not bad.is_empty():
                        found = _pair(flow, first.name, second.name, mine, bad)
                        return Verdict(
                            "refuted", found, None, "a dependence is not kept"
                        )
    return Verdict("proved", reason="every dependence is kept")


def _flow(program: str | Program, sizes: Mapping[str, int] | None) -> "Flow | None":
    whole = read(program) if isinstance(program, str) else program
    whole = bound(whole, sizes or {})
    if importlib.util.find_spec("islpy") is None:
        return None
    from elision.verify.flow import Flow
    from elision.verify.polyhedra import Instances, context

    allowed = context(whole.assumptions, whole.sizes)
    return Flow(Instances(whole, whole.sizes, allowed))


def _without_isl() -> Verdict:
    from elision.verify.equivalence import NO_ISL

    return Verdict("unknown", reason=NO_ISL)


def _accesses(assign: Any) -> list[tuple[Element, bool]]:
    found = [(assign.target, True)]
    return [*found, *((e, False) for e in elements(assign.value))]


def _times(
    inst: "Instances",
    time: Sequence[str | Expression] | Mapping[str, Sequence[str | Expression]],
) -> dict[str, Any]:
    found, lengths = {}, set()
    for name, statement in inst.statements.items():
        if isinstance(time, Mapping):
            if name not in time:
                raise ProgramError(
                    f"no time for {name}, {statement.assign}; given: {', '.join(time)}"
                )
            places = time[name]
        else:
            places = time
        parts = [read_index(p) if isinstance(p, str) else p for p in places]
        known = {*inst.sizes, *(loop.variable for loop in statement.loops)}
        for part in parts:
            for unknown in sorted(names(part) - known):
                raise ProgramError(
                    f"time {part} of {statement.assign}: unknown {unknown!r}; known: "
                    f"{', '.join(sorted(known))}"
                )
        lengths.add(len(parts))
        found[name] = inst.function(name, parts, "a time")
    if len(lengths) > 1:
        raise ProgramError(f"times of different lengths: {sorted(lengths)}")
    return found


def _one_iteration(inst: "Instances", first: str, second: str) -> Any:
    """Pairs of instances of two statements of the same loops in one iteration."""
    loops = inst.statements[first].loops
    same = [Name(loop.variable) for loop in loops]
    ours, theirs = (inst.function(name, same, "") for name in (first, second))
    return ours.apply_range(theirs.reverse())


def _instance(flow: "Flow", name: str, element: Element, at: Any) -> Instance:
    from elision.verify.points import smallest

    inst = flow.instances
    found = smallest(at, inst.sizes)
    assert found is not None
    sizes, places = found
    variables = [loop.variable for loop in inst.statements[name].loops]
    values = dict(zip(variables, places, strict=True))
    return Instance(
        sizes,
        str(inst.statements[name].assign),
        values,
        _touched(element, sizes, values),
    )


def _pair(flow: "Flow", first: str, second: str, element: Element, bad: Any) -> Pair:
    from elision.verify.points import smallest

    inst = flow.instances
    found = smallest(bad.wrap().flatten(), inst.sizes)
    assert found is not None
    sizes, places = found
    at = []
    for name in (first, second):
        variables = [loop.variable for loop in inst.statements[name].loops]
        at.append(dict(zip(variables, places, strict=False)))
        places = places[len(variables) :]
    ours, theirs = (str(inst.statements[name].assign) for name in (first, second))
    return Pair(sizes, ours, theirs, at[0], at[1], _touched(element, sizes, at[0]))


def _touched(
    element: Element, sizes: Mapping[str, int], values: Mapping[str, int]
) -> str:
    from elision.verify.run import subscripts

    index = subscripts(element, {**sizes, **values})
    return f"{element.array}[{', '.join(map(str, index))}]" if index else element.array
