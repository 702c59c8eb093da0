"""A device that is not the CPU, for machines without one.

Its tensors keep their values in a tensor of the CPU that only torch's operators reach:
``numpy()`` raises, and ``data_ptr()`` is an address that no process can read. An operator
that is given a tensor of the CPU beside one of the device raises, as on a GPU. What it
cannot show is whatever depends on streams, on an allocator or on a GPU's kernels.

To be imported in a process of its own: torch then has an accelerator.
"""

from typing import Any

import torch
from torch.utils import _pytree
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

__all__ = ["NAME", "There", "here", "kind_of"]

NAME = "elsewhere"

_setup_privateuseone_for_python_backend(NAME)

#: Values by the storage that stands for them.
_values: dict[int, torch.Tensor] = {}

_aten = torch.ops.aten


class There(torch.Tensor):
    """A tensor of the device."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "There":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )
        made.held = held
        _values[made.untyped_storage()._cdata] = held
        return made

    def data_ptr(self) -> int:
        return self.held.data_ptr() | 1 << 62  # for comparisons; not canonical

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, dict(kwargs or {}))


def here(x: Any) -> Any:
    """The values of a tensor of the device; anything else as it is."""
    return x.held if isinstance(x, There) else x


def kind_of(x: Any) -> type:
    """``type``, by which a tensor of the device is a tensor like any other."""
    if not isinstance(x, There):
        return type(x)
    return torch.nn.Parameter if getattr(x, "_is_param", False) else torch.Tensor


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    if func is _aten._local_scalar_dense.default:
        return func(args[0].held)
    if func is _aten.copy_.default:
        func(here(args[0]), here(args[1]))
        return args[0]
    if func in (_aten.set_.source_Storage, _aten.set_.source_Storage_storage_offset):
        whole = _values[args[1]._cdata].untyped_storage()
        args[0].held = torch.empty(0, dtype=args[0].dtype).set_(whole)
        return args[0]
    leaves = _pytree.tree_leaves((args, kwargs))
    to_device = any(isinstance(x, There) for x in leaves)
    moves = func is _aten._to_copy.default
    if not moves and any(
        isinstance(x, torch.Tensor) and not isinstance(x, There) and x.dim()
        for x in leaves
    ):
        raise RuntimeError(f"{func}: tensors of the cpu and of {NAME}")
    given = kwargs.pop("device", None)
    if given is not None:
        to_device = torch.device(given).type == NAME
        kwargs["device"] = torch.device("cpu")
    values, named = _pytree.tree_map(here, (args, kwargs))
    found = func(*values, **named)
    if not to_device:
        return found
    made = _pytree.tree_map(
        lambda x: There(x) if isinstance(x, torch.Tensor) else x, found
    )
    return made if moves else return_and_correct_aliasing(func, args, kwargs, made)


def _empty(
    size: Any, *, dtype: Any = None, memory_format: Any = None, **_: Any
) -> There:
    memory_format = memory_format or torch.contiguous_format
    return There(torch.empty(size, dtype=dtype, memory_format=memory_format))


def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> There:
    return There(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: Any, target: Any, non_blocking: bool = False) -> Any:
    here(target).copy_(here(source))
    return target


_library = torch.library.Library("aten", "IMPL")
for _name, _function in (
    ("empty.memory_format", _empty),
    ("empty_strided", _empty_strided),
    ("_copy_from", _copy_from),
):
    _library.impl(_name, _function, "PrivateUse1")
