"""The running module of a model, its arguments and its result."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from threading import get_ident
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

__all__ = ["ModulePaths", "outermost", "owned_by", "tensors_in"]


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


def outermost(
    paths: Collection[str], modules: Mapping[str, nn.Module]
) -> tuple[str, ...]:
    """The fewest paths that stand for the trainable modules among ``paths``.

    A module all of whose trainable parts are among them stands for these.

    Args:
        paths: of some of the modules.
        modules: path -> module, the model itself first.

    Example:
        >>> model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.ReLU())
        >>> outermost(["0.0", "0.1"], dict(model.named_modules()))
        ('',)
    """
    if not paths:
        return ()
    trainable = {
        path
        for path, module in modules.items()
        if any(p.requires_grad for p in module.parameters())
    }
    found = trainable.intersection(paths)
    inmost = sorted(trainable - found, key=lambda path: path.count(".") + bool(path))
    for path in reversed(inmost):
        module, start = modules[path], f"{path}." if path else ""
        parts = {f"{start}{name}" for name, _ in module.named_children()} & trainable
        own = any(p.requires_grad for p in module.parameters(recurse=False))
        if parts and parts <= found and not own:
            found.add(path)
    return tuple(p for p in modules if p in found and _parent(p) not in found)


def _parent(path: str) -> str | None:
    """Path of the module that a module is a part of; None for the model itself."""
    return path.rpartition(".")[0] if path else None


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

    @property
    def current(self) -> str:
        """Path of the innermost running module; empty outside and in the model."""
        return self._stack[-1] if self._stack else ""

    def attach(
        self,
        contexts: ExitStack,
        on_call: Callable[[Any, Any], None],
        on_return: Callable[[Any, str | None], None],
    ) -> None:
        """Follow the modules, in this thread, until ``contexts`` are left.

        Args:
            contexts: take each hook off again.
            on_call: called with the arguments of the model itself: positional ones and
                those with a keyword.
            on_return: called with the result of every module, the model's and others,
                and the module's path (None for others).
        """
        paths, stack, thread = self._paths, self._stack, get_ident()
        model = next(iter(paths))
        scripted = isinstance(model, torch.jit.ScriptModule)  # has no hooks of its own

        def call(module: nn.Module, args: Any, kwargs: Any) -> None:
            on_call(args, kwargs)

        def enter(module: nn.Module, args: Any) -> None:
            path = paths.get(module)
            if path is None or get_ident() != thread:
                return
            stack.append(path)
            if scripted and module is model:
                on_call(args, {})

        def leave(module: nn.Module, args: Any, result: Any) -> None:
            if get_ident() != thread:
                return
            path = paths.get(module)
            # The path is still this module's while its last functions are looked at.
            on_return(result, path)
            if path is not None:
                stack.pop()

        contexts.callback(stack.clear)
        undo = contexts.callback
        if not scripted:
            undo(model.register_forward_pre_hook(call, with_kwargs=True).remove)
        undo(register_module_forward_pre_hook(enter).remove)
        undo(register_module_forward_hook(leave, always_call=True).remove)
