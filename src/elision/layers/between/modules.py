"""Modules and losses with the functions of :mod:`elision.functional`.

They have no parameters and no state; a softmax with a margin takes the target in training
and none at inference.
"""

from torch import Tensor, nn

from elision import functional
from elision.common.checks import integer, number, one_of
from elision.functional.softmax import BACKWARD

__all__ = [
    "KGELU",
    "KSiLU",
    "KSigmoid",
    "KTanh",
    "SMSoftmax",
    "SMSoftmaxLoss",
    "SMTaylorSoftmax",
    "SMTaylorSoftmaxLoss",
    "TaylorSoftmax",
    "TaylorSoftmaxLoss",
]


class KTanh(nn.Module):
    """:func:`elision.functional.k_tanh` in the place of ``nn.Tanh``.

    Example:
        >>> import torch
        >>> KTanh()(torch.tensor(9.0))
        tensor(1.)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        return functional.k_tanh(x)


class KSigmoid(nn.Module):
    """:func:`elision.functional.k_sigmoid` in the place of ``nn.Sigmoid``.

    Example:
        >>> import torch
        >>> KSigmoid()(torch.tensor(0.0))
        tensor(0.5000)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        return functional.k_sigmoid(x)


class KSiLU(nn.Module):
    """:func:`elision.functional.k_silu` in the place of ``nn.SiLU``.

    Example:
        >>> import torch
        >>> KSiLU()(torch.tensor(2.0))
        tensor(1.7539)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        return functional.k_silu(x)


class KGELU(nn.Module):
    """:func:`elision.functional.k_gelu` in the place of ``nn.GELU``.

    Example:
        >>> import torch
        >>> KGELU()(torch.tensor(0.0))
        tensor(0.)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        return functional.k_gelu(x)


class _Series(nn.Module):
    """Parameters of a series in the place of the exponential."""

    def __init__(self, order: int = 2, *, backward: str = "finite") -> None:
        super().__init__()
        name = type(self).__name__
        self.order = integer(name, "order", order, ">= 2")
        if order % 2:
            raise ValueError(f"{name}(order={order}): must be even")
        one_of(name, "backward", backward, BACKWARD)
        self.backward = backward

    def extra_repr(self) -> str:
        """The parameters, for ``print``."""
        return f"order={self.order}, backward={self.backward!r}"


class TaylorSoftmax(_Series):
    """:func:`elision.functional.taylor_softmax` in the place of ``nn.Softmax``.

    Args:
        order: of the series, even.
        dim: of the classes.
        backward: ``"finite"`` or ``"infinite"``.

    Raises:
        ValueError: an odd order, or an unknown ``backward``.

    Example:
        >>> import torch
        >>> TaylorSoftmax(2)(torch.tensor([[2.0, 1.0, 0.0, -1.0]]))
        tensor([[0.5556, 0.2778, 0.1111, 0.0556]])
    """

    def __init__(
        self, order: int = 2, dim: int = -1, *, backward: str = "finite"
    ) -> None:
        super().__init__(order, backward=backward)
        self.dim = dim

    def forward(self, z: Tensor) -> Tensor:
        """Logits to probabilities of the same shape."""
        return functional.taylor_softmax(
            z, self.order, self.dim, backward=self.backward
        )


class SMSoftmax(nn.Module):
    """:func:`elision.functional.sm_softmax`: a margin where there is a target.

    Args:
        margin: m ≥ 0.
        dim: of the classes.

    Raises:
        ValueError: a negative margin.

    Example:
        >>> import torch
        >>> softmax, z = SMSoftmax(margin=0.6), torch.tensor([[2.0, 1.0, 0.0, -1.0]])
        >>> softmax(z)[0, 0], softmax(z, torch.tensor([0]))[0, 0]
        (tensor(0.6439), tensor(0.4981))
    """

    def __init__(self, margin: float = 0.5, dim: int = -1) -> None:
        super().__init__()
        self.margin, self.dim = number("SMSoftmax", "margin", margin, ">= 0"), dim

    def forward(self, z: Tensor, target: Tensor | None = None) -> Tensor:
        """Logits, and class indices in training, to probabilities."""
        return functional.sm_softmax(z, target, self.margin, self.dim)

    def extra_repr(self) -> str:
        """The parameters, for ``print``."""
        return f"margin={self.margin:g}"


class SMTaylorSoftmax(_Series):
    """:func:`elision.functional.sm_taylor_softmax`: both.

    Args:
        margin: m ≥ 0.
        order: of the series, even.
        dim: of the classes.
        backward: ``"finite"`` or ``"infinite"``.

    Raises:
        ValueError: a negative margin, an odd order, or an unknown ``backward``.

    Example:
        >>> import torch
        >>> softmax, z = SMTaylorSoftmax(0.6), torch.tensor([[2.0, 1.0, 0.0, -1.0]])
        >>> softmax(z)[0, 0], softmax(z, torch.tensor([0]))[0, 0]
        (tensor(0.5556), tensor(0.4580))
    """

    def __init__(
        self,
        margin: float = 0.5,
        order: int = 2,
        dim: int = -1,
        *,
        backward: str = "finite",
    ) -> None:
        super().__init__(order, backward=backward)
        self.margin = number(type(self).__name__, "margin", margin, ">= 0")
        self.dim = dim

    def forward(self, z: Tensor, target: Tensor | None = None) -> Tensor:
        """Logits, and class indices in training, to probabilities."""
        return functional.sm_taylor_softmax(
            *(z, target, self.margin, self.order, self.dim), backward=self.backward
        )

    def extra_repr(self) -> str:
        """The parameters, for ``print``."""
        return f"margin={self.margin:g}, {super().extra_repr()}"


class TaylorSoftmaxLoss(_Series):
    """Cross-entropy by the series, in the place of ``nn.CrossEntropyLoss``.

    Args:
        order: of the series, even.
        backward: ``"infinite"`` gives the gradient ``p - y``.

    Example:
        >>> import torch
        >>> z = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
        >>> TaylorSoftmaxLoss(order=2)(z, torch.tensor([0]))
        tensor(0.5878)
    """

    def forward(self, z: Tensor, target: Tensor) -> Tensor:
        """Logits ``(N, C, ...)`` and indices ``(N, ...)`` to the mean loss."""
        return functional.taylor_softmax_loss(
            z, target, self.order, backward=self.backward
        )


class SMSoftmaxLoss(nn.Module):
    """Cross-entropy of softmax with a margin.

    Args:
        margin: m ≥ 0.

    Example:
        >>> import torch
        >>> z = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
        >>> SMSoftmaxLoss(margin=0.0)(z, torch.tensor([0]))
        tensor(0.4402)
    """

    def __init__(self, margin: float = 0.5) -> None:
        super().__init__()
        self.margin = number("SMSoftmaxLoss", "margin", margin, ">= 0")

    def forward(self, z: Tensor, target: Tensor) -> Tensor:
        """Logits ``(N, C, ...)`` and indices ``(N, ...)`` to the mean loss."""
        return functional.sm_softmax_loss(z, target, self.margin)

    def extra_repr(self) -> str:
        """The parameters, for ``print``."""
        return f"margin={self.margin:g}"


class SMTaylorSoftmaxLoss(_Series):
    """Cross-entropy of the series with a margin.

    Args:
        margin: m ≥ 0.
        order: of the series, even.
        backward: ``"finite"`` or ``"infinite"``.

    Example:
        >>> import torch
        >>> z = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
        >>> SMTaylorSoftmaxLoss(margin=0.6)(z, torch.tensor([0]))
        tensor(0.7809)
    """

    def __init__(
        self, margin: float = 0.5, order: int = 2, *, backward: str = "finite"
    ) -> None:
        super().__init__(order, backward=backward)
        self.margin = number(type(self).__name__, "margin", margin, ">= 0")

    def forward(self, z: Tensor, target: Tensor) -> Tensor:
        """Logits ``(N, C, ...)`` and indices ``(N, ...)`` to the mean loss."""
        return functional.sm_taylor_softmax_loss(
            z, target, self.margin, self.order, backward=self.backward
        )

    def extra_repr(self) -> str:
        """The parameters, for ``print``."""
        return f"margin={self.margin:g}, {super().extra_repr()}"
