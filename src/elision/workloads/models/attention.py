"""Normed Bahdanau attention: a small perceptron compares a query with every key.

Bahdanau et al., ICLR 2015, arXiv 1409.0473, section A.1.2, with the normalisation of
Salimans and Kingma, "Weight Normalization", 2016, as in GNMT.
"""

import torch
from torch import Tensor, nn

__all__ = ["NormedAttention"]


class NormedAttention(nn.Module):
    """A context for every query: the mean of the values, weighted by their keys.

    For a query y and a key k, ``e = g·(v/‖v‖)·tanh(W_q y + W_k k + b)``; the weights are
    the softmax of e over the keys. As g starts at ``1/√n`` and ``|e| <= g·√n``, the
    weights are nearly equal at first.

    Args:
        width: n, size of queries, keys and values.

    Example:
        >>> attention, values = NormedAttention(4), torch.ones(2, 3, 4)
        >>> mask = torch.tensor([[True, True, True], [True, False, False]])
        >>> context, weights = attention(
        ...     torch.ones(2, 5, 4), attention.keys(values), values, mask
        ... )
        >>> context.shape, weights[1, 0].tolist()
        (torch.Size([2, 5, 4]), [1.0, 0.0, 0.0])
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        bound = width**-0.5
        self.direction = nn.Parameter(torch.empty(width).uniform_(-bound, bound))
        self.scale = nn.Parameter(torch.full((1,), bound))
        self.bias = nn.Parameter(torch.zeros(width))

    def keys(self, values: Tensor) -> Tensor:
        """``W_k k`` of values ``(B, S, n)``: once for all queries of a sentence."""
        return self.key(values)

    def forward(
        self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Contexts and weights.

        Args:
            query: ``(B, T, n)``.
            keys: ``(B, S, n)``, of :meth:`keys`.
            values: ``(B, S, n)``.
            mask: ``(B, S)``, bool, True where there is a value; at least one in a row.

        Returns:
            ``(B, T, n)`` and ``(B, T, S)``; the weights are zero where the mask is.
        """
        both = (self.query(query) + self.bias)[:, :, None] + keys[:, None]
        direction = self.scale * self.direction / self.direction.norm()
        scores = both.tanh() @ direction  # (B, T, S)
        weights = scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1)
        return weights.to(values.dtype) @ values, weights
