"""Perturbation view: noise of every layer in narrow formats, and what becomes of it.

A layer with rounded operands answers with noise. Alone, it is measured where it arises, as
noise to signal ``ε_l`` at the layer's output; all layers together, it is measured where it
matters, at the scores. That error often lies between the root of the sum of squares of the
``ε_l`` and their sum (:mod:`elision.precision.bounds`).
"""

import copy
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from elision.common.notebook import html_table
from elision.layers import Observation, Recipe, elidable_layers, elide, restore, watch
from elision.operands import KEEP, Transform
from elision.precision.arithmetic import Arithmetic, arithmetic
from elision.precision.bounds import is_safe, root_sum_square
from elision.precision.noise import NoiseSum, as_read, relative_error, rounded_operand
from elision.products import LayerProduct, Product

__all__ = ["FormatRow", "LayerRow", "Perturbation", "perturbation"]

#: The series of the ternary residual networks' authors.
SERIES = ("8a-8w", "8a-6w", "8a-4w", "8a-2w")


@dataclass(frozen=True)
class FormatRow:
    """All layers of a network in one arithmetic.

    Attributes:
        arithmetic: its name; ``"float"`` for the network as it is.
        right: share of the examples whose first class is the labelled one; None: no
            labels were given.
        agree: share whose first class is that of the network as it is.
        safe: share that must agree by the margin rule, whatever the error's direction.
        score_error: relative error of all scores.
        median, largest: ``ε_l`` over the layers.
        root_sum_square, total: ``√Σε_l²`` and ``Σε_l``.
    """

    arithmetic: str
    right: float | None
    agree: float
    safe: float
    score_error: float
    median: float
    largest: float
    root_sum_square: float
    total: float


@dataclass(frozen=True)
class LayerRow:
    """One layer in one arithmetic.

    Attributes:
        arithmetic: its name.
        layer: name in the model.
        kind: ``"conv"``, ``"depthwise"`` or ``"linear"``.
        weight_noise: noise to signal at the output if only the weight is rounded: ``ε_l``.
        input_noise: the same of the input.
        noise: the same of both.
        error: relative error of the output, bias included, with all layers rounded.
    """

    arithmetic: str
    layer: str
    kind: str
    weight_noise: float
    input_noise: float
    noise: float
    error: float


@dataclass(frozen=True)
class Perturbation:
    """What :func:`perturbation` measured; prints as its table of formats.

    Attributes:
        formats: a row for each arithmetic, the network as it is first.
        layers: a row for each arithmetic and layer.
        examples: of the batch.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4))
        >>> found = perturbation(model, torch.randn(5, 3), formats=("8a-8w", "8a-2w"))
        >>> [row.arithmetic for row in found.formats]
        ['float', '8a-8w', '8a-2w']
        >>> found.formats[1].score_error < found.formats[2].score_error
        True
    """

    formats: tuple[FormatRow, ...]
    layers: tuple[LayerRow, ...]
    examples: int

    def rows(self) -> list[dict[str, Any]]:
        """The table of formats: shares in examples, noise as numbers."""
        return [self._cells(row) for row in self.formats]

    def layer_rows(self) -> list[dict[str, Any]]:
        """The table of layers as plain values."""
        return [asdict(row) for row in self.layers]

    def to_dict(self) -> dict[str, Any]:
        """Both tables as plain values."""
        formats = [asdict(row) for row in self.formats]
        return {
            "examples": self.examples,
            "formats": formats,
            "layers": self.layer_rows(),
        }

    def __str__(self) -> str:
        rows = self.rows()
        lines = [list(rows[0]), *([str(v) for v in row.values()] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(
                word.ljust(n) for word, n in zip(line, widths, strict=True)
            ).rstrip()
            for line in lines
        )

    def _repr_html_(self) -> str:
        rows = self.rows()
        return html_table(list(rows[0]), [list(row.values()) for row in rows])

    def _cells(self, row: FormatRow) -> dict[str, Any]:
        def count(share: float) -> str:
            return f"{round(share * self.examples)} of {self.examples}"

        right = {} if row.right is None else {"right": count(row.right)}
        return {
            "arithmetic": row.arithmetic,
            **right,
            "agree": count(row.agree),
            "safe": count(row.safe),
            "score error": f"{row.score_error:.3g}",
            "noise: median": f"{row.median:.2g}",
            "largest": f"{row.largest:.2g}",
            "root of squares": f"{row.root_sum_square:.2g}",
            "sum": f"{row.total:.2g}",
        }


def perturbation(
    model: nn.Module, batch: Any, formats: Sequence[str] = SERIES
) -> Perturbation:
    """Measure a network's layers and scores with rounded operands.

    The network runs in evaluation mode, unchanged afterwards. Batch normalisation that is
    folded into the layers before (:func:`elision.precision.folded`) gives weights whose
    channels differ less in size. Outputs of all layers are held at once.

    Args:
        model: answers a batch with scores; its last dimension are the classes.
        batch: the model's input, or a pair of it and the labels ``(N,)``; a label below
            zero is of no known class.
        formats: see :func:`elision.precision.arithmetic`; gradients are of no account.

    Raises:
        ValueError: an unknown format, a model without a layer that is reached, or a
            batch without examples.
    """
    inputs, labels = batch if isinstance(batch, (tuple, list)) else (batch, None)
    chosen = [arithmetic(text) for text in formats]
    plain = restore(copy.deepcopy(model)).eval()
    layers = elidable_layers(plain)
    sums: dict[str, NoiseSum] = {}
    with torch.no_grad(), watch(plain, _observer(chosen, sums)):
        exact, outputs = _run(plain, inputs)
    if not exact.numel():
        raise ValueError("perturbation: the batch holds no examples")
    rows: list[LayerRow] = []
    of_formats = [_format_row("float", exact, exact, labels, [])]
    for each in chosen:
        elide(plain, Recipe(each.name, each.table()), engine="torch")
        with torch.no_grad():
            scores, found = _run(plain, inputs)
        noises = []
        for name in outputs:
            noise = sums[name]
            noises.append(noise.ratio(f"{each.name} weight"))
            rows.append(
                LayerRow(
                    each.name,
                    name,
                    _kind(layers[name]),
                    weight_noise=noises[-1],
                    input_noise=noise.ratio(f"{each.name} input"),
                    noise=noise.ratio(each.name),
                    error=relative_error(found[name], outputs[name]),
                )
            )
        of_formats.append(_format_row(each.name, scores, exact, labels, noises))
    return Perturbation(tuple(of_formats), tuple(rows), len(exact))


def _observer(
    chosen: Sequence[Arithmetic], sums: dict[str, NoiseSum]
) -> Callable[[Observation], None]:
    """An observer that adds the noise of each layer alone to ``sums``."""

    def observe(observation: Observation) -> None:
        product = observation.product
        if product.kind is not Product.FORWARD:
            return
        known = _Rounded(product)
        found: dict[str, Tensor] = {}
        for each in chosen:
            x, w = (each.rounding(operand) for operand in product.kind.operands)
            found[f"{each.name} weight"] = known.result(KEEP, w)
            found[f"{each.name} input"] = known.result(x, KEEP)
            found[each.name] = known.result(x, w)
        sums.setdefault(product.name, NoiseSum()).add(known.result(KEEP, KEEP), found)

    return observe


class _Rounded:
    """One product with its operands rounded in several ways, each computed once."""

    def __init__(self, product: LayerProduct) -> None:
        self._product = product
        self._operands: dict[tuple[str, Transform], Tensor] = {}
        self._results: dict[tuple[Transform, ...], Tensor] = {}

    def result(self, *roundings: Transform) -> Tensor:
        """The product; one transform for each operand."""
        if roundings not in self._results:
            named = zip(self._product.operands.items(), roundings, strict=True)
            operands = [self._operand(name, x, how) for (name, x), how in named]
            rounded = LayerProduct.unchecked(
                self._product.kind, self._product.geometry, *operands
            )
            self._results[roundings] = rounded.compute()
        return self._results[roundings]

    def _operand(self, name: str, x: Tensor, how: Transform) -> Tensor:
        if (name, how) not in self._operands:
            self._operands[name, how] = rounded_operand(
                x, as_read(self._product.geometry, name, how)
            )
        return self._operands[name, how]


def _run(model: nn.Module, inputs: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Scores ``(examples, classes)``, and the output of each layer in calling order.

    Of a layer that is called several times, the outputs one after the other.
    """
    outputs: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _, __, y: outputs.setdefault(name, []).append(y.flatten())

    handles = [
        layer.register_forward_hook(keep(name))
        for name, layer in elidable_layers(model).items()
    ]
    try:
        scores = model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    joined = {name: torch.cat(parts) for name, parts in outputs.items()}
    return scores.flatten(0, -2), joined


def _format_row(
    name: str,
    scores: Tensor,
    exact: Tensor,
    labels: Tensor | None,
    noises: Sequence[float],
) -> FormatRow:
    chosen, before = scores.argmax(1), exact.argmax(1)
    right = None
    if labels is not None and bool((labels >= 0).any()):
        known = labels >= 0
        right = float((chosen == labels)[known].double().mean())
    return FormatRow(
        arithmetic=name,
        right=right,
        agree=float((chosen == before).double().mean()),
        safe=float(is_safe(exact, scores).double().mean()),
        score_error=relative_error(scores, exact),
        median=statistics.median(noises) if noises else 0.0,
        largest=max(noises, default=0.0),
        root_sum_square=root_sum_square(noises),
        total=float(sum(noises)),
    )


def _kind(layer: nn.Module) -> str:
    if isinstance(layer, nn.modules.conv._ConvNd):
        depthwise = layer.groups == layer.in_channels > 1
        return "depthwise" if depthwise else "conv"
    return "linear" if isinstance(layer, nn.Linear) else type(layer).__name__
