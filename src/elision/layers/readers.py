"""Readers of a layer's weight that do not call the layer.

What an elided layer computes, it computes when it is called. Torch's fused encoder layer
and programs of their own (``F.linear(x, model.head.weight)``) read the weight instead.
The first is told to call its layers; of the others, the first pass in each mode finds
those that multiply with an elided layer's weight, and one warning names them.
"""

import threading
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from elision.layers.extras import attach_extra
from elision.layers.modules.base import ElidedLayer, plan_of
from elision.layers.parts import parameter_of
from elision.layers.reach import elided_layers
from elision.layers.recomputation import OWN_PRODUCTS, is_recomputation

__all__ = ["DenseReadWarning", "guard_readers"]


class DenseReadWarning(UserWarning):
    """A program multiplies with an elided layer's weight without calling the layer.

    Example:
        >>> import warnings, elision
        >>> class Head(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.fc = nn.Linear(4, 4)
        ...     def forward(self, x):
        ...         return x @ self.fc.weight.T
        >>> model = elision.elide(Head(), elision.methods.Swat(0.5, dense=()))
        >>> with warnings.catch_warnings(record=True, action="always") as caught:
        ...     _ = model(torch.ones(2, 4))
        >>> caught[0].category.__name__
        'DenseReadWarning'
    """


#: Functions whose result is a product of their operands.
_PRODUCTS = frozenset(
    {
        F.linear,
        F.bilinear,
        F.conv1d,
        F.conv2d,
        F.conv3d,
        F.conv_transpose1d,
        F.conv_transpose2d,
        F.conv_transpose3d,
        F.multi_head_attention_forward,
        torch.addmm,
        torch.addmv,
        torch.baddbmm,
        torch.bmm,
        torch.einsum,
        torch.matmul,
        torch.mm,
        torch.mv,
        torch.tensordot,
        Tensor.__matmul__,
        Tensor.__rmatmul__,
        Tensor.addmm,
        Tensor.bmm,
        Tensor.matmul,
        Tensor.mm,
        torch._native_multi_head_attention,  # pyright: ignore[reportPrivateImportUsage]
        torch._transformer_encoder_layer_fwd,  # pyright: ignore[reportPrivateImportUsage]
    }
)


def guard_readers(model: nn.Module) -> None:
    """Let nothing in an elided model read a dense weight unsaid, until it is restored."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder):
            _call_layers(module)
        if isinstance(module, nn.TransformerEncoderLayer):
            # Its fused form leaves hooks out, so a hook makes it call its layers.
            handle = module.register_forward_pre_hook(_nothing)
            attach_extra(module, "calls its layers", True, [handle])
    if any(plan_of(layer).changes_weight for _, layer in elided_layers(model)):
        finder = _Finder()
        handles = [
            model.register_forward_pre_hook(finder.enter),
            model.register_forward_hook(finder.leave, always_call=True),
        ]
        attach_extra(model, "finds readers", finder, handles)


def _nothing(module: nn.Module, args: Any) -> None:
    """Forward pre-hook that does nothing."""


class _Setting:
    """Handle that gives an attribute its old value back."""

    def __init__(self, module: nn.Module, name: str, value: Any) -> None:
        self._module, self._name, self._old = module, name, getattr(module, name)
        setattr(module, name, value)

    def remove(self) -> None:
        setattr(self._module, self._name, self._old)


def _call_layers(encoder: nn.TransformerEncoder) -> None:
    """Keep an encoder from nested tensors, which only its layers' fused form takes."""
    if getattr(encoder, "use_nested_tensor", False):
        handle = _Setting(encoder, "use_nested_tensor", False)
        attach_extra(encoder, "keeps its padding", True, [handle])


class _Finder:
    """Hooks around the first forward pass in each mode: training or not, grad or not."""

    def __init__(self) -> None:
        self._seen: set[tuple[bool, bool]] = set()
        self._open: tuple[int, _Reads] | None = None
        self._told: set[str] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Finder, ()

    def enter(self, model: nn.Module, args: Any) -> None:
        """Begin to look, if this is the first pass of its kind."""
        del args
        if torch.compiler.is_compiling() or self._open is not None:
            return
        kind = (model.training, torch.is_grad_enabled())
        if kind in self._seen or is_recomputation() or torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
            return
        if any(hasattr(module, "_orig_mod") for module in model.modules()):
            return  # a part that is compiled would be compiled for this pass alone
        self._seen.add(kind)
        mode = _Reads({n: m for n, m in elided_layers(model) if n not in self._told})
        mode.__enter__()
        self._open = threading.get_ident(), mode

    def leave(self, model: nn.Module, args: Any, output: Any) -> None:
        """Stop looking, and warn of what was found."""
        if torch.compiler.is_compiling() or self._open is None:
            return
        thread, mode = self._open
        if thread != threading.get_ident():  # a replica of the model in another thread
            return
        self._open = None
        mode.__exit__(None, None, None)
        if mode.found:
            self._told |= set(mode.found)
            warnings.warn(
                "the model multiplies with the whole weight of an elided layer without "
                f"calling the layer: {', '.join(mode.found)}; call it, or leave it dense",
                DenseReadWarning,
                stacklevel=2,
            )


class _Reads(TorchFunctionMode):
    """Finds products with a weight outside of its layer.

    Attributes:
        found: names of the layers, each once.
    """

    def __init__(self, layers: dict[str, ElidedLayer]) -> None:
        super().__init__()
        self.found: dict[str, None] = {}
        self._names = {
            id(weight): name
            for name, layer in layers.items()
            if plan_of(layer).changes_weight
            and (weight := parameter_of(layer)) is not None
        }

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run the function; note it if it is a product with one of the weights."""
        if torch.compiler.is_compiling():
            return func(*args, **(kwargs or {}))
        if func in _PRODUCTS and not OWN_PRODUCTS:
            for x in (*args, *(kwargs or {}).values()):
                if isinstance(x, Tensor):
                    base = x if x._base is None else x._base
                    name = self._names.get(id(base))
                    if name is not None:
                        self.found[name] = None
        return func(*args, **(kwargs or {}))
