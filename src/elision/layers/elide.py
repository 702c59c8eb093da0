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
from collections.abc import Iterator
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from elision.common.exact import GivenExact
from elision.engines import make_engine
from elision.layers.blocked import sparsity_of
from elision.layers.extras import remove_extras
from elision.layers.forms import Forms
from elision.layers.modules import ELIDED, plain_type
from elision.layers.modules.base import ElidedLayer
from elision.layers.plan import LayerPlan, buffer_name
from elision.layers.recipe import SELECTORS, Recipe, Table, selects

__all__ = [
    "NoEffectWarning",
    "elidable_layers",
    "elide",
    "elided_layers",
    "restore",
]

Model = TypeVar("Model", bound=nn.Module)


class NoEffectWarning(UserWarning):
    """A recipe, or a pattern in one, changed nothing.

    Example:
        >>> import warnings, elision
        >>> from torch import nn
        >>> with warnings.catch_warnings(record=True, action="always") as caught:
        ...     _ = elision.elide(nn.ReLU(), elision.methods.Swat(0.5, dense=()))
        >>> caught[0].category.__name__
        'NoEffectWarning'
    """


#: Attribute by which DistributedDataParallel learns what it must not broadcast.
_DDP_IGNORE = "_ddp_params_and_buffers_to_ignore"


def elidable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that a recipe can reach, by name, in the order of registration.

    These are the modules whose type is a key of :data:`elision.layers.ELIDED` (exactly
    ``Conv2d`` or ``Linear``, unless others are registered), and the elided ones. A
    subclass that is not registered is left alone, as is what a module computes from
    bare parameters, such as the projections of ``MultiheadAttention``.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if type(module) in ELIDED or isinstance(module, ElidedLayer)
    }


def elided_layers(model: nn.Module) -> Iterator[tuple[str, ElidedLayer]]:
    """Names and layers of a model that ``elide`` has changed."""
    for name, module in model.named_modules():
        if isinstance(module, ElidedLayer):
            yield name, module


def elide(model: Model, recipe: Recipe, engine: str = "auto") -> Model:
    """Run the products of a model's convolutions and linear layers through a recipe.

    In place; a model that was elided before gets the new recipe with fresh state.
    A recipe that is refused leaves the model plain. State-dict keys do not change; state
    that the recipe's transforms remember is added under
    ``<layer>.elision_<operand>_for_<product>_<state>``.

    Args:
        model: any module; see :func:`elidable_layers` for what is reached.
        recipe: what is done, for example ``elision.methods.Swat(sparsity=0.9)``.
        engine: who computes the products. ``"torch"``: dense, the oracle.
            ``"native"``: kernels that leave the zeros out (raises if they cannot be
            built here). ``"auto"``: the faster of the two for each product that has a
            sparse operand, timed once on this machine and kept; a product of which
            nothing is left out is torch's, to the last bit.

    Returns:
        The same model.

    Raises:
        TypeError: ``recipe`` is not a recipe.
        ValueError: unknown engine or layer selector, or an accumulation that is not
            computed yet.
        RuntimeError: the engine cannot be used on this machine.

    Warns:
        NoEffectWarning: no layer was reached, or a pattern of the recipe names none.
    """
    if not isinstance(recipe, Recipe):
        raise TypeError(f"recipe must be a Recipe, got {type(recipe).__name__}")
    make_engine(engine)  # an engine that cannot be had fails before anything changes
    layers = elidable_layers(model)
    names = list(layers)
    recipe = recipe.resolved(layers)
    tables = {n: recipe.table_for(n, m, names) for n, m in layers.items()}
    for table in tables.values():
        table.check_computed()
    _warn_without_effect(recipe, layers, tables)
    _warn_of_missing_weights(model)
    restore(model)
    for name, layer in layers.items():
        _elide_layer(layer, name, LayerPlan(recipe.name, tables[name]), engine)
    try:
        recipe.prepare(model)
    except BaseException:  # a budget that cannot be met, a pattern that does not divide
        restore(model)
        raise
    if engine != "torch":
        _give_forms(layers, timed=engine == "auto")
    _keep_from_averages(model)
    # A threshold or reference belongs to its replica; a broadcast would replace it.
    local = [
        f"{name}.{buffer}" if name else buffer
        for name, module in model.named_modules()
        for buffer in module._buffers
        if buffer.startswith("elision_")
    ]
    if local:
        setattr(model, _DDP_IGNORE, [*getattr(model, _DDP_IGNORE, []), *local])
    return model


def _elide_layer(layer: nn.Module, name: str, plan: LayerPlan, engine: str) -> None:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    elided = ELIDED[type(layer)]
    layer.__class__ = elided
    layer._elision_plan = plan  # pyright: ignore[reportArgumentType]
    layer._elision_name = name  # pyright: ignore[reportArgumentType]
    layer._elision_engine = make_engine(engine)  # pyright: ignore[reportArgumentType]
    for use, transform in plan.uses.items():
        for state, value in transform.initial_state().items():
            layer.register_buffer(buffer_name(use, state), value.to(weight.device))


def _keep_from_averages(model: nn.Module) -> None:
    """Let running averages of the model take its masks and counters over as they are."""
    for module in model.modules():
        if any(name.startswith("elision_") for name in module._buffers):
            module._buffers = GivenExact(module._buffers, "elision_")


def _give_forms(layers: dict[str, nn.Module], *, timed: bool) -> None:
    """Let layers choose between their forms, and dense ones before a norm be blocked."""
    sparsities = {name: sparsity_of(layer) for name, layer in layers.items()}
    for name, layer in layers.items():
        plan: LayerPlan = layer._elision_plan  # pyright: ignore[reportAssignmentType]
        sparsity = sparsities[name]
        if sparsity is not None or (timed and plan.changes):
            forms = Forms(plan, sparsity, timed=timed)
            layer._elision_forms = forms  # pyright: ignore[reportArgumentType]
        elif isinstance(layer, nn.Conv2d) and any(sparsities.values()) and not timed:
            layer._elision_offers = True  # pyright: ignore[reportArgumentType]


def _warn_without_effect(
    recipe: Recipe, layers: dict[str, nn.Module], tables: dict[str, Table]
) -> None:
    wants = bool(recipe.table) or any(table for _, table in recipe.overrides)
    if not layers or (wants and not any(tables.values())):
        warnings.warn(
            f"recipe {recipe.name!r} changes no layer of this model "
            f"({len(layers)} Conv2d and Linear layers found)",
            NoEffectWarning,
            stacklevel=3,
        )
        return
    for pattern in (*recipe.dense, *(p for p, _ in recipe.overrides)):
        if pattern not in SELECTORS and not any(
            selects(pattern, n, m, list(layers)) for n, m in layers.items()
        ):
            warnings.warn(
                f"recipe {recipe.name!r}: pattern {pattern!r} names no layer",
                NoEffectWarning,
                stacklevel=3,
            )


def _warn_of_missing_weights(model: nn.Module) -> None:
    """Say which layers take their shape, and become elidable, with the first batch."""
    names = [
        name
        for name, module in model.named_modules()
        if any(p is not None and is_lazy(p) for p in module._parameters.values())
    ]
    if names:
        warnings.warn(
            f"layers without weights stay dense: {', '.join(names)}; run a batch through "
            "the model, then elide it",
            NoEffectWarning,
            stacklevel=3,
        )


def restore(model: Model) -> Model:
    """Give a model its plain layers back, in place, and drop the recipe's state.

    Args:
        model: a module, elided or not.

    Returns:
        The same model.
    """
    for module in list(model.modules()):
        remove_extras(module)
        for buffer in [b for b in module._buffers if b.startswith("elision_")]:
            del module._buffers[buffer]
            module._non_persistent_buffers_set.discard(buffer)
        if isinstance(module._buffers, GivenExact):
            module._buffers = dict(module._buffers)
        for attribute in [a for a in vars(module) if a.startswith("_elision_")]:
            delattr(module, attribute)
        if isinstance(module, ElidedLayer):
            module.__class__ = plain_type(module)  # pyright: ignore[reportAttributeAccessIssue]
    ignored = getattr(model, _DDP_IGNORE, None)
    if ignored is not None:
        kept = [n for n in ignored if not n.rpartition(".")[2].startswith("elision_")]
        setattr(model, _DDP_IGNORE, kept) if kept else delattr(model, _DDP_IGNORE)
    return model
