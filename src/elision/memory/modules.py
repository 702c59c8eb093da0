"""Which module is running, and what goes into and comes out of it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["Buffers", "ModulePaths", "buffers_put_back", "tensors_in"]

_Listener = Callable[[list[torch.Tensor]], None]


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in nested tuples, lists and mappings."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)


class Buffers:
    """The buffers of a model as they are now: running statistics, a recipe's memory."""

    def __init__(self, model: nn.Module) -> None:
        self._before = [
            (module, name, buffer, buffer.clone())
            for module in model.modules()
            for name, buffer in module.named_buffers(recurse=False)
        ]

    def put_back(self) -> None:
        """Undo what happened to them since."""
        with torch.no_grad():
            for module, name, buffer, values in self._before:
                module._buffers[name] = buffer.copy_(values)


@contextmanager
def buffers_put_back(model: nn.Module) -> Iterator[None]:
    """Undo what the block does to the buffers of ``model``."""
    before = Buffers(model)
    try:
        yield
    finally:
        before.put_back()


class ModulePaths:
    """The path of the innermost module of ``model`` that is running.

    Args:
        model: the model whose modules are followed.
        on_call: told the tensors that the model itself is called with.
        on_return: told the tensors that any of its modules returned.
    """

    def __init__(
        self, model: nn.Module, on_call: _Listener, on_return: _Listener
    ) -> None:
        self._model, self._on_call, self._on_return = model, on_call, on_return
        self._stack: list[str] = []
        self._handles: list[Any] = []

    @property
    def current(self) -> str:
        """Path of the innermost running module; empty outside and in the model."""
        return self._stack[-1] if self._stack else ""

    def attach(self) -> None:
        """Follow the modules until :meth:`detach`."""
        for path, module in self._model.named_modules():
            self._handles += [
                module.register_forward_pre_hook(
                    self._entering(path), with_kwargs=True
                ),
                module.register_forward_hook(self._leave, always_call=True),
            ]

    def detach(self) -> None:
        """Take all hooks off again."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._stack.clear()

    def _entering(self, path: str) -> Callable[..., None]:
        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            self._stack.append(path)
            if module is self._model:
                self._on_call([*tensors_in(args), *tensors_in(kwargs)])

        return enter

    def _leave(self, module: nn.Module, args: Any, result: Any) -> None:
        # The path is still this module's while its last functions are looked at.
        self._on_return(list(tensors_in(result)))
        self._stack.pop()
