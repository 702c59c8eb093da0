"""The elided form of ``torch.nn.MultiheadAttention``: its projections.

Torch's own function runs. Where it multiplies with one of the layer's weights, a part
does: the packed weight of queries, keys and values (``in_proj``), or three of different
widths (``q_proj``, ``k_proj``, ``v_proj``), and ``out_proj``, a layer of its own. Queries
that attend to something else than themselves read some rows of the packed weight.
"""

from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.overrides import TorchFunctionMode

from elision.layers.modules.base import plan_of
from elision.layers.modules.linear import ElidedLinear
from elision.layers.modules.part import ElidedPart, ElidedWhole
from elision.nn.attention import rebound

__all__ = ["ElidedMultiheadAttention", "ElidedOutProjection"]


class ElidedOutProjection(ElidedLinear, NonDynamicallyQuantizableLinear):
    """The output projection of an attention layer, whose products a recipe changes."""


class ElidedMultiheadAttention(ElidedWhole, nn.MultiheadAttention):
    """A ``MultiheadAttention`` whose projections read operands that a recipe transforms.

    Example:
        >>> import elision
        >>> model = nn.MultiheadAttention(8, 2)
        >>> model = elision.elide(model, elision.methods.Swat(0.5, dense=()))
        >>> [name for name, _ in model.named_children()]
        ['out_proj', 'in_proj']
    """

    @torch._disable_dynamo  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
    def forward(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        plain: Any = super().forward
        layers = [*self.elided_parts, self.out_proj]
        elided = [x for x in layers if isinstance(x, ElidedPart | ElidedLinear)]
        if not any(x._elision_observers or plan_of(x).changes for x in elided):
            return plain(*args, **kwargs)
        with ExitStack() as held, _Projections(elided):
            for layer in elided:
                held.enter_context(layer.holding())
            return plain(*args, **kwargs)


class _Projections(TorchFunctionMode):
    """Computes products with the weights of some layers by these layers."""

    def __init__(self, layers: list[ElidedPart | ElidedLinear]) -> None:
        super().__init__()
        self._layers = {id(layer.weight): layer for layer in layers}

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run the function; a product with one of the weights by its layer."""
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            with self:  # torch's own body, whose products come here
                return _BODY(*args, **kwargs)
        if func is F.linear:
            return self._linear(*args, **kwargs)
        return func(*args, **kwargs)

    def _linear(
        self, input: Tensor, weight: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        base = weight if weight._base is None else weight._base
        layer = self._layers.get(id(base))
        if layer is None:
            return F.linear(input, weight, bias)
        if isinstance(layer, ElidedLinear):
            return layer.forward(input)
        first = int(weight.storage_offset()) // weight.shape[1]
        return layer.of_rows(input, bias, slice(first, first + weight.shape[0]))


_BODY = rebound({})
