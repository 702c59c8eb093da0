"""A tensor in the kernels' blocked layout that any PyTorch program may meet.

Elided convolutions return a :class:`BlockedTensor` and take one without changing the
layout; so do the functions in :mod:`~elision.engines.native.blocked.functions`. To the
user's program it is an ordinary ``(N, C, H, W)`` tensor: autograd, hooks, ``no_grad`` and
version counters work above this layer, and every other operation reads a plain copy of
it. Operations that alias or write turn its storage plain for good.
"""

import copy
import sys
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from elision.engines.native import library
from elision.engines.native.blocked.values import Stored, Value, blocked_copy

__all__ = ["BlockedTensor", "Storage", "as_plain", "offered", "register", "value_of"]


class Storage:
    """What aliases of one blocked tensor share: a blocked value, or a plain tensor.

    Args:
        value: the blocked content.
        dtype: of the tensor that the program sees; values are float32.
        plain: the plain content, where there is no value.
        parent: storage that this one is a range of channels of; None: its own.
        channels: that range.
    """

    def __init__(
        self,
        value: Value | None,
        dtype: torch.dtype,
        parent: "Storage | None" = None,
        channels: slice = slice(None),
        plain: Tensor | None = None,
    ) -> None:
        self._value, self.dtype = value, dtype
        self.parent, self.channels = parent, channels
        self._plain = plain
        self._is_shared = False  # whether something else may hold the plain tensor

    @property
    def value(self) -> Value:
        """The content, blocked."""
        if self.parent is not None:
            whole = self.parent.value
            return Stored(whole.blocked()[:, self.channels], whole.images)
        if self._value is None:
            assert self._plain is not None
            value = blocked_copy(self._plain)
            if self._is_shared:
                return value
            self._value, self._plain = value, None
        return self._value

    def write(self, value: Value) -> bool:
        """Replace the content; False where the storage is plain or part of another."""
        if self.parent is not None or self._is_shared:
            return False
        self._value, self._plain = value, None
        return True

    def evict(self) -> None:
        """Drop memory that can be computed again from what is kept anyway."""
        if self._value is not None:
            self._value.evict()

    def copy(self) -> Tensor:
        """The content as a new plain tensor."""
        if self.parent is None and self._plain is not None:
            return self._plain.clone()
        value = self.value
        return library.from_blocked(value.blocked(), value.images).to(self.dtype)

    def read(self) -> Tensor:
        """The content as a plain tensor that must not be written or returned."""
        stored = self.parent is None and self._plain is not None
        return self._plain if stored else self.copy()  # pyright: ignore[reportReturnType]

    def plain(self) -> Tensor:
        """The content as the plain tensor that is from now on the storage itself."""
        if self.parent is not None:
            return self.parent.plain()[:, self.channels]
        if self._plain is None:
            self._plain = self.copy()
            self._value = None
        self._is_shared = True
        return self._plain


_FUNCTIONS: dict[Any, Any] = {}


def register(*operators: Any) -> Any:
    """Decorator: compute ``aten`` operators on blocked tensors by this function.

    It is called as the operator is, with at least one :class:`BlockedTensor` among the
    arguments, and may return ``NotImplemented``: the operator then reads plain copies.
    """

    def decorate(function: Any) -> Any:
        for operator in operators:
            _FUNCTIONS[operator] = function
        return function

    return decorate


class BlockedTensor(Tensor):
    """An ``(N, C, H, W)`` tensor whose memory is blocked, or computed when first read."""

    storage_: Storage

    @staticmethod
    def __new__(cls, storage: Storage, shape: tuple[int, ...]) -> "BlockedTensor":
        """Wrap a storage; strides are those of a contiguous plain tensor."""
        if len(_DISPATCH) == 1 and "torch._dynamo" in sys.modules:
            _DISPATCH.append(torch.compiler.disable(_dispatch))
        made = Tensor._make_wrapper_subclass(cls, shape, dtype=storage.dtype)
        made.storage_ = storage
        return made

    @classmethod
    def of(cls, value: Value, dtype: torch.dtype = torch.float32) -> "BlockedTensor":
        """A new tensor of a value."""
        storage = Storage(value, dtype)
        return cls(storage, (value.images, *value.size))

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Compute an operator, blocked where it is known, else of plain copies."""
        return _DISPATCH[-1](func, args, kwargs or {})

    @property
    def data(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The tensor without its history, sharing its storage; or give it another."""
        return Tensor.data.__get__(self)  # pyright: ignore[reportAttributeAccessIssue]

    @data.setter
    def data(self, value: Tensor) -> None:
        Tensor.data.__set__(self, value)  # pyright: ignore[reportAttributeAccessIssue]
        self.storage_ = Storage(None, value.dtype, plain=as_plain(value.detach()))
        self.storage_.plain()  # the program holds it, too

    # Torch reads memory behind the dispatcher in these.
    def numpy(self, **kwargs: Any) -> Any:
        """As :meth:`torch.Tensor.numpy`; shares memory with the tensor."""
        return _shared(self).numpy(**kwargs)

    def tolist(self) -> Any:
        """As :meth:`torch.Tensor.tolist`."""
        return as_plain(self.detach()).tolist()

    def data_ptr(self) -> int:
        """Address of the plain memory."""
        return self.storage_.plain().data_ptr()

    def untyped_storage(self) -> Any:
        """The plain storage."""
        return self.storage_.plain().untyped_storage()

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return _shared(self).__array__(*args, **kwargs)

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any:
        return _shared(self).__dlpack__(*args, **kwargs)

    def __deepcopy__(self, memo: Any) -> Any:
        return copy.deepcopy(_shared(self), memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _shared(self).__reduce_ex__(protocol)

    def __repr__(self, *args: Any, **kwargs: Any) -> str:
        return repr(as_plain(self))


def _shared(x: BlockedTensor) -> Tensor:
    """The plain tensor that is the storage, refused where torch refuses."""
    plain = x.storage_.plain().view_as(x.storage_.plain())
    return plain.requires_grad_(x.requires_grad)


def value_of(x: Tensor) -> Value:
    """The content of a blocked tensor, or a blocked copy of a plain one."""
    return x.storage_.value if isinstance(x, BlockedTensor) else blocked_copy(x)


class _Offered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        storage = Storage(None, x.dtype, plain=x.detach().contiguous())
        return BlockedTensor(storage, tuple(x.shape))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return as_plain(gradients[0])


def offered(x: Tensor) -> Tensor:
    """A fresh plain ``(N, C, H, W)`` result as a tensor that may become blocked.

    It stays plain, at no cost, unless a normalisation reads it.
    """
    return _Offered.apply(x)  # pyright: ignore[reportReturnType]


class _AsPlain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        assert isinstance(x, BlockedTensor)
        return x.storage_.copy()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradients[0]


def as_plain(x: Tensor) -> Tensor:
    """The tensor itself, or the plain form of a blocked one; differentiable."""
    return _AsPlain.apply(x) if isinstance(x, BlockedTensor) else x  # pyright: ignore[reportReturnType]


def _dispatch(func: Any, args: Any, kwargs: Any) -> Any:
    function = _FUNCTIONS.get(func)
    if function is not None and _are_images(args):
        result = function(*args, **kwargs)
        if result is not NotImplemented:
            return result
    return _computed_plain(func, args, kwargs)


def _are_images(args: Any) -> bool:
    """Whether no operation in place has given a blocked tensor another rank."""
    return all(x.dim() == 4 for x in args if isinstance(x, BlockedTensor))


#: The dispatch; last, once there is a compiler, the form that it does not look into when
#: a compiled part of a model meets such a tensor.
_DISPATCH: list[Any] = [_dispatch]


def _reshaped(func: Any, x: BlockedTensor, *args: Any, **kwargs: Any) -> Tensor:
    """An operator that gives a tensor another shape in place; its aliases keep theirs."""
    plain = x.storage_.plain()
    changed = func(plain.view_as(plain), *args, **kwargs)
    storage = Storage(None, changed.dtype, plain=changed)
    storage.plain()  # the aliases hold the memory, too
    Tensor.data.__set__(x, BlockedTensor(storage, tuple(changed.shape)))  # pyright: ignore[reportAttributeAccessIssue]
    x.storage_ = storage
    return x


def _computed_plain(func: Any, args: Any, kwargs: Any) -> Any:
    """An operator on plain tensors; results that alias an argument stay the argument."""
    if torch.Tag.inplace_view in func.tags and isinstance(args[0], BlockedTensor):
        return _reshaped(func, *args, **kwargs)
    given: dict[int, BlockedTensor] = {}
    schema = func._schema.arguments
    by_name = {argument.name: argument for argument in schema}

    def plain(value: Any, argument: Any) -> Any:
        aliases = argument.alias_info is not None

        def one(x: BlockedTensor) -> Tensor:
            made = x.storage_.plain() if aliases else x.storage_.read()
            given[id(made)] = x
            return made

        return tree_map_only(BlockedTensor, one, value)

    new_args = [plain(a, s) for a, s in zip(args, schema, strict=False)]
    new_kwargs = {name: plain(a, by_name[name]) for name, a in kwargs.items()}
    result = func(*new_args, **new_kwargs)
    return tree_map_only(Tensor, lambda x: given.get(id(x), x), result)
