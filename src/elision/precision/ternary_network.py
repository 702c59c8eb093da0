"""A model with ternary weights as a whole: which terms are enabled, what they cost."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from elision.common.checks import number
from elision.precision.calibration import Calibration, moved, put_statistics
from elision.precision.ternary_counts import CODE_BITS, SCALE_BITS, Counts
from elision.precision.ternary_layers import TERNARY, Terms
from elision.report.table import rows_as_text

__all__ = ["TernaryNetwork", "network_of"]

_PLAIN = {ternary: plain for plain, ternary in TERNARY.items()}


class TernaryNetwork:
    """The ternary terms of a model; made by :func:`ternary_residual`.

    Printed, it is a table of the layers.

    Attributes:
        model: the model.
        worth: sensitivity of each layer, by name.
        given: residual terms that the search gave, of all blocks together.
        enabled: of these, how many are enabled.
        tried: residual terms and accuracy on the calibration data, of each trial.

    Example:
        >>> from elision.precision import ternary_residual
        >>> model = nn.Sequential(nn.Linear(64, 8))
        >>> network = ternary_residual(model, torch.randn(9, 64), None, budget=2).ternary
        >>> counts = network.counts()
        >>> counts.multiplications, counts.dense
        (16, 512)
    """

    def __init__(
        self,
        model: nn.Module,
        worth: Mapping[str, float],
        pixels: Mapping[str, int],
        norms_from: Calibration | None,
        norms: Mapping[str, Tensor],
        plain_norms: Mapping[str, Tensor],
    ) -> None:
        for name in ("ternary", "set_residuals"):
            if hasattr(model, name):
                raise ValueError(
                    f"{type(model).__name__} has a {name!r} of its own, which the "
                    "ternary network would hide"
                )
        self.model, self.worth, self._pixels = model, dict(worth), dict(pixels)
        self._data, self._norms, self._plain = (
            norms_from,
            dict(norms),
            dict(plain_norms),
        )
        self.given = self.enabled = 0
        self.tried: list[tuple[int, float]] = []
        self._ranks = _ranks({n: t.blocks.gains * worth[n] for n, t in self._terms()})
        model.ternary = self  # pyright: ignore[reportArgumentType]
        model.set_residuals = self.set_residuals  # pyright: ignore[reportArgumentType]

    @property
    def most(self) -> int:
        """Residual terms that remove any error, of all blocks together."""
        return sum(int((rank < _NEVER).sum()) for rank in self._ranks.values())

    @property
    def terms(self) -> int:
        """The most terms of any block."""
        return max(terms.blocks.terms for _, terms in self._terms())

    def give(self, residuals: int) -> None:
        """Give so many residual terms, the most valuable first, and enable them.

        The statistics of batch norms follow, if they are to move.
        """
        self.given = residuals = min(residuals, self.most)
        self._enable(residuals)
        if self._data is not None:
            changed = self._data.estimated_norms(self.model)
            put_statistics(self.model, moved(self._norms, self._plain, changed))

    def set_residuals(self, share: float) -> None:
        """Enable the most valuable share of the residual terms that were given.

        Only scales change. What a smaller share enables, a larger one does, too.

        Args:
            share: in [0, 1]; 0 leaves the first term of every block.

        Raises:
            ValueError: ``share`` is out of range.
        """
        number("set_residuals", "share", share, "[0, 1]")
        self._enable(round(share * self.given))

    def counts(self, layer: str | None = None) -> Counts:
        """Counted work and size of what is enabled, for one example.

        Args:
            layer: a name; None: all ternary layers together.
        """
        total = Counts()
        for name, terms in self._terms():
            if layer in (None, name):
                total += _counts(terms, self._pixels[name])
        return total

    def rows(self) -> list[dict[str, Any]]:
        """One row a layer: terms, error, work and size."""
        found = []
        for name, terms in self._terms():
            counts = _counts(terms, self._pixels[name])
            weight = terms.original.double()
            error = (_module(self.model, name).weight.double() - weight).norm()
            found.append(
                {
                    "layer": name,
                    "weights": counts.weights,
                    "terms a block": counts.mean_terms,
                    "most": int(terms.counts.max()),
                    "relative error": (error / weight.norm()).item()
                    if weight.any()
                    else 0.0,
                    "sensitivity": self.worth[name],
                    "fewer multiplications": counts.fewer,
                    "additions a weight": counts.additions / max(counts.dense, 1),
                    "smaller than 8 bits": counts.smaller,
                }
            )
        return found

    def curve(
        self, data: Any, shares: Iterable[float] = (0, 0.25, 0.5, 0.75, 1)
    ) -> list[dict[str, float]]:
        """Accuracy on other data against the share of residual terms enabled.

        Args:
            data: inputs and labels, in any form that calibration data may have.
            shares: see :meth:`set_residuals`.

        Returns:
            Rows of share, mean terms of a block, multiplications and accuracy. What was
            enabled before is enabled again.
        """
        before, found = self.enabled, []
        judge = Calibration.of(self.model, data)
        for share in shares:
            self.set_residuals(share)
            counts = self.counts()
            found.append(
                {
                    "share": float(share),
                    "mean_terms": counts.mean_terms,
                    "multiplications": counts.multiplications,
                    "fewer": counts.fewer,
                    "accuracy": judge.score(self.model),
                }
            )
        self._enable(before)
        return found

    @torch.no_grad()
    def restore(self) -> nn.Module:
        """Give the model its weights, layers and batch norms back, and return it.

        Raises:
            ValueError: it was loaded from a file, which does not hold the weights.
        """
        terms = dict(self._terms())
        lost = [name for name, t in terms.items() if t.original.is_meta]
        if lost:
            raise ValueError(
                f"the weights of {', '.join(lost)} are not in a ternary file; load the "
                "model that it was made of"
            )
        for name, own in terms.items():
            layer = _module(self.model, name)
            layer.weight.copy_(own.original)
            del layer._elision_ternary
            layer.__class__ = _PLAIN[type(layer)]  # pyright: ignore[reportArgumentType]
        put_statistics(self.model, self._norms)
        del self.model.ternary, self.model.set_residuals
        return self.model

    def forget_the_rest(self) -> None:
        """Drop the calibration data and the terms that no block was given."""
        self._data, self._plain = None, {}
        for name, terms in self._terms():
            most = int(terms.counts.max())
            terms.blocks = terms.blocks.first(most)
            terms.given = terms.counts
            self._ranks[name] = self._ranks[name][: most - 1]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        return {
            "given": self.given,
            "enabled": self.enabled,
            "counts": self.counts().to_dict(),
            "tried": [list(pair) for pair in self.tried],
            "layers": self.rows(),
        }

    def __str__(self) -> str:
        total = self.counts()
        return (
            f"{rows_as_text(self.rows())}\n{total.mean_terms:.3g} terms a block, "
            f"{total.fewer:.3g} times fewer multiplications, weights "
            f"{total.smaller:.3g} times smaller than in 8 bits"
        )

    def _enable(self, residuals: int) -> None:
        self.enabled = residuals
        for name, terms in self._terms():
            counts = 1 + (self._ranks[name] < residuals).sum(0)
            terms.enable(_module(self.model, name).weight, counts)

    def _terms(self) -> list[tuple[str, Terms]]:
        return [
            (name, module._elision_ternary)  # pyright: ignore[reportReturnType]
            for name, module in self.model.named_modules()
            if hasattr(module, "_elision_ternary")
        ]


def network_of(model: nn.Module) -> TernaryNetwork:
    """The ternary network of a model; ``model.ternary``, with its type.

    Raises:
        ValueError: the model is not ternary.
    """
    network = getattr(model, "ternary", None)
    if not isinstance(network, TernaryNetwork):
        raise ValueError(
            f"{type(model).__name__} is not ternary: call ternary_residual first"
        )
    return network


#: Rank of a term that removes nothing, or is not there.
_NEVER = 2**62


def _ranks(gains: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Place of each residual term in the order of falling gain, over all layers.

    Args:
        gains: of each layer, ``(T − 1, K, B)``, not rising along the first axis.

    Returns:
        int64 of the same shapes.
    """
    flat = torch.cat([g.flatten() for g in gains.values()])
    # Stable: of equal gains in a block, the earlier term comes first.
    order = flat.sort(descending=True, stable=True).indices
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order))
    ranks[flat <= 0] = _NEVER
    parts = ranks.split([g.numel() for g in gains.values()])
    return {
        name: part.view(g.shape)
        for (name, g), part in zip(gains.items(), parts, strict=True)
    }


def _counts(terms: Terms, pixels: int) -> Counts:
    blocks = terms.blocks
    _, rows, count = blocks.scales.shape
    weights = rows * blocks.columns
    enabled = int(terms.counts.sum())
    on = torch.arange(blocks.terms).view(-1, 1, 1) < terms.counts
    # The last block of a row may be shorter than the others.
    last = blocks.columns - (count - 1) * blocks.block
    columns = torch.tensor([blocks.block] * (count - 1) + [last])
    codes = int((terms.counts * columns).sum())
    return Counts(
        weights=weights,
        blocks=rows * count,
        terms=enabled,
        dense=weights * pixels,
        multiplications=enabled * pixels,
        additions=int(blocks.nonzeros[on].sum()) * pixels,
        bits=CODE_BITS * codes + SCALE_BITS * enabled,
    )


def _module(model: nn.Module, name: str) -> Any:
    return model.get_submodule(name)
