"""The mapped loop nest as plain code that runs: C++ with OpenMP, or Python.

The code is the schedule read from the outermost loop in. Loops in time stay in their
order; loops in space are innermost, where a compiler unrolls them. A buffer of the I/O
network becomes a small array that is filled once for its tile; the output, where it stays
in the elements, becomes an array of accumulators that is stored once. The ragged last
tile of a loop is cut by its bound, or filled up with zeros in a buffer, so that a product
with an infinite or undefined operand on the other side of a zero is not a number there.
In C++ the innermost loops that reduce are a function of their own, so that compilers keep
its sums in registers.

Sizes stay parameters of the code; the tiles are constants in it.
"""

import keyword
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property

from elision.accelerators.spatial.nest import Tensor
from elision.accelerators.spatial.schedule.affine import Affine
from elision.accelerators.spatial.schedule.schedule import Schedule
from elision.accelerators.spatial.schedule.structure import Structure, TiledLoop
from elision.common.names import lookup

__all__ = [
    "LANGUAGES",
    "cpp",
    "mapped_program",
    "python",
    "sizes_of",
    "source",
    "specification",
]

#: Words of accumulators up to which they are an array of their own: 512 KiB of floats, a
#: core's second-level cache.
_ACCUMULATORS = 1 << 17

#: Words of a local array up to which it lies on the stack (an own choice).
_ON_STACK = 1 << 14

#: Arrays of the code by other names than those of the recurrence.
_SUMS = "sums"
_NAMES = {"kept", "elements", "threads", "real", "product", "np"}


class _Writer:
    """Lines of code, and how a language says loops, conditions and elements."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.depth = 0

    def put(self, line: str = "") -> None:
        self.lines.append("    " * self.depth + line if line else "")

    def text(self) -> str:
        return "\n".join(self.lines) + "\n"

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        self.put(head)
        self.depth += 1
        yield
        self.depth -= 1
        self.close()

    def close(self) -> None:
        raise NotImplementedError


class _Cpp(_Writer):
    def close(self) -> None:
        self.put("}")

    def loop(self, name: str, bound: str) -> AbstractContextManager[None]:
        return self.block(f"for (long {name} = 0; {name} < {bound}; ++{name}) {{")

    def where(self, conditions: Sequence[str]) -> AbstractContextManager[None]:
        return self.block(f"if ({' && '.join(conditions)}) {{")

    @contextmanager
    def otherwise(self) -> Iterator[None]:
        """Else to the condition that was closed last."""
        self.lines.pop()
        with self.block("} else {"):
            yield

    def least(self, size: int, rest: str) -> str:
        return f"std::min({size}L, {rest})"

    def ceiling(self, text: str, by: int) -> str:
        return text if by == 1 else f"({text} + {by - 1}) / {by}"

    def between(self, text: str, limit: str) -> str:
        return f"0 <= {text} && {text} < {limit}"

    def local(self, name: str, indices: Sequence[str]) -> str:
        return name + "".join(f"[{index}]" for index in indices)

    def element(self, name: str, indices: Sequence[str], shape: Sequence[str]) -> str:
        flat = indices[0]
        for index, size in zip(indices[1:], shape[1:], strict=True):
            flat = f"{_factor(flat)} * {_factor(size)} + {index}"
        return f"{name}[{flat}]"

    def set(self, target: str, value: str, adds: bool = False) -> None:
        self.put(f"{target} {'+=' if adds else '='} {value};")


class _Python(_Writer):
    def close(self) -> None:
        pass

    def loop(self, name: str, bound: str) -> AbstractContextManager[None]:
        return self.block(f"for {name} in range({bound}):")

    def where(self, conditions: Sequence[str]) -> AbstractContextManager[None]:
        return self.block(f"if {' and '.join(conditions)}:")

    def least(self, size: int, rest: str) -> str:
        return f"min({size}, {rest})"

    def ceiling(self, text: str, by: int) -> str:
        return text if by == 1 else f"({text} + {by - 1}) // {by}"

    def between(self, text: str, limit: str) -> str:
        return f"0 <= {text} and {text} < {limit}"

    def local(self, name: str, indices: Sequence[str]) -> str:
        return f"{name}[{', '.join(indices)}]" if indices else name

    def element(self, name: str, indices: Sequence[str], shape: Sequence[str]) -> str:
        return self.local(name, indices)

    def set(self, target: str, value: str, adds: bool = False) -> None:
        self.put(f"{target} {'+=' if adds else '='} {value}")


def _factor(text: str) -> str:
    return f"({text})" if any(sign in text for sign in "+-") else text


@dataclass(frozen=True)
class _Plan:
    """Where loops, accumulators and buffers of the code go."""

    made: Structure
    buffers: bool

    @cached_property
    def space(self) -> tuple[str, ...]:
        """Loops in space; what the compiler makes vectors of comes last."""
        made, output = self.made, self.made.recurrence.output
        last = made.recurrence.accesses[output][-1].loops

        def order(name: str) -> tuple[bool, bool]:
            return made.indexes(output, name), made.loop(name).origin in last

        return tuple(sorted(made.unrolled, key=order))

    @cached_property
    def order(self) -> tuple[str, ...]:
        return (*self.made.time, *self.space)

    @cached_property
    def separate(self) -> dict[str, int]:
        """Loops of the recurrence that are an index of the output alone."""
        recurrence = self.made.recurrence
        return recurrence.separate(recurrence.output)

    @cached_property
    def kept(self) -> int | None:
        """Loops outside of the accumulators; None where the sums lie in memory."""
        made, output = self.made, self.made.recurrence.output
        if len(self.separate) < len(made.recurrence.accesses[output]):
            return None
        reduced = [x for x in made.time if not made.indexes(output, x)]
        outer = made.time.index(reduced[0]) if reduced else len(made.time)
        own = [x for x in self.order[outer:] if made.indexes(output, x)]
        words = 1
        for name in own:
            extent = made.constant(name)
            if extent is None:
                return None
            words *= extent
        return outer if words <= _ACCUMULATORS else None

    @cached_property
    def packed(self) -> dict[Tensor, tuple[str, str]]:
        """By tensor, the buffer that it is read from and the loop where it is filled."""
        if not self.buffers:
            return {}
        return {
            kernel.tensor: (kernel.name, kernel.buffer.loop)
            for kernel in self.made.kernels.values()
            if kernel.buffer is not None and kernel.buffer.loop is not None
        }

    def tile(self, tensor: Tensor, loop: str) -> list[str]:
        """Loops of a buffer's array."""
        inside = self.made.inside(loop)
        own = [x for x in self.order if x in inside and self.made.indexes(tensor, x)]
        for name in own:
            if self.made.constant(name) is None:
                raise ValueError(
                    f"buffer({self.packed[tensor][0]},{loop}): the tile below {loop} has "
                    f"all iterations of {name}, whose number is open; tile {name} or put "
                    "the buffer further in"
                )
        return own

    def live(self) -> set[str]:
        """Origins whose ragged end the innermost statement must not pass."""
        made, found = self.made, set[str]()
        for tensor in made.recurrence.accesses:
            if tensor in self.packed:
                continue
            if made.is_output(tensor) and self.kept is not None:
                # What is stored is cut there, if a loop of it is left.
                inside = {made.loop(x).origin for x in self.order[self.kept :]}
                found |= {*self.separate} - inside
                continue
            for index in made.recurrence.accesses[tensor]:
                found |= {*index.loops}
        return found

    def parts(self, origin: str) -> list[TiledLoop]:
        named = {x.name: x for x in self.made.loops}
        return [named[x] for x in self.order if named[x].origin == origin]


class _Emitter:
    """Code of a plan in a language."""

    def __init__(self, plan: _Plan, out: "_Cpp | _Python") -> None:
        self.plan, self.out, self.made = plan, out, plan.made
        self.recurrence = plan.made.recurrence
        #: Lines of the functions that the code calls.
        self.functions: list[str] = []

    def origin(self, name: str) -> str:
        """An index of the recurrence by the loops of the nest."""
        parts = sorted(self.plan.parts(name), key=lambda x: -x.weight)
        return " + ".join(
            x.name if x.weight == 1 else f"{x.weight} * {x.name}" for x in parts
        )

    def affine(self, index: Affine) -> str:
        text = ""
        for term in index.terms:
            factors = (
                []
                if abs(term.number) == 1 and (term.size or term.loop)
                else [str(abs(term.number))]
            )
            factors += [term.size] if term.size else []
            if term.loop:
                own = self.origin(term.loop)
                factors.append(_factor(own) if factors or term.number < 0 else own)
            word = " * ".join(factors)
            if text:
                text += f" {'-' if term.number < 0 else '+'} {word}"
            else:
                text = f"-{word}" if term.number < 0 else word
        return text or "0"

    def shape(self, tensor: Tensor) -> list[str]:
        return [self.affine(axis) for axis in self.recurrence.shapes[tensor]]

    def element(self, tensor: Tensor) -> str:
        indices = [self.affine(index) for index in self.recurrence.accesses[tensor]]
        return self.out.element(tensor, indices, self.shape(tensor))

    def padding(self, tensor: Tensor) -> list[str]:
        """Conditions under which an iteration meets an element, not the padding."""
        found = []
        for index, axis in zip(
            self.recurrence.accesses[tensor],
            self.recurrence.shapes[tensor],
            strict=True,
        ):
            loop = index.one_loop()
            if loop is None or self.recurrence.loops[loop] != axis:
                found.append(self.out.between(self.affine(index), self.affine(axis)))
        return found

    def bound(self, loop: TiledLoop, live: set[str], open_: Sequence[str]) -> str:
        """Iterations of a loop; the last of its origin's loops is cut where it is live."""
        total, whole = self.total(loop.origin), self.made.constant(loop.name)
        if not self.is_cut(loop, live, open_):
            return str(whole or self.out.ceiling(total, loop.weight))
        parts = [x for x in open_ if self.made.loop(x).origin == loop.origin]
        others = [self.made.loop(x) for x in parts if x != loop.name]
        before = [
            x.name if x.weight == 1 else f"{x.weight} * {x.name}"
            for x in sorted(others, key=lambda x: -x.weight)
        ]
        rest = " - ".join([total, *before])
        if loop.weight > 1:
            rest = self.out.ceiling(rest, loop.weight)
        return rest if loop.extent is None else self.out.least(loop.extent, rest)

    def is_cut(self, loop: TiledLoop, live: set[str], open_: Sequence[str]) -> bool:
        """Whether a loop's bound ends a ragged tile: the last loop of a live origin's."""
        parts = [x for x in open_ if self.made.loop(x).origin == loop.origin]
        return loop.origin in live and len(parts) > 1 and parts[-1] == loop.name

    @contextmanager
    def nested(
        self, names: Sequence[str], live: set[str], outside: Sequence[str] = ()
    ) -> Iterator[None]:
        """Loops, one in the other."""
        if not names:
            yield
            return
        loop = self.made.loop(names[0])
        every = [*outside, *names]
        with (
            self.out.loop(loop.name, self.bound(loop, live, every)),
            self.nested(names[1:], live, [*outside, loop.name]),
        ):
            yield

    def fill(self, tensor: Tensor, outside: Sequence[str]) -> None:
        """Copy the tile of a buffer, zeros where it leaves the tensor."""
        name, at = self.plan.packed[tensor]
        own = self.plan.tile(tensor, at)
        target = self.out.local(name, own)
        origins = {x for index in self.recurrence.accesses[tensor] for x in index.loops}
        ragged = [
            x
            for x in self.recurrence.loops
            if x in origins and len(self.plan.parts(x)) > 1
        ]
        cut = [f"{self.origin(x)} < {self.total(x)}" for x in ragged]
        whole = [f"{self.end(x, own)} <= {self.total(x)}" for x in ragged]

        def copied(conditions: list[str]) -> None:
            with self.nested(own, set(), outside):
                self.copy(target, self.element(tensor), conditions)

        padding = self.padding(tensor)
        if ragged and isinstance(self.out, _Cpp):
            with self.out.where(whole):
                copied(padding)
            with self.out.otherwise():
                copied(cut + padding)
        else:
            copied(cut + padding)

    def total(self, origin: str) -> str:
        return self.affine(self.recurrence.loops[origin])

    def end(self, origin: str, tile: Sequence[str]) -> str:
        """The first index of an origin beyond a tile."""
        parts = sorted(self.plan.parts(origin), key=lambda x: -x.weight)
        words = [
            x.name if x.weight == 1 else f"{x.weight} * {x.name}"
            for x in parts
            if x.name not in tile
        ]
        inner = (
            x.weight * ((self.made.constant(x.name) or 1) - 1)
            for x in parts
            if x.name in tile
        )
        return " + ".join([*words, str(1 + sum(inner))])

    def copy(self, target: str, value: str, conditions: list[str]) -> None:
        if not conditions:
            self.out.set(target, value)
        elif isinstance(self.out, _Cpp):
            self.out.set(target, f"{' && '.join(conditions)} ? {value} : 0")
        else:
            self.out.set(target, "0")
            with self.out.where(conditions):
                self.out.set(target, value)

    def operand(self, tensor: Tensor) -> str:
        if tensor in self.plan.packed:
            name, at = self.plan.packed[tensor]
            return self.out.local(name, self.plan.tile(tensor, at))
        return self.element(tensor)

    def statement(self, target: str) -> None:
        made, plan = self.made, self.plan
        conditions: list[str] = []
        for tensor in made.recurrence.accesses:
            local = made.is_output(tensor) and plan.kept is not None
            if tensor not in plan.packed and not local:
                conditions += self.padding(tensor)
        value = " * ".join(map(self.operand, made.recurrence.inputs))
        if conditions:
            with self.out.where(conditions):
                self.out.set(target, value, adds=True)
        else:
            self.out.set(target, value, adds=True)

    def accumulated(self) -> list[str]:
        """Loops of the accumulators."""
        output = self.recurrence.output
        assert self.plan.kept is not None
        inside = self.plan.order[self.plan.kept :]
        return [x for x in inside if self.made.indexes(output, x)]

    def body(self) -> None:
        plan, out, output = self.plan, self.out, self.recurrence.output
        live = plan.live()
        if plan.kept is None:
            self.clear()
            self.down(0, live, self.element(output))
            return
        own = self.accumulated()
        target = out.local(_SUMS, own)

        def inner(outside: list[str]) -> None:
            self.declare(_SUMS, own)
            with self.nested(own, set(), outside):
                out.set(target, "0")
            self.down(len(outside), live, target)
            with self.nested(own, {*self.recurrence.loops}, outside):
                conditions = self.padding(output)
                if conditions:
                    with out.where(conditions):
                        out.set(self.element(output), target)
                else:
                    out.set(self.element(output), target)

        self.down(0, live, target, inner, plan.kept)

    def clear(self) -> None:
        """Set the output to zero."""
        output = self.recurrence.output
        shape = self.shape(output)
        names = [f"axis{n}" for n in range(len(shape))]

        def deeper(at: int) -> None:
            if at == len(names):
                self.out.set(self.out.element(output, names, shape), "0")
                return
            with self.out.loop(names[at], shape[at]):
                deeper(at + 1)

        deeper(0)

    def down(
        self,
        at: int,
        live: set[str],
        target: str,
        inner: Callable[[list[str]], None] | None = None,
        until: int | None = None,
    ) -> None:
        """The loops from place ``at`` on, with the buffers that are filled on the way."""
        order = self.plan.order
        if inner is not None and at == until:
            inner(list(order[:at]))
            return
        if at == len(order):
            self.statement(target)
            return
        if inner is None and at == self.alone:
            self.call_elements()
            return
        name = order[at]
        loop = self.made.loop(name)
        self.before_loop(at)
        with self.out.loop(name, self.bound(loop, live, order)):
            for tensor, (buffer, place) in self.plan.packed.items():
                if place == name:
                    self.declare(buffer, self.plan.tile(tensor, place))
                    self.fill(tensor, order[: at + 1])
            self.down(at + 1, live, target, inner, until)

    @cached_property
    def alone(self) -> int | None:
        """Place of the innermost loops in time that a C++ function of their own runs.

        They are those that reduce, inside all that fill a buffer. Compilers keep sums in
        registers over the loops of a small function, and not over those of a large one.
        None where operands or sums are no arrays of such loops.
        """
        made, plan = self.made, self.plan
        if not isinstance(self.out, _Cpp) or plan.kept is None:
            return None
        if set(plan.packed) != set(self.recurrence.inputs):
            return None
        start = len(made.time)
        filled = {place for _, place in plan.packed.values()}
        while start > plan.kept and not (
            made.indexes(self.recurrence.output, made.time[start - 1])
            or made.time[start - 1] in filled
        ):
            start -= 1
        inside = set(plan.order[start:])
        arrays = [plan.tile(tensor, at) for tensor, (_, at) in plan.packed.items()]
        each = all(inside & {*loops} for loops in (*arrays, self.accumulated()))
        return start if start < len(made.time) and each else None

    def call_elements(self) -> None:
        """The call of the function of the innermost loops, and its text."""
        assert self.alone is not None
        out, inside = self.out, self.plan.order[self.alone :]
        arrays = {
            name: self.plan.tile(tensor, at)
            for tensor, (name, at) in self.plan.packed.items()
        } | {_SUMS: self.accumulated()}
        own = {
            name: [x for x in loops if x in inside] for name, loops in arrays.items()
        }
        given = [
            out.local(name, [x for x in loops if x not in inside])
            for name, loops in arrays.items()
        ]
        out.put(f"elements({', '.join(given)});")
        arguments = []
        for name, loops in own.items():
            rest = "".join(f"[{extent}]" for extent in self.extents(loops)[1:])
            kind = "real" if name == _SUMS else "const real"
            pointer = f"(*__restrict {name}){rest}" if rest else f"*__restrict {name}"
            arguments.append(f"{kind} {pointer}")
        body = _Cpp()
        within = _Emitter(self.plan, body)
        sums = body.local(_SUMS, own[_SUMS])
        kept = body.local("kept", own[_SUMS])
        head = (
            f"static __attribute__((noinline)) void elements({', '.join(arguments)}) {{"
        )
        with body.block(head):
            within.declare("kept", own[_SUMS])
            with within.nested(own[_SUMS], set()):
                body.set(kept, sums)
            with within.unrolled(inside):
                value = " * ".join(
                    body.local(name, own[name])
                    for name in (
                        self.plan.packed[tensor][0] for tensor in self.recurrence.inputs
                    )
                )
                body.set(kept, value, adds=True)
            with within.nested(own[_SUMS], set()):
                body.set(sums, kept)
        self.functions = [*body.lines, ""]

    @contextmanager
    def unrolled(self, names: Sequence[str]) -> Iterator[None]:
        """Loops in time and space, one in the other, with what a compiler is told."""
        if not names:
            yield
            return
        self.before_loop(self.plan.order.index(names[0]))
        loop = self.made.loop(names[0])
        with (
            self.out.loop(loop.name, self.bound(loop, set(), names)),
            self.unrolled(names[1:]),
        ):
            yield

    def extents(self, loops: Sequence[str]) -> list[int]:
        return [self.made.constant(x) or 1 for x in loops]

    def parallel(self) -> int:
        """Outermost loops of which no two iterations write one element."""
        count = 0
        filled = {place for _, place in self.plan.packed.values()}
        for name in self.made.time:
            fits = self.made.loop(name).origin in self.plan.separate
            if not fits or (self.plan.kept is not None and count == self.plan.kept):
                break
            if self.is_cut(self.made.loop(name), self.plan.live(), self.plan.order):
                break  # OpenMP collapses only loops whose bounds stand before them
            count += 1
            if name in filled:
                break
        return count

    def declare(self, name: str, loops: Sequence[str]) -> None:
        if isinstance(self.out, _Cpp):
            extents = self.extents(loops)
            sizes = "".join(f"[{extent}]" for extent in extents)
            kept = "static thread_local " if math.prod(extents) > _ON_STACK else ""
            self.out.put(f"alignas(64) {kept}real {name}{sizes};")

    def before_loop(self, at: int) -> None:
        if not isinstance(self.out, _Cpp):
            return
        count, name = self.parallel(), self.plan.order[at]
        if at == 0 and count:
            collapse = f" collapse({count})" if count > 1 else ""
            self.out.put(f"#pragma omp parallel for{collapse} num_threads(threads)")
        elif name in self.plan.space:
            extent = self.made.constant(name)
            reduced = not self.made.indexes(self.recurrence.output, name)
            if name == self.plan.order[-1] and not reduced:
                self.out.put("#pragma omp simd")
            elif extent is not None and not reduced:
                self.out.put(f"#pragma GCC unroll {extent}")


def sizes_of(schedule: Schedule) -> list[str]:
    """Sizes that the code of a schedule takes, in their order."""
    recurrence = schedule.recurrence
    found: set[str] = set()
    for bound in recurrence.loops.values():
        found |= {*bound.sizes}
    for each in (*recurrence.accesses.values(), *recurrence.shapes.values()):
        for index in each:
            found |= {*index.sizes}
    return [size for size in recurrence.sizes if size in found]


def _check_names(made: Structure) -> None:
    taken = {_SUMS, *_NAMES, *keyword.kwlist}
    loops = [x.name for x in made.loops]
    recurrence = made.recurrence
    for name in (*recurrence.accesses, *recurrence.sizes, *loops, *made.kernels):
        if name in taken:
            raise ValueError(
                f"{name!r} cannot be a name in code, which has it for something else; "
                f"besides the words of the languages: {', '.join(sorted(_NAMES))}, {_SUMS}"
            )


def cpp(schedule: Schedule, function: str = "product", dtype: str = "float") -> str:
    """The mapped nest as C++17 with OpenMP.

    The function takes the inputs in the order of the recurrence, the output, which is
    overwritten, the sizes that occur, as ``long`` in the order of their statement, and
    the number of threads. Tensors are contiguous, the last axis innermost.

    Raises:
        ValueError: a buffer whose tile has a loop of open extent.
    """
    made = schedule.structure
    _check_names(made)
    out = _Cpp()
    emitter = _Emitter(_Plan(made, buffers=True), out)
    out.put(f"// {made.recurrence}")
    for step in schedule.steps:
        out.put(f"//   {step}")
    for line in ("", "#include <algorithm>", "", f"using real = {dtype};", ""):
        out.put(line)
    arguments = [f"const real* __restrict {x}" for x in made.recurrence.inputs]
    arguments.append(f"real* __restrict {made.recurrence.output}")
    arguments += [f"long {size}" for size in sizes_of(schedule)]
    head = f'extern "C" void {function}({", ".join([*arguments, "int threads"])}) {{'
    place = len(out.lines)
    with out.block(head):
        emitter.body()
    out.lines[place:place] = emitter.functions
    return out.text()


def python(schedule: Schedule, function: str = "product") -> str:
    """The mapped nest as a Python function of numpy arrays, which numba compiles.

    Arguments and errors as of :func:`cpp`, without the threads.
    """
    made = schedule.structure
    _check_names(made)
    plan = _Plan(made, buffers=True)
    out = _Python()
    out.put("import numpy as np")
    out.put()
    out.put()
    names = [*made.recurrence.inputs, made.recurrence.output, *sizes_of(schedule)]
    with out.block(f"def {function}({', '.join(names)}):"):
        out.put(f'"""{made.recurrence}."""')
        emitter = _Emitter(plan, out)
        arrays = {
            name: plan.tile(tensor, at) for tensor, (name, at) in plan.packed.items()
        }
        if plan.kept is not None:
            arrays[_SUMS] = emitter.accumulated()
        for name, loops in arrays.items():
            if not loops:
                continue  # a number, which needs no memory
            shape = ", ".join(map(str, emitter.extents(loops)))
            comma = "," if len(loops) == 1 else ""
            out.put(
                f"{name} = np.empty(({shape}{comma}), {made.recurrence.output}.dtype)"
            )
        emitter.body()
    return out.text()


def mapped_program(schedule: Schedule, buffers: bool = True) -> str:
    """The body of :func:`python`, for :func:`elision.verify.equivalent`.

    Args:
        schedule: of any recurrence.
        buffers: False: operands are read from memory, not by way of the buffers.
    """
    out = _Python()
    _Emitter(_Plan(schedule.structure, buffers), out).body()
    return out.text()


def specification(schedule: Schedule) -> str:
    """The recurrence as loops, without any schedule, in the same form."""
    bare = Schedule(schedule.recurrence)
    out = _Python()
    emitter = _Emitter(_Plan(bare.structure, buffers=False), out)
    emitter.clear()
    emitter.down(0, set(), emitter.element(schedule.recurrence.output))
    return out.text()


#: Languages of :func:`source`.
LANGUAGES = {"cpp": cpp, "python": python}


def source(schedule: Schedule, language: str, function: str = "product") -> str:
    """The mapped nest in a language, a key of :data:`LANGUAGES`.

    Raises:
        ValueError: an unknown language (lists the valid ones), or what :func:`cpp`
            refuses.

    Example:
        >>> from elision.accelerators.spatial.schedule import parse
        >>> made = parse('''
        ... size M = 8, K = 8
        ... loop i < M, k < K
        ... y[i] += a[i, k] * x[k]
        ... tile(i, ii, 4).unroll(ii)
        ... ''')
        >>> print(source(made, "python"))
        import numpy as np
        <BLANKLINE>
        <BLANKLINE>
        def product(a, x, y, M, K):
            \"""y[i] += a[i, k] * x[k].\"""
            sums = np.empty((4,), y.dtype)
            for i in range((M + 3) // 4):
                for ii in range(4):
                    sums[ii] = 0
                for k in range(K):
                    for ii in range(min(4, M - 4 * i)):
                        sums[ii] += a[4 * i + ii, k] * x[k]
                for ii in range(min(4, M - 4 * i)):
                    y[4 * i + ii] = sums[ii]
        <BLANKLINE>
    """
    return lookup("language", language, LANGUAGES)(schedule, function)
