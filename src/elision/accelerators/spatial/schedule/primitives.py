"""The primitives of schedules: what each does to a structure, and when it is refused.

A primitive is a function of a structure, its *subject* (a kernel, a tensor, or "" where it
has none) and its arguments. The names are those of T2S (H. Rong, arXiv 1711.07606; N.
Srivastava et al., T2S-Tensor, FCCM 2019), loops are listed as there and in Halide: the
innermost first.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from elision.accelerators.spatial.buffers import Buffer
from elision.accelerators.spatial.integers import dot
from elision.accelerators.spatial.schedule.structure import (
    Kernel,
    Structure,
    TiledLoop,
)
from elision.common.names import lookup

__all__ = ["COPIES", "DIRECTIONS", "PRIMITIVES", "Primitive"]

#: Copies of a buffer by the name of its strategy.
COPIES = {"Single": 1, "Double": 2}

#: Ways along a row of kernels.
DIRECTIONS = {"Up": "from the first to the last", "Down": "from the last to the first"}

Arguments = tuple[Any, ...]


class Primitive(NamedTuple):
    """A primitive.

    Attributes:
        apply: gives the structure after it; raises ValueError where it is refused.
        form: how it is written.
        subject: ``"kernel"``: a kernel; ``"tensor"``: a tensor or one of its kernels;
            ``""``: none.

    Example:
        >>> PRIMITIVES["remove"].form
        'KERNEL.remove(loop, ...)'
    """

    apply: Callable[[Structure, str, Arguments], Structure]
    form: str
    subject: str = ""


def _names(made: Structure, what: str, arguments: Arguments) -> tuple[str, ...]:
    for name in arguments:
        if not isinstance(name, str):
            raise ValueError(f"{name!r} stands where the name of a {what} is wanted")
    return arguments


def _tile(made: Structure, subject: str, arguments: Arguments) -> Structure:
    third = len(arguments) // 3
    names, sizes = arguments[: 2 * third], arguments[2 * third :]
    good = all(isinstance(x, str) for x in names) and all(
        isinstance(x, int) and x > 0 for x in sizes
    )
    if not third or len(arguments) % 3 or not good:
        raise ValueError(
            "give the loops, as many names of the loops inside their tiles, and as many "
            "sizes >= 1: tile(k, j, i, kk, jj, ii, 64, 16, 8)"
        )
    outer, inner = names[:third], names[third:]
    taken = {loop.name for loop in made.loops}
    taken |= {*made.recurrence.sizes, *made.recurrence.accesses, *made.kernels}
    new = []
    for name, tiled, size in zip(inner, outer, sizes, strict=True):
        loop = made.loop(tiled)
        if tiled in made.unrolled:
            raise ValueError(f"{tiled} is unrolled; tile it before")
        if name in taken or inner.count(name) > 1:
            raise ValueError(f"{name} is a name already; choose another")
        if loop.extent is not None and loop.extent % size:
            raise ValueError(
                f"a tile of {size} does not divide {tiled}, which has {loop.extent} "
                "iterations; only a loop of the recurrence may have a ragged last tile"
            )
        rest = None if loop.extent is None else loop.extent // size
        new.append((tiled, TiledLoop(name, loop.origin, loop.weight, size), rest))
    changed = {tiled: (inside, rest) for tiled, inside, rest in new}
    loops = [
        x._replace(
            weight=x.weight * changed[x.name][0].extent, extent=changed[x.name][1]
        )
        if x.name in changed
        else x
        for x in made.loops
    ]
    # The tile's loops come where its last loop is, the one listed first innermost.
    last = max(at for at, x in enumerate(loops) if x.name in changed)
    loops[last + 1 : last + 1] = [changed[tiled][0] for tiled in reversed(outer)]
    # The loops over tiles keep the order in which they are listed, too.
    places = sorted(at for at, x in enumerate(loops) if x.name in changed)
    own = {x.name: x for x in loops}
    for at, tiled in zip(places, reversed(outer), strict=True):
        loops[at] = own[tiled]
    return replace(made, loops=tuple(loops))


def _reorder(made: Structure, subject: str, arguments: Arguments) -> Structure:
    chosen = [made.loop(name) for name in _names(made, "loop", arguments)]
    if len(set(chosen)) < max(2, len(chosen)):
        raise ValueError("name two or more different loops, the innermost first")
    places = [at for at, x in enumerate(made.loops) if x in chosen]
    loops = list(made.loops)
    for at, loop in zip(places, reversed(chosen), strict=True):
        loops[at] = loop
    return replace(made, loops=tuple(loops))


def _unroll(made: Structure, subject: str, arguments: Arguments) -> Structure:
    for name in (names := _names(made, "loop", arguments)):
        made.loop(name)
        if name in made.unrolled or names.count(name) > 1:
            raise ValueError(f"{name} is unrolled already")
    if made.hops or made.kernels:
        raise ValueError("unroll before the kernels are isolated")
    if not names:
        raise ValueError("name the loops that become the axes x, y, ... of the array")
    return replace(made, unrolled=(*made.unrolled, *names))


def _merge_ures(made: Structure, subject: str, arguments: Arguments) -> Structure:
    for name in _names(made, "tensor", arguments):
        lookup("tensor", name, made.recurrence.accesses)
    # The recurrences of A, B and C in one sum of products share its loops already, and
    # their distances are reuse vectors, turned forward by the map.
    return made


def _isolate(role: str) -> Callable[[Structure, str, Arguments], Structure]:
    def apply(made: Structure, subject: str, arguments: Arguments) -> Structure:
        tensor, *names = _names(made, "kernel", arguments) or ("",)
        lookup("tensor", tensor, made.recurrence.accesses)
        if made.is_output(tensor) != (role == "consumer"):
            known = (
                made.recurrence.output
                if role == "consumer"
                else ", ".join(made.recurrence.inputs)
            )
            written = "written" if made.is_output(tensor) else "read"
            raise ValueError(
                f"{tensor} is {written}; a {role} chain is of what is "
                f"{'written' if role == 'consumer' else 'read'}: {known}"
            )
        if tensor in made.chains:
            raise ValueError(
                f"{tensor} has the chain {', '.join(made.chains[tensor])} already"
            )
        if not names:
            raise ValueError(f"name the kernels of {tensor}")
        taken = {*made.kernels, *made.recurrence.accesses, *made.recurrence.sizes}
        taken |= {x.name for x in made.loops}
        for name in names:
            if name in taken or names.count(name) > 1:
                raise ValueError(f"{name} is a name already; choose another")
        kernels = {name: Kernel(name, tensor) for name in names}
        return replace(
            made,
            chains={**made.chains, tensor: tuple(names)},
            kernels={**made.kernels, **kernels},
        )

    return apply


def _reuse_loop(made: Structure, kernel: Kernel, loop: str) -> None:
    made.loop(loop)
    if made.indexes(kernel.tensor, loop):
        allowed = ", ".join(made.reused_along(kernel.tensor)) or "none"
        raise ValueError(
            f"{loop} indexes {kernel.tensor}, it is no reuse loop; allowed: {allowed}"
        )


def _remove(made: Structure, subject: str, arguments: Arguments) -> Structure:
    kernel = made.kernel(subject)
    if made.is_output(kernel.tensor):
        raise ValueError(
            f"{subject} handles results, each of which passes once; producers have loops "
            "to remove"
        )
    if not arguments:
        raise ValueError("name the loops along which a datum is sent once")
    for loop in _names(made, "loop", arguments):
        _reuse_loop(made, kernel, loop)
        if loop in kernel.removed:
            raise ValueError(f"{loop} is removed already")
    return made.with_kernel(subject, removed=(*kernel.removed, *arguments))


def _without_upstream(
    made: Structure, kernel: Kernel, arguments: Arguments
) -> Arguments:
    """Arguments without the neighbour in the chain that they may name first."""
    chain = made.chains[kernel.tensor]
    place = chain.index(kernel.name)
    if arguments and arguments[0] in (*made.kernels, kernel.tensor):
        before = chain[place - 1] if place else kernel.tensor
        if arguments[0] not in (before, kernel.tensor):
            raise ValueError(
                f"{kernel.name} gets its data from {before}, not from {arguments[0]}"
            )
        return arguments[1:]
    return arguments


def _buffer(made: Structure, subject: str, arguments: Arguments) -> Structure:
    kernel = made.kernel(subject)
    loop, *rest = _names(made, "loop", _without_upstream(made, kernel, arguments)) or (
        "",
    )
    strategy = (rest or ["Double"])[0]
    lookup("strategy of a buffer", strategy, COPIES)
    made.loop(loop)
    if made.is_output(kernel.tensor):
        raise ValueError(
            f"{subject} handles results, which are not read again; buffer a producer"
        )
    if loop in made.unrolled:
        raise ValueError(
            f"{loop} is unrolled: a buffer holds the tile below a loop in time; allowed: "
            f"{', '.join(made.time)}"
        )
    if kernel.buffer is not None:
        raise ValueError(f"{subject} has a buffer already, at {kernel.buffer.loop}")
    return made.with_kernel(
        subject, buffer=Buffer(kernel.tensor, loop, COPIES[strategy])
    )


def _tensor(made: Structure, subject: str) -> str:
    if subject in made.recurrence.accesses:
        return subject
    if subject in made.kernels:
        return made.kernels[subject].tensor
    known = {**made.recurrence.accesses, **made.kernels}
    lookup("tensor or kernel", subject, known)
    raise AssertionError(subject)


def _axes(made: Structure, hop: Any) -> tuple[int, ...]:
    if not made.unrolled:
        raise ValueError("no loop is unrolled yet: there is no array to pass along")
    whole = isinstance(hop, tuple) and all(isinstance(x, int) for x in hop)
    if not whole or len(hop) != len(made.unrolled) or {*hop} - {-1, 0, 1}:
        raise ValueError(
            f"{_braces(hop)} must have a step -1, 0 or 1 for each of the unrolled loops "
            f"{', '.join(made.unrolled)}"
        )
    if not any(hop):
        raise ValueError(f"{_braces(hop)} leads nowhere")
    return hop


def _along_one(hop: tuple[int, ...]) -> bool:
    return sum(map(abs, hop)) == 1


def _braces(hop: Any) -> str:
    return "{" + ",".join(map(str, hop)) + "}" if isinstance(hop, tuple) else repr(hop)


def _forward(made: Structure, subject: str, arguments: Arguments) -> Structure:
    tensor = _tensor(made, subject)
    if len(arguments) != 1:
        raise ValueError("give one hop, such as {1,0}")
    hop = _axes(made, arguments[0])
    used = [loop for loop, step in zip(made.unrolled, hop, strict=True) if step]
    nest = made.nest()
    step = [0] * len(nest.loops)
    for loop, entry in zip(made.unrolled, hop, strict=True):
        step[nest.loop(loop)] = entry
    if any(dot(row, step) for row in nest.access(tensor).rows):
        free = [x for x in made.unrolled if not made.indexes(tensor, x)]
        why = (
            f"{used[0]} indexes {tensor}, it is no reuse loop"
            if len(used) == 1
            else f"{tensor} is another element at that neighbour"
        )
        allowed = f"along {', '.join(free)}" if free else "along no unrolled loop"
        raise ValueError(f"{why}; {tensor} can be forwarded {allowed}")
    others = made.hops.get(tensor, ())
    for other in others:
        if any(a and b for a, b in zip(other, hop, strict=True)):
            raise ValueError(f"{tensor} is forwarded by {_braces(other)} already")
    for name, hops in made.hops.items():
        for other in (each for each in hops if _along_one(each) and _along_one(hop)):
            for loop, a, b in zip(made.unrolled, other, hop, strict=True):
                if a * b < 0:
                    raise ValueError(
                        f"{name} moves the other way along {loop}, by {_braces(other)}: "
                        "both ways cannot run forward in time"
                    )
    return replace(made, hops={**made.hops, tensor: (*others, hop)})


def _ports(name: str, role: str) -> Callable[[Structure, str, Arguments], Structure]:
    field = {"scatter": "scattered", "gather": "gathered"}[name]

    def apply(made: Structure, subject: str, arguments: Arguments) -> Structure:
        if role == "consumer" and subject in made.recurrence.accesses:
            # gather(C, {1,0}): the first kernel after the array collects its results.
            if not made.chains.get(subject):
                raise ValueError(
                    f"{subject} has no kernel yet: isolate_consumer_chain({subject}, ...)"
                )
            subject = made.chains[subject][0]
        kernel = made.kernel(subject)
        if made.is_output(kernel.tensor) != (role == "consumer"):
            other = "gather" if name == "scatter" else "scatter"
            raise ValueError(
                f"{kernel.tensor} is {'read' if role == 'consumer' else 'written'}: "
                f"{other} it"
            )
        found = _without_upstream(made, kernel, arguments)
        if found and isinstance(found[0], tuple):
            hop = _axes(made, found[0])
            loops = [x for x, step in zip(made.unrolled, hop, strict=True) if step]
            way = "Up" if max(hop) > 0 else "Down"
        else:
            loops = list(_names(made, "loop", found[:1])) or [""]
            way = (*found[1:], "Up")[0]
        lookup(f"direction of {name}", way, DIRECTIONS)
        for loop in loops:
            made.loop(loop)
            if loop not in made.unrolled:
                raise ValueError(
                    f"{loop} is not unrolled: a {name} goes along a row of kernels; "
                    f"allowed: {', '.join(made.unrolled) or 'none is unrolled'}"
                )
            if not made.indexes(kernel.tensor, loop):
                own = [x for x in made.unrolled if made.indexes(kernel.tensor, x)]
                raise ValueError(
                    f"{loop} does not index {kernel.tensor}: a {name} is of different "
                    f"data; allowed: {', '.join(own) or 'none of the unrolled loops'}"
                )
            if loop in dict(getattr(kernel, field)):
                raise ValueError(f"{subject} has a {name} along {loop} already")
        more = tuple((loop, way) for loop in loops)
        return made.with_kernel(subject, **{field: (*getattr(kernel, field), *more)})

    return apply


def _vector(
    name: str, end: int | None
) -> Callable[[Structure, str, Arguments], Structure]:
    """Primitive that makes the data of a loop one transfer.

    ``end`` is the place in its chain of the kernel that meets the memory, 0 or -1.
    """

    def apply(made: Structure, subject: str, arguments: Arguments) -> Structure:
        kernel = made.kernel(subject)
        tensor = kernel.tensor
        if not arguments:
            raise ValueError("name the loops whose data are one transfer")
        if end is not None:
            if made.is_output(tensor) != (name == "vstore"):
                other = "vload" if name == "vstore" else "vstore"
                raise ValueError(
                    f"{tensor} is on the other side of the array: {other} it"
                )
            if made.chains[tensor][end] != subject:
                raise ValueError(
                    f"{subject} does not meet the memory; {made.chains[tensor][end]} does"
                )
        for loop in _names(made, "loop", arguments):
            made.loop(loop)
            if loop in (*kernel.removed, *kernel.vector):
                raise ValueError(f"{loop} is removed, or in the vector, already")
            if not made.indexes(tensor, loop):
                own = [x.name for x in made.loops if made.indexes(tensor, x.name)]
                raise ValueError(
                    f"{loop} does not index {tensor}; allowed: {', '.join(own)}"
                )
            if end is not None and loop not in (fit := _contiguous(made, tensor)):
                raise ValueError(
                    f"{tensor} is not contiguous along {loop}: neighbours must be "
                    f"neighbours of its last axis; allowed: {', '.join(fit) or 'none'}"
                )
        return made.with_kernel(subject, vector=(*kernel.vector, *arguments))

    return apply


def _contiguous(made: Structure, tensor: str) -> list[str]:
    """Loops that step through neighbouring elements of a tensor."""
    access = made.nest().access(tensor)
    columns = zip(made.loops, zip(*access.rows, strict=True), strict=True)
    return [x.name for x, (*rest, last) in columns if last == 1 and not any(rest)]


#: By name, in the order in which a listing uses them.
PRIMITIVES = {
    "merge_ures": Primitive(_merge_ures, "merge_ures(tensor, ...)"),
    "tile": Primitive(_tile, "tile(loop, ..., name, ..., size, ...)"),
    "reorder": Primitive(_reorder, "reorder(loop, ...)"),
    "unroll": Primitive(_unroll, "unroll(loop, ...)"),
    "isolate_producer_chain": Primitive(
        _isolate("producer"), "isolate_producer_chain(tensor, kernel, ...)"
    ),
    "isolate_consumer_chain": Primitive(
        _isolate("consumer"), "isolate_consumer_chain(tensor, kernel, ...)"
    ),
    "remove": Primitive(_remove, "KERNEL.remove(loop, ...)", "kernel"),
    "buffer": Primitive(_buffer, "KERNEL.buffer(loop, Single|Double)", "kernel"),
    "forward": Primitive(_forward, "KERNEL.forward({dx,dy})", "tensor"),
    "scatter": Primitive(
        _ports("scatter", "producer"), "KERNEL.scatter(loop, Up|Down)", "kernel"
    ),
    "gather": Primitive(
        _ports("gather", "consumer"), "KERNEL.gather(loop, Up|Down)", "tensor"
    ),
    "vload": Primitive(_vector("vload", 0), "KERNEL.vload(loop, ...)", "kernel"),
    "vstore": Primitive(_vector("vstore", -1), "KERNEL.vstore(loop, ...)", "kernel"),
    "vectorize": Primitive(
        _vector("vectorize", None), "KERNEL.vectorize(loop, ...)", "kernel"
    ),
}
