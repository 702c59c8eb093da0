"""Forms of an elided layer: ways to compute its one function, of which one runs.

- ``direct``: torch's own function and its own backward pass, on the weight that a mask
  leaves; for layers of which a mask changes the weight and nothing else is changed.
- ``products``: product by product, each by the engine.
- ``blocked``: the kernels' layout, kept between layers (:mod:`elision.layers.blocked`).

Under the engine ``auto`` the forms of a layer are timed once for each shape, density and
kind of pass, and the fastest runs. The plain layer, which computes another function, is
timed with them: :func:`tell` logs what the recipe saves on this machine, or costs.
"""

import functools
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from elision.common.restoring import restored
from elision.common.selecting import select
from elision.common.timing import fastest
from elision.engines import Decision, Engine, decisions, make_engine
from elision.engines.auto import LEAST_MACS, LEVELS, TRYING, density_level, level_of
from elision.engines.native import library
from elision.engines.native.blocked.layer import SparseLayer, Sparsity
from elision.engines.native.blocked.tensor import BlockedTensor, as_plain
from elision.layers.blocked import has_kernels, is_usable
from elision.layers.plan import LayerPlan, buffer_name
from elision.nn.sparse import Mask
from elision.operands import KEEP
from elision.operands.blocked_form import LargestForm, MaskForm
from elision.products import Geometry, Product, dense, geometry_of

__all__ = ["Forms", "mask_of", "masked", "sparse_mask"]

Form = Callable[[Tensor, Tensor], Tensor]
T = TypeVar("T")

_log = logging.getLogger("elision")

_TORCH = make_engine("torch")

#: Timed calls of each form, after one that warms up (an own choice).
_TRIALS = 3


class _Call(NamedTuple):
    """One call of a layer; see :meth:`Forms.output`."""

    layer: Any
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    convolution: Any

    @property
    def back(self) -> bool:
        """Whether a backward pass may follow."""
        wanted = self.x.requires_grad or self.weight.requires_grad
        return torch.is_grad_enabled() and wanted

    @property
    def geometry(self) -> Geometry:
        """Shape of the layer in this call."""
        shapes = tuple(self.x.shape), tuple(self.weight.shape)
        return geometry_of(*shapes, self.convolution)


class Forms:
    """The forms of one elided layer, and the choice between them.

    Args:
        plan: the layer's plan.
        sparsity: what its blocked form reads; None: it has none.
        timed: whether the fastest form runs; otherwise the blocked one where it can.

    Example:
        >>> from elision.methods import Static, Swat
        >>> for method in (Static(0.5), Swat(0.5)):
        ...     print(Forms(LayerPlan("", method.table), None, timed=True).names)
        ('direct', 'products')
        ('products',)
    """

    def __init__(
        self, plan: LayerPlan, sparsity: Sparsity | None, *, timed: bool
    ) -> None:
        self.plan, self.sparsity, self.timed = plan, sparsity, timed
        self._blocked = None if sparsity is None else SparseLayer(sparsity)
        self._mask = _only_mask(plan)
        self._chosen: dict[Any, str] = {}
        self._small: dict[torch.Size, bool] = {}
        self._level: tuple[Any, float | None] = (None, None)
        self._known_level = _known_level(plan)

    def __reduce__(self) -> Any:
        """Copies start with lists and choices of their own."""
        return functools.partial(Forms, timed=self.timed), (self.plan, self.sparsity)

    @property
    def names(self) -> tuple[str, ...]:
        """The forms that the layer has, the simplest first."""
        has = (self._mask is not None, True, self._blocked is not None)
        return tuple(
            n for n, h in zip(("direct", "products", "blocked"), has, strict=True) if h
        )

    def output(
        self,
        layer: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        convolution: Any,
        products: Callable[[Tensor, Tensor, Engine], Tensor],
    ) -> Tensor:
        """The layer's output, by one of its forms.

        Args:
            layer: the layer, for its buffers and mode.
            x: ``(N, C, *sizes)`` or ``(rows, inner)``.
            weight: its weight.
            bias: its bias.
            convolution: parameters of a convolution; None for a linear layer.
            products: the form product by product, of an input, a weight and an engine.
        """
        forms: dict[str, Form] = {}
        if self.timed and self._mask is not None:
            forms["direct"] = partial(self._direct, layer, bias, convolution)
        small = self.timed and self._is_small(x, weight, convolution)
        engine = _TORCH if small else layer._elision_engine
        forms["products"] = lambda x, weight: products(x, weight, engine)
        if small:
            return next(iter(forms.values()))(x, weight)
        usable = is_usable(x, weight, bias)
        blocked = self._blocked
        if blocked is not None and usable and has_kernels(x, weight, convolution):
            forms["blocked"] = partial(
                blocked.run, layer, bias=bias, convolution=convolution
            )
        name = next(reversed(forms))
        if self.timed:
            name = "products"
            if usable and library.unavailable() is None:
                call = _Call(layer, x, weight, bias, convolution)
                name = self._fastest(call, forms)
        return forms[name](x, weight)

    def _is_small(self, x: Tensor, weight: Tensor, convolution: Any) -> bool:
        """Whether a product of the layer is too small for kernels of ours."""
        small = self._small.get(x.shape)
        if small is None:
            geometry = geometry_of(tuple(x.shape), tuple(weight.shape), convolution)
            small = self._small[x.shape] = geometry.dense_macs < LEAST_MACS
        return small

    def _direct(
        self, layer: Any, bias: Tensor | None, convolution: Any, x: Tensor, w: Tensor
    ) -> Tensor:
        """Torch's own function of what the mask leaves."""
        return dense.forward(as_plain(x), masked(layer, w), bias, convolution)

    def _fastest(self, call: _Call, forms: dict[str, Form]) -> str:
        """Name of the fastest form of such a call."""
        x, level = call.x, self._density(call.layer)
        setting = (_dtype_words(), torch.get_num_threads())
        key = (x.shape, type(x), x.requires_grad, call.back, level, *forms, setting)
        chosen = self._chosen.get(key)
        if chosen is not None:
            tell()
            return chosen
        if level == LEVELS[0]:
            chosen = next(iter(forms))
        else:
            question = self._question(call, level)
            decision = decisions().find(question) or _timed(question, call, forms)
            chosen = decision.winner
            _USED[call.layer._elision_name, question] = decision
        self._chosen[key] = chosen
        return chosen

    def _question(self, call: _Call, level: float | None) -> str:
        """Unique description of a choice between forms."""
        x = call.x
        return (
            f"{'step' if call.back else 'forward pass'} of {call.geometry.description}, "
            f"{'blocked' if isinstance(x, BlockedTensor) else 'plain'} input"
            f"{' without gradient' if call.back and not x.requires_grad else ''}, "
            f"{_words(self.plan)}{'' if level is None else f', density {level:g}'}, "
            f"{_dtype_words()}{torch.get_num_threads()} threads"
        )

    def _density(self, layer: Any) -> float | None:
        """Level of the density of what the recipe reads; None: known from no value."""
        if self._mask is None:
            return self._known_level
        mask = layer._buffers[self._mask[0]]
        if not mask.numel():
            return LEVELS[0]
        key = (id(mask), mask._version)
        if self._level[0] != key:
            self._level = (key, density_level(mask))
        return self._level[1]


def mask_of(layer: Any) -> tuple[str, str] | None:
    """Buffers of a mask that is the whole recipe of an elided layer; None: it is not.

    They hold the mask and the fraction of the weight gradient that its rule needs.
    """
    return _only_mask(layer._elision_plan)


def masked(layer: Any, weight: Tensor) -> Tensor:
    """What its mask leaves of a layer's weight, if that is all that its recipe does.

    The weight gradient is masked, too, unless the rule needs more of it.

    Args:
        layer: an elided layer of which a mask is the whole recipe (:func:`mask_of`), or
            that changes nothing.
        weight: its weight.
    """
    found = mask_of(layer)
    if found is None:
        return weight
    mask, needed = (layer._buffers[name] for name in found)
    if not mask.numel():
        return weight
    return _selected(weight, mask.view(weight.shape), whole=needed.item() >= 1)


def sparse_mask(layer: Any) -> Mask | None:
    """The mask of a layer as lists of what it keeps, made anew when it moves.

    None: it has none, or its rule needs the gradient of what is masked, too.
    """
    found = mask_of(layer)
    if found is None:
        return None
    places, needed = (layer._buffers[name] for name in found)
    if not places.numel() or needed.item() >= 1:
        return None
    known = layer.__dict__.get("_elision_lists")
    if known is None or known.places is not places:
        known = Mask(places)
        layer._elision_lists = known
    return known


#: Values of a weight below which torch's own selection costs less than a call from the
#: backward pass into Python (an own choice).
_FEW = 8192


def _selected(weight: Tensor, mask: Tensor, *, whole: bool) -> Tensor:
    """What a mask leaves of a weight.

    Args:
        weight: the weight.
        mask: boolean, of its shape.
        whole: whether its gradient is the whole one; otherwise that is masked, too.
    """
    if not whole and weight.numel() < _FEW:
        return torch.where(mask, weight, weight.new_zeros(()))
    return _Selected.apply(weight, mask, whole)  # pyright: ignore[reportReturnType]


class _Selected(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor, whole: bool) -> Tensor:
        ctx.mask = None if whole else mask
        return select(weight, mask)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (grad,) = grads
        return grad if ctx.mask is None else select(grad, ctx.mask), None, None


def _timed(question: str, call: _Call, forms: dict[str, Form]) -> Decision:
    """Time every form of a call and the plain layer."""
    _, x, weight, bias, convolution = call

    def plain(x: Tensor, weight: Tensor) -> Tensor:
        return dense.forward(as_plain(x), weight, bias, convolution)

    candidates = {
        name: partial(_pass, form, x, weight, call.back) for name, form in forms.items()
    }
    # The plain layer's neighbours are plain, too.
    alone = as_plain(x).detach().requires_grad_(x.requires_grad)
    dense_pass = partial(_pass, plain, alone, weight, call.back)
    with TRYING, restored(call.layer, random_state=True):
        seconds = fastest(candidates | {"dense": dense_pass}, _TRIALS)
    dense_seconds = seconds.pop("dense")
    return decisions().add(Decision(question, seconds, dense_seconds))


def _pass(form: Form, x: Tensor, weight: Tensor, back: bool) -> None:
    """One pass through a form of a layer, and back; nothing is kept.

    A convolution is timed with the normalisation and the ReLU that usually follow, which
    run in the layout of its output. A plain input is paid for with two changes of layout,
    as if no neighbour were blocked.
    """
    given = (x.detach(), weight.detach())
    wants = [t.requires_grad for t in (x, weight)]
    for tensor, wanted in zip(given, wants, strict=True):
        tensor.requires_grad_(wanted and back)
    with torch.set_grad_enabled(back):
        y = form(*given)
        if back and y.dim() == 4 and y.numel() > y.shape[1]:
            scale = torch.ones(y.shape[1], dtype=y.dtype)
            shift = torch.zeros_like(scale)
            y = torch.relu(F.batch_norm(y, None, None, scale, shift, training=True))
        if not isinstance(x, BlockedTensor):
            y = as_plain(y)
    if back:
        wanted = [t for t in given if t.requires_grad]
        torch.autograd.grad(y, wanted, torch.ones_like(y))


def _dtype_words() -> str:
    if not torch.is_autocast_enabled("cpu"):
        return ""
    dtype = torch.get_autocast_dtype("cpu")
    return f"autocast to {dtype}, ".replace("torch.", "")


def _once_a_plan(asked: Callable[[LayerPlan], T]) -> Callable[[LayerPlan], T]:
    """A function that remembers its answers for as long as the plans live, and no plan."""
    answers: WeakKeyDictionary[LayerPlan, T] = WeakKeyDictionary()

    def known(plan: LayerPlan) -> T:
        if plan not in answers:
            answers[plan] = asked(plan)
        return answers[plan]

    return known


@_once_a_plan
def _words(plan: LayerPlan) -> str:
    """The cells of a plan that change something."""
    return ", ".join(f"{p.value} {o} {t}" for p, o, t in plan.table if t != KEEP)


@_once_a_plan
def _only_mask(plan: LayerPlan) -> tuple[str, str] | None:
    """Buffers of a mask that is the whole recipe of a layer, and of the need for more.

    They hold the mask and the fraction of the weight gradient that is needed; None: the
    recipe does something else.
    """
    masked = plan.use(Product.FORWARD, "weight")
    form = plan.uses[masked].blocked_form()
    others = [t for p, o, t in plan.table if plan.use(p, o) != masked]
    both = plan.use(Product.INPUT_GRAD, "weight") == masked
    if not (isinstance(form, MaskForm) and both and all(t == KEEP for t in others)):
        return None
    return buffer_name(masked, form.mask), buffer_name(masked, form.gradient_density)


def _known_level(plan: LayerPlan) -> float | None:
    form = plan.transform(Product.FORWARD, "weight").blocked_form()
    return level_of(form.keep) if isinstance(form, LargestForm) else None


#: Decisions that layers began to follow and :func:`tell` has not told, by layer.
_USED: dict[tuple[str, str], Decision] = {}


def tell() -> None:
    """Log what the forms that layers began to use save, in one line.

    A warning if together they are slower than the plain layers: the recipe saves no time
    here.
    """
    if not _USED:
        return
    used = {layer: decision for (layer, _), decision in _USED.items()}
    _USED.clear()
    chosen = [decision.winner for decision in used.values()]
    names = sorted(set(chosen))
    counts = ", ".join(f"{chosen.count(name)} {name}" for name in names)
    seconds = sum(d.seconds[d.winner] for d in used.values())
    alone = sum(d.dense for d in used.values() if d.dense is not None)
    slower = [n for n, d in used.items() if d.dense and d.seconds[d.winner] > d.dense]
    which = f"; slower than dense: {_listed(slower)}" if slower else ""
    _log.log(
        logging.WARNING if seconds > alone else logging.INFO,
        "engine auto: %d layers timed (%s): %.3g ms a pass, dense %.3g ms (%.2fx)%s",
        len(used),
        counts,
        1e3 * seconds,
        1e3 * alone,
        alone / seconds,
        which,
    )


def _listed(names: list[str], most: int = 4) -> str:
    rest = len(names) - most
    shown = ", ".join(name or "(the model)" for name in names[:most])
    return f"{shown} and {rest} more" if rest > 0 else shown
