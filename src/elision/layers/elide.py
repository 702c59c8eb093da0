"""elide and restore: run the three products of an unmodified model through a recipe.

``elide`` changes the class of every ``Conv2d`` and ``Linear`` of a model (every layer
whose type is in :data:`elision.layers.ELIDED`), in place, to one whose forward and
backward products read transformed operands. The layer object, its
parameters, its hooks and its state-dict keys stay what they were; what a transform must
remember is added as buffers. ``restore`` changes the class back.

An operand goes through a layer like this::

    input, weight ──transform──> forward product ──> output
        │            (saved: what the two gradient products will read)
        v
    grad_output ──transform──> input-gradient and weight-gradient products

Two cells of the table that hold equal transforms of the same operand are one *use*: the
transform is applied once and both products read its result.
"""

import warnings
from collections.abc import Collection
from fnmatch import fnmatchcase
from typing import TypeVar

import torch
from torch import Tensor, nn

from elision.common.exact import GivenExact
from elision.engines import make_engine
from elision.layers.between.called import give_products
from elision.layers.between.passes import plain_class
from elision.layers.between.replace import Functions, named, replace
from elision.layers.blocked import sparsity_of
from elision.layers.effects import NoEffectWarning
from elision.layers.extras import give_extras, remove_all, remove_extras, take_extras
from elision.layers.forms import Forms
from elision.layers.lookup import lookup_table
from elision.layers.modules import ELIDED, elided_whole, plain_type
from elision.layers.modules.base import ElidedLayer
from elision.layers.modules.part import ElidedWhole
from elision.layers.parts import Part
from elision.layers.plan import ACCUMULATE, LayerPlan, buffer_name
from elision.layers.reach import elidable_layers, tied_to, unreached
from elision.layers.readers import guard_readers
from elision.layers.recipe import (
    SELECTORS,
    Recipe,
    Table,
    as_recipe,
    names_in_order,
    selects,
)
from elision.layers.recomputation import LatestCalls
from elision.layers.turned import turned_table
from elision.operands import KEEP

__all__ = ["TiedWeightWarning", "elide", "restore"]

Model = TypeVar("Model", bound=nn.Module)


class TiedWeightWarning(UserWarning):
    """A layer stays dense because another module reads its weight, too.

    Example:
        >>> import warnings, elision
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9, bias=False))
        >>> model[1].weight = model[0].weight
        >>> with warnings.catch_warnings(record=True, action="always") as caught:
        ...     _ = elision.elide(model, elision.methods.Static(0.5, dense=(":embedding",)))
        >>> caught[-1].category.__name__, int((model[0].weight == 0).sum())
        ('TiedWeightWarning', 0)
    """


#: Attribute by which DistributedDataParallel learns what it must not broadcast.
_DDP_IGNORE = "_ddp_params_and_buffers_to_ignore"


def elide(
    model: Model,
    recipe: Recipe | str,
    engine: str = "auto",
    *,
    tied: Collection[str] = (),
    functions: Functions | None = None,
) -> Model:
    """Run the products of a model's layers through a recipe.

    In place; a model that was elided before gets the new recipe with fresh state.
    A recipe that is refused leaves the model as it was. State-dict keys do not change;
    state that the recipe's transforms remember is added under
    ``<layer>.elision_<operand>_for_<product>_<state>``.

    Args:
        model: any module; see :func:`elidable_layers` for what is reached.
        recipe: what is done, for example ``elision.methods.Swat(sparsity=0.9)``, or its
            text as on the command line, ``"swat:sparsity=0.9"``.
        engine: who computes the products. ``"torch"``: dense, the oracle.
            ``"native"``: kernels that leave the zeros out (raises if they cannot be
            built here). ``"auto"``: the faster of the two for each product that has a
            sparse operand, timed once on this machine and kept; a product of which
            nothing is left out is torch's, to the last bit.
        tied: shell-style patterns of layers whose weight the recipe may change although
            another module (a tied embedding) reads it; others of that kind stay dense.
        functions: what to compute between the layers instead of ``"tanh"``,
            ``"sigmoid"``, ``"silu"``, ``"gelu"`` and ``"softmax"``, by name
            (:data:`elision.functional.FUNCTIONS`) or as a function of a tensor, for a
            softmax with ``dim=``: ``{"tanh": "k-tanh", "softmax": "taylor-softmax:order=2"}``.
            The model's forward pass computes them wherever torch's functions, modules,
            gates of recurrent layers or attention would compute the old ones.

    Returns:
        The same model.

    Raises:
        TypeError: ``recipe`` is neither a recipe nor text, or a function neither a
            name nor a function.
        ValueError: unknown engine, layer selector or function.
        RuntimeError: the engine cannot be used on this machine.

    Warns:
        NoEffectWarning: no layer was reached, a pattern of the recipe names none, or (after
            the first forward pass) a replaced function was not called.
        TiedWeightWarning: layers stay dense because another module reads their weight.
    """
    recipe = as_recipe(recipe)
    make_engine(engine)  # an engine that cannot be had fails before anything changes
    replacements = named(functions)
    before = _Before(model)
    try:
        _elide(model, recipe, engine, tuple(tied), quiet=bool(replacements))
        replace(model, replacements)
        give_products(model, recipe)
    except BaseException:  # a budget that cannot be met, a pattern that does not divide
        restore(model)
        before.put_back()
        raise
    before.forget()
    return model


class _Before:
    """The recipe that a model had before another, taken off it."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._ignored = getattr(model, _DDP_IGNORE, None)
        modules = _modules(model)
        # Hooks stay until the other recipe is there.
        self._extras = [(module, take_extras(module)) for module in modules]
        self._states = [
            (
                module,
                type(module),
                {n: v for n, v in vars(module).items() if _is_ours(n)},
                dict(module._buffers),
                set(module._non_persistent_buffers_set),
                dict(module._modules),
            )
            for module in modules
        ]
        plain_class(model)
        restore(model)

    def put_back(self) -> None:
        """Give the model its recipe back, with the state it had."""
        for module, kind, attributes, buffers, unsaved, children in self._states:
            module.__class__ = kind  # pyright: ignore[reportAttributeAccessIssue]
            module._modules.update(children)  # the parts
            vars(module).update(attributes)
            module._buffers.update(buffers)
            module._non_persistent_buffers_set.update(unsaved)
        _keep_from_averages(self._model)
        for module, extras in self._extras:
            give_extras(module, extras)
        if self._ignored is not None:
            setattr(self._model, _DDP_IGNORE, self._ignored)

    def forget(self) -> None:
        """Remove the hooks of the recipe that was replaced."""
        for _, extras in self._extras:
            remove_all(extras)


def _elide(
    model: nn.Module,
    recipe: Recipe,
    engine: str,
    including: tuple[str, ...],
    *,
    quiet: bool,
) -> None:
    """Elide a plain model; an error leaves it half done.

    With ``quiet``, a recipe that asks for nothing may change nothing.
    """
    layers = elidable_layers(model)
    names = names_in_order(layers)
    tied = _tied(model, recipe, layers, including)
    # Budgets are of the layers within reach, without those that belong to others, too.
    recipe = recipe.resolved({n: m for n, m in layers.items() if n not in tied})
    tables = {
        n: Table() if n in tied else recipe.table_for(n, m, names)
        for n, m in layers.items()
    }
    if recipe.changes or not quiet:
        _warn_without_effect(recipe, layers, tables)
    if recipe.changes:
        _warn_of_dense_layers(model, tied)
    for name, layer in layers.items():
        plan = LayerPlan(
            recipe.name, turned_table(lookup_table(tables[name], layer, name), layer)
        )
        _elide_layer(layer, name, plan, engine, tied.get(name))
    recipe.prepare(model)
    guard_readers(model)
    if engine != "torch":
        _give_forms(layers, timed=engine == "auto")
    _keep_from_averages(model)
    # A threshold or reference belongs to its replica; a broadcast would replace it.
    local = [
        f"{name}.{buffer}" if name else buffer
        for name, module in model.named_modules()
        if not isinstance(module, torch.jit.ScriptModule)
        for buffer in module._buffers
        if buffer.startswith("elision_")
    ]
    if local:
        setattr(model, _DDP_IGNORE, [*getattr(model, _DDP_IGNORE, []), *local])


def _tied(
    model: nn.Module,
    recipe: Recipe,
    layers: dict[str, nn.Module],
    including: tuple[str, ...],
) -> dict[str, str]:
    """Layers that stay dense, by name, and the other reader of their weight."""
    for pattern in including:
        if not any(fnmatchcase(name, pattern) for name in layers):
            raise ValueError(
                f"tied={pattern!r} names no layer; layers: {', '.join(layers)}"
            )
    changed, names = {}, names_in_order(layers)
    for name, layer in layers.items():
        table = recipe.table_for(name, layer, names)
        if any(operand == "weight" and cell != KEEP for _, operand, cell in table):
            changed[name] = layer
    return tied_to(model, changed, including)


def _elide_layer(
    layer: nn.Module, name: str, plan: LayerPlan, engine: str, reader: str | None
) -> None:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    elided = ELIDED[type(layer)]
    layer.__class__ = elided
    if isinstance(layer, Part):
        layer.whole._modules[layer.name] = layer
        layer.whole.__class__ = elided_whole(layer.whole) or type(layer.whole)
    layer._elision_plan = plan  # pyright: ignore[reportArgumentType]
    layer._elision_name = name  # pyright: ignore[reportArgumentType]
    layer._elision_engine = make_engine(engine)  # pyright: ignore[reportArgumentType]
    layer._elision_tied_to = reader  # pyright: ignore[reportArgumentType]
    if plan.written:
        layer._elision_calls = LatestCalls(plan.written)  # pyright: ignore[reportArgumentType]
    if plan.is_random:
        step = torch.zeros((), dtype=torch.int64, device=weight.device)
        layer.register_buffer(buffer_name(ACCUMULATE, "step"), step)
    for use, transform in plan.uses.items():
        # A weight's shape is known, an input's or a gradient's is not.
        is_weight = plan.operand_of(use) == "weight"
        shapes = transform.state_shapes(weight.shape if is_weight else _ANY_SHAPE)
        for state, value in transform.state_at(f"{name}.{use}").items():
            state_name = buffer_name(use, state)
            value = _placed(value, weight)
            if state not in shapes:
                layer.register_buffer(state_name, value)
            elif is_weight:
                layer.register_buffer(state_name, value.new_zeros(shapes[state]))
            else:
                setattr(layer, state_name, value)


#: Stands for an operand's shape where only the names of state tensors matter.
_ANY_SHAPE = torch.Size((1, 1))


def _placed(value: Tensor, weight: Tensor) -> Tensor:
    """A state tensor beside a weight, with no fewer digits than the weight's."""
    if not value.is_floating_point():
        return value.to(weight.device)
    return value.to(weight.device, torch.promote_types(value.dtype, weight.dtype))


def _keep_from_averages(model: nn.Module) -> None:
    """Let running averages of the model take its masks and counters over as they are."""
    for module in _modules(model):
        if any(name.startswith("elision_") for name in module._buffers):
            module._buffers = GivenExact(module._buffers, "elision_")


def _give_forms(layers: dict[str, nn.Module], *, timed: bool) -> None:
    """Let layers choose between their forms, and dense ones before a norm be blocked."""
    # Of a part the whole has forms; a lookup has one.
    formed = {n: m for n, m in layers.items() if not isinstance(m, Part | nn.Embedding)}
    sparsities = {name: sparsity_of(layer) for name, layer in formed.items()}
    for name, layer in formed.items():
        plan: LayerPlan = layer._elision_plan  # pyright: ignore[reportAssignmentType]
        sparsity = sparsities[name]
        if plan.accumulates:
            continue  # product by product, whatever the engine
        if sparsity is not None or (timed and plan.leaves_out):
            forms = Forms(plan, sparsity, timed=timed)
            layer._elision_forms = forms  # pyright: ignore[reportArgumentType]
        elif isinstance(layer, nn.Conv2d) and any(sparsities.values()) and not timed:
            layer._elision_offers = True  # pyright: ignore[reportArgumentType]


def _warn_without_effect(
    recipe: Recipe, layers: dict[str, nn.Module], tables: dict[str, Table]
) -> None:
    # Whether a recipe reaches the model's own calls shows in the first pass.
    unknown = bool(recipe.products)
    if not unknown and (not layers or (recipe.changes and not any(tables.values()))):
        warnings.warn(
            f"recipe {recipe.name!r} changes no layer of this model "
            f"({len(layers)} layers found that it could change)",
            NoEffectWarning,
            stacklevel=4,
        )
        return
    names = names_in_order(layers)
    for pattern in recipe.patterns:
        if pattern not in SELECTORS and not any(
            selects(pattern, n, m, names) for n, m in layers.items()
        ):
            warnings.warn(
                f"recipe {recipe.name!r}: pattern {pattern!r} names no layer",
                NoEffectWarning,
                stacklevel=4,
            )


def _warn_of_dense_layers(model: nn.Module, tied: dict[str, str]) -> None:
    """Say by name which layers stay dense although the recipe does not ask for it."""
    for reason, names in unreached(model).items():
        warnings.warn(reason.format(", ".join(names)), NoEffectWarning, stacklevel=4)
    if tied:
        pairs = ", ".join(f"{name} (with {reader})" for name, reader in tied.items())
        warnings.warn(
            f"layers whose weight another module reads stay dense: {pairs}; "
            "elide(model, recipe, tied=(name, ...)) includes them",
            TiedWeightWarning,
            stacklevel=4,
        )


def restore(model: Model) -> Model:
    """Give a model its plain layers and functions back, in place; drop the recipe's state.

    Args:
        model: a module, elided or not.

    Returns:
        The same model.
    """
    for module in _modules(model):
        remove_extras(module)
        for buffer in [b for b in module._buffers if b.startswith("elision_")]:
            del module._buffers[buffer]
            module._non_persistent_buffers_set.discard(buffer)
        if isinstance(module._buffers, GivenExact):
            module._buffers = dict(module._buffers)
        for attribute in [a for a in vars(module) if _is_ours(a)]:
            delattr(module, attribute)
        if isinstance(module, ElidedWhole):
            for part in module.elided_parts:
                del module._modules[part.name]
        if isinstance(module, ElidedLayer | ElidedWhole):
            module.__class__ = plain_type(type(module))  # pyright: ignore[reportAttributeAccessIssue]
    ignored = getattr(model, _DDP_IGNORE, None)
    if ignored is not None:
        kept = [n for n in ignored if not n.rpartition(".")[2].startswith("elision_")]
        setattr(model, _DDP_IGNORE, kept) if kept else delattr(model, _DDP_IGNORE)
    return model


def _modules(model: nn.Module) -> list[nn.Module]:
    """The modules of a model that may be changed: not the scripted ones."""
    return [m for m in model.modules() if not isinstance(m, torch.jit.ScriptModule)]


def _is_ours(attribute: str) -> bool:
    return attribute.startswith(("_elision_", "elision_"))
