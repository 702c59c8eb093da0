"""The loop nest: all three products of a layer as one nest of multiply-accumulates.

A nest is a box of loops and one statement in its middle::

    out[F_O z + f_O] += a[F_A z + f_A] · b[F_B z + f_B]        z in the box

The accesses F z + f of a layer's three tensors are the same in its three products; only
the tensor that is written differs. A *reuse vector* of a tensor is a step d of the nest
with F d = 0: z and z + d meet the same element.

Loops of a convolution (stride t, dilation δ, padding π, per axis)::

    n, k, c, p, q, r, s    X[n, c, tp + δr − π, tq + δs − π]   W[k, c, r, s]   G[n, k, p, q]

and of a matrix product ``i, j, k``: ``X[i, k]``, ``W[j, k]``, ``G[i, j]``. Groups, and the
products of a batch, are a loop ``g`` that indexes all three tensors.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from elision.accelerators.base import planar
from elision.accelerators.spatial.integers import Matrix, Vector, dot, kernel
from elision.common.checks import integer
from elision.common.names import lookup
from elision.products import (
    OPERANDS,
    Conv2dGeometry,
    Geometry,
    LayerProduct,
    MatmulGeometry,
    Product,
)

__all__ = ["Access", "LoopNest", "Tensor"]

#: A term of an index: ``p``, ``2*p``, ``- r`` or a number.
_TERM = re.compile(
    r"\s*([+-]?)\s*(?:(\d+)\s*\*\s*)?([A-Za-z_]\w*)\s*|\s*([+-]?)\s*(\d+)\s*"
)


class Access(NamedTuple):
    """Affine access of a tensor: element ``rows · z + offset`` of a shape.

    Attributes:
        rows: a row of one coefficient a loop for each axis of the tensor.
        offset: one number an axis.
        shape: elements along each axis; an index outside is padding, which is not read
            and not written. None where no index leaves the tensor.

    Example:
        >>> Access.parse(("i", "2*k - 1"), {"i": 4, "k": 3})
        Access(rows=((1, 0), (0, 2)), offset=(0, -1), shape=None)
    """

    rows: Matrix
    offset: Vector
    shape: Vector | None = None

    @classmethod
    def parse(
        cls,
        indices: Iterable[str],
        loops: Mapping[str, int],
        shape: Vector | None = None,
    ) -> "Access":
        """An access from its indices as text, sums of ``number*loop`` and numbers.

        Raises:
            ValueError: an index that is no such sum, or a loop that the nest has not.
        """
        rows, offset = zip(*(_affine(index, loops) for index in indices), strict=True)
        return cls(rows, offset, shape)

    def at(self, z: Vector) -> Vector:
        """The element that iteration z meets."""
        return tuple(
            dot(row, z) + more for row, more in zip(self.rows, self.offset, strict=True)
        )

    def holds(self, element: Vector) -> bool:
        """Whether an element is inside the tensor, not in its padding."""
        if self.shape is None:
            return True
        return all(0 <= i < n for i, n in zip(element, self.shape, strict=True))


#: A tensor of a nest by name.
Tensor = str


def _affine(text: str, loops: Mapping[str, int]) -> tuple[Vector, int]:
    row, offset, place = dict.fromkeys(loops, 0), 0, 0
    while place < len(text):
        found = _TERM.match(text, place)
        if found is None or (place and not (found[1] or found[4])):
            raise ValueError(
                f"index {text!r}: write a sum such as '2*p + r - 1' of loops "
                f"({', '.join(loops)}) and numbers"
            )
        sign, times, loop, number_sign, number = found.groups()
        if loop is None:
            offset += int(f"{number_sign}{number}")
        else:
            lookup(f"loop in the index {text!r}", loop, loops)
            row[loop] += int(f"{sign}{times or 1}")
        place = found.end()
    return tuple(row.values()), offset


@dataclass(frozen=True)
class LoopNest:
    """A box of loops around one multiply-accumulate of three tensors.

    Attributes:
        loops: extents by name, from the outermost loop to the innermost.
        accesses: by tensor: an :class:`Access`, or its indices as text.
        output: the tensor that is written; the others are read.

    Raises:
        ValueError: no loop, an extent below 1, an index that is no affine text, an
            unknown loop or output (lists the valid ones), or an access of another number
            of loops.

    Example:
        >>> nest = LoopNest.matmul(64, 32, 16)
        >>> nest.reuse_vectors("C"), nest.iterations
        (((0, 0, 1),), 32768)
        >>> from elision.products import Conv2dGeometry
        >>> layer = Conv2dGeometry(1, 3, 9, 9, 8, kernel=3, stride=2)
        >>> nest = LoopNest.of(Product.INPUT_GRAD, layer)
        >>> list(nest.loops), nest.output
        (['n', 'k', 'c', 'p', 'q', 'r', 's'], 'input')
        >>> nest.reuse_vectors("input")
        ((0, 1, 0, 0, 0, 0, 0), (0, 0, 0, 1, 0, -2, 0), (0, 0, 0, 0, 1, 0, -2))
    """

    loops: Mapping[str, int]
    accesses: Mapping[Tensor, Access]
    output: Tensor

    if TYPE_CHECKING:  # what may be given; what is kept are accesses

        def __init__(
            self,
            loops: Mapping[str, int],
            accesses: Mapping[Tensor, Access | Sequence[str]],
            output: Tensor,
        ) -> None: ...

    def __post_init__(self) -> None:
        loops = {
            name: integer("LoopNest", f"loops[{name!r}]", extent)
            for name, extent in self.loops.items()
        }
        if not loops:
            raise ValueError("LoopNest(loops={}): needs at least one loop")
        accesses = {
            tensor: access
            if isinstance(access, Access)
            else Access.parse(access, loops)
            for tensor, access in self.accesses.items()
        }
        for tensor, access in accesses.items():
            if any(len(row) != len(loops) for row in access.rows):
                raise ValueError(
                    f"LoopNest: the access of {tensor!r} has rows {access.rows}, which "
                    f"must have a coefficient for each loop: {', '.join(loops)}"
                )
        lookup("output of the nest", self.output, accesses)
        object.__setattr__(self, "loops", loops)
        object.__setattr__(self, "accesses", accesses)

    def __hash__(self) -> int:
        return hash(
            (tuple(self.loops.items()), tuple(self.accesses.items()), self.output)
        )

    @classmethod
    def of(
        cls, kind: Product | LayerProduct, geometry: Geometry | None = None
    ) -> "LoopNest":
        """The nest of one product of a layer; its tensors are named as its operands.

        They are in the order of :attr:`~elision.products.Product.operands`, the one that
        is written last.

        Args:
            kind: a product with a geometry, or a layer product alone.
            geometry: shape of a matrix product, or of a layer that is a 2-D convolution
                (transposed convolutions are: their products change places).

        Raises:
            ValueError: a 3-D convolution, or a product without its geometry.
        """
        if isinstance(kind, LayerProduct):
            kind, geometry = kind.kind, kind.geometry
        if geometry is None:
            raise ValueError(f"LoopNest.of({kind}): give the layer's geometry, too")
        return _nest(cls, kind, geometry)

    @classmethod
    def matmul(cls, rows: int, columns: int, inner: int) -> "LoopNest":
        """``C[i, j] += A[i, k] · B[k, j]`` with extents of i, j and k."""
        loops = {"i": rows, "j": columns, "k": inner}
        indices = {"A": ("i", "k"), "B": ("k", "j"), "C": ("i", "j")}
        shapes = {"A": (rows, inner), "B": (inner, columns), "C": (rows, columns)}
        accesses = {t: Access.parse(indices[t], loops, shapes[t]) for t in indices}
        return cls(loops, accesses, "C")

    @cached_property
    def extents(self) -> Vector:
        """Extents in the order of the loops."""
        return tuple(self.loops.values())

    @property
    def iterations(self) -> int:
        """Points of the box: multiply-accumulates, those on padding included."""
        return math.prod(self.extents)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """Tensors that are read."""
        return tuple(tensor for tensor in self.accesses if tensor != self.output)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that are read, then the one that is written."""
        return (*self.inputs, self.output)

    def access(self, tensor: Tensor) -> Access:
        """Access of a tensor; ``"output"`` is the one that is written.

        Raises:
            ValueError: an unknown tensor; lists the valid ones.
        """
        return self.accesses[self.tensor(tensor)]

    def tensor(self, name: Tensor) -> Tensor:
        """A tensor's own name; ``"output"`` is another name of the one that is written.

        Raises:
            ValueError: an unknown tensor; lists the valid ones.
        """
        lookup("tensor", name, {**self.accesses, "output": None})
        return name if name in self.accesses else self.output

    def loop(self, name: str) -> int:
        """Position of a loop.

        Raises:
            ValueError: an unknown loop; lists the valid ones.
        """
        lookup("loop", name, self.loops)
        return list(self.loops).index(name)

    def unit(self, loop: str) -> Vector:
        """The step of one iteration of a loop.

        Raises:
            ValueError: an unknown loop; lists the valid ones.
        """
        place = self.loop(loop)
        return tuple(int(place == other) for other in range(len(self.loops)))

    def reuse_vectors(self, tensor: Tensor) -> tuple[Vector, ...]:
        """Basis of the steps between iterations that meet the same element of a tensor.

        Raises:
            ValueError: an unknown tensor; lists the valid ones.
        """
        return kernel(self.access(tensor).rows, len(self.loops))

    def applicable(self, tensor: Tensor) -> tuple[Vector, ...]:
        """Those of the reuse vectors that lead from some iteration to another one."""
        return tuple(
            d
            for d in self.reuse_vectors(tensor)
            if all(abs(step) < n for step, n in zip(d, self.extents, strict=True))
        )

    def indexes(self, tensor: Tensor, loop: str) -> bool:
        """Whether a loop changes the element of a tensor that an iteration meets.

        Raises:
            ValueError: an unknown tensor or loop; lists the valid ones.
        """
        place = self.loop(loop)
        return any(row[place] for row in self.access(tensor).rows)

    def reused_along(self, tensor: Tensor) -> tuple[str, ...]:
        """Loops that do not index a tensor.

        Raises:
            ValueError: an unknown tensor; lists the valid ones.
        """
        return tuple(loop for loop in self.loops if not self.indexes(tensor, loop))

    def tensor_shape(self, tensor: Tensor) -> Vector:
        """Elements along each axis of a tensor: those given, or those that are met.

        Raises:
            ValueError: an unknown tensor; lists the valid ones.
        """
        access = self.access(tensor)
        if access.shape is not None:
            return access.shape
        return tuple(
            1
            + more
            + sum(max(a, 0) * (n - 1) for a, n in zip(row, self.extents, strict=True))
            for row, more in zip(access.rows, access.offset, strict=True)
        )

    def with_output(self, tensor: Tensor) -> "LoopNest":
        """The same nest with another tensor written: another product of the layer.

        Raises:
            ValueError: an unknown tensor; lists the valid ones.
        """
        return LoopNest(self.loops, self.accesses, self.tensor(tensor))

    def resized(self, extents: Mapping[str, int]) -> "LoopNest":
        """The nest with other extents of some loops: a tile of it at the origin.

        Raises:
            ValueError: an unknown loop (lists the valid ones), or an extent below 1.
        """
        for name in extents:
            self.loop(name)
        return LoopNest({**self.loops, **extents}, self.accesses, self.output)

    def tile(self, origin: Mapping[str, int], extents: Mapping[str, int]) -> "LoopNest":
        """The nest of a tile: extents of some loops, which begin at an origin.

        The tile's accesses are of the whole tensors.

        Raises:
            ValueError: an unknown loop (lists the valid ones), or an extent below 1.

        Example:
            >>> nest = LoopNest.matmul(8, 8, 8).tile({"i": 4}, {"i": 2})
            >>> nest.loops["i"], nest.access("A").at((1, 0, 0))
            (2, (5, 0))
        """
        for name in origin:
            self.loop(name)
        start = tuple(origin.get(loop, 0) for loop in self.loops)
        accesses = {
            tensor: Access(access.rows, access.at(start), self.tensor_shape(tensor))
            for tensor, access in self.accesses.items()
        }
        return LoopNest({**self.loops, **extents}, accesses, self.output)


@lru_cache(maxsize=1024)
def _nest(cls: type[LoopNest], kind: Product, geometry: Geometry) -> LoopNest:
    if isinstance(geometry, MatmulGeometry):
        loops, accesses = _of_matmul(geometry)
        ordered = {name: accesses[name] for name in (*kind.operands, kind.absent)}
        return cls(loops, ordered, kind.absent)
    _, conv = planar(kind, geometry)
    loops, accesses = _of_convolution(conv)
    # A transposed convolution's tensors go by the names that the layer has for them.
    accesses = {
        name: accesses[geometry.convolution_operand(name)]
        for name in (*kind.operands, kind.absent)
    }
    return cls(loops, accesses, kind.absent)


def _of_matmul(geometry: MatmulGeometry) -> tuple[dict[str, int], dict[str, Any]]:
    loops = {"i": geometry.rows, "j": geometry.columns, "k": geometry.inner}
    indices = {"input": "ik", "weight": "jk", "grad_output": "ij"}
    if geometry.batch > 1:
        loops = {"g": geometry.batch, **loops}
        indices = {name: "g" + each for name, each in indices.items()}
    return loops, {
        name: Access.parse(each, loops, geometry.shape_of(name))
        for name, each in indices.items()
    }


def _of_convolution(conv: Conv2dGeometry) -> tuple[dict[str, int], dict[str, Any]]:
    g = conv.groups
    loops = {
        "n": conv.batch,
        "k": conv.out_channels // g,
        "c": conv.in_channels // g,
        "p": conv.out_height,
        "q": conv.out_width,
        "r": conv.kernel[0],
        "s": conv.kernel[1],
    }
    pixels = [
        f"{t}*{o} + {d}*{tap} - {p}"
        for t, d, p, o, tap in zip(
            conv.stride, conv.dilation, conv.padding, "pq", "rs", strict=True
        )
    ]
    indices = {
        "input": ["n", "c", *pixels],
        "weight": ["k", "c", "r", "s"],
        "grad_output": ["n", "k", "p", "q"],
    }
    shapes = {
        "input": [conv.batch, conv.in_channels // g, conv.height, conv.width],
        "weight": [conv.out_channels // g, conv.in_channels // g, *conv.kernel],
        "grad_output": [conv.batch, conv.out_channels // g, *conv.out_sizes],
    }
    if g > 1:
        loops = {"g": g, **loops}
        # Groups are the slower part of each channel axis; of a weight's first axis.
        for name, place in (("input", 1), ("weight", 0), ("grad_output", 1)):
            indices[name].insert(place, "g")
            shapes[name].insert(place, g)
    return loops, {
        name: Access.parse(indices[name], loops, tuple(shapes[name]))
        for name in OPERANDS
    }
