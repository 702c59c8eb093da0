"""What stands around a running model: a function mode of torch, entered and left.

The outermost module's class becomes a subclass of its own whose forward runs inside the
modes that the model has been given; it bears the old name, copies and pickles, and
:func:`elision.restore` changes it back. Parameters and keys do not change. A mode is left
on every way out, and entered again where a backward pass computes a part of the model
again (activation checkpointing).
"""

import copyreg
import functools
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from elision.layers.extras import attach_extra, extra
from elision.layers.recomputation import is_recomputation

__all__ = ["FUNCTIONS", "PRODUCTS", "Around", "plain_class", "stand_around"]

#: Extras of a model that stand around its forward pass: its replaced functions, and the
#: products of its own calls. A later one is asked first.
FUNCTIONS, PRODUCTS = "functions between the layers", "products between the layers"


class _Here(threading.local):
    """What this thread is in: the forward pass, or a recomputation begun by a module."""

    depth = 0
    again: tuple[nn.Module, TorchFunctionMode] | None = None


class Around(ABC):
    """A mode around the passes of one model."""

    def __init__(self) -> None:
        self._here = _Here()

    @abstractmethod
    def mode(self, *, again: bool = False) -> TorchFunctionMode:
        """The mode of one pass; ``again``: of a recomputation."""

    def begin(self) -> None:  # noqa: B027 - nothing to do is a valid answer
        """A forward pass begins, the outermost one of the model."""

    @abstractmethod
    def end(self, *, ended_well: bool) -> None:
        """It ends."""

    def at_work(self) -> AbstractContextManager[Any]:
        """Context manager of a forward pass."""
        if torch.compiler.is_compiling():  # a graph counts nothing and tells nothing
            return self.mode()
        return nullcontext() if self._here.depth else _Pass(self, self._here)

    def begin_again(self, module: nn.Module, args: Any) -> None:
        """Forward pre-hook: enter the mode if the backward pass calls the module."""
        del args
        if torch.compiler.is_compiling() or self._here.depth or not is_recomputation():
            return
        if self._here.again is None:
            mode = self.mode(again=True)
            self._here.again = module, mode
            mode.__enter__()

    def end_again(self, module: nn.Module, args: Any, output: Any) -> None:
        """Forward hook: leave it."""
        if torch.compiler.is_compiling():
            return
        again = self._here.again
        if again is not None and again[0] is module:
            self._here.again = None
            again[1].__exit__(None, None, None)


class _Pass:
    """Context manager of a forward pass, the outermost one of its model."""

    def __init__(self, around: Around, here: _Here) -> None:
        self._around, self._here = around, here

    def __enter__(self) -> None:
        self._here.depth += 1
        self._around.begin()
        self._mode = self._around.mode()
        self._mode.__enter__()

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        self._mode.__exit__(kind, error, traceback)
        self._here.depth -= 1
        self._around.end(ended_well=error is None)


def stand_around(
    model: nn.Module, key: str, around: Around, hooks: Iterable[Any] = ()
) -> None:
    """Let a mode stand around a model's forward passes, from the next one on.

    Args:
        model: any module.
        key: :data:`FUNCTIONS` or :data:`PRODUCTS`; what stood there before goes.
        around: whose mode it is.
        hooks: handles that go when it goes.
    """
    handles: list[Any] = [_ClassHandle(model, key, around), *hooks]
    for module in model.modules():  # any of them may begin a recomputation
        if not isinstance(module, torch.jit.ScriptModule):
            handles += [
                module.register_forward_pre_hook(around.begin_again),
                module.register_forward_hook(around.end_again, always_call=True),
            ]
    attach_extra(model, key, around, handles)
    if not issubclass(type(model), _Within):
        model.__class__ = _within(type(model))


def plain_class(model: nn.Module) -> None:
    """Give a model the class that it had before something stood around it."""
    if isinstance(model, _Within):
        model.__class__ = _old_class(type(model))  # pyright: ignore[reportAttributeAccessIssue]


class _ClassHandle:
    """Handle that gives the model its class back, unless something else stands there."""

    def __init__(self, model: nn.Module, key: str, around: Around) -> None:
        self._model, self._key, self._around = model, key, around

    def remove(self) -> None:
        there = {key: extra(self._model, key) for key in (FUNCTIONS, PRODUCTS)}
        if there[self._key] is self._around:
            there[self._key] = None
        if not any(there.values()):
            plain_class(self._model)


class _Within(nn.Module):
    """Marks the class of a model that something stands around."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        """As the old class reduces, but that the class is made anew where it is read."""
        made, arguments, *rest = super().__reduce_ex__(protocol)
        if made is copyreg.__newobj__ and arguments == (type(self),):  # pyright: ignore[reportAttributeAccessIssue]
            return _blank, (_old_class(type(self)),), *rest
        return made, arguments, *rest


@functools.cache
def _within(kind: type[nn.Module]) -> type[nn.Module]:
    """The class whose forward runs inside the modes."""

    @functools.wraps(kind.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        functions, products = extra(self, FUNCTIONS), extra(self, PRODUCTS)
        if products is not None and torch.compiler.is_compiling():
            return _uncompiled(self, args, kwargs)
        with _entered(functions), _entered(products):
            return super(made, self).forward(*args, **kwargs)

    body = {
        "forward": forward,
        "__doc__": kind.__doc__,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
    }
    made: Any = type(kind.__name__, (_Within, kind), body)
    return made


@torch._disable_dynamo  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
def _uncompiled(model: Any, args: Any, kwargs: Any) -> Any:
    """The forward pass, run by Python: products are told apart by the calls made."""
    return model.forward(*args, **kwargs)


def _entered(around: Around | None) -> AbstractContextManager[Any]:
    return nullcontext() if around is None else around.at_work()


def _old_class(kind: type[nn.Module]) -> type[nn.Module]:
    """The class that a model had before."""
    return kind.__bases__[1]


def _blank(kind: type[nn.Module]) -> nn.Module:
    """An object without state, of a pickle, that something stands around."""
    made = _within(kind)
    return made.__new__(made)
