"""The recurrence that a schedule is for: one multiply-accumulate with open sizes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from elision.accelerators.spatial.nest import Access, LoopNest, Tensor
from elision.accelerators.spatial.schedule.affine import Affine, Term
from elision.common.checks import integer
from elision.common.names import lookup

__all__ = ["Recurrence"]


@dataclass(frozen=True)
class Recurrence:
    """A nest with names for its sizes: ``out[F z + f] += a[...] · b[...]``.

    Attributes:
        sizes: values by name; they can be changed, the structure does not depend on them.
        loops: by name, from the outermost in, the number of iterations.
        accesses: by tensor, an index for each axis.
        output: the tensor that is written.
        shapes: by tensor, elements along each axis; an index outside is padding.

    Raises:
        ValueError: an output or a size that is unknown (lists the valid ones), or a size
            below 1 that is an extent.

    Example:
        >>> product = Recurrence.of(LoopNest.matmul(6, 8, 4))
        >>> print(product)
        C[i, j] += A[i, k] * B[k, j]
        >>> product.with_sizes({"K": 7}).nest().extents
        (6, 8, 7)
    """

    sizes: Mapping[str, int]
    loops: Mapping[str, Affine]
    accesses: Mapping[Tensor, tuple[Affine, ...]]
    output: Tensor
    shapes: Mapping[Tensor, tuple[Affine, ...]]

    def __post_init__(self) -> None:
        lookup("output of the recurrence", self.output, self.accesses)
        for loop, bound in self.loops.items():
            integer(
                "Recurrence", f"extent of {loop} = {bound}", bound.value(self.sizes)
            )

    @classmethod
    def of(cls, nest: LoopNest) -> "Recurrence":
        """The recurrence of a nest; the size of loop ``i`` is called ``I``.

        Raises:
            ValueError: loops whose names differ in case alone.
        """
        sizes = {loop.upper(): extent for loop, extent in nest.loops.items()}
        if len(sizes) < len(nest.loops) or set(sizes) & {*nest.accesses, *nest.loops}:
            # The tensors of a matrix product are called as its sizes are not.
            sizes = {f"N_{loop}": extent for loop, extent in nest.loops.items()}
        names = dict(zip(nest.loops, sizes, strict=True))
        bounds = {loop: Affine((Term(1, names[loop]),)) for loop in nest.loops}
        accesses, shapes = {}, {}
        for tensor, access in nest.accesses.items():
            accesses[tensor] = tuple(
                Affine(
                    tuple(
                        Term(entry, "", loop)
                        for loop, entry in zip(nest.loops, row, strict=True)
                        if entry
                    )
                    + ((Term(more),) if more else ())
                )
                for row, more in zip(access.rows, access.offset, strict=True)
            )
            shapes[tensor] = tuple(
                bounds[loop] if (loop := index.one_loop()) else Affine((Term(length),))
                for index, length in zip(
                    accesses[tensor], nest.tensor_shape(tensor), strict=True
                )
            )
        return cls(sizes, bounds, accesses, nest.output, shapes)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """Tensors that are read."""
        return tuple(tensor for tensor in self.accesses if tensor != self.output)

    @property
    def coefficients(self) -> tuple[str, ...]:
        """Sizes that multiply loops, such as a stride."""
        indices = (index for access in self.accesses.values() for index in access)
        return tuple(dict.fromkeys(s for index in indices for s in index.coefficients))

    def with_sizes(self, sizes: Mapping[str, int]) -> "Recurrence":
        """The recurrence with other values of some sizes.

        Raises:
            ValueError: an unknown size; lists the valid ones.
        """
        for name, value in sizes.items():
            lookup("size", name, self.sizes)
            integer("Recurrence", name, value, ">= 0")
        return replace(self, sizes={**self.sizes, **sizes})

    def extent(self, loop: str) -> int:
        """Iterations of a loop.

        Raises:
            ValueError: an unknown loop; lists the valid ones.
        """
        return lookup("loop", loop, self.loops).value(self.sizes)

    def shape(self, tensor: Tensor) -> tuple[int, ...]:
        """Elements along each axis of a tensor.

        Raises:
            ValueError: an unknown tensor; lists the valid ones.
        """
        axes = lookup("tensor", tensor, self.shapes)
        return tuple(axis.value(self.sizes) for axis in axes)

    def nest(self) -> LoopNest:
        """The loop nest, without tiles."""
        extents = {loop: self.extent(loop) for loop in self.loops}
        accesses = {}
        for tensor, indices in self.accesses.items():
            rows = [index.row(self.loops, self.sizes) for index in indices]
            accesses[tensor] = Access(
                tuple(row for row, _ in rows),
                tuple(more for _, more in rows),
                self.shape(tensor),
            )
        return LoopNest(extents, accesses, self.output)

    def separate(self, tensor: Tensor) -> dict[str, int]:
        """Loops that are an index of a tensor alone, with the axis."""
        return {
            loop: axis
            for axis, index in enumerate(self.accesses[tensor])
            if (loop := index.one_loop())
        }

    def element(self, tensor: Tensor) -> str:
        """A tensor with its indices, as text."""
        return f"{tensor}[{', '.join(map(str, self.accesses[tensor]))}]"

    def __str__(self) -> str:
        factors = " * ".join(map(self.element, self.inputs))
        return f"{self.element(self.output)} += {factors}"
