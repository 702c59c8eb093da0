"""What a schedule has made of a recurrence so far: its loops, array and kernels."""

import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from elision.accelerators.spatial.buffers import Buffer
from elision.accelerators.spatial.nest import Access, LoopNest, Tensor
from elision.accelerators.spatial.schedule.recurrence import Recurrence
from elision.common.names import lookup

__all__ = ["Kernel", "Structure", "TiledLoop"]


class TiledLoop(NamedTuple):
    """A loop of a tiled nest: ``origin = Σ weight · loop`` over the loops of one origin.

    Attributes:
        name: of the loop.
        origin: loop of the recurrence that it is a part of.
        weight: iterations of the origin that one step advances.
        extent: iterations; None: as many as the recurrence's size needs.

    Example:
        >>> TiledLoop("ii", "i", 1, 8).extent
        8
    """

    name: str
    origin: str
    weight: int = 1
    extent: int | None = None


@dataclass(frozen=True)
class Kernel:
    """A kernel of the I/O network, which loads, feeds, drains or unloads a tensor.

    Attributes:
        name: of the kernel.
        tensor: that passes through it.
        removed: loops along which it does not send a datum anew.
        buffer: of the tile that it replays.
        scattered: loops of space along which data enter at one end, with the direction.
        gathered: the same of results.
        vector: loops whose data are one transfer.

    Example:
        >>> Kernel("A_loader", "A").removed
        ()
    """

    name: str
    tensor: Tensor
    removed: tuple[str, ...] = ()
    buffer: Buffer | None = None
    scattered: tuple[tuple[str, str], ...] = ()
    gathered: tuple[tuple[str, str], ...] = ()
    vector: tuple[str, ...] = ()


@dataclass(frozen=True)
class Structure:
    """Loops, array and kernels.

    Attributes:
        recurrence: that is scheduled.
        loops: from the outermost in.
        unrolled: loops in space, in the order of the array's axes x, y, ...
        chains: by tensor, its kernels; of an input from the memory to the array, of the
            output from the array to the memory.
        kernels: by name.
        hops: by tensor, the neighbours that it is handed to, as steps of the array.

    Example:
        >>> from elision.accelerators.spatial.nest import LoopNest
        >>> made = Structure.of(Recurrence.of(LoopNest.matmul(6, 8, 4)))
        >>> [loop.name for loop in made.loops]
        ['i', 'j', 'k']
    """

    recurrence: Recurrence
    loops: tuple[TiledLoop, ...]
    unrolled: tuple[str, ...] = ()
    chains: dict[Tensor, tuple[str, ...]] = field(default_factory=dict)
    kernels: dict[str, Kernel] = field(default_factory=dict)
    hops: dict[Tensor, tuple[tuple[int, ...], ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, recurrence: Recurrence) -> "Structure":
        """The recurrence as it stands."""
        return cls(
            recurrence, tuple(TiledLoop(name, name) for name in recurrence.loops)
        )

    def loop(self, name: str) -> TiledLoop:
        """A loop by name.

        Raises:
            ValueError: an unknown loop; lists the valid ones.
        """
        return lookup("loop", name, {loop.name: loop for loop in self.loops})

    def kernel(self, name: str) -> Kernel:
        """A kernel by name.

        Raises:
            ValueError: an unknown kernel; lists the valid ones.
        """
        if not self.kernels:
            raise ValueError(
                f"unknown kernel {name!r}: none is isolated; write "
                "isolate_producer_chain or isolate_consumer_chain first"
            )
        return lookup("kernel", name, self.kernels)

    def with_kernel(self, name: str, **changes: object) -> "Structure":
        """The structure with one of its kernels changed."""
        changed = replace(self.kernels[name], **changes)  # type: ignore[arg-type]
        return replace(self, kernels={**self.kernels, name: changed})

    def extent(self, name: str) -> int:
        """Iterations of a loop at the recurrence's sizes; a ragged tile counts whole.

        Raises:
            ValueError: an unknown loop; lists the valid ones.
        """
        loop = self.loop(name)
        if loop.extent is not None:
            return loop.extent
        return -(-self.recurrence.extent(loop.origin) // loop.weight)

    def extents(self, names: "tuple[str, ...] | list[str]") -> int:
        """Product of the extents of some loops."""
        return math.prod(map(self.extent, names))

    def constant(self, name: str) -> int | None:
        """Iterations of a loop, if no size decides them."""
        loop = self.loop(name)
        bound = self.recurrence.loops[loop.origin]
        if loop.extent is None and not bound.sizes:
            return -(-bound.value({}) // loop.weight)
        return loop.extent

    @property
    def time(self) -> tuple[str, ...]:
        """Loops in time, from the outermost in."""
        return tuple(x.name for x in self.loops if x.name not in self.unrolled)

    def inside(self, loop: str) -> tuple[str, ...]:
        """Loops in time that are inside a loop, and all loops in space."""
        return (*self.time[self.time.index(loop) + 1 :], *self.unrolled)

    def indexes(self, tensor: Tensor, loop: str) -> bool:
        """Whether a loop changes the element of a tensor."""
        origin = self.loop(loop).origin
        return any(origin in i.loops for i in self.recurrence.accesses[tensor])

    def reused_along(self, tensor: Tensor) -> tuple[str, ...]:
        """Loops that do not index a tensor."""
        return tuple(x.name for x in self.loops if not self.indexes(tensor, x.name))

    def is_output(self, tensor: Tensor) -> bool:
        """Whether a tensor is written."""
        return tensor == self.recurrence.output

    def nest(self) -> LoopNest:
        """The tiled nest; what a ragged tile has beyond an edge is padding."""
        base = self.recurrence.nest()
        place = {loop: at for at, loop in enumerate(base.loops)}
        accesses = {
            tensor: Access(
                tuple(
                    tuple(row[place[x.origin]] * x.weight for x in self.loops)
                    for row in access.rows
                ),
                access.offset,
                access.shape,
            )
            for tensor, access in base.accesses.items()
        }
        extents = {x.name: self.extent(x.name) for x in self.loops}
        return LoopNest(extents, accesses, base.output)
