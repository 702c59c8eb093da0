"""The part of a model's masks that one optimiser moves, around each of its steps."""

import sys
import warnings
import weakref
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from elision.topology.install import (
    Installed,
    UnattachedWarning,
    buffer_of,
    installed_on,
    left_dense,
)
from elision.topology.move import Move
from elision.topology.optimizers import Stepper, runs_hooks
from elision.topology.rule import Rule
from elision.topology.trained import adopt
from elision.topology.weights import SparseWeight

__all__ = ["Part"]

#: Changes of a weight without a step of its optimiser after which something is wrong.
_UNSEEN = 10


class Part:
    """The weights with masks that one optimiser steps, and what its steps do to them.

    A :class:`elision.topology.Run`, which the rule reads. Steps are counted, and masks
    moved, for each optimiser on its own.

    Args:
        model: the module that was elided, which holds the state.
        installed: what was installed on it.
        stepper: the optimiser.
        weights: all weights with masks.
        own: those of them that the optimiser steps.
        place: of the optimiser among those of the model.
        history: every move, which the parts of a model share.

    Example:
        >>> import torch, elision
        >>> model = elision.elide(torch.nn.Linear(8, 4), elision.methods.RigL(0.5, dense=()))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> (part,) = elision.topology.attach(model, optimizer).parts
        >>> part.step, len(part.own), part.stepper.name
        (1, 1, 'SGD')
    """

    def __init__(
        self,
        model: nn.Module,
        installed: Installed,
        stepper: Stepper,
        weights: list[SparseWeight],
        own: list[SparseWeight],
        place: int,
        history: list[Move],
    ) -> None:
        self.model, self._installed, self.stepper = model, installed, stepper
        self.weights, self.own = weights, own
        self.place, self.history = place, history
        self.rule: Rule = installed.rule
        self.learning: list[SparseWeight] = []
        self.trained, self._saving = adopt(self.rule, own, stepper)
        self._handles: list[Any] = []
        self._set_aside: list[tuple[Tensor, Tensor]] = []
        self._gradients: dict[str, Tensor] = {}
        self._reached: set[str] = set()
        self._looked = self._replaced = self._moved = False
        self._finite = self._counts = True
        self._announced: tuple[bool, int] | None = None
        self._running: FrameType | None = None
        self._inner, self._pending = 0, False
        # Weights that other processes step arrive in the wrapper's step.
        self._waits = stepper.is_sharded
        self._watched = own[0]
        self._steps_seen, self._changes, self._version = 0, 0, 0

    def hook(self) -> None:
        """Follow the optimiser's steps and the gradients of the weights."""
        optimizer = self.stepper.inner
        self._handles = [
            optimizer.register_step_pre_hook(self._pre_hook),
            optimizer.register_step_post_hook(self._post_hook),
            *(
                wrapper.register_step_post_hook(self._after_wrapper)
                for wrapper in self.stepper.wrappers
                if runs_hooks(wrapper)
            ),
            *(self._hook_gradient(place) for place in range(len(self.own))),
        ]
        learns = (w for w in self.own if w.weight.requires_grad)
        self._watched = next(learns, self.own[0])
        self._version = self._watched.weight._version
        self.announce()

    def unhook(self) -> None:
        """Let go of the optimiser and the weights."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @property
    def is_hooked(self) -> bool:
        """Whether the optimiser's steps are followed."""
        return bool(self._handles)

    @property
    def slot(self) -> str:
        """What the rule acts on."""
        return self._installed.slot

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimiser that steps the weights."""
        return self.stepper.inner

    @property
    def left_dense(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the elidable weights without a mask, by layer name."""
        return left_dense(self.model, self.weights)

    @property
    def step(self) -> int:
        """The step under way, from 1; between steps, the next one."""
        return int(self.state("step")) + 1

    @property
    def sparsity(self) -> float:
        """Fraction of zeros over the weights that have a mask."""
        total = sum(weight.weight.numel() for weight in self.weights)
        return 1 - sum(weight.nnz for weight in self.weights) / total if total else 0.0

    def state(self, name: str) -> Tensor:
        """Value that the rule keeps for this part: a buffer of the model, or one of it."""
        buffer = buffer_of(self.model, name, self._installed.slot)
        return buffer[self.place] if buffer.dim() else buffer

    def gradient(self, weight: SparseWeight) -> Tensor:
        """The dense gradient of a whole weight in the step under way."""
        kept = self._gradients.get(weight.name)
        return weight.gradient() if kept is None else kept

    def move(self, weight: SparseWeight, mask: Tensor) -> None:
        """Set a weight's mask; weights and optimiser state that leave or enter are zeroed."""
        old = weight.mask
        stay = old & mask
        if self.rule.masks_weights:
            weight.keep(weight.weight, stay)
        # Where gradients are not masked, inactive weights keep a momentum of their own.
        self.keep_optimizer_state(
            weight, stay if self.rule.masks_gradients else ~(old ^ mask)
        )
        self.record(weight, mask)

    def keep_optimizer_state(self, weight: SparseWeight, where: Tensor) -> None:
        """Zero what the optimiser and its wrappers keep of a weight elsewhere."""
        for state in self.stepper.states(weight.weight):
            weight.keep_values(state, where)

    def record(self, weight: SparseWeight, mask: Tensor) -> None:
        """Set a weight's mask and add to the history; weight and optimiser state stay."""
        old = weight.mask
        dropped, grown = int((old & ~mask).sum()), int((mask & ~old).sum())
        weight.set_state("mask", mask)
        self._moved = True
        self.history.append(
            Move(self.step, weight.name, dropped, grown, int(mask.sum()))
        )

    def announce(self) -> None:
        """Set each layer's share of the gradient that the coming step needs."""
        dense = self.rule.needs_dense_gradient(self.step)
        news = (dense, len(self.history))
        if self._announced == news:
            return
        self._announced = news
        for weight in self.own:
            share = 1.0 if dense else self.rule.gradient_density(weight)
            weight.announce_gradient(share)

    def loaded(self) -> None:
        """The model's state was loaded: what it announced is another run's."""
        self._announced = None
        self.announce()

    def _hook_gradient(self, place: int) -> Any:
        """A hook behind each backward pass, also of a weight that is frozen as yet."""
        parameter = self.own[place].weight
        frozen = not parameter.requires_grad
        # A parameter's hooks are out of the garbage collector's sight, so this one must
        # not hold the model; the model holds the controller, and that this part.
        part = weakref.ref(self)

        def after_backward(parameter: Tensor) -> None:
            own = part()
            if own is not None:
                own._after_backward(own.own[place], parameter)

        parameter.requires_grad_(True)
        handle = parameter.register_post_accumulate_grad_hook(after_backward)
        parameter.requires_grad_(not frozen)
        return handle

    @torch.no_grad()
    def _after_backward(self, weight: SparseWeight, parameter: Tensor) -> None:
        """After a backward pass: clipping and closures see the gradient of active weights.

        Whichever engine computed it. In a step whose rule needs the dense gradient it is
        masked when the step begins, after the processes have summed it up.
        """
        if self._is_over():
            return
        self._reached.add(weight.name)
        if not self._steps_seen and weight is self._watched:
            self._count_unseen(parameter)
        explores = self.rule.needs_dense_gradient(self.step) and not self._looked
        if self.rule.masks_gradients and not explores:
            weight.keep(parameter.grad, weight.mask)

    def _count_unseen(self, parameter: Tensor) -> None:
        """Warn once weights have changed many times without a step that hooks saw."""
        if parameter._version == self._version:
            return
        self._version = parameter._version
        self._changes += 1
        if self._changes == _UNSEEN:
            warnings.warn(
                f"the weights change, and {self.stepper.name}, to which their masks are "
                "attached, takes no step: attach to the optimiser whose step is called",
                UnattachedWarning,
                stacklevel=2,
            )

    def _pre_hook(self, optimizer: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        """Before ``optimizer.step``; a closure is followed instead of preceded."""
        del optimizer
        if self._is_over() or self._is_inner(sys._getframe(1)):
            return None
        self._steps_seen += 1
        self._pending = True
        self._looked = self._replaced = self._moved = self._counts = False
        self.learning, self._set_aside, self._gradients = [], [], {}
        closure = args[1] if len(args) > 1 else kwargs.get("closure")  # args[0]: self
        if closure is None:
            self._before_step()
            return None

        def followed() -> Any:
            loss = closure()
            self._before_step()
            return loss

        if len(args) > 1:
            return (args[0], followed, *args[2:]), kwargs
        return args, {**kwargs, "closure": followed}

    def _is_inner(self, caller: FrameType) -> bool:
        """Whether the step under way called this one.

        The step of a subclass and ``super().step()`` in it each run the hooks. A step that
        an exception ended is under way no more, so who calls is looked for.
        """
        frame: FrameType | None = caller
        while self._running is not None and frame is not None:
            if frame is self._running:
                self._inner += 1
                return True
            frame = frame.f_back
        self._running, self._inner = caller, 0
        return False

    @torch.no_grad()
    def _before_step(self) -> None:
        """With the gradients of a step, and of every evaluation of a closure in it."""
        first, self._looked = not self._looked, True
        owned = self.stepper.owned()
        self.learning = [
            weight
            for weight in self.own
            if id(weight.weight) in owned and self._has_gradient(weight)
        ]
        if first:
            self._counts = bool(self.learning) and not self.stepper.was_skipped()
            if self._counts:
                self._begin()
        if not self._counts:
            self.learning = []
            return
        if self._finite and not first:
            self.rule.shape_gradients(self)
        if self._replaced:
            self._hide_gradients()
        elif self.rule.masks_gradients:
            for weight in self.learning:
                weight.keep(weight.weight.grad, weight.mask)

    def _has_gradient(self, weight: SparseWeight) -> bool:
        """Whether a weight has a gradient, if a zero one, in the step under way.

        What ``zero_grad(set_to_none=False)`` leaves, where no backward pass came since, is
        none.
        """
        grad = weight.weight.grad
        if grad is None or weight.name in self._reached:
            return grad is not None
        return hasattr(grad, "full_tensor") or bool(grad.any())

    def _begin(self) -> None:
        """The rule's turn before a step, with true gradients."""
        self._unscale_gradients()
        step = self.step
        self._finite = not self.rule.reads_gradients(step) or all(
            bool(torch.isfinite(weight.gradient()).all()) for weight in self.learning
        )
        if not self._finite:
            return
        self.rule.shape_gradients(self)
        self._replaced = self.rule.before_step(self)
        kept_aside = self.rule.masks_gradients and self.rule.needs_dense_gradient(step)
        if kept_aside and not self._replaced:
            self._gradients = {w.name: w.gradient().clone() for w in self.learning}

    @torch.no_grad()
    def _post_hook(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        del optimizer, args, kwargs
        if self._is_over():
            return
        if self._inner:
            self._inner -= 1
            return
        self._running = None
        if not self._waits:
            self._end()

    @torch.no_grad()
    def _end(self) -> None:
        """After a step, with the weights as it leaves them on every process."""
        self._pending = False
        for parameter, grad in self._set_aside:
            parameter.grad = grad
        self._set_aside = []
        if self._finite and self._counts:
            self.rule.after_step(self)
            for weight in self.own:
                weight.share_state()
        self._mask_weights()
        self._gradients, self._looked = {}, False
        self._reached.clear()
        if self._counts:
            self.state("moves").add_(int(self._moved))
            self.state("step").add_(1)
            self.announce()

    @torch.no_grad()
    def _after_wrapper(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """After a wrapper's step, which may set weights to values of its own."""
        del optimizer, args, kwargs
        if self._is_over():
            return
        if self._waits and self._pending:
            self._end()
        self._mask_weights()

    def _mask_weights(self) -> None:
        if self.rule.masks_weights:
            for weight in self.own:
                if weight.weight.grad is not None:  # else the optimiser left it alone
                    weight.keep(weight.weight, weight.mask)

    def _is_over(self) -> bool:
        """True, and detached, once the model was restored or elided anew."""
        installed = self._installed
        over = installed_on(self.model, installed.slot) is not installed
        if over:
            self.unhook()
        return over

    def _unscale_gradients(self) -> None:
        """Give rules the true gradients where a fused optimiser would unscale them itself.

        ``GradScaler`` leaves the scale on the optimiser for the time of its step.
        """
        optimizer = self.stepper.inner
        scale = getattr(optimizer, "grad_scale", None)
        if scale is None:
            return
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.div_(scale.to(parameter.grad.device))
        optimizer.grad_scale = torch.ones_like(scale)  # pyright: ignore[reportAttributeAccessIssue]

    def _hide_gradients(self) -> None:
        """Let the optimiser find no gradient, so that its step does nothing."""
        for group in self.stepper.inner.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._set_aside.append((parameter, parameter.grad))
                    parameter.grad = None
