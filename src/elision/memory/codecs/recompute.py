"""Recomputation, bit for bit, of layer inputs from tensors that are kept anyway.

The graph says what made a tensor, but not what was written to it since: statements under
``no_grad``, through ``.data`` or numpy leave no trace there. So a recipe is run once when
the tensor is saved, and only taken if the tensor is what comes out; and what comes out in
the backward pass is compared with that by its content tag, since the tensors that it is
computed from may be written as well.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from elision.memory.saved.codec import Codec, Guarantee, Packed
from elision.memory.saved.layout import Layout, flat
from elision.memory.saved.roles import Role, Slot
from elision.memory.saved.tag import content_tag
from elision.memory.saved.token import Token

__all__ = ["Recompute"]

#: Slot -> index of the producer of its tensor among the function's ``next_functions``.
_EDGES = {
    "ConvolutionBackward0.input": 0,
    "AddmmBackward0.mat1": 1,
    "MmBackward0.self": 0,
    "MulBackward0.self": 0,
    "MulBackward0.other": 1,
    "GeluBackward0.self": 0,
    "SiluBackward0.self": 0,
    "MishBackward0.self": 0,
    "HardswishBackward0.self": 0,
}

#: Smooth activations that keep their argument in the slot ``self``.
_ACTIVATIONS: dict[str, Callable[[Any], Callable[[torch.Tensor], torch.Tensor]]] = {
    "GeluBackward0": lambda node: functools.partial(
        F.gelu, approximate=node._saved_approximate
    ),
    "SiluBackward0": lambda node: F.silu,
    "MishBackward0": lambda node: F.mish,
    "HardswishBackward0": lambda node: F.hardswish,
}

_LAST = (
    "ReluBackward0",
    "NativeBatchNormBackward0",
    "MulBackward0",
    *_ACTIVATIONS,
)

#: Values of ``eps`` of layer norms, which autograd's nodes do not keep: PyTorch's
#: default, and those of ViT, BERT, GPT-NeoX and others. Each is verified.
_LAYER_NORM_EPS = (1e-5, 1e-6, 1e-12, 1e-8, 1e-3)


@dataclass(frozen=True)
class Recompute(Codec):
    """Exact: the input of a layer from the norm, activation, sum or product that made it.

    A ReLU that follows a batch norm costs a tensor in plain autograd although the batch
    norm's own input is kept as well; so do a layer norm and a GELU, whose arguments and
    results are both kept, and a gated layer or a root-mean-square norm, of which every
    factor and every product is. The autograd graph records the functions in between, so the
    backward pass runs the same kernels on the same values again. Batch norm in training
    mode and on the CPU only; elsewhere the tensor is left to the next codec. The ReLU
    keeps its mask, or its backward would have to compute everything once more. Every
    recipe is verified, see above.

    Attributes:
        steps: most functions to run again for one tensor (own choice: 8 reach back over
            two residual blocks; without a limit the cost would be quadratic in depth).
        lossy: also start from a batch norm's input that is kept in some codec's form,
            with the mean and deviation of the true one. Not exact then: what comes out
            has to be nearer to the tensor than half its norm (own choice).

    Example:
        >>> from torch import nn
        >>> from elision.memory import Policy, Rule, saver
        >>> model = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64))
        >>> with saver(model, Policy([Rule((Recompute(),))])) as saved:
        ...     loss = model(torch.randn(128, 64)).square().mean()
        >>> [row.codec for row in saved.ledger.rows if row.codec == "recompute"]
        ['recompute']
    """

    steps: int = 8
    lossy: bool = False
    roles = frozenset({Role.LINEAR_INPUT, Role.MULTIPLICAND, Role.ACTIVATION})

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """``"recompute"``."""
        return "recompute from packed" if self.lossy else "recompute"

    @property
    def guarantee(self) -> Guarantee:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Exact, from exact values."""
        return Guarantee.LOSSY if self.lossy else Guarantee.EXACT

    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Keep the recipe of the tensor; None where there is none."""
        if tensor.device.type != "cpu":
            return None
        producer = _producer(slot)
        kind = type(producer).__name__
        if kind == "NativeLayerNormBackward0":
            recipe = _layer_norm_recipe(producer, tensor, self.lossy)
        elif kind in _LAST:
            recipe = _recipe(producer, self.steps, self.lossy)
        else:
            recipe = None
        if recipe is None:
            return None
        again = _run(recipe.run)
        if again.dtype is not tensor.dtype or again.numel() != tensor.numel():
            return None
        tag = content_tag(again)
        if tag != content_tag(tensor) and not (self.lossy and _near(again, tensor)):
            return None
        for token in recipe.sources:
            token.pinned |= token.entry is None
        forms = tuple((token, token.entry) for token in recipe.sources)
        return Packed((), Layout.of(tensor), (recipe.run, tag, forms))

    def unpack(self, packed: Packed) -> torch.Tensor:
        """Compute the tensor.

        Raises:
            RuntimeError: it is not what it was.
        """
        run, tag, forms = packed.meta
        values = _run(run)
        # A packed source may be held itself by now, and what comes out is more exact.
        same = all(token.entry is form for token, form in forms)
        if same and content_tag(values) != tag:
            raise came_out_different(packed.layout)
        return packed.layout.view(values)


def came_out_different(layout: Layout) -> RuntimeError:
    """The error of a tensor that was computed again and is not what it was."""
    return RuntimeError(
        f"a saved tensor of shape {layout.shape} that was to be computed again came out "
        "different: since it was saved, a tensor that it is computed from was written "
        "without a new version (through .data or numpy), or the number of threads has "
        "changed; keep such tensors, with Rule(()) for their module or the policy 'none'"
    )


def _run(recipe: Callable[[], torch.Tensor]) -> torch.Tensor:
    """The flat result of a recipe."""
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        return flat(recipe())


def _near(values: torch.Tensor, tensor: torch.Tensor) -> bool:
    """True if flat values are those of a tensor but for what rounding explains."""
    true = flat(tensor)
    return bool(torch.dist(values, true) <= 0.5 * torch.linalg.vector_norm(true))


def _producer(slot: Slot) -> Any:
    """The node that the slot's tensor is a result of; None where that is not known.

    A custom function may save something else than its argument, but not if a ReLU
    before it saved the same memory as its result.
    """
    edge = _EDGES.get(f"{slot.function}.{slot.name}")
    if edge is not None:
        node = slot.node.next_functions[edge][0]
        while type(node).__name__ == "ViewBackward0":  # the same memory, another shape
            node = node.next_functions[0][0]
        return node
    for node, _ in slot.node.next_functions:
        relu = type(node).__name__ == "ReluBackward0"
        if relu and node._raw_saved_result.data in slot.tokens:
            return node
    return None


@dataclass(frozen=True)
class _Recipe:
    """Recipe to compute a tensor.

    Attributes:
        run: computes it.
        steps: number of functions that it runs.
        sources: what it starts from, parameters excepted.
    """

    run: Callable[[], torch.Tensor]
    steps: int = 0
    sources: tuple[Token, ...] = ()


def _held(node: Any, slot: str, packed: bool = False) -> Token | None:
    """The token in a slot of ours, if it holds the tensor itself, or a packed form.

    One that is not decided on yet is kept from then on. A recipe from packed values
    would gain nothing by that, and leaves it alone.
    """
    token = getattr(node, f"_raw_saved_{slot}").data
    if not isinstance(token, Token):
        return None
    usable = token.settled if packed else token.tensor is not None
    return token if usable else None


def _recipe(node: Any, steps: int, lossy: bool) -> _Recipe | None:
    """Recipe to compute the result of ``node`` in at most ``steps`` functions."""
    kind = type(node).__name__
    if kind == "ReluBackward0" and (result := _held(node, "result")) is not None:
        return _Recipe(result.restore, 0, (result,))
    if steps < 1:
        return None
    if kind == "ReluBackward0":
        argument = _recipe(node.next_functions[0][0], steps - 1, lossy)
        if argument is None:
            return None
        relu = (
            torch.relu_ if argument.steps else torch.relu
        )  # held is not ours to write
        return _Recipe(
            lambda: relu(argument.run()), argument.steps + 1, argument.sources
        )
    if kind == "AddBackward0":
        return _sum_recipe(node, steps - 1, lossy)
    if kind == "NativeBatchNormBackward0" and node._saved_training:
        return _batch_norm_recipe(node, lossy)
    if kind in _ACTIVATIONS:
        argument = _operand(node, "self", 0, steps - 1, lossy)
        if argument is None:
            return None
        activation = _ACTIVATIONS[kind](node)
        return _Recipe(
            lambda: activation(argument.run()), argument.steps + 1, argument.sources
        )
    if kind == "MulBackward0":
        return _product_recipe(node, steps - 1, lossy)
    return None


def _operand(
    node: Any, slot: str, edge: int, steps: int, lossy: bool
) -> _Recipe | None:
    """An argument of ``node``, which is in a slot of it or can be computed."""
    token = _held(node, slot, packed=lossy)
    if token is not None:
        return _Recipe(token.restore, 0, (token,))
    producer = node.next_functions[edge][0]
    return None if producer is None else _recipe(producer, steps, lossy)


def _product_recipe(node: Any, steps: int, lossy: bool) -> _Recipe | None:
    """A product of two tensors, or of a tensor and a number."""
    left = _operand(node, "self", 0, steps, lossy)
    right = left and _operand(node, "other", 1, steps - left.steps, lossy)
    if left is None or right is None:
        return None
    return _Recipe(
        lambda: _over(left, right, torch.Tensor.mul_, torch.mul),
        left.steps + right.steps + 1,
        left.sources + right.sources,
    )


def _over(left: _Recipe, right: _Recipe, in_place: Any, function: Any) -> torch.Tensor:
    """A function of two tensors, written over the first if that was computed for it."""
    x, y = left.run(), right.run()
    ours = left.steps > 0 and (x.shape, x.dtype) == (y.shape, y.dtype)
    return in_place(x, y) if ours else function(x, y)


def _sum_recipe(node: Any, steps: int, lossy: bool) -> _Recipe | None:
    """A sum of two tensors, each of which can be computed."""
    (first, _), (second, _) = node.next_functions[:2]
    left = _recipe(first, steps, lossy)
    right = left and _recipe(second, steps - left.steps, lossy)
    if left is None or right is None:
        return None
    alpha = node._saved_alpha
    in_place = functools.partial(torch.Tensor.add_, alpha=alpha)
    return _Recipe(
        lambda: _over(left, right, in_place, functools.partial(torch.add, alpha=alpha)),
        left.steps + right.steps + 1,
        left.sources + right.sources,
    )


def _affine(node: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The scale and shift of a norm as they are now, for they are small."""
    scale, shift = (getattr(f, "variable", None) for f, _ in node.next_functions[1:3])
    if scale is None or shift is None:
        return None
    return scale.detach().clone(), shift.detach().clone()


def _batch_norm_recipe(node: Any, lossy: bool) -> _Recipe | None:
    """A batch norm in training mode from its input and its affine parameters."""
    values = _held(node, "input", packed=lossy)
    affine = _affine(node)
    if values is None or affine is None:
        return None
    eps = node._saved_eps
    mean = variance = None
    if values.tensor is None:
        mean, variance = node._saved_result1, node._saved_result2**-2 - eps

    def run() -> torch.Tensor:
        x, training = values.restore(), mean is None
        return torch.native_batch_norm(x, *affine, mean, variance, training, 0, eps)[0]

    return _Recipe(run, 1, (values,))


def _layer_norm_recipe(node: Any, result: torch.Tensor, lossy: bool) -> _Recipe | None:
    """A layer norm from its input and its affine parameters; ``result`` is to come out.

    The node keeps the statistics but not ``eps``, so the usual values are tried and
    verified. From an inexact input the norm is computed with the true statistics.
    """
    values = _held(node, "input", packed=lossy)
    affine = _affine(node)
    if values is None or affine is None:
        return None
    if values.tensor is None:
        mean, inverse_deviation = node._saved_result1, node._saved_result2

        def run_approximately() -> torch.Tensor:
            x = (values.restore().contiguous() - mean) * inverse_deviation
            return x * affine[0] + affine[1]

        return _Recipe(run_approximately, 1, (values,))
    shape = node._saved_normalized_shape
    for eps in _LAYER_NORM_EPS:

        def run(eps: float = eps) -> torch.Tensor:
            return F.layer_norm(values.restore(), shape, *affine, eps)

        again = _run(run)
        if again.dtype is result.dtype and torch.equal(again, flat(result)):
            return _Recipe(run, 1, (values,))
    return None
