"""A network as integer operations, which any target can be written from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from elision.export.operations import Convolution, Linear, Operation, as_codes

__all__ = ["QuantisedGraph", "Value"]

#: Examples that are run at once, so that patches of images fit into memory (own choice).
_AT_ONCE = 32


@dataclass(frozen=True)
class Value:
    """What one operation writes and others read: int8 codes ``q`` of ``s·(q − z)``.

    Attributes:
        name: of the operation that writes it, or ``input``.
        shape: of one example: ``(C, H, W)`` or ``(features,)``.
        scale: step ``s`` between codes, a float32.
        zero: zero point ``z``, in [-128, 127].

    Example:
        >>> Value("input", (1, 8, 8), 0.5, -128).bytes
        64
    """

    name: str
    shape: tuple[int, ...]
    scale: float
    zero: int

    @property
    def bytes(self) -> int:
        """Size of one example."""
        return torch.Size(self.shape).numel()


@dataclass(frozen=True, eq=False)
class QuantisedGraph:
    """A network of int8 codes and int32 sums, and its reference interpreter.

    Attributes:
        name: of the network.
        operations: in an order in which they can run; each writes the value of its name.
        values: by name, ``input`` among them.
        input: name of the value that is read from outside.
        output: name of the value that is the result.
        bits: of the weights, which lie in int8.

    Example:
        >>> from elision.export import quantised
        >>> graph = quantised(torch.nn.Linear(4, 2), torch.randn(8, 4))
        >>> [operation.kind for operation in graph.operations], graph.output
        (['linear'], 'linear')
        >>> graph.run(torch.zeros(3, 4, dtype=torch.int8)).shape
        torch.Size([3, 2])
    """

    name: str
    operations: tuple[Operation, ...]
    values: Mapping[str, Value]
    input: str
    output: str
    bits: int = 8

    @torch.no_grad()
    def run(self, codes: Tensor) -> Tensor:
        """Output codes of input codes, by integer operations alone.

        Args:
            codes: int8, ``(N, *shape)`` of the input.

        Returns:
            int8, ``(N, *shape)`` of the output.

        Raises:
            ValueError: codes of another type or shape.
        """
        wanted = self.values[self.input].shape
        if codes.dtype != torch.int8 or codes.shape[1:] != wanted:
            raise ValueError(
                f"{self.name}: codes must be int8 of shape (N, "
                f"{', '.join(map(str, wanted))}), got {codes.dtype} of {tuple(codes.shape)}"
            )
        parts = [self.run_values(part)[self.output] for part in codes.split(_AT_ONCE)]
        return torch.cat(parts)

    @torch.no_grad()
    def run_values(self, codes: Tensor) -> dict[str, Tensor]:
        """Codes of every value, by name, for a few examples."""
        found = {self.input: codes}
        for operation in self.operations:
            found[operation.name] = operation.run(*(found[n] for n in operation.inputs))
        return found

    def encode(self, inputs: Tensor) -> Tensor:
        """int8 codes of real inputs, ``(N, *shape)``."""
        value = self.values[self.input]
        return as_codes(inputs, value.scale, value.zero)

    def decode(self, codes: Tensor) -> Tensor:
        """Real outputs of output codes, float32."""
        value = self.values[self.output]
        return ((codes.double() - value.zero) * value.scale).float()

    def __call__(self, inputs: Tensor) -> Tensor:
        """Real outputs of real inputs, float32: encoded, run, decoded."""
        return self.decode(self.run(self.encode(inputs)))

    @property
    def weight_bytes(self) -> int:
        """Bytes of all arrays that a program stores: weights, biases, factors, tables."""
        return sum(
            array.numel() * array.element_size()
            for operation in self.operations
            for array in operation.constants().values()
        )

    def rows(self) -> list[dict[str, Any]]:
        """A row for each operation: what it is, its shape, scale, weights and zeros."""
        rows = []
        for operation in self.operations:
            value = self.values[operation.name]
            row: dict[str, Any] = {
                "operation": operation.name,
                "kind": operation.kind,
                "shape": "x".join(map(str, value.shape)),
                "scale": float(f"{value.scale:.4g}"),
                "zero point": value.zero,
                "bytes": sum(
                    a.numel() * a.element_size() for a in operation.constants().values()
                ),
            }
            if isinstance(operation, (Convolution, Linear)):
                weight = operation.weight
                zeros = 1 - int(weight.count_nonzero()) / weight.numel()
                row |= {"weights": weight.numel(), "zeros %": round(100 * zeros, 1)}
            rows.append(row)
        return rows
