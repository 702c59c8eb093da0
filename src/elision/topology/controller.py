"""The controller: calls a model's rule around every step of its optimiser.

By hooks that torch offers for it (before and after ``optimizer.step``), so schedulers,
scalers and wrappers that were made before or come later keep working.
"""

import hashlib
import weakref
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from elision.layers import elidable_layers
from elision.topology.install import installed_in, installed_on, left_dense
from elision.topology.rule import Rule
from elision.topology.weights import SparseWeight, sparse_weights

__all__ = ["Move", "Topology", "attach"]


#: The controller of each model, so that a second one takes the first one's place.
_ATTACHED: weakref.WeakKeyDictionary[nn.Module, "weakref.ref[Topology]"]
_ATTACHED = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Move:
    """Change of one layer's mask in one step.

    Attributes:
        step: the step, from 1.
        layer: name of the layer.
        dropped: weights that became inactive.
        grown: weights that became active.
        nnz: active weights since.

    Example:
        >>> Move(step=100, layer="conv1", dropped=30, grown=30, nnz=100).grown
        30
    """

    step: int
    layer: str
    dropped: int
    grown: int
    nnz: int


class Topology:
    """The moving masks of one model under one optimiser; made by :func:`attach`.

    Attributes:
        model: the elided module that holds the masks' state.
        rule: what moves them; None for a recipe that moves none.
        optimizer: the optimiser that owns the weights.
        weights: the weights that have a mask.
        trained: state that the optimiser trains beside a weight, by layer name.
        history: every move so far in this process.

    Example:
        >>> import torch, elision
        >>> model = elision.elide(torch.nn.Linear(8, 4), elision.methods.RigL(0.5, dense=()))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> topology = elision.topology.attach(model, optimizer)
        >>> topology.nnz, topology.sparsity
        (16, 0.5)
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        root, installed = installed_in(model)
        self.model = root
        self._installed = installed
        self.rule: Rule | None = None if installed is None else installed.rule
        self.optimizer = _innermost(optimizer)
        self.weights: list[SparseWeight] = []
        self.trained: dict[str, nn.Parameter] = {}
        self.history: list[Move] = []
        self._handles: list[Any] = []
        self._set_aside: list[tuple[Tensor, Tensor]] = []
        self._gradients: dict[str, Tensor] = {}
        self._seen = False
        self._finite = self._counts = True
        self._announced: tuple[bool, int] | None = None
        if installed is None or self.rule is None:
            return
        self.weights = sparse_weights(root, self.rule.transform)
        self._check_ownership()
        self._adopt_parameters(self.rule)
        installed.silence()
        earlier = _ATTACHED.get(root, lambda: None)()
        if earlier is not None:
            earlier.detach()
        _ATTACHED[root] = weakref.ref(self)
        self._handles = [
            self.optimizer.register_step_pre_hook(self._pre_hook),
            self.optimizer.register_step_post_hook(self._post_hook),
            *(
                weight.weight.register_post_accumulate_grad_hook(
                    partial(self._mask_gradient, weight)
                )
                for weight in self.weights
                if weight.weight.requires_grad
            ),
        ]
        self._announce_gradients()

    @property
    def step(self) -> int:
        """The step under way, from 1; between steps, the next one."""
        return int(self.state("step")) + 1

    def state(self, name: str) -> Tensor:
        """Value that the rule keeps for the whole model: a buffer of the model."""
        return self.model._buffers[f"elision_topology_{name}"]  # pyright: ignore[reportReturnType]

    @property
    def sparsity(self) -> float:
        """Fraction of zeros over all weights that have a mask."""
        total = sum(weight.weight.numel() for weight in self.weights)
        return 1 - self.nnz / total if total else 0.0

    @property
    def nnz(self) -> int:
        """Active weights of the model."""
        return sum(weight.nnz for weight in self.weights)

    def gradient(self, weight: SparseWeight) -> Tensor:
        """The dense gradient of a whole weight in the step under way.

        After the optimiser's step too, if the rule said that the step needs it.
        """
        kept = self._gradients.get(weight.name)
        return weight.gradient() if kept is None else kept

    def masks(self) -> dict[str, Tensor]:
        """The mask of each layer, by name."""
        return {weight.name: weight.mask for weight in self.weights}

    def digest(self) -> str:
        """A hash of all masks, to compare ranks and runs by."""
        sha = hashlib.sha256()
        for name, mask in self.masks().items():
            sha.update(name.encode())
            sha.update(np.packbits(mask.cpu().numpy()).tobytes())
        return sha.hexdigest()

    def check_ranks(self) -> None:
        """Compare the masks of all processes (a collective call).

        Raises:
            RuntimeError: some process holds other masks than process 0.
        """
        from torch import distributed

        digests: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(digests, self.digest())
        other = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
        if other:
            raise RuntimeError(
                f"the masks of ranks {other} differ from those of rank 0 at step "
                f"{self.step}; elide with one seed everywhere, and load one checkpoint"
            )

    def move(self, weight: SparseWeight, mask: Tensor) -> None:
        """Set a weight's mask; weights and optimiser state that leave or enter are zeroed."""
        old = weight.mask
        stay = old & mask
        if self.rule is not None and self.rule.masks_weights:
            weight.keep(weight.weight, stay)
        # Where gradients are not masked, inactive weights keep a momentum of their own.
        masked = self.rule is not None and self.rule.masks_gradients
        weight.keep_optimizer_state(self.optimizer, stay if masked else ~(old ^ mask))
        self.record(weight, mask)

    def record(self, weight: SparseWeight, mask: Tensor) -> None:
        """Set a weight's mask and add to the history; weight and optimiser state stay."""
        old = weight.mask
        dropped, grown = int((old & ~mask).sum()), int((mask & ~old).sum())
        weight.set_state("mask", mask)
        nnz = int(mask.sum())
        self.history.append(Move(self.step, weight.name, dropped, grown, nnz))

    def report(self) -> str:
        """Table of the layers (shape, active weights, density) and list of dense ones."""
        if not self.weights:
            return "this recipe moves no mask"
        rows = [("layer", "shape", "active", "density")]
        for w in self.weights:
            shape = "x".join(map(str, w.shape))
            rows.append((w.name, shape, f"{w.nnz:,}", f"{w.density:.4f}"))
        total = sum(weight.weight.numel() for weight in self.weights)
        rows.append(
            ("all of these", f"{total:,}", f"{self.nnz:,}", f"{1 - self.sparsity:.4f}")
        )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(c.ljust(n) for c, n in zip(r, widths, strict=True)).rstrip()
            for r in rows
        ]
        known = {
            id(p) for m in elidable_layers(self.model).values() for p in m.parameters()
        }
        bare = [
            n
            for n, p in self.model.named_parameters()
            if p.dim() > 1 and id(p) not in known
        ]
        lines.append(f"layers left dense: {', '.join(self.left_dense) or 'none'}")
        lines.append(f"weights out of reach, dense: {', '.join(bare) or 'none'}")
        return "\n".join(lines)

    def detach(self) -> None:
        """Stop moving and applying masks; they stay as they are."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @property
    def left_dense(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the weights that a recipe can reach and that have no mask."""
        return left_dense(self.model, self.weights)

    def _check_ownership(self) -> None:
        owned = {
            id(p) for group in self.optimizer.param_groups for p in group["params"]
        }
        missing = [w.name for w in self.weights if id(w.weight) not in owned]
        if missing:
            raise ValueError(
                f"{type(self.optimizer).__name__} does not own the weights of "
                f"{', '.join(missing)}, which have masks; give it model.parameters() of "
                "the elided model, or leave those layers dense"
            )

    def _adopt_parameters(self, rule: Rule) -> None:
        """Let the optimiser train the rule's state, in the group of its weight."""
        for weight, tensor in rule.parameters(self.weights):
            if hasattr(weight.weight, "full_tensor"):
                raise ValueError(
                    f"layer {weight.name}: its weight is sharded, and thresholds learn "
                    "from whole weights; train this method without sharding"
                )
            owned = [
                p for group in self.optimizer.param_groups for p in group["params"]
            ]
            known = [p for p in owned if p.data_ptr() == tensor.data_ptr()]
            parameter = known[0] if known else nn.Parameter(tensor)
            self.trained[weight.name] = parameter
            for group in self.optimizer.param_groups:
                if not known and any(p is weight.weight for p in group["params"]):
                    group["params"].append(parameter)
                    if "param_names" in group:
                        group["param_names"].append(f"{weight.name}.elision_trained")

    def _pre_hook(self, optimizer: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        """Before ``optimizer.step``; a closure is followed instead of preceded."""
        del optimizer
        if self._is_over():
            return None
        self._seen = False
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

    @torch.no_grad()
    def _mask_gradient(self, weight: SparseWeight, parameter: Tensor) -> None:
        """After a backward pass: clipping and closures see the gradient of active weights.

        Whichever engine computed it. In a step whose rule needs the dense gradient it is
        masked when the step begins, after the processes have summed it up.
        """
        rule = self.rule
        if rule is None or not rule.masks_gradients or self._is_over():
            return
        if not rule.needs_dense_gradient(self.step):
            weight.keep(parameter.grad, weight.mask)

    @torch.no_grad()
    def _before_step(self) -> None:
        if self._seen or self.rule is None:
            return
        self._seen = True
        self._counts = self._is_a_step()
        if not self._counts:
            return
        self._unscale_gradients()
        self._finite = not self.rule.moves(self.step) or self._gradients_are_finite()
        replaced = self._finite and self.rule.before_step(self)
        if replaced:
            self._hide_gradients()
        elif self.rule.masks_gradients:
            dense = self._finite and self.rule.needs_dense_gradient(self.step)
            for weight in self.weights:
                if dense:
                    self._gradients[weight.name] = weight.gradient().clone()
                weight.keep(weight.weight.grad, weight.mask)

    @torch.no_grad()
    def _post_hook(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        del optimizer, args, kwargs
        if self.rule is None or self._is_over():
            return
        for parameter, grad in self._set_aside:
            parameter.grad = grad
        self._set_aside = []
        if self._finite and self._counts:
            self.rule.after_step(self)
        if self.rule.masks_weights:
            for weight in self.weights:
                weight.keep(weight.weight, weight.mask)
        self._gradients = {}
        if self._counts:
            self.state("step").add_(1)
            self._announce_gradients()

    def _is_over(self) -> bool:
        """True, and detached, once the model was restored or elided anew."""
        over = installed_on(self.model) is not self._installed
        if over:
            self.detach()
        return over

    def _is_a_step(self) -> bool:
        """Whether the optimiser will move a weight that has a mask.

        Not without a backward pass before it, nor where a fused optimiser skips the step
        because ``GradScaler`` found an overflow.
        """
        skipped = getattr(self.optimizer, "found_inf", None)
        if skipped is not None and bool(skipped):
            return False
        return any(weight.weight.grad is not None for weight in self.weights)

    def _unscale_gradients(self) -> None:
        """Give rules the true gradients where a fused optimiser would unscale them itself.

        ``GradScaler`` leaves the scale on the optimiser for the time of its step.
        """
        scale = getattr(self.optimizer, "grad_scale", None)
        if scale is None:
            return
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.div_(scale.to(parameter.grad.device))
        self.optimizer.grad_scale = torch.ones_like(scale)  # pyright: ignore[reportAttributeAccessIssue]

    def _gradients_are_finite(self) -> bool:
        """True if all gradients are finite; equal on all ranks after a reduction."""
        return all(bool(torch.isfinite(w.gradient()).all()) for w in self.weights)

    def _hide_gradients(self) -> None:
        """Let the optimiser find no gradient, so that its step does nothing."""
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._set_aside.append((parameter, parameter.grad))
                    parameter.grad = None

    def _announce_gradients(self) -> None:
        """Set each layer's share of the gradient that the coming step needs."""
        rule = self.rule
        if rule is None:
            return
        dense = rule.needs_dense_gradient(self.step)
        news = (dense, len(self.history))
        if self._announced == news:
            return
        self._announced = news
        for weight in self.weights:
            share = 1.0 if dense else rule.gradient_density(weight)
            weight.announce_gradient(share)


def attach(model: nn.Module, optimizer: torch.optim.Optimizer) -> Topology:
    """Let the masks of an elided model move with the steps of its optimiser.

    Call it once, after ``elide`` and after the model is on its device and wrapped, with
    the optimiser that owns the model's parameters::

        elision.elide(model, elision.methods.RigL(sparsity=0.9))
        topology = elision.topology.attach(model, optimizer)

    A recipe that moves nothing needs no call, and one does no harm. A second call takes
    the place of the first.

    Args:
        model: the elided model, or a wrapper of it (``DistributedDataParallel``,
            a compiled module).
        optimizer: its optimiser.

    Returns:
        What moves the masks: counts, history, report, hash.

    Raises:
        ValueError: the model is not elided, or the optimiser does not own a weight that
            has a mask.
    """
    return Topology(model, optimizer)


def _innermost(optimizer: Any) -> torch.optim.Optimizer:
    """The optimiser inside wrappers such as that of Accelerate."""
    while isinstance(getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = optimizer.optimizer
    return optimizer
