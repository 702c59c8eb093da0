"""Modes of torch, which stand around a program's calls, count them and may answer them."""

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch.overrides import _pop_mode_temporarily
from torch.utils._python_dispatch import _disable_current_modes

__all__ = ["unseen_by_modes"]

Own = TypeVar("Own")
Given = ParamSpec("Given")
Result = TypeVar("Result")


def unseen_by_modes(
    method: Callable[Concatenate[Own, Given], Result],
) -> Callable[Concatenate[Own, Given], Result]:
    """A method whose calls of torch no function mode and no dispatch mode sees.

    For work that is the library's own in the middle of the user's: a mode that answers or
    counts a model's products would take a codec's for the model's.

    Args:
        method: of any class.

    Example:
        >>> from torch.overrides import TorchFunctionMode
        >>> class Told(TorchFunctionMode):
        ...     def __torch_function__(self, func, types, args=(), kwargs=None):
        ...         print(func.__name__)
        ...         return func(*args, **kwargs or {})
        >>> class Codec:
        ...     @unseen_by_modes
        ...     def pack(self, x):
        ...         return x @ x
        >>> with Told():
        ...     x = torch.eye(2).mul(2)
        ...     x = Codec().pack(x)
        eye
        mul
    """

    @functools.wraps(method)
    def run(own: Own, /, *args: Given.args, **kwargs: Given.kwargs) -> Result:
        functions = torch._C._len_torch_function_stack()  # pyright: ignore[reportAttributeAccessIssue]
        with ExitStack() as aside:
            for _ in range(functions):
                aside.enter_context(_pop_mode_temporarily())
            if torch._C._len_torch_dispatch_stack():
                aside.enter_context(_disable_current_modes())
            return method(own, *args, **kwargs)

    return run
