"""Origin of a tensor: parameters alone, or the batch as well.

A weight need not be a parameter. The sum of a LoRA adapter, a standardised or
normalised weight, the result of a hypernetwork are computed in every step, and are as
sensitive as a parameter is: an error in them is an error of the layer's Jacobian, not of
one example. A tensor is a weight if its graph leads to parameters alone.

The graph does not record operands that need no gradient, which may be constants (a mask,
the vectors of a power iteration) or the batch. Where a function has such an operand, what
it saved may decide; where it does not, the origin stays unclear, and in a product the
operand of the clearer origin is the weight.
"""

import enum
from collections.abc import Callable, Container, Iterable
from typing import Any

import torch
from torch import nn

from elision.memory.saved.roles import SMOOTH_ROLES, Role
from elision.memory.saved.token import Token

__all__ = ["Origin", "Origins"]


class Origin(enum.IntEnum):
    """Origin of a tensor, from that of a weight to that of an activation.

    Example:
        >>> Origin.PARAMETERS < Origin.UNCLEAR < Origin.BATCH
        True
    """

    PARAMETERS = 0
    UNCLEAR = 1
    BATCH = 2


#: Products of two operands: slot -> index of its producer among ``next_functions``.
_PRODUCTS: dict[str, dict[str, int]] = {
    "ConvolutionBackward0": {"input": 0, "weight": 1},
    "AddmmBackward0": {"mat1": 1, "mat2": 2},
    "MmBackward0": {"self": 0, "mat2": 1},
    "GroupedMmBackward0": {"self": 0, "mat2": 1},
    "BmmBackward0": {"self": 0, "mat2": 1},
    "BaddbmmBackward0": {"batch1": 1, "batch2": 2},
    "MulBackward0": {"self": 0, "other": 1},
}

#: Slots in which an activation is a layer's input; elsewhere it is one of two factors.
_INPUTS = frozenset({"input", "mat1", "self"})

#: Arguments that may be left out, by their index among ``next_functions``.
_OPTIONAL: dict[str, tuple[int, ...]] = {
    "ConvolutionBackward0": (2,),
    "NativeBatchNormBackward0": (1, 2),
    "NativeGroupNormBackward0": (1, 2),
    "NativeLayerNormBackward0": (1, 2),
}

#: Functions whose operand without a gradient may well be a constant, unless it is
#: larger than the other: masks and scales of weights, vectors of a power iteration.
_WITH_CONSTANTS = frozenset(
    f"{name}Backward0"
    for name in ("Mul", "Div", "Where", "MaskedFill", "Lerp", "Mv", "Dot", "Vdot")
)

#: Functions that look up rows of a table by the integers that they save.
_LOOKUPS = frozenset(
    f"{name}Backward0" for name in ("Embedding", "Index", "IndexSelect", "Gather")
)


class Origins:
    """The origins of tensors, each found once.

    Args:
        owned: addresses of the storages that belong to the model.
        slots: node -> its slots and what the saver's hooks left there.
    """

    def __init__(
        self,
        owned: Container[int],
        slots: Callable[[Any], Iterable[tuple[str, Any]]],
    ) -> None:
        self._owned, self._slots = owned, slots
        # Nodes are named by their number; the node itself would keep the graph alive.
        self._known: dict[tuple[int, str], Origin] = {}

    def role(self, node: Any, slot: str, role: Role, tensor: torch.Tensor) -> Role:
        """Role of a tensor, given that by its slot alone.

        Args:
            node: its consumer.
            slot: the slot there.
            role: by :func:`~elision.memory.saved.roles.role_of`.
            tensor: the saved tensor.
        """
        operands = _PRODUCTS.get(type(node).__name__)
        if type(node).__name__ == "PowBackward0" and slot == "self":
            role = _role_in_power(node._saved_exponent)
        if operands is None or slot not in operands:
            touched = role in SMOOTH_ROLES
            weight = touched and self.of(node) is Origin.PARAMETERS
            return Role.WEIGHT if weight else role
        functions = node.next_functions
        producer, *others = (
            functions[operands[name]][0] for name in sorted(operands, key=slot.__ne__)
        )
        if producer is None and role is Role.FACTOR:
            return role  # a mask or a constant: it has no gradient
        mine = Origin.UNCLEAR if producer is None else self.of(producer)
        other = Origin.UNCLEAR if others[0] is None else self.of(others[0])
        if mine is Origin.PARAMETERS or mine < other:
            return Role.WEIGHT
        if role is Role.FACTOR:
            if producer is others[0]:
                return Role.SQUARE
            # A statistic, or a gate of many elements at once, is small and exact.
            whole = tensor.shape == _shape(node)
            return Role.MULTIPLICAND if whole else role
        if role is Role.WEIGHT and other < mine and slot not in _INPUTS:
            return Role.MULTIPLICAND  # W·x: the activation is the second operand
        both = mine is Origin.BATCH and other is Origin.BATCH
        return Role.MULTIPLICAND if role is Role.WEIGHT and both else role

    def of(self, node: Any) -> Origin:
        """Origin of the result of ``node``."""
        stack = [node]
        while stack:
            top = stack[-1]
            if _name(top) in self._known or _is_leaf(top):
                stack.pop()
                continue
            before = [f for f, _ in top.next_functions if f is not None]
            unknown = [f for f in before if self._find(f) is None]
            found = any(self._find(f) is Origin.BATCH for f in before)
            if unknown and not found:
                stack.append(unknown[0])
                continue
            self._known[_name(top)] = Origin.BATCH if found else self._judge(top)
            stack.pop()
        origin = self._find(node)
        assert origin is not None
        return origin

    def _find(self, node: Any) -> Origin | None:
        """The origin, if it is known."""
        if not _is_leaf(node):
            return self._known.get(_name(node))
        leaf = node.variable
        ours = isinstance(leaf, nn.Parameter) or self._is_owned(leaf)
        return Origin.PARAMETERS if ours else Origin.BATCH

    def _judge(self, node: Any) -> Origin:
        """Origin by those of the arguments, none of which comes from the batch."""
        kind = type(node).__name__
        functions = [f for f, _ in node.next_functions]
        before = [f for f in functions if f is not None]
        origins = [self._find(f) or Origin.PARAMETERS for f in before]
        worst = max(origins, default=Origin.UNCLEAR)
        saved = [token for _, token in self._slots(node) if token is not None]
        foreign = any(map(self._is_foreign, saved))
        if kind in _LOOKUPS:
            return Origin.BATCH if foreign else worst
        missing = {i for i, f in enumerate(functions) if f is None}
        if not missing - set(_OPTIONAL.get(kind, ())):
            return worst
        if kind in _WITH_CONSTANTS or not foreign:
            if _grows(node, before):
                return Origin.BATCH
            return worst if saved and not foreign else Origin.UNCLEAR
        return Origin.BATCH

    def _is_foreign(self, token: Any) -> bool:
        """True for a tensor of several elements that is not the model's."""
        tensor = token.tensor if isinstance(token, Token) else token
        if not isinstance(tensor, torch.Tensor):
            return True  # what was packed is no parameter
        return tensor.numel() > 1 and not self._is_owned(tensor)

    def _is_owned(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._owned


def _role_in_power(exponent: Any) -> Role:
    """Role of the argument of a power: smooth, if that has no pole."""
    if exponent == 2:
        return Role.SQUARE
    smooth = isinstance(exponent, (int, float)) and exponent > 2 and exponent % 1 == 0
    return Role.ACTIVATION if smooth else Role.OTHER


def _name(node: Any) -> tuple[int, str]:
    return node._sequence_nr(), type(node).__name__


def _is_leaf(node: Any) -> bool:
    return type(node).__name__ == "AccumulateGrad"


def _grows(node: Any, before: list[Any]) -> bool:
    """True if the result has more elements than what it was computed from."""
    largest = max((_numel(f) for f in before), default=0)
    return _numel(node) > largest


def _numel(node: Any) -> int:
    return _shape(node).numel()


def _shape(node: Any) -> torch.Size:
    """Shape of a node's first result."""
    return torch.Size(node._input_metadata[0].shape)
