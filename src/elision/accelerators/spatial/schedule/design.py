"""The design that a schedule describes: map of the array, I/O network, cycles.

*The map.* Unrolled loops are the rows of S. Loops in time are digits of the cycle, the
innermost of weight 1 (mixed radix), so that no element does two iterations in one cycle.
``forward`` adds the skew: a hop along a loop takes a cycle. A tensor that is read comes
from its feeder anew in every iteration, so only its reuse in space is the array's; the
output's reuse is all the array's, since its sums must meet.

*The network.* A chain of kernels runs the loops of the nest less those removed; what a
channel carries is the product of their extents. A buffer inserted at a loop l holds the tile
below; the producer writes it in WRITES cycles, the array reads it in READS, and of a
double buffer both happen at once, so a period takes the longer of the two and only the
first has nothing to read (Intel's documentation of T2SP, buffer.md).
"""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

from elision.accelerators.spatial import derived
from elision.accelerators.spatial.integers import dot
from elision.accelerators.spatial.legality import Verdict, legal
from elision.accelerators.spatial.map import SpaceTimeMap
from elision.accelerators.spatial.nest import LoopNest, Tensor
from elision.accelerators.spatial.schedule.structure import Kernel, Structure
from elision.common.checks import integer, number

__all__ = ["Channel", "Design", "Tile"]


class Channel(NamedTuple):
    """A channel of the I/O network.

    Attributes:
        tensor: that it carries.
        source, target: kernels, ``"memory"`` or ``"array"``.
        words: in all.
        vector: words of a transfer.
        ports: transfers that can be under way side by side.
        depth: transfers that a FIFO must hold so that no sender waits for the skew.

    Example:
        >>> Channel("A", "memory", "A_loader", 96, 4, 1, 1).transfers
        24
    """

    tensor: Tensor
    source: str
    target: str
    words: int
    vector: int
    ports: int
    depth: int

    @property
    def transfers(self) -> int:
        """Transfers in all."""
        return -(-self.words // self.vector)


class Tile(NamedTuple):
    """A buffered tile and how often it changes.

    Attributes:
        kernel, tensor, loop, copies: of the buffer.
        words: of one copy.
        writes: cycles in which a copy is filled.
        reads: cycles in which the array reads it.

    Example:
        >>> Tile("A_feeder", "A", "k", 2, 96, 40, 64).cycles
        64
    """

    kernel: str
    tensor: Tensor
    loop: str
    copies: int
    words: int
    writes: int
    reads: int

    @property
    def cycles(self) -> int:
        """Cycles from one tile to the next."""
        if self.copies == 1:
            return self.reads + self.writes
        return max(self.reads, self.writes)

    @property
    def hidden(self) -> bool:
        """Whether the array never waits for the memory, after the first tile."""
        return self.cycles == self.reads


@dataclass(frozen=True)
class Design:
    """An array and its I/O network.

    Attributes:
        structure: of a schedule.
        array: rows and columns at hand; None: as many as the unrolled loops need.
        latency: cycles of the adder.

    Raises:
        ValueError: no loop is unrolled; the array is smaller than the unrolled loops; a
            kernel removes a loop that nothing after it replays; or the map is illegal
            (with the rule).

    Example:
        >>> from elision.accelerators.spatial.schedule import read
        >>> made = read("gemm.t2s").with_sizes({"M": 64, "N": 64, "K": 64}).design()
        >>> made.letters, made.elements
        ('SST', 96)
    """

    structure: Structure
    array: tuple[int, int] | None = None
    latency: int = 1

    def __post_init__(self) -> None:
        made = self.structure
        integer("Design", "latency", self.latency)
        if not made.unrolled:
            raise ValueError("no loop is unrolled: write unroll(x, y) for the array")
        self._check_array()
        for kernel in made.kernels.values():
            self._check_removed(kernel)
        self.verdict.check()

    def _check_array(self) -> None:
        if self.array is None:
            return
        made = self.structure
        for size in self.array:
            integer("Design", "array", size)
        rows, columns = self.array
        sizes = [made.extent(loop) for loop in made.unrolled[:2]]
        needed = (*sizes, 1)[:2]
        if needed[0] > columns or needed[1] > rows:
            raise ValueError(
                f"unroll({', '.join(made.unrolled)}) needs {needed[1]} rows and "
                f"{needed[0]} columns, the array has {rows} x {columns}: tile the loops "
                "smaller or take a larger array"
            )

    def _check_removed(self, kernel: Kernel) -> None:
        made = self.structure
        chain = made.chains[kernel.tensor]
        before, after = (
            chain[: chain.index(kernel.name)],
            chain[chain.index(kernel.name) :],
        )
        for loop in kernel.removed:
            for name in before:
                if loop not in made.kernels[name].removed:
                    raise ValueError(
                        f"remove({kernel.name},{loop}): {name} still sends "
                        f"{kernel.tensor} for each {loop}; remove it from {name}, too"
                    )
            if loop in made.unrolled:
                continue  # the elements along it are handed the datum, or share a bus
            if not any(
                (buffer := made.kernels[name].buffer) is not None
                and loop in made.inside(buffer.loop or "")
                for name in after
            ):
                raise ValueError(
                    f"remove({kernel.name},{loop}): {loop} runs in time, and no kernel "
                    f"from {kernel.name} on has a buffer at a loop outside {loop} to "
                    f"replay {kernel.tensor}"
                )

    @cached_property
    def nest(self) -> LoopNest:
        """The tiled nest."""
        return self.structure.nest()

    @cached_property
    def map(self) -> SpaceTimeMap:
        """Where and when each iteration is done."""
        made, nest = self.structure, self.nest
        time, weight = dict.fromkeys(nest.loops, 0), 1
        for loop in reversed(made.time):
            time[loop] = weight
            weight *= nest.loops[loop]
        chains = {tensor: self._bus(tensor) for tensor in made.recurrence.inputs}
        hops = [(tensor, hop) for tensor, each in made.hops.items() for hop in each]
        # Hops along one loop first: they fix the skew that the diagonal ones need.
        for tensor, hop in sorted(hops, key=lambda each: sum(map(abs, each[1]))):
            step = self._step(hop)
            if tensor != nest.output:
                own = [
                    d
                    for d in chains[tensor]
                    if not any(a and b for a, b in zip(d, step, strict=True))
                ]
                chains[tensor] = (*own, step)
            if dot(tuple(time.values()), step) < 1:
                loop = next(
                    x for x, entry in zip(made.unrolled, hop, strict=True) if entry
                )
                sign = step[nest.loop(loop)]
                time[loop] += sign * (1 - dot(tuple(time.values()), step))
        return SpaceTimeMap(made.unrolled, time, chains)

    def _step(self, hop: tuple[int, ...]) -> tuple[int, ...]:
        step = [0] * len(self.nest.loops)
        for loop, entry in zip(self.structure.unrolled, hop, strict=True):
            step[self.nest.loop(loop)] = entry
        return tuple(step)

    def _bus(self, tensor: Tensor) -> tuple[tuple[int, ...], ...]:
        """Reuse of an input in space: where it is not forwarded, elements share it."""
        space = {self.nest.loop(x) for x in self.structure.unrolled}
        return tuple(
            d
            for d in self.nest.applicable(tensor)
            if all(loop in space for loop, entry in enumerate(d) if entry)
        )

    @cached_property
    def verdict(self) -> Verdict:
        """Whether the map is legal, by the rules of the array.

        Links reach the four neighbours, and the eight where a tensor moves diagonally.
        """
        far = max(
            sum(map(abs, reuse.hop))
            for tensor in self.nest.tensors
            for reuse in derived.links(self.nest, self.map, tensor)
        )
        return legal(
            self.nest, self.map, "diagonal" if far > 1 else "mesh", self.latency
        )

    @property
    def letters(self) -> str:
        """Letter of each input and then of the output, T, S or M."""
        found = ""
        for tensor in self.nest.tensors:
            kinds = {each.kind for each in derived.links(self.nest, self.map, tensor)}
            moved = "S" if "systolic" in kinds else "M" if kinds & _SHARED else "T"
            found += moved
        return found

    @property
    def elements(self) -> int:
        """Processing elements, lanes of an adder tree included."""
        return derived.elements(self.nest, self.map)

    @property
    def makespan(self) -> int:
        """Cycles of the array from its first iteration to its last, without waiting."""
        return derived.makespan(self.nest, self.map)

    @property
    def steps(self) -> int:
        """Iterations of each element."""
        return self.structure.extents(self.structure.time)

    @property
    def skew(self) -> int:
        """Cycles by which the last element starts after the first."""
        return self.makespan - self.steps

    @property
    def accumulators(self) -> int:
        """Sums that an element keeps."""
        return derived.storage(self.nest, self.map, self.nest.output)

    @property
    def multiplies(self) -> int:
        """Multiply-accumulates of the recurrence; ragged tiles take more iterations."""
        recurrence = self.structure.recurrence
        return math.prod(map(recurrence.extent, recurrence.loops))

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        """The buffered tiles."""
        return tuple(
            self._tile(kernel)
            for kernel in self.structure.kernels.values()
            if kernel.buffer is not None
        )

    def _tile(self, kernel: Kernel) -> Tile:
        made = self.structure
        assert kernel.buffer is not None
        loop, copies = kernel.buffer.loop, kernel.buffer.copies
        assert loop is not None
        inside = made.inside(loop)
        own = [x for x in inside if made.indexes(kernel.tensor, x)]
        chain = made.chains[kernel.tensor]
        place = chain.index(kernel.name)
        sender = made.kernels[chain[place - 1]] if place else kernel
        entered = dict(kernel.scattered)
        serial = [
            x
            for x in inside
            if x not in sender.removed
            and x not in sender.vector
            and (x not in made.unrolled or x in entered)
        ]
        reads = made.extents([x for x in inside if x in made.time])
        return Tile(
            kernel.name,
            kernel.tensor,
            loop,
            copies,
            made.extents(own),
            made.extents(serial),
            reads,
        )

    @cached_property
    def channels(self) -> tuple[Channel, ...]:
        """The channels of the I/O network, from the memory to the array and back."""
        found = []
        for tensor in self.nest.tensors:
            chain = self.structure.chains.get(tensor, ())
            if tensor == self.nest.output:
                names = ["array", *chain, "memory"]
            else:
                names = ["memory", *chain, "array"]
            for source, target in pairwise(names):
                found.append(self._channel(tensor, source, target))
        return tuple(found)

    def _channel(self, tensor: Tensor, source: str, target: str) -> Channel:
        made = self.structure
        written = tensor == self.nest.output
        # The kernel whose loops the channel runs through: the one that sends.
        own = made.kernels.get(target if source == "memory" else source)
        loops = [x.name for x in made.loops]
        if written:
            loops = [x for x in loops if made.indexes(tensor, x)]
        else:
            removed = own.removed if own is not None else ()
            loops = [x for x in loops if x not in removed]
            if target == "array":
                # Elements in space are handed a datum that they share.
                loops = [
                    x
                    for x in loops
                    if x not in made.unrolled or made.indexes(tensor, x)
                ]
        vector = [x for x in (own.vector if own is not None else ()) if x in loops]
        ports = [x for x in loops if x in made.unrolled and x not in vector]
        ports = [x for x in ports if x not in self._entered_at_an_end(tensor, source)]
        wait = 0
        if "array" in (source, target):
            time = self.map.time_row(self.nest)
            # A row of feeders hands its data on with the array's own skew.
            entered = dict(own.scattered) if own is not None else {}
            wait = sum(
                abs(time[self.nest.loop(x)]) * (made.extent(x) - 1)
                for x in ports
                if x not in entered
            )
        return Channel(
            tensor,
            source,
            target,
            made.extents(loops),
            made.extents(vector),
            made.extents(ports),
            1 + wait,
        )

    def _entered_at_an_end(self, tensor: Tensor, source: str) -> set[str]:
        """Loops in space whose data follow one another on the channels from a kernel.

        A scatter makes one stream of all before it, a gather of those after it.
        """
        kernels = [
            self.structure.kernels[x] for x in self.structure.chains.get(tensor, ())
        ]
        names = [kernel.name for kernel in kernels]
        place = names.index(source) if source in names else -1
        if tensor == self.nest.output:
            # Into the kernel after ``source``, what it or one before gathers.
            passed = kernels[: place + 2]
            return {loop for kernel in passed for loop, _ in kernel.gathered}
        return {loop for kernel in kernels[place + 1 :] for loop, _ in kernel.scattered}

    @property
    def fill(self) -> int:
        """Cycles before the first iteration, in which the first tiles are written."""
        return max((tile.writes for tile in self.tiles), default=0)

    @property
    def drain(self) -> int:
        """Cycles after the last iteration, in which the last tile's results leave."""
        made = self.structure
        chain = made.chains.get(self.nest.output, ())
        if not chain:
            return 0
        last = self._channel(self.nest.output, "array", chain[0])
        results = self.accumulators * made.extents(
            [x for x in made.unrolled if made.indexes(self.nest.output, x)]
        )
        return -(-results // (last.ports * last.vector))

    @property
    def tile_cycles(self) -> int:
        """Cycles from one tile of results to the next."""
        made, output = self.structure, self.nest.output
        reduced = [x for x in made.time if not made.indexes(output, x)]
        if not reduced:
            return 1
        outermost = min(map(made.time.index, reduced))
        return made.extents(made.time[outermost:])

    @property
    def waits_for_drain(self) -> int:
        """Cycles in which the array waits until the results of the tile before are out."""
        results = self.steps // self.tile_cycles
        return (results - 1) * max(0, self.drain - self.tile_cycles)

    @property
    def cycles(self) -> int:
        """Cycles from the first word read to the last one written.

        First tiles, then the array at the pace of its slowest buffer, its skew, what it
        waits for results to leave, and those of the last tile.
        """
        return self.fill + self.working + self.skew + self.waits_for_drain + self.drain

    @property
    def working(self) -> int:
        """Cycles of each element's iterations, waiting for its tiles included."""
        pace = [tile.cycles / tile.reads for tile in self.tiles]
        return math.ceil(self.steps * max([1.0, *pace]))

    @property
    def utilisation(self) -> float:
        """Share of elements x cycles in which a product of the recurrence is made."""
        return self.multiplies / (self.elements * self.cycles)

    def words_per_cycle(self) -> float:
        """Words that the memory gives a cycle, while the array works."""
        words = sum(c.words for c in self.channels if c.source == "memory")
        return words / self.steps

    def gflops(self, clock_mhz: float) -> float:
        """Billions of operations a second at a clock, two a multiply-accumulate.

        Raises:
            ValueError: a clock that is not above 0.
        """
        number("Design", "clock_mhz", clock_mhz, "> 0")
        return 2e-3 * self.multiplies * clock_mhz / self.cycles

    def seconds(self, clock_mhz: float) -> float:
        """Seconds at a clock.

        Raises:
            ValueError: a clock that is not above 0.
        """
        number("Design", "clock_mhz", clock_mhz, "> 0")
        return self.cycles / (1e6 * clock_mhz)

    def map_rows(self) -> list[dict[str, Any]]:
        """A row for each loop: what it is in space and time."""
        made, row = self.structure, self.map.time_row(self.nest)
        return [
            {
                "loop": x.name,
                "of": x.origin,
                "extent": made.extent(x.name),
                "space": _axis(made.unrolled.index(x.name))
                if x.name in made.unrolled
                else "",
                "time": weight,
            }
            for x, weight in zip(made.loops, row, strict=True)
        ]

    def tensor_rows(self) -> list[dict[str, Any]]:
        """A row for each way of a tensor in the array."""
        rows = []
        for tensor in self.nest.tensors:
            for link in derived.links(self.nest, self.map, tensor):
                rows.append(
                    {
                        "tensor": tensor,
                        "way": link.kind,
                        "along": _step_text(self.nest, link.vector),
                        "hop": ",".join(map(str, link.hop)),
                        "cycles": link.delay,
                    }
                )
        return rows

    def channel_rows(self) -> list[dict[str, Any]]:
        """A row for each channel of the I/O network."""
        return [
            {
                "tensor": each.tensor,
                "from": each.source,
                "to": each.target,
                "words": each.words,
                "words a transfer": each.vector,
                "ports": each.ports,
                "FIFO depth": each.depth,
            }
            for each in self.channels
        ]

    def tile_rows(self) -> list[dict[str, Any]]:
        """A row for each buffer."""
        return [
            {
                "buffer": tile.kernel,
                "at": tile.loop,
                "words": tile.words,
                "copies": tile.copies,
                "WRITES": tile.writes,
                "READS": tile.reads,
                "period": tile.cycles,
                "memory": "hidden" if tile.hidden else "array waits",
            }
            for tile in self.tiles
        ]


_SHARED = {"multicast", "tree"}


def _axis(place: int) -> str:
    return "xyz"[place] if place < 3 else f"axis {place + 1}"


def _step_text(nest: LoopNest, vector: tuple[int, ...]) -> str:
    words = []
    for loop, entry in zip(nest.loops, vector, strict=True):
        if entry:
            sign = "-" if entry < 0 else "+" if words else ""
            times = "" if abs(entry) == 1 else f"{abs(entry)}·"
            words.append(f"{sign}{times}{loop}")
    return " ".join(words)
