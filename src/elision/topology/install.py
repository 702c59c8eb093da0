"""Installation of a rule in an elided model: first masks, state, and a reminder."""

import hashlib
import warnings
from dataclasses import MISSING, dataclass, field, fields
from functools import partial
from typing import Any

import torch
from torch import nn

from elision.layers import (
    attach_extra,
    drop_extra,
    elidable_layers,
    elided_layers,
    extra,
    tied_reader,
)
from elision.topology.outcome import shortcoming
from elision.topology.rule import Rule
from elision.topology.weights import SparseWeight, sparse_weights

__all__ = [
    "MASKS",
    "UPDATES",
    "Held",
    "Installed",
    "ScheduleWarning",
    "UnattachedWarning",
    "buffer_of",
    "divide_state",
    "held_masks",
    "install",
    "installed_in",
    "installed_on",
    "refuse_masks",
    "refuse_meta",
]

#: What the two rules act on that a model may have: its masks, and its weights after a
#: step. The buffers of a rule's values begin with this name.
MASKS, UPDATES = "topology", "updates"

#: Extra of the elided module: the hook that refuses masks.
_REFUSAL = "topology refusal"

#: Bytes of the buffer that names the method, its parameters' hash included.
_LABEL_BYTES = 48


class ScheduleWarning(UserWarning):
    """Masks did not do what their schedule says, as it does not fit the run.

    Example:
        >>> issubclass(ScheduleWarning, UserWarning)
        True
    """


class UnattachedWarning(UserWarning):
    """A model with moving masks trains, and nothing moves them.

    Example:
        >>> issubclass(UnattachedWarning, UserWarning)
        True
    """


class Held:
    """The controller of a model, which lives as long as the model.

    A second one takes its place. Copies and pickles of a model start without one.

    Example:
        >>> import copy
        >>> held = Held()
        >>> held.controller = "one"
        >>> copy.deepcopy(held).controller is None
        True
    """

    def __init__(self) -> None:
        self.controller: Any = None

    def __deepcopy__(self, memo: Any) -> "Held":
        return Held()

    def __reduce__(self) -> Any:
        return Held, ()


@dataclass
class Installed:
    """The rule of a model, on the module that was elided.

    Attributes:
        rule: what moves the masks.
        label: the method's name and a hash of its parameters.
        method: the parameters that the rule was made of, where it can be fitted.
        reminder: the hook that warns until a controller is attached.
        slot: what the rule acts on, :data:`MASKS` or :data:`UPDATES`.
        held: the controller, whether or not the user keeps it.

    Example:
        >>> import torch, elision
        >>> recipe = elision.methods.RigL(0.5, dense=())
        >>> model = elision.elide(torch.nn.Linear(8, 4), recipe)
        >>> installed_on(model).label.partition(":")[0]
        'rigl'
    """

    rule: Rule
    label: str
    method: Any = None
    reminder: Any = None
    forwards: int = field(default=0)
    warned: bool = field(default=False)
    slot: str = MASKS
    held: Held = field(default_factory=Held, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.published = self.rule

    def fit(self, steps: int | None) -> None:
        """Fit the rule's schedule to a run of ``steps`` steps; None: as it was given."""
        fitted = getattr(self.method, "fitted", None)
        if steps is None or fitted is None:
            self.rule = self.published
        else:
            self.rule = fitted(steps, given=_given(self.method)).rule()

    @property
    def name(self) -> str:
        """The method's name."""
        return self.label.partition(":")[0]

    def silence(self) -> None:
        """Remove the reminder, once a controller is attached."""
        if self.reminder is not None:
            self.reminder.remove()
            self.reminder = None

    def finalizing(self, model: nn.Module) -> None:
        """Say, once, what the training that ends here did not do."""
        if self.slot != MASKS:
            return
        weights = sparse_weights(model, self.rule.transform)
        step, moves = buffer_of(model, "step"), buffer_of(model, "moves")
        found = shortcoming(
            self.rule,
            self.name,
            weights,
            left_dense(model, weights),
            int(step.max()),
            int(moves.max()),
        )
        if found and not self.warned:
            self.warned = True
            warnings.warn(found, ScheduleWarning, stacklevel=2)


def install(
    model: nn.Module,
    rule: Rule,
    method: str,
    parameters: object,
    slot: str = MASKS,
) -> None:
    """Draw a rule's first masks and give the model the buffers of its state.

    The buffers are ``elision_<slot>_step`` and ``_moves``, one a value that the rule
    remembers, and ``elision_<slot>_method``, by which a state of another method is refused.

    Args:
        model: the model, just elided.
        rule: what moves the masks.
        method: name of the method.
        parameters: its parameters, told apart by their representation. Those with
            ``fitted(steps, given)`` and ``rule()``, as a method has them, can be fitted
            to the length of a run.
        slot: what the rule acts on, :data:`MASKS` or :data:`UPDATES`.

    Raises:
        ValueError: the budget cannot be met, a pattern does not divide a layer, an
            embedding makes sparse gradients, or the model has such a rule already.
    """
    other = installed_on(model, slot)
    if other is not None:
        raise ValueError(
            f"{other.name} and {method} each bring a rule for the model's "
            f"{'masks' if slot == MASKS else 'updates'}; a recipe has one"
        )
    weights = sparse_weights(model, rule.transform)
    if not weights:
        return
    refuse_meta(weights, method)
    if rule.transform.sparsifies:
        _refuse_sparse_gradients(weights, method)
    rule.start(weights, left_dense(model, weights))
    for weight in weights:
        if rule.masks_weights and weight.has_mask:
            with torch.no_grad():
                weight.keep(weight.weight, weight.mask)
    digest = hashlib.sha256(repr(parameters).encode()).hexdigest()[:8]
    label = f"{method}:{digest}"
    device = weights[0].weight.device
    drop_extra(model, _REFUSAL)
    count = torch.zeros((), dtype=torch.int64)
    state = {"step": count, "moves": count.clone(), **rule.initial_state()}
    for name, value in state.items():
        model.register_buffer(_buffer(slot, name), value.to(device))
    model.register_buffer(_buffer(slot, "method"), _encoded(label).to(device))
    installed = Installed(rule, label, parameters, slot=slot)
    installed.reminder = model.register_forward_pre_hook(partial(_remind, slot))
    hooks = [
        installed.reminder,
        model.register_load_state_dict_pre_hook(partial(_check_method, slot)),
        model.register_load_state_dict_post_hook(partial(_tell_controller, slot)),
    ]
    attach_extra(model, _extra(slot), installed, hooks)


def refuse_masks(model: nn.Module, method: str) -> None:
    """Let a model under a method without masks refuse the state of one that has them."""
    if installed_on(model) is not None:  # by another part of the recipe
        return
    check = partial(_check_no_masks, method)
    hook = model.register_load_state_dict_pre_hook(check)
    attach_extra(model, _REFUSAL, method, [hook])


def refuse_meta(weights: list[SparseWeight], method: str) -> None:
    """Raise ValueError where a weight has no values that a rule could start from."""
    if any(weight.weight.is_meta for weight in weights):
        raise ValueError(
            f"{method} starts from the weights' values, and this model has none on the "
            "meta device: give it memory and values (model.to_empty, then its own "
            "initialisation) before elide"
        )


def installed_on(module: nn.Module, slot: str = MASKS) -> Installed | None:
    """The rule installed on this very module; None if there is none."""
    return extra(module, _extra(slot))


def _extra(slot: str) -> str:
    """Name of the extra that holds a rule."""
    return f"{slot} rule"


def _buffer(slot: str, name: str) -> str:
    """Name of the buffer that holds a value of a rule."""
    return f"elision_{slot}_{name}"


def buffer_of(model: nn.Module, name: str, slot: str = MASKS) -> torch.Tensor:
    """A value that the rule of an elided module keeps there."""
    return model._buffers[_buffer(slot, name)]  # pyright: ignore[reportReturnType]


def divide_state(model: nn.Module, parts: int, slot: str = MASKS) -> None:
    """Let every value of a rule be one for each of several optimisers.

    One optimiser has scalars. What a state was divided into before stays, if it fits.
    """
    for name, value in list(model._buffers.items()):
        if value is None or not _is_value(name, slot):
            continue
        if parts == 1 and value.dim():
            model._buffers[name] = value[0].clone()
        elif parts > 1 and value.shape != (parts,):
            first = value[0] if value.dim() else value
            model._buffers[name] = first.repeat(parts)


def _refuse_sparse_gradients(weights: list[SparseWeight], method: str) -> None:
    """Raise for embeddings whose gradient is a sparse tensor, which no mask fits."""
    names = [
        w.name for w in weights if any(getattr(m, "sparse", False) for m in w.layers)
    ]
    if names:
        raise ValueError(
            f"{method} reads whole gradients, and these embeddings make sparse ones: "
            f"{', '.join(n or '(the model itself)' for n in names)}; make them with "
            'sparse=False, or leave them dense (dense=(":embedding",))'
        )


def _is_value(buffer: str, slot: str) -> bool:
    """Whether a buffer holds a value of a rule."""
    return buffer.startswith(_buffer(slot, "")) and buffer != _buffer(slot, "method")


def left_dense(
    model: nn.Module, weights: list[SparseWeight]
) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights of elidable layers that are not among ``weights``.

    A weight that another module reads, too, is that module's and in no budget; nor is the
    table of an embedding, which multiplies nothing.
    """
    sparse = {id(layer) for weight in weights for layer in weight.layers}
    return {
        name: tuple(layer.weight.shape)  # pyright: ignore[reportCallIssue, reportArgumentType, reportAttributeAccessIssue]
        for name, layer in elidable_layers(model).items()
        if id(layer) not in sparse
        and tied_reader(layer) is None
        and not isinstance(layer, nn.Embedding)
    }


def held_masks(model: nn.Module) -> dict[int, torch.Tensor]:
    """Masks of the weights that are held at zero outside them, by ``id`` of the weight."""
    for module in model.modules():
        installed = installed_on(module)
        if installed is not None and installed.rule.masks_weights:
            weights = sparse_weights(module, installed.rule.transform)
            return {id(weight.weight): weight.mask for weight in weights}
    return {}


def installed_in(
    model: nn.Module, slot: str = MASKS
) -> tuple[nn.Module, Installed | None]:
    """The module that was elided, inside wrappers, and what ``install`` left on it.

    Raises:
        ValueError: nothing in the model is elided, or two rules are.
    """
    found = [m for m in model.modules() if installed_on(m, slot) is not None]
    if len(found) > 1:
        raise ValueError(
            f"{len(found)} parts of this model were elided on their own; attach each "
            "to an optimiser of its own"
        )
    if found:
        return found[0], installed_on(found[0], slot)
    if next(elided_layers(model), None) is None:
        raise ValueError(
            f"{type(model).__name__} is not elided: call elision.elide(model, method) "
            "before attach"
        )
    return model, None


def _encoded(label: str) -> torch.Tensor:
    padded = label.encode()[:_LABEL_BYTES].ljust(_LABEL_BYTES)
    return torch.frombuffer(bytearray(padded), dtype=torch.uint8)


def _decoded(saved: torch.Tensor) -> str:
    return bytes(saved.tolist()).decode().strip()


def _mismatch(theirs: str, ours: str) -> str:
    theirs, ours = theirs.partition(":")[0], ours.partition(":")[0]
    return (
        f"this state was saved by method {theirs!r}, the model runs {ours!r}; "
        f"elide it with {theirs!r} to resume"
    )


def _remind(slot: str, model: nn.Module, args: Any) -> None:
    """Forward pre-hook: warn in the second training pass without a controller."""
    del args
    if torch.compiler.is_compiling() or not model.training:
        return
    if not torch.is_grad_enabled():
        return
    installed = installed_on(model, slot)
    if installed is None:
        return
    installed.forwards += 1
    if installed.forwards == 2:
        warnings.warn(
            f"{installed.rule.unattached(installed.name)}: call "
            "elision.topology.attach(model, optimizer)",
            UnattachedWarning,
            stacklevel=2,
        )


def _check_method(
    slot: str,
    model: nn.Module,
    state_dict: dict[str, Any],
    prefix: str,
    local_metadata: Any,
    strict: bool,
    missing: list[str],
    unexpected: list[str],
    errors: list[str],
) -> None:
    """Before loading: refuse another method's state, warn of other parameters."""
    del local_metadata, strict, missing, unexpected
    saved = state_dict.get(prefix + _buffer(slot, "method"))
    installed = installed_on(model, slot)
    if installed is None:
        return
    _take_shapes(slot, model, state_dict, prefix)
    if saved is None:
        # A plain state is torch's to refuse, or to take where that is wanted.
        if slot == MASKS and any("elision_" in key for key in state_dict):
            errors.append(
                "this state was saved by a method without masks, the model runs "
                f"{installed.name!r}; elide it as that run was to resume"
            )
        return
    theirs = _decoded(saved)
    if theirs == installed.label:
        return
    if theirs.partition(":")[0] != installed.name:
        errors.append(_mismatch(theirs, installed.label))
        return
    warnings.warn(
        f"this state was saved by {theirs.partition(':')[0]!r} with other parameters",
        stacklevel=2,
    )


def _take_shapes(
    slot: str, model: nn.Module, state_dict: dict[str, Any], prefix: str
) -> None:
    """Take as many values as were saved, one an optimiser; older states count no moves."""
    for name, own in list(model._buffers.items()):
        if own is None or not _is_value(name, slot):
            continue
        saved = state_dict.get(prefix + name)
        if saved is not None and saved.shape != own.shape:
            model._buffers[name] = own.new_zeros(saved.shape)
    step = state_dict.get(prefix + _buffer(slot, "step"))
    if step is not None:
        moves = prefix + _buffer(slot, "moves")
        state_dict.setdefault(moves, torch.zeros_like(step))


def _tell_controller(slot: str, model: nn.Module, incompatible: Any) -> None:
    """After loading: what the coming step needs follows from the rule given now."""
    del incompatible
    installed = installed_on(model, slot)
    if installed is not None and installed.held.controller is not None:
        installed.held.controller.loaded()


def _given(method: Any) -> list[str]:
    """Names of a method's parameters that differ from the published ones."""
    return [
        f.name
        for f in fields(method)
        if f.init and f.default is not MISSING and getattr(method, f.name) != f.default
    ]


def _check_no_masks(
    method: str,
    model: nn.Module,
    state_dict: dict[str, Any],
    prefix: str,
    local_metadata: Any,
    strict: bool,
    missing: list[str],
    unexpected: list[str],
    errors: list[str],
) -> None:
    """Before loading into a method without masks: refuse a state that has some."""
    del model, local_metadata, strict, missing, unexpected
    saved = state_dict.get(prefix + _buffer(MASKS, "method"))
    if saved is not None:
        errors.append(_mismatch(_decoded(saved), method))
