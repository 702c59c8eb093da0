"""Nested plain values with tensors in them, as files hold them: tensors apart, rest JSON."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["pack", "unpack"]

#: Key of an object that stands for a tensor.
_TENSOR = "tensor"


def pack(tree: Any, prefix: str = "") -> tuple[dict[str, Tensor], Any]:
    """The tensors of a tree by their place in it, and the tree with their names instead.

    Args:
        tree: dictionaries with text as keys, lists and tuples, which become lists, of
            tensors and plain values.
        prefix: of the names.

    Example:
        >>> import torch
        >>> tensors, rest = pack({"steps": 3, "seen": [torch.ones(2)]})
        >>> list(tensors), rest
        (['seen/0'], {'steps': 3, 'seen': [{'tensor': 'seen/0'}]})
    """
    tensors: dict[str, Tensor] = {}

    def packed(value: Any, place: str) -> Any:
        if isinstance(value, Tensor):
            tensors[place] = value
            return {_TENSOR: place}
        if isinstance(value, Mapping):
            return {k: packed(v, f"{place}/{k}") for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [packed(v, f"{place}/{i}") for i, v in enumerate(value)]
        return value

    if isinstance(tree, Mapping):
        return tensors, {k: packed(v, f"{prefix}{k}") for k, v in tree.items()}
    return tensors, packed(tree, prefix)


def unpack(tensors: Mapping[str, Tensor], rest: Any) -> Any:
    """The tree of :func:`pack`, with lists where tuples were.

    Raises:
        KeyError: a tensor is missing.

    Example:
        >>> import torch
        >>> unpack(*pack({"steps": 3, "seen": [torch.ones(2)]}))
        {'steps': 3, 'seen': [tensor([1., 1.])]}
    """
    if isinstance(rest, dict):
        if set(rest) == {_TENSOR} and isinstance(rest[_TENSOR], str):
            return tensors[rest[_TENSOR]]
        return {k: unpack(tensors, v) for k, v in rest.items()}
    if isinstance(rest, list):
        return [unpack(tensors, v) for v in rest]
    return rest
