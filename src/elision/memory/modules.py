"""The running module of a model, its arguments and its result."""

from collections.abc import Callable, Iterator, Mapping
from threading import get_ident
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

__all__ = ["ModulePaths", "owned_by", "tensors_in"]


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


def owned_by(modules: Mapping[str, nn.Module]) -> Iterator[torch.Tensor]:
    """The parameters and buffers of modules, those of their submodules excepted."""
    for module in modules.values():
        for own in (module._parameters, module._buffers):
            yield from (tensor for tensor in own.values() if tensor is not None)


class ModulePaths:
    """The path of the innermost module of a model that is running.

    It follows all modules by one pair of hooks on every module there is: to hook each
    of the model's own, step by step, would take longer.

    Args:
        modules: path -> module, as in ``dict(model.named_modules())``.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._paths = {module: path for path, module in modules.items()}
        self._stack: list[str] = []
        self._handles: list[Any] = []

    @property
    def current(self) -> str:
        """Path of the innermost running module; empty outside and in the model."""
        return self._stack[-1] if self._stack else ""

    def attach(
        self, on_call: Callable[[Any, Any], None], on_return: Callable[[Any], None]
    ) -> None:
        """Follow the modules, in this thread, until :meth:`detach`.

        Args:
            on_call: called with the arguments of the model itself: positional ones and
                those with a keyword.
            on_return: called with the result of every module, the model's and others.
        """
        paths, stack, thread = self._paths, self._stack, get_ident()
        model = next(iter(paths))

        def call(module: nn.Module, args: Any, kwargs: Any) -> None:
            on_call(args, kwargs)

        def enter(module: nn.Module, args: Any) -> None:
            path = paths.get(module)
            if path is not None and get_ident() == thread:
                stack.append(path)

        def leave(module: nn.Module, args: Any, result: Any) -> None:
            if get_ident() != thread:
                return
            # The path is still this module's while its last functions are looked at.
            on_return(result)
            if module in paths:
                stack.pop()

        self._handles = [
            model.register_forward_pre_hook(call, with_kwargs=True),
            register_module_forward_pre_hook(enter),
            register_module_forward_hook(leave, always_call=True),
        ]

    def detach(self) -> None:
        """Take the hooks off again."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._stack.clear()
