"""Products that a model's own calls compute: attention, ``matmul``, ``einsum``.

A function mode of torch (:mod:`elision.layers.between.passes`) answers such calls by an
:class:`ElidedCall` each, a layer without a weight: the second operand stands for it, and
its gradients read what the forward product read. Attention is written out, so that its two
products are two of these: ``Q·Kᵀ`` (``qk``) and ``P·V`` (``pv``).

A call is named after the module that makes it, the function, and a number from its second
call in that module on: ``blocks.0.attn.qk``, ``mix.matmul``, ``mix.matmul_1``. What the
mode cannot bring into that form runs as it is: products of more than two tensors, of
integers or complex numbers, of other kinds of tensors, under transforms of ``torch.func``,
and in regions that are checkpointed apart from a module, where a recomputation would not
come by here.
"""

import re
import threading
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from elision.engines import make_engine
from elision.layers.between.call_readers import CALLS, found_in
from elision.layers.between.contraction import Contraction, of_matmul
from elision.layers.between.passes import PRODUCTS, Around, stand_around
from elision.layers.effects import NoEffectWarning
from elision.layers.extras import drop_extra, extra
from elision.layers.modules.base import ElidedLayer, plan_of
from elision.layers.observation import Observer, without
from elision.layers.plan import LayerPlan
from elision.layers.recipe import Recipe
from elision.layers.recomputation import OWN_PRODUCTS, is_recomputation
from elision.layers.table import Table
from elision.nn.attention import attention, rebound

__all__ = [
    "Called",
    "ElidedCall",
    "called_in",
    "changed_calls",
    "give_products",
    "is_call",
    "seen_by",
]


class ElidedCall(ElidedLayer):
    """A product of two tensors that a model's own call computes.

    Args:
        name: of the product.
        plan: the transforms of its operands, without state.

    Example:
        >>> from elision.layers.table import Table
        >>> call = ElidedCall("matmul", LayerPlan("dense", Table()))
        >>> call(torch.ones(3, 4), torch.ones(5, 4)).shape
        torch.Size([3, 5])
    """

    _elision_has_weight = False

    def __init__(self, name: str, plan: LayerPlan) -> None:
        super().__init__()
        self._elision_plan, self._elision_name = plan, name
        # The kernels that leave zeros out know one product, not a batch of them.
        self._elision_engine = make_engine("torch")

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """``x·wᵀ`` of ``([batch,] rows, inner)`` and ``([batch,] columns, inner)``."""
        return self.run_products(x, w, None)


class Called(Around):
    """The products of a model's own calls; copies and pickles keep the recipe alone.

    Args:
        recipe: whose tables they get where its ``products`` name them; None: they are
            only observed.
        name: of the recipe that the model's layers have.
        modules: names of the model's modules, which no product gets.

    Attributes:
        calls: the products met so far, by name.
        observers: that see them.
    """

    def __init__(
        self,
        recipe: Recipe | None = None,
        name: str = "dense",
        modules: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.recipe, self._name, self._modules = recipe, name, frozenset(modules)
        self.calls: dict[str, ElidedCall] = {}
        self.observers: tuple[Observer, ...] = ()
        self._aside: dict[str, str] = {}
        self._told: set[tuple[str, str]] = set()
        self._place = _Place()

    def __reduce__(self) -> tuple[Any, ...]:
        return Called, (self.recipe, self._name, self._modules)

    def mode(self, *, again: bool = False) -> TorchFunctionMode:
        """The mode that answers the calls."""
        return _Calls(self, again)

    def end(self, *, ended_well: bool) -> None:
        """Say once which pattern of the recipe named nothing, and what ran as it is."""
        if self.recipe is None or not ended_well:
            return
        for pattern in self.recipe.products:
            if ("pattern", pattern) in self._told:
                continue
            self._told.add(("pattern", pattern))
            met = {**self.calls, **self._aside}
            if not any(fnmatchcase(name, pattern) for name in met):
                named = ", ".join(met) or "there are none"
                self._warn(f"products={pattern!r} names none of the model's: {named}")
        for name, why in self._aside.items():
            if ("name", name) not in self._told and self.recipe.table_of_call(name):
                self._told.add(("name", name))
                self._warn(f"the product {name} runs as it is: {why}")

    def _warn(self, text: str) -> None:
        assert self.recipe is not None
        whose = f"recipe {self.recipe.name!r}: "
        warnings.warn(whose + text, NoEffectWarning, stacklevel=6)

    def of(self, name: str, training: bool) -> ElidedCall:
        """The product of a name, made when it is first met."""
        call = self.calls.get(name)
        if call is None:
            own = Table() if self.recipe is None else self.recipe.table_of_call(name)
            call = self.calls[name] = ElidedCall(name, LayerPlan(self._name, own))
        call._elision_observers = self.observers
        call.training = training
        return call

    # --- where the program is ------------------------------------------------------------

    def entering(self, name: str, module: nn.Module) -> None:
        """A module's forward begins."""
        frames = self._place.frames
        if not self._here.depth and not is_recomputation():
            frames.clear()  # where an interrupted pass stopped
        frames.append(_Frame(name, module, Counter(), _saving()))

    def leaving(self) -> None:
        """It ends."""
        if self._place.frames:
            self._place.frames.pop()

    @property
    def frame(self) -> "_Frame | None":
        """The innermost module that runs; None: it is outside of the model's hooks."""
        return self._place.frames[-1] if self._place.frames else None

    def named(self, frame: "_Frame", what: str) -> str:
        """The next name of a product that a module computes."""
        if isinstance(frame.module, nn.MultiheadAttention) and what != "linear":
            is_second = frame.seen["qk"] > frame.seen["pv"]
            what = "pv" if is_second else "qk"  # also where it returns its weights
        first = f"{frame.name}.{what}" if frame.name else what
        while True:
            number, frame.seen[what] = frame.seen[what], frame.seen[what] + 1
            name = f"{first}_{number}" if number else first
            if name not in self._modules:
                return name

    def note_aside(self, name: str, why: str) -> None:
        """Remember a product that runs as it is."""
        self._aside.setdefault(name, why)


@dataclass
class _Frame:
    """A module that runs: its name, what it has computed, how tensors were saved."""

    name: str
    module: nn.Module
    seen: Counter[str]
    saving: Any


class _Place(threading.local):
    """The modules that run on this thread, outermost first."""

    def __init__(self) -> None:
        self.frames: list[_Frame] = []


def _saving() -> Any:
    """The hooks of saved tensors in force; a checkpointed region has its own."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True)  # pyright: ignore[reportAttributeAccessIssue]


class _Named:
    """Hooks that tell which module runs."""

    def __init__(self, called: Called, name: str) -> None:
        self._called, self._name = called, name

    @torch._disable_dynamo  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
    def enter(self, module: nn.Module, args: Any) -> None:
        """Forward pre-hook."""
        self._called.entering(self._name, module)

    @torch._disable_dynamo  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """Forward hook."""
        self._called.leaving()


class _Calls(TorchFunctionMode):
    """Answers calls that compute products."""

    def __init__(self, called: Called, again: bool) -> None:
        super().__init__()
        self._called, self._again = called, again

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Compute the product by its layer, or run the function."""
        kwargs = kwargs or {}
        left_behind = self._again and not is_recomputation()  # by an interrupt
        if OWN_PRODUCTS or left_behind or self._called.frame is None:
            return func(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            with self:  # torch's own body, whose products come here
                return _BODY(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        found = found_in(func, args, kwargs)
        if found is None:
            return func(*args, **kwargs)
        what, product, finished = found
        y = self._product(what, product)
        return func(*args, **kwargs) if y is None else finished(y)

    def _product(self, what: str, product: Contraction) -> Tensor | None:
        """A product by its layer; None: it runs as it is."""
        called, frame = self._called, self._called.frame
        assert frame is not None
        name = called.named(frame, what)
        why = _why_aside(frame, product.x, product.w)
        if why is not None:
            called.note_aside(name, why)
            return None
        call = called.of(name, frame.module.training)
        # Not called as a module: it is none of the model, and global hooks count those.
        return product.shaped(call.forward(product.x, product.w))

    def _attention(
        self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Attention written out, if both of its products can be answered."""
        called, frame = self._called, self._called.frame
        assert frame is not None
        others = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        why = _why_aside(frame, query, key) or _why_aside(frame, query, value)
        if why is None and any(type(x) is not Tensor for x in others):
            why = "its mask is another kind of tensor"
        if why is not None:
            for what in ("qk", "pv"):
                called.note_aside(called.named(frame, what), why)
            return F.scaled_dot_product_attention(query, key, value, *args, **kwargs)

        def multiply(what: str, x: Tensor, w: Tensor) -> Tensor:
            product = of_matmul(x, w.mT)
            y = None if product is None else self._product(what, product)
            return x @ w.mT if y is None else y

        # Other modes (a replaced softmax) see what is called here.
        arguments = (query, key, value, *args)
        return attention(torch.softmax, *arguments, **kwargs, multiply=multiply)


_BODY = rebound({})


def _why_aside(frame: _Frame, x: Tensor, w: Tensor) -> str | None:
    """Why a product cannot be answered; None: it can."""
    plain = {Tensor, nn.Parameter}
    if not {type(x), type(w)} <= plain or {x.layout, w.layout} != {torch.strided}:
        return "an operand is another kind of tensor"
    if not (x.is_floating_point() and w.is_floating_point()):
        return "its operands are complex numbers or integers"
    if x.dtype != w.dtype and not torch.is_autocast_enabled(x.device.type):
        return "its operands differ in type"
    if not x.numel() or not w.numel():
        return "an operand is empty"
    if torch._C._functorch.maybe_current_level():  # pyright: ignore[reportAttributeAccessIssue]
        return "it is under a transform of torch.func"
    if torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        return "it is traced"
    if _saving() != frame.saving:
        return "it is checkpointed apart from a module"
    return None


# --- a model's products -------------------------------------------------------------------


def give_products(model: nn.Module, recipe: Recipe) -> None:
    """Let a recipe reach the products of a model's own calls that it names.

    Raises:
        ValueError: a transform or a sum that they would have keeps state.
    """
    if not recipe.products:
        return
    for table in recipe.tables_of_calls:
        _refuse_state(recipe, table)
    _attach(model, Called(recipe, recipe.name, _names(model)))


def _refuse_state(recipe: Recipe, table: Table) -> None:
    plan = LayerPlan(recipe.name, table)
    kept = [
        f"'{transform}'" for use, transform in plan.uses.items() if plan.buffers[use]
    ]
    if plan.is_random:
        kept.append("a sum of random rounding")
    if kept:
        raise ValueError(
            f"recipe {recipe.name!r}: products={list(recipe.products)} would give products "
            f"of a model's own calls {', '.join(kept)}, which keeps state between steps; "
            "such a product has none, as it belongs to no layer: name none, or use a recipe "
            "without state (refresh=1, scales of the tensor)"
        )


def _names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_modules()]


def changed_calls(model: nn.Module) -> dict[str, ElidedCall]:
    """The products of a model's own calls that a recipe changes, of those met so far."""
    called = called_in(model)
    calls = {} if called is None else called.calls
    return {name: call for name, call in calls.items() if plan_of(call).changes}


def is_call(pattern: str, modules: Iterable[str]) -> bool:
    """Whether a pattern can name a product of a call in one of some modules."""
    last = pattern.rpartition(".")[2]
    numbered = re.sub(r"_\d+$", "", last)
    patterns = {pattern, pattern.removesuffix(last) + numbered}
    names = (f"{name}.{call}" if name else call for name in modules for call in CALLS)
    return any(fnmatchcase(name, p) for name in names for p in patterns)


def called_in(model: nn.Module) -> Called | None:
    """The products of a model's own calls, if anything has asked for them."""
    return extra(model, PRODUCTS)


@contextmanager
def seen_by(model: nn.Module, observer: Observer, recipe: str) -> Iterator[None]:
    """Context manager: show the products of a model's own calls to an observer.

    Args:
        model: whose passes are watched.
        observer: of the products.
        recipe: name of the recipe that the model's layers have.
    """
    called = called_in(model)
    if called is None:
        called = Called(None, recipe, _names(model))
        _attach(model, called)
    called.observers = (*called.observers, observer)
    try:
        yield
    finally:
        called.observers = without(called.observers, observer)
        idle = not called.observers and called.recipe is None
        if idle and called_in(model) is called:
            drop_extra(model, PRODUCTS)


def _attach(model: nn.Module, called: Called) -> None:
    handles: list[Any] = []
    for name, module in model.named_modules():
        if not isinstance(module, torch.jit.ScriptModule):
            hooks = _Named(called, name)
            handles += [
                module.register_forward_pre_hook(hooks.enter),
                module.register_forward_hook(hooks.leave, always_call=True),
            ]
    stand_around(model, PRODUCTS, called, handles)
