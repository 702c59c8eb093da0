"""Tensors that are no numbers to average: masks, counters, labels.

A running average of a model (torch's ``AveragedModel``, the ``ModelEma`` of timm, weight
averaging of Lightning) is a deep copy of it, in which parameters, and often all buffers or
the whole state dict, become ``d·average + (1 − d)·model`` at every update. Of masks that
is the union of all of them so far, and of a label it is another label.
"""

import copy
from typing import Any

import torch
from torch import Tensor

__all__ = ["Exact", "GivenExact", "Own", "exact", "own", "plain"]

#: Functions of several values, and of a value and a factor, that averages consist of.
_SUMS = frozenset({"add", "sub", "lerp", "addcdiv"})
_MULTIPLES = frozenset({"mul", "div", "true_divide", "truediv"})

#: Functions whose result is the same tensor: an alias, or a copy elsewhere.
_SAME = frozenset({"detach", "to", "clone", "cpu", "cuda", "contiguous"})


class Exact(Tensor):
    """A tensor that a running average takes over from its model as it is.

    Arithmetic of exact tensors with one another and with factors returns one of them: the
    original, where the others are deep copies of it. All else, and arithmetic with any
    other tensor, is that of a plain tensor, as the results are. A file holds a plain one.

    Example:
        >>> import copy
        >>> model = exact(torch.tensor([True, False]))
        >>> average = copy.deepcopy(model)
        >>> model[:] = torch.tensor([False, True])
        >>> average.copy_(0.9 * average + 0.1 * model).tolist()
        [False, True]
        >>> type(average & model).__name__
        'Tensor'
    """

    #: Deep copies between this tensor and the one that was first.
    _copies: int

    def __deepcopy__(self, memo: dict[int, Any]) -> "Exact":
        memo[id(self)] = copied = exact(plain(self).clone(), self._copies + 1)
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        return plain(self).__reduce_ex__(protocol)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        name = func.__name__
        if name.startswith("_foreach_"):
            return _each(name.removeprefix("_foreach_"), args, kwargs)
        operation = name.strip("_").removeprefix("r").removeprefix("i")
        if _is_average(operation, args):
            found = min(filter(_is_exact, args), key=lambda x: x._copies)
            return args[0].copy_(found) if _writes(name) else found
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
        same = operation in _SAME or func == Tensor.data.__get__  # pyright: ignore[reportAttributeAccessIssue]
        if same and _is_exact(args[0]) and result.dtype == args[0].dtype:
            return exact(result, args[0]._copies)
        return result


class Own(Exact):
    """A tensor that a running average and its model each keep as their own.

    For state that means nothing in an average and may differ in shape. Averaging returns
    the first of several as it is, and :meth:`torch.Tensor.copy_` leaves it alone.

    Example:
        >>> average, model = own(torch.zeros(0)), own(torch.ones(1, 2))
        >>> average.copy_(0.9 * average + 0.1 * model).shape
        torch.Size([0])
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> "Own":
        memo[id(self)] = copied = own(plain(self).clone())
        return copied

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = func.__name__
        operation = name.strip("_").removeprefix("r").removeprefix("i")
        averages = operation == "copy" or _is_average(operation, args)
        if averages and isinstance(args[0], Own):
            return args[0]
        result = super().__torch_function__(func, types, args, kwargs)
        same = operation in _SAME or func == Tensor.data.__get__  # pyright: ignore[reportAttributeAccessIssue]
        return own(result) if same and isinstance(args[0], Own) else result


def own(value: Tensor) -> Own:
    """``value``, in the same memory, as a tensor that averages leave alone."""
    made = plain(value).as_subclass(Own)
    made._copies = 0
    return made


def exact(value: Tensor, copies: int = 0) -> Exact:
    """``value``, in the same memory, as a tensor that is not averaged."""
    made = plain(value).as_subclass(Exact)
    made._copies = copies
    return made


def plain(x: Tensor) -> Tensor:
    """``x``, in the same memory, as a tensor like any other."""
    if not isinstance(x, Exact):
        return x
    with torch._C.DisableTorchFunctionSubclass():
        return x.as_subclass(Tensor)


class GivenExact(dict[str, Tensor | None]):
    """The buffers of a module, some of which are exact for everybody but the module.

    Iterated over, as by ``module.buffers()`` and ``module.state_dict()``, it gives the
    integer and boolean ones of a prefix as :class:`Exact`; looked up by name, as by the
    module's own forward pass and by ``torch.compile``, all are plain.

    Args:
        buffers: by name.
        prefix: of the names of those that are not averaged.
        copies: deep copies between these buffers and the ones that were first.

    Example:
        >>> buffers = GivenExact({"mask": torch.ones(2, dtype=torch.bool)}, "mask")
        >>> type(buffers["mask"]).__name__, type(dict(buffers.items())["mask"]).__name__
        ('Tensor', 'Exact')
    """

    def __init__(
        self, buffers: dict[str, Tensor | None], prefix: str, copies: int = 0
    ) -> None:
        super().__init__(buffers)
        self._prefix, self._copies = prefix, copies
        self._given: dict[str, tuple[Tensor, Exact]] = {}

    def __setitem__(self, name: str, value: Tensor | None) -> None:
        super().__setitem__(name, value if value is None else plain(value))

    def items(self) -> Any:
        """Names and buffers, as an averager gets them."""
        return [(name, self._as_given(name, own)) for name, own in super().items()]

    def __deepcopy__(self, memo: dict[int, Any]) -> "GivenExact":
        copied = copy.deepcopy(dict(self), memo)
        return GivenExact(copied, self._prefix, self._copies + 1)

    def __reduce__(self) -> Any:
        return GivenExact, (dict(self), self._prefix, self._copies)

    def _as_given(self, name: str, own: Tensor | None) -> Tensor | None:
        """One buffer; the same object until the module replaces its own."""
        if not (name.startswith(self._prefix) and type(own) is Tensor):
            return own  # somebody else's, or a stand-in while torch traces
        if own.is_floating_point():
            return own
        known = self._given.get(name)
        if known is None or known[0] is not own:
            known = self._given[name] = own, exact(own, self._copies)
        return known[1]


def _is_exact(x: Any) -> bool:
    return isinstance(x, Exact)


def _is_average(operation: str, operands: tuple[Any, ...]) -> bool:
    """Whether a function takes part in averaging: a sum of exact tensors, a multiple."""
    if operation not in _SUMS | _MULTIPLES:
        return False
    exacts = sum(map(_is_exact, operands))
    others = [x for x in operands if isinstance(x, Tensor) and not _is_exact(x)]
    least = 2 if operation in _SUMS else 1
    return exacts >= least and all(x.dim() == 0 for x in others)


def _writes(name: str) -> bool:
    """Whether a function of this name writes its first operand: ``add_``, ``__iadd__``."""
    return name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))


def _each(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """A function of lists of tensors, one tensor of each after the other."""
    count = len(args[0])
    lists = [x if isinstance(x, (list, tuple)) else [x] * count for x in args]
    rows = zip(*lists, strict=True)
    return [getattr(torch.Tensor, name)(*row, **kwargs) for row in rows]
