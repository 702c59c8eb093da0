"""Sensitivity of a network to each operand's format: predicted and measured.

One operand of one layer is rounded, all else stays exact. With ``δ`` its error, ``g`` the
loss's gradient and ``H`` its Hessian in that operand, the loss changes by ::

    first order    g·δ
    second order   g·δ + ½ Σ h_i·δ_i²      h: the Hessian's diagonal, estimated
    with a trace   g·δ + ½ (tr H / n)·‖δ‖²

and by what a forward pass then measures. A gradient that is rounded changes no loss of its
own step; what it costs is a share of the decrease to come, to first order
``1 − g·g̃/‖g‖²`` with ``g̃`` the gradient of all weights. Predicted for it is the part of
the layer's own weight gradient; measured is all of it, earlier layers included.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from elision.common.checks import one_of
from elision.layers import (
    Recipe,
    Table,
    elidable_layers,
    elide,
    groups_if_turned,
    restore,
    turned_transform,
)
from elision.precision.arithmetic import bits_of, rounding
from elision.precision.curvature import hessian_diagonal
from elision.precision.noise import relative_error, rounded_operand
from elision.products import Product

__all__ = ["Sensitivity", "SensitivityRow", "rank_correlation", "sensitivity"]

#: The bits that are compared by default.
BITS = ("2", "4", "6", "8")


@dataclass(frozen=True)
class SensitivityRow:
    """One operand of one layer in one format, all else exact.

    Attributes:
        layer: name in the model.
        operand: ``"input"``, ``"weight"`` or ``"grad_output"``.
        format: see :func:`elision.precision.rounding`.
        bits: of an element.
        elements: of the operand, in this batch.
        noise: noise to signal at the layer's output; of a gradient, at the weight gradient
            of the layer.
        score_noise: relative error of the network's scores; of a gradient, of the gradient
            of all weights.
        first, second, trace: predicted changes of the loss; see the module. Of a gradient
            all are the share of the decrease that the layer itself loses.
        loss_change: measured; of a gradient the share of the decrease that is lost.
    """

    layer: str
    operand: str
    format: str
    bits: int
    elements: int
    noise: float
    score_noise: float
    first: float
    second: float
    trace: float
    loss_change: float


@dataclass(frozen=True)
class Sensitivity:
    """What :func:`sensitivity` found; prints as correlations and the most sensitive rows.

    Attributes:
        rows: by layer, operand and format.
        loss: of the batch, nothing rounded.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4))
        >>> batch = torch.randn(16, 3), torch.arange(16) % 4
        >>> found = sensitivity(model, batch, formats=("4", "8"), operands=("weight",))
        >>> len(found.rows), found.rows[0].noise > found.rows[1].noise
        (4, True)
    """

    rows: tuple[SensitivityRow, ...]
    loss: float

    def of(self, operand: str) -> tuple[SensitivityRow, ...]:
        """The rows of one operand."""
        return tuple(row for row in self.rows if row.operand == operand)

    def correlations(self) -> list[dict[str, Any]]:
        """Rank correlation of each prediction with the measured change, by operand.

        Of magnitudes, since ``g·δ`` has either sign; NaN of fewer than two rows.
        """
        found = []
        for operand in dict.fromkeys(row.operand for row in self.rows):
            rows = self.of(operand)
            measured = [abs(row.loss_change) for row in rows]
            found.append(
                {
                    "operand": operand,
                    "rows": len(rows),
                    **{
                        name: rank_correlation(
                            [abs(getattr(row, name)) for row in rows], measured
                        )
                        for name in ("noise", "first", "second", "trace")
                    },
                }
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Rows, correlations and the loss as plain values."""
        return {
            "loss": self.loss,
            "rows": [asdict(row) for row in self.rows],
            "correlations": self.correlations(),
        }

    def __str__(self) -> str:
        lines = [f"loss {self.loss:.4g}; rank correlation with the measured change:"]
        for row in self.correlations():
            values = ", ".join(
                f"{name} {row[name]:.2f}"
                for name in ("noise", "first", "second", "trace")
            )
            lines.append(f"  {row['operand']} ({row['rows']} rows): {values}")
        return "\n".join(lines)


def sensitivity(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    formats: Sequence[str] = BITS,
    operands: Sequence[str] = ("weight", "input"),
    *,
    loss: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy,
    probes: int = 8,
    seed: int = 0,
) -> Sensitivity:
    """Round one operand of one layer at a time and see what it does to the loss.

    The network runs in evaluation mode and stays as it was. One forward pass for each row
    (a backward pass for a gradient), and ``probes`` double backward passes.

    Args:
        model: answers inputs with scores.
        batch: inputs and labels.
        formats: see :func:`elision.precision.rounding`.
        operands: of ``"weight"``, ``"input"`` and ``"grad_output"``.
        loss: scores and labels to a scalar.
        probes: random vectors of the Hessian's diagonal, common to all operands.
        seed: of these.

    Raises:
        ValueError: an unknown format or operand, a loss that is not finite, a gradient
            that is zero where gradients are rounded, a model without layers, or a layer
            that is called more than once (its operands are several).
    """
    for operand in operands:
        one_of("sensitivity", "operand", operand, ("weight", "input", "grad_output"))
    work = _Work(model, batch, loss)
    work.differentiate(
        probes, seed, curved="grad_output" not in operands or len(operands) > 1
    )
    rows = [
        work.row(name, operand, format)
        for name in work.layers
        for operand in operands
        for format in formats
    ]
    return Sensitivity(tuple(rows), work.value)


class _Work:
    """A model with derivatives in every operand of every layer."""

    def __init__(
        self,
        model: nn.Module,
        batch: tuple[Tensor, Tensor],
        loss: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        self.model = restore(copy.deepcopy(model)).eval()
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        self.inputs, self.labels, self._loss = *batch, loss
        self.inputs_of: dict[str, Tensor] = {}
        self.outputs_of: dict[str, Tensor] = {}
        self.layers = self._survey()
        self.weights = {n: _weight(m).detach() for n, m in self.layers.items()}

    def _survey(self) -> dict[str, nn.Module]:
        """The layers in the order of their calls, with their inputs and outputs."""

        def keep(name: str) -> Callable[..., None]:
            def hook(_: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> None:
                if name in self.inputs_of:
                    raise ValueError(
                        f"sensitivity: layer {name} is called more than once in a pass; "
                        "its operands are several tensors"
                    )
                # Copies, since a function after the layer may write in place.
                self.inputs_of[name] = args[0].detach().clone()
                self.outputs_of[name] = y.detach().clone()

            return hook

        reached = elidable_layers(self.model)
        if not reached:
            raise ValueError(
                f"sensitivity: {type(self.model).__name__} has no layer in reach"
            )
        handles = [m.register_forward_hook(keep(n)) for n, m in reached.items()]
        try:
            with torch.no_grad():
                self.scores = self.model(self.inputs)
                self.value = float(self._loss(self.scores, self.labels))
        finally:
            for handle in handles:
                handle.remove()
        if not math.isfinite(self.value):
            raise ValueError(f"sensitivity: the loss of the batch is {self.value}")
        return {name: reached[name] for name in self.inputs_of}

    def differentiate(self, probes: int, seed: int, *, curved: bool) -> None:
        """Gradients in weights, inputs and outputs, and the Hessian's diagonal."""
        zeros = {n: torch.zeros_like(x) for n, x in self.inputs_of.items()}
        given = [*map(_weight, self.layers.values()), *zeros.values()]
        at = [x.requires_grad_() for x in given]
        names = [("weight", n) for n in self.layers] + [
            ("input", n) for n in self.layers
        ]

        def added(name: str) -> Callable[..., tuple[Any, ...]]:
            """The hook by which a layer reads its input and a zero that is a variable."""

            def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
                return (args[0] + zeros[name], *args[1:])

            return hook

        def value() -> Tensor:
            handles = [
                layer.register_forward_pre_hook(added(name))
                for name, layer in self.layers.items()
            ]
            try:
                return self._loss(self.model(self.inputs), self.labels)
            finally:
                for handle in handles:
                    handle.remove()

        gradients = torch.autograd.grad(value(), at, materialize_grads=True)
        self.gradients = dict(zip(names, gradients, strict=True))
        diagonal = hessian_diagonal(value, at, probes, seed) if curved else gradients
        self.diagonals = dict(zip(names, diagonal, strict=True))
        for x in at:
            x.requires_grad_(False)

    def row(self, name: str, operand: str, format: str) -> SensitivityRow:
        """Round one operand of one layer."""
        if operand == "grad_output":
            return self._gradient_row(name, format)
        exact = self.weights[name] if operand == "weight" else self.inputs_of[name]
        how = rounding(format, operand)
        groups = groups_if_turned(self.layers[name]) if operand == "weight" else None
        read = how if groups is None else turned_transform(how, groups)
        delta = rounded_operand(exact, read) - exact
        g, h = self.gradients[operand, name], self.diagonals[operand, name]
        first, size = float((g * delta).sum()), float(delta.square().sum())
        table = Table({Product.FORWARD: {operand: how}})
        scores, output = self._forward_with(name, table)
        return SensitivityRow(
            layer=name,
            operand=operand,
            format=format,
            bits=bits_of(format),
            elements=exact.numel(),
            noise=relative_error(output, self._product(name)),
            score_noise=relative_error(scores, self.scores),
            first=first,
            second=first + float((h * delta.square()).sum()) / 2,
            trace=first + float(h.mean()) * size / 2,
            loss_change=float(self._loss(scores, self.labels)) - self.value,
        )

    def _product(self, name: str) -> Tensor:
        """The layer's output without its bias, which carries no noise."""
        return self.outputs_of[name] - _bias(self.layers[name])

    def _forward_with(self, name: str, table: Table) -> tuple[Tensor, Tensor]:
        """Scores and the layer's output, less its bias, under a table of its own."""
        found: list[Tensor] = []

        def keep(_: nn.Module, __: tuple[Any, ...], y: Tensor) -> None:
            found.append(y.clone())

        with _elided(self.model, name, table) as layer, torch.no_grad():
            handle = layer.register_forward_hook(keep)
            scores = self.model(self.inputs)
            handle.remove()
        return scores, found[0] - _bias(layer)

    def _gradient_row(self, name: str, format: str) -> SensitivityRow:
        table = Table(
            {
                kind: {"grad_output": rounding(format, "grad_output", kind)}
                for kind in (Product.INPUT_GRAD, Product.WEIGHT_GRAD)
            }
        )
        exact = {n: self.gradients["weight", n] for n in self.layers}
        found = self._weight_gradients(name, table)
        size = sum(float(g.square().sum()) for g in exact.values())
        if not size:
            raise ValueError("sensitivity: the gradient of the batch is zero")
        along = sum(float((exact[n] * found[n]).sum()) for n in exact)
        own = float((exact[name] * (exact[name] - found[name])).sum()) / size
        return SensitivityRow(
            layer=name,
            operand="grad_output",
            format=format,
            bits=bits_of(format),
            elements=self.outputs_of[name].numel(),
            noise=relative_error(found[name], exact[name]),
            score_noise=relative_error(_joined(found), _joined(exact)),
            first=own,
            second=own,
            trace=own,
            loss_change=1 - along / size,
        )

    def _weight_gradients(self, name: str, table: Table) -> dict[str, Tensor]:
        with _elided(self.model, name, table):
            at = [_weight(m).requires_grad_() for m in self.layers.values()]
            value = self._loss(self.model(self.inputs), self.labels)
            found = torch.autograd.grad(value, at, materialize_grads=True)
            for x in at:
                x.requires_grad_(False)
        return dict(zip(self.layers, found, strict=True))


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


class _elided:
    """Context in which one layer of a plain model has a table of its own."""

    def __init__(self, model: nn.Module, name: str, table: Table) -> None:
        self._layer = model.get_submodule(name)
        self._table = table

    def __enter__(self) -> nn.Module:
        elide(self._layer, Recipe("one operand", self._table), engine="torch")
        return self._layer

    def __exit__(self, *_: object) -> None:
        restore(self._layer)


def _bias(layer: nn.Module) -> Tensor | float:
    bias = getattr(layer, "bias", None)
    if not isinstance(bias, Tensor):
        return 0.0
    return bias.view(-1, *[1] * (_weight(layer).dim() - 2))


def _joined(tensors: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([x.flatten() for x in tensors.values()])


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation, ties at their mean rank; NaN where one is constant.

    Example:
        >>> round(rank_correlation([1.0, 2.0, 3.0], [1.0, 4.0, 9.0]), 12)
        1.0
    """
    if len(first) < 2:
        return math.nan
    ranks = torch.stack([_ranks(first), _ranks(second)])
    if bool((ranks.std(1) == 0).any()):
        return math.nan
    return float(torch.corrcoef(ranks)[0, 1])


def _ranks(values: Sequence[float]) -> Tensor:
    x = torch.tensor(values, dtype=torch.float64)
    below = (x[:, None] > x).sum(1).double()
    equal = (x[:, None] == x).sum(1).double()
    return below + (equal - 1) / 2
