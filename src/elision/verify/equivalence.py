"""Whether a loop program computes what another, its specification, computes.

The way is that of the array dataflow graphs of K. C. Shashidhar (thesis, KU Leuven,
2008) and S. Verdoolaege, G. Janssens and M. Bruynooghe (ACM TOPLAS 34(3), 2012): the
value of every result is traced back to the inputs and brought into a normal form, here
sums of products, and the forms are compared by integer sets with the sizes unknown. A
difference is not believed before both programs have been run on it.
"""

import importlib.util
import random
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

from elision.common.extras import not_installed
from elision.verify.bind import bound
from elision.verify.program import NotAffine, Program, ProgramError, names
from elision.verify.read import read
from elision.verify.run import (
    PRIME,
    Formal,
    TooLong,
    formal_function,
    formal_input,
    index_value,
    run,
)
from elision.verify.verdict import Verdict, Witness

if TYPE_CHECKING:
    from elision.verify.compare import Difference
    from elision.verify.values import Sum

__all__ = ["equivalent"]

#: What is lost without the library.
NO_ISL = (
    f"islpy {not_installed('verify')}; without it nothing is said about other sizes"
)

#: Statements that one run of a check may take.
_STATEMENTS = 200_000


class _OutOfTime(Exception):
    """The time limit is over."""


def equivalent(
    program: str | Program,
    specification: str | Program,
    *,
    sizes: Mapping[str, int] | None = None,
    outputs: tuple[str, ...] | None = None,
    limit_s: float = 10.0,
    seed: int = 0,
) -> Verdict:
    """Whether a program computes the results of its specification, for all sizes.

    Args:
        program: text (:mod:`elision.verify.read`) or a :class:`Program`.
        specification: the same. Sizes of one name are the same; assumptions of both hold.
        sizes: values of some sizes, or of all; the others stay unknown.
        outputs: arrays to compare; default: those that the specification writes and does
            not read for another array.
        limit_s: time after which the verdict is ``"unknown"``.
        seed: of random inputs.

    Returns:
        The verdict. Without islpy, or where the programs lie outside what is proved,
        both are run on formal inputs at small sizes, or at the given ones: different
        results are ``"refuted"``, equal ones ``"unknown"``, but ``"proved"`` if no size
        was left open.

    Raises:
        ProgramError: a text that is not read, unknown names, or an output that the
            specification does not write.

    Example:
        >>> matmul = '''
        ... for i in range(M):
        ...     y[i] = 0
        ...     for k in range(K):
        ...         y[i] += a[i, k] * x[k]
        ... '''
        >>> equivalent(matmul.replace("range(K)", "range(K - 1)"), matmul).status
        'refuted'
    """
    programs = [read(p) if isinstance(p, str) else p for p in (program, specification)]
    ours, spec = (bound(p, sizes or {}) for p in programs)
    chosen = _outputs(ours, spec, outputs)
    reason = ""
    if importlib.util.find_spec("islpy") is None:
        reason = NO_ISL
    else:
        try:
            return _Proof(ours, spec, chosen, limit_s, seed, sizes or {}).verdict()
        except NotAffine as error:
            reason = str(error)
            found = _by_z3(ours, spec, chosen, limit_s)
            if isinstance(found, Verdict):
                return found
            reason += f"; {found}"
        except _Unproved as error:
            reason = str(error)
    return _by_running(ours, spec, chosen, reason, seed, sizes or {}, limit_s)


def _by_z3(
    ours: Program, spec: Program, outputs: tuple[str, ...], limit_s: float
) -> Verdict | str:
    """The proof where sizes multiply, or why there is none."""
    from elision.verify.symbolic import Unfit, proved

    if importlib.util.find_spec("z3") is None:
        return f"z3-solver, which knows sizes that multiply, {not_installed('verify')}"
    try:
        proved(ours, spec, outputs, limit_s)
    except Unfit as error:
        return str(error)
    reason = "the order of the sums is not compared where sizes multiply"
    return Verdict("proved", None, "real numbers only", reason)


class _Unproved(Exception):
    """No proof; the message says why."""


def _outputs(
    ours: Program, spec: Program, outputs: tuple[str, ...] | None
) -> tuple[str, ...]:
    chosen = spec.results if outputs is None else outputs
    for array in chosen:
        if array not in spec.written:
            raise ProgramError(
                f"output {array!r}: the specification does not write it; it writes "
                f"{', '.join(spec.written) or 'nothing'}"
            )
        rank = ours.ranks.get(array, spec.ranks[array])
        if rank != spec.ranks[array]:
            raise ProgramError(
                f"{array} has {rank} subscripts in the program and {spec.ranks[array]} "
                "in the specification"
            )
    if not chosen:
        raise ProgramError("the specification writes no array that is a result")
    return chosen


class _Proof:
    """The comparison of two programs by integer sets."""

    def __init__(
        self,
        ours: Program,
        spec: Program,
        outputs: tuple[str, ...],
        limit_s: float,
        seed: int,
        given: Mapping[str, int],
    ) -> None:
        from elision.verify.polyhedra import context

        self.ours, self.spec, self.outputs = ours, spec, outputs
        self.seed, self.given = seed, given
        self.sizes = tuple(sorted({*ours.sizes, *spec.sizes}))
        self._until = time.perf_counter() + limit_s
        self._limit_s = limit_s
        self.allowed = context((*ours.assumptions, *spec.assumptions), self.sizes)

    def clock(self) -> None:
        if time.perf_counter() > self._until:
            raise _OutOfTime

    def verdict(self) -> Verdict:
        import islpy as isl

        from elision.verify.values import Beyond

        ctx = isl.DEFAULT_CONTEXT
        before = ctx.get_max_operations()
        # An operation of isl cannot be interrupted; its number of steps can be bounded.
        ctx.reset_operations()
        ctx.set_max_operations(int(_STEPS_PER_S * self._limit_s))
        try:
            return self._verdict()
        except Beyond as error:
            raise _Unproved(str(error)) from None
        except _OutOfTime:
            raise _Unproved(self._late()) from None
        except isl.Error as error:
            # Whatever isl was doing when its steps ran out has failed.
            over = "maximal number of operations" in str(error)
            raise _Unproved(self._late() + ("" if over else f" ({error})")) from None
        finally:
            ctx.set_max_operations(before)
            ctx.reset_operations()

    def _late(self) -> str:
        return f"no proof within {self._limit_s:g} s"

    def _verdict(self) -> Verdict:
        from elision.verify.compare import differences
        from elision.verify.flow import Flow
        from elision.verify.polyhedra import Instances
        from elision.verify.values import Values

        if self.allowed.is_empty():
            raise ProgramError("no sizes satisfy all assumptions of both programs")
        flows = [
            Flow(Instances(p, self.sizes, self.allowed)) for p in (self.ours, self.spec)
        ]
        values = [Values(flow) for flow in flows]
        same, pairs = True, []
        for array in self.outputs:
            self.clock()
            at = _written(flows, array)
            if at is None:
                continue
            sums = [v.result(array, at) for v in values]
            self.clock()
            doubt: list[Difference] = []
            found = differences(sums[0], sums[1], self.clock)
            for difference in found:
                witness, place = self._witness(array, difference)
                if witness is not None:
                    reason = f"{array} {difference.what} {_products(difference.arrays)}"
                    if difference.what == "lacks":
                        reason += self._instead(
                            witness, place, difference, next(found, None)
                        )
                    return Verdict("refuted", witness, None, reason)
                doubt.append(difference)
            if doubt:
                raise _Unproved(
                    f"{array} may differ in {_products(doubt[0].arrays)}, but runs of "
                    "both programs gave the same"
                )
            if same:
                same, pair = self._swapped(array, sums)
                pairs += [pair] if pair else []
        if str(self.ours.body) == str(self.spec.body):
            same, pairs = True, []
        return Verdict(
            "proved",
            None,
            "same" if same else "real numbers only",
            pairs[0] if pairs else "",
        )

    def _swapped(self, array: str, sums: list["Sum"]) -> tuple[bool, str]:
        """Whether the sums are taken in one order, and if not which products swap."""
        import islpy as isl

        from elision.verify.compare import swapped
        from elision.verify.values import Beyond

        try:
            same, pair = swapped(sums[0], sums[1], self.clock)
            return same, _swap_named(array, pair, self.sizes) if pair else ""
        except (_OutOfTime, isl.Error):
            return False, f"the order of the sums in {array} was not decided in time"
        except Beyond as error:
            return False, str(error)

    def _instead(
        self,
        witness: Witness,
        place: tuple[int, ...],
        lacking: "Difference",
        besides: "Difference | None",
    ) -> str:
        """What the program has at a place where a product is lacking, in words."""
        from elision.verify.points import part, smallest

        if besides is None or besides.arrays != lacking.arrays:
            return ""
        found = smallest(part(besides.at, witness.sizes, place), self.sizes)
        if found is None:
            return ""
        rest, words = found[1][len(place) :], []
        for array, rank in zip(besides.arrays, besides.ranks[1:], strict=True):
            words.append(_element(array, tuple(rest[:rank])))
            rest = rest[rank:]
        return f"; instead stands {'·'.join(words)}"

    def _witness(
        self, array: str, difference: "Difference"
    ) -> tuple[Witness | None, tuple[int, ...]]:
        """The smallest point of a difference, on which the programs are run."""
        from elision.verify.points import smallest

        found = smallest(difference.at, self.sizes)
        if found is None:
            return None, ()
        sizes, places = found
        at: list[tuple[int, ...]] = []
        for rank in difference.ranks:
            at.append(tuple(places[:rank]))
            places = places[rank:]
        ones = dict.fromkeys(zip(difference.arrays, at[1:], strict=False), 1)
        everywhere = {**sizes, **self.given}
        place = {(array, at[0])}
        try:
            witness = _run_both(self.ours, self.spec, everywhere, ones, place)
            for seed in range(self.seed, self.seed + 4):
                if witness is None:
                    witness = _run_random(
                        self.ours, self.spec, everywhere, (array,), seed
                    )
        except TooLong:
            return None, ()
        return witness, at[0]


#: Steps of isl in a second on the machine that this was written on.
_STEPS_PER_S = 3_000_000


def _written(flows: list[Any], array: str) -> Any:
    """The elements of an array that either program writes."""
    found = None
    for flow in flows:
        for adding in (False, True):
            for name in flow.writers(array, adding):
                part = flow.write(name).range()
                found = part if found is None else found | part
    return found


def _products(arrays: tuple[str, ...]) -> str:
    return f"a product of {' and '.join(arrays)}" if arrays else "a constant"


def _swap_named(array: str, pair: "Difference", sizes: tuple[str, ...]) -> str:
    """Two products that are added in another order, in words."""
    from elision.verify.points import smallest

    found = smallest(pair.at, sizes)
    if found is None:
        return ""
    values, places = found
    split = pair.arrays.index("")
    words, output, ranks = [], "", pair.ranks
    for arrays in (pair.arrays[:split], pair.arrays[split + 1 :]):
        parts = []
        for name, rank in zip((array, *arrays), ranks, strict=False):
            parts.append(_element(name, tuple(places[:rank])))
            places = places[rank:]
        ranks = ranks[len(arrays) + 1 :]
        output = parts[0]
        words.append("·".join(parts[1:]))
    at = ", ".join(f"{k}={v}" for k, v in values.items())
    swap = f"in {output}, {words[0]} is added before {words[1]} here and after it there"
    return f"{swap} at {at}" if at else swap


def _element(array: str, index: tuple[int, ...]) -> str:
    return f"{array}[{', '.join(map(str, index))}]" if index else array


# Running both programs.


def _run_both(
    ours: Program,
    spec: Program,
    sizes: Mapping[str, int],
    ones: Mapping[tuple[str, tuple[int, ...]], int],
    places: set[tuple[str, tuple[int, ...]]],
    seed: int | None = None,
    read_input: Callable[[str, tuple[int, ...]], int] | None = None,
) -> Witness | None:
    """The first of some places whose values differ, as a witness."""

    def given(array: str, index: tuple[int, ...]) -> int:
        return ones.get((array, index), 0)

    load = read_input or given
    results = [run(p, sizes, load, at_most=_STATEMENTS) for p in (ours, spec)]
    for place in sorted(places):
        values = [r[place] if place in r else load(*place) for r in results]
        if values[0] != values[1]:
            shown = [r.get(place) for r in results]
            return Witness(
                dict(sizes),
                _element(*place),
                shown[0],
                shown[1],
                {_element(*p): v for p, v in ones.items()},
                seed,
            )
    return None


def _run_random(
    ours: Program,
    spec: Program,
    sizes: Mapping[str, int],
    outputs: tuple[str, ...],
    seed: int,
) -> Witness | None:
    """A witness by random integers, small and of both signs or modulo a prime."""
    drawn: dict[tuple[str, tuple[int, ...]], int] = {}
    draw = random.Random(seed)
    bounds = (-9, 9) if seed % 2 == 0 else (0, PRIME - 1)

    def load(array: str, index: tuple[int, ...]) -> int:
        return drawn.setdefault((array, index), draw.randint(*bounds))

    places = {
        place
        for p in (ours, spec)
        for place in run(p, sizes, load, at_most=_STATEMENTS)
        if place[0] in outputs
    }
    return _run_both(ours, spec, sizes, {}, places, seed, load)


def _small_sizes(
    programs: tuple[Program, ...], given: Mapping[str, int]
) -> Iterator[dict[str, int]]:
    """Sizes to run at, the smallest first: all small ones, then unequal larger ones."""
    unknown = sorted({s for p in programs for s in p.sizes})
    assumptions = [a for p in programs for a in p.assumptions]

    def allowed(sizes: Mapping[str, int]) -> bool:
        return all(index_value(a, sizes) for a in assumptions)

    # Of each size, the values that the assumptions about it alone leave.
    alone = {size: [a for a in assumptions if names(a) == {size}] for size in unknown}
    values_of = [
        [v for v in range(1, 65) if all(index_value(a, {size: v}) for a in alone[size])]
        for size in unknown
    ]
    top = 4 if len(unknown) <= 4 else 3 if len(unknown) <= 6 else 2
    drawn = sorted(product(*(values[:top] for values in values_of)), key=sum)
    larger = random.Random(len(unknown))
    if all(values_of):
        drawn += [
            tuple(larger.choice(v[: 4 + 2 * len(unknown)]) for v in values_of)
            for _ in range(200)
        ]
    for values in drawn:
        sizes = dict(zip(unknown, values, strict=True))
        if allowed(sizes):
            yield {**sizes, **given}
        if not unknown:
            return


def _by_running(
    ours: Program,
    spec: Program,
    outputs: tuple[str, ...],
    reason: str,
    seed: int,
    given: Mapping[str, int],
    limit_s: float,
) -> Verdict:
    """The verdict from runs at small or given sizes."""
    until = time.thread_time() + min(limit_s, _RUNNING_S)
    by_every: list[Mapping[str, int]] = []
    by_some: list[Mapping[str, int]] = []
    for sizes in _small_sizes((ours, spec), given):
        try:
            for at in (seed, seed + 1):
                witness = _run_random(ours, spec, sizes, outputs, at)
                if witness is not None:
                    what = f"{witness.output} differs"
                    return Verdict("refuted", witness, None, what, (sizes,))
            by_some.append(sizes)
            if time.thread_time() > until:
                break
            if _formally_equal(ours, spec, sizes, outputs):
                by_every.append(sizes)
        except TooLong:
            pass
        if time.thread_time() > until:
            break
    if not by_some:
        return Verdict("unknown", None, None, f"{reason}; too large to run")
    if by_every and not {*ours.sizes, *spec.sizes}:
        order = f"their order was not compared: {reason}"
        return Verdict("proved", None, "real numbers only", order, tuple(by_every))
    checked = by_every or by_some
    last = ", ".join(f"{k}={v}" for k, v in checked[-1].items())
    where = f"equal {'for every input' if by_every else 'on random integers'}"
    where += f" at {len(checked)} sizes, the last {last}" if last else ""
    return Verdict("unknown", None, None, f"{reason}; {where}", tuple(checked))


#: Seconds of this thread's CPU time for runs at small sizes.
_RUNNING_S = 1.0


def _formally_equal(
    ours: Program, spec: Program, sizes: Mapping[str, int], outputs: tuple[str, ...]
) -> bool:
    """Whether the results are the same sums of products, every input being formal."""
    results = [
        run(p, sizes, formal_input, formal_function, at_most=_STATEMENTS)
        for p in (ours, spec)
    ]
    places = {p for r in results for p in r if p[0] in outputs}
    first, second = (
        {p: Formal.of(r.get(p, formal_input(*p))) for p in places} for r in results
    )
    return first == second
