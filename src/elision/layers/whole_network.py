"""A whole elided network in the native kernels' layout.

Layer by layer, a native product pays for two changes of layout, and normalisation, ReLU
and the residual sum between the layers run as they did. An elided model whose recipe
makes weights sparse is therefore run as a whole where it can be: traced once per shape of
its input, its activations kept in the kernels' layout (:mod:`elision.engines.native`).

The model stays what it was: its modules, parameters, buffers and state dict are used as
they are. It runs layer by layer, by its own forward, while it is watched (recorders,
meters, savers, hooks), under ``torch.compile``, if its parameters are not float32,
and if it cannot be traced.

Under autocast to bfloat16 or float16 the sparse layers and what lies between compute in
float32, which is more than is asked for; with float16 the sparse products are of halves
where the CPU multiplies these. What is left to torch follows autocast as ever.
"""

import functools
import hashlib
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torch.utils._pytree import tree_leaves

from elision.common.restoring import restored
from elision.common.timing import fastest
from elision.engines import NativeEngine, decisions
from elision.engines.auto import LEAST_MACS, LEVELS, density_level, level_of
from elision.engines.decision import Decision
from elision.engines.native.blocked.blocked_layers import (
    Level,
    Sparsity,
    autocast_dtype,
)
from elision.engines.native.blocked.network import blocked, can_block
from elision.operands import KEEP, Mask, TopK, Transform
from elision.products import Product

__all__ = ["install", "remove", "sparsity_of"]

#: Shapes and modes of a model that are kept traced (an own choice).
_KEPT = 8

#: Method of a model's class that holds the forward of its plain class.
_PLAIN_FORWARD = "_elision_plain_forward"


def sparsity_of(layer: Any) -> Sparsity | None:
    """What a blocked layer would leave out; None if an elided layer has no such form.

    That is so for a weight under a mask or of its largest values, read by forward and
    input gradient alike, for an input that only the weight gradient may read in part,
    the largest, and for a gradient read whole.
    """
    plan = layer._elision_plan
    weight = plan.use(Product.FORWARD, "weight")
    input = plan.use(Product.WEIGHT_GRAD, "input")
    whole = (
        (Product.FORWARD, "input"),
        (Product.INPUT_GRAD, "grad_output"),
        (Product.WEIGHT_GRAD, "grad_output"),
    )
    one = plan.use(Product.INPUT_GRAD, "weight") == weight
    kept = all(plan.transform(*cell) == KEEP for cell in whole)
    if not (one and kept and can_block(layer)):
        return None
    reads, learns = plan.uses[weight], plan.uses[input]
    if type(learns) is TopK:
        by_input = {
            "input_keep": 1 - learns.sparsity,
            "input_level": _level(input, learns),
        }
    elif learns == KEEP:
        by_input = {}
    else:
        return None
    if type(reads) is TopK and reads.sparsity > 0:
        sampled = {t.sample_size for t in (reads, learns) if _is_sampled(t)}
        if len(sampled) > 1 or _is_sampled(reads) != _is_sampled(learns, reads):
            return None
        return Sparsity(
            weight_keep=1 - reads.sparsity,
            weight_level=_level(weight, reads),
            samples=next(iter(sampled), None),
            **by_input,
        )
    if type(reads) is Mask and not reads.scored and not by_input:
        name = f"elision_{weight}"
        return Sparsity(mask=f"{name}_mask", gradient=f"{name}_gradient_density")
    return None


def _is_sampled(transform: Transform, otherwise: Transform | None = None) -> bool:
    """Whether a threshold is sampled; that of ``otherwise`` where there is none."""
    if isinstance(transform, TopK):
        return transform.threshold == "sampled"
    return otherwise is not None and _is_sampled(otherwise)


def _level(use: str, transform: TopK) -> Level | None:
    if not transform.state_names:
        return None
    name = f"elision_{use}"
    return Level(f"{name}_threshold", f"{name}_step", transform.refresh)


class _Whole(nn.Module):
    """Mixin of an elided model's class: a forward that may run it as a whole."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output."""
        network = None
        if not torch.compiler.is_compiling() and not kwargs and len(args) == 1:
            networks: _Networks = self._elision_networks  # pyright: ignore[reportAssignmentType]
            network = networks.find(self, args[0])
        if network is None:
            return super().forward(*args, **kwargs)
        return network(*args)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copies and pickles name the model's own class, which can be found again."""
        plain = _PLAIN[type(self)]
        reduced = super().__reduce_ex__(protocol)
        return (_rebuilt, (plain,), *reduced[2:])


def _rebuilt(plain: type[nn.Module]) -> nn.Module:
    kind = _whole(plain)
    return kind.__new__(kind)


_WHOLE: dict[type[nn.Module], type[nn.Module]] = {}
_PLAIN: dict[type[nn.Module], type[nn.Module]] = {}


def _whole(plain: type[nn.Module]) -> type[nn.Module]:
    if plain not in _WHOLE:

        @functools.wraps(plain.forward)  # training loops read a forward's signature
        def forward(self: _Whole, *args: Any, **kwargs: Any) -> Any:
            return _Whole.forward(self, *args, **kwargs)

        body = {
            "forward": forward,
            "__module__": plain.__module__,
            "__doc__": plain.__doc__,
            _PLAIN_FORWARD: plain.forward,
        }
        kind = type(plain.__name__, (_Whole, plain), body)
        kind.__qualname__ = plain.__qualname__
        _WHOLE[plain], _PLAIN[kind] = kind, plain
    return _WHOLE[plain]


def install(model: nn.Module, layers: dict[str, Any], engine: str) -> None:
    """Let an elided model run as a whole where the engine and its recipe allow it.

    Args:
        model: the model, just elided.
        layers: its elided layers, by name.
        engine: ``"native"``: whenever it can; ``"auto"``: if that was faster.
    """
    sparsity = {n: s for n, m in layers.items() if (s := sparsity_of(m)) is not None}
    if engine == "torch" or not sparsity or model in layers.values():
        return
    model.__class__ = _whole(type(model))
    networks = _Networks(sparsity, timed=engine == "auto")
    model._elision_networks = networks  # pyright: ignore[reportArgumentType]


def remove(model: nn.Module) -> None:
    """Give a model its own class back."""
    if isinstance(model, _Whole):
        model.__class__ = _PLAIN[type(model)]  # pyright: ignore[reportAttributeAccessIssue]


class _Networks:
    """The traced forms of one model.

    Args:
        sparsity: what each layer leaves out, by name.
        timed: whether to run the model as a whole only if that was faster.
    """

    def __init__(self, sparsity: dict[str, Sparsity], *, timed: bool) -> None:
        self.sparsity, self.timed = sparsity, timed
        self._start()

    def _start(self) -> None:
        self._traced: OrderedDict[Any, nn.Module | None] = OrderedDict()
        self._levels: dict[str, tuple[Tensor, int, float]] = {}
        self._lock = threading.RLock()
        self._trying = threading.local()
        self._told = False

    def __getstate__(self) -> dict[str, Any]:
        return {"sparsity": self.sparsity, "timed": self.timed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def find(self, model: nn.Module, x: Any) -> nn.Module | None:
        """The network to run for an input; None: layer by layer."""
        if getattr(self._trying, "now", False) or not _plain_input(x):
            return None
        named = dict(model.named_modules())
        modules = list(named.values())
        if _has_any_global_hook() or any(map(_is_watched, modules[1:])):
            return None
        levels = self._densities(named)
        key = (
            tuple((id(m), m.training) for m in modules),
            tuple(map(id, model.parameters())),
            tuple(levels.items()),
            tuple(x.shape),
            torch.is_grad_enabled(),
            torch.get_num_threads(),
            autocast_dtype(),
        )
        with self._lock:
            if key in self._traced:
                self._traced.move_to_end(key)
                return self._traced[key]
            network = self._made(model, x, levels)
            self._traced[key] = network
            while len(self._traced) > _KEPT:
                self._traced.popitem(last=False)
        return network

    def _densities(self, modules: dict[str, nn.Module]) -> dict[str, float]:
        """The level of density of every weight; a layer put in since is no part of it."""
        found: dict[str, float] = {}
        for name, s in self.sparsity.items():
            if not hasattr(modules.get(name), "_elision_plan"):
                continue
            if s.mask is None:
                found[name] = level_of(s.weight_keep)
                continue
            mask = getattr(modules[name], s.mask)
            known = self._levels.get(name)
            if known is None or known[0] is not mask or known[1] != mask._version:
                level = density_level(mask) if mask.numel() else LEVELS[0]
                known = self._levels[name] = (mask, mask._version, level)
            found[name] = known[2]
        return found

    def _made(
        self, model: nn.Module, x: Tensor, levels: dict[str, float]
    ) -> nn.Module | None:
        sparse = {n: self.sparsity[n] for n, v in levels.items() if v < LEVELS[0]}
        if not sparse or not _are_float32(model):
            return None
        if self.timed and x.shape[0] * _weights(model, sparse) < LEAST_MACS:
            return None
        if NativeEngine().unavailable() is not None:
            return None
        try:
            network = blocked(model, sparse, x, method=_PLAIN_FORWARD)
        except Exception as error:  # a model may fail to be traced in any way
            self._tell(model, error)
            return None
        if not self.timed or self._is_faster(model, network, x, levels):
            return network
        return None

    def _tell(self, model: nn.Module, error: Exception) -> None:
        if not self._told:
            self._told = True
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            print(
                f"elision: {type(model).__name__} runs layer by layer, as it cannot be "
                f"traced: {reason}",
                file=sys.stderr,
            )

    def _is_faster(
        self, model: nn.Module, network: nn.Module, x: Tensor, levels: dict[str, float]
    ) -> bool:
        question = _question(model, x, levels)
        known = decisions()
        decision = known.find(question)
        if decision is None:
            candidates = {
                "network": _trial(network, model, x),
                "layers": _trial(model, model, x),
            }
            self._trying.now = True
            try:
                with restored(model, random_state=True):
                    seconds = fastest(candidates, 2)
            finally:
                self._trying.now = False
            decision = known.add(Decision(question, seconds))
        return decision.winner == "network"


def _plain_input(x: Any) -> bool:
    return (
        isinstance(x, Tensor)
        and type(x) in (Tensor, nn.Parameter)
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and x.dim() >= 2
        and x.numel() > 0
        and not torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    )


def _is_watched(module: nn.Module) -> bool:
    """True if a module has hooks or observers."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or getattr(module, "_elision_observers", ())
    )


def _are_float32(model: nn.Module) -> bool:
    return all(
        type(p) is nn.Parameter and p.dtype == torch.float32 and p.device.type == "cpu"
        for p in model.parameters()
    )


def _weights(model: nn.Module, names: dict[str, Sparsity]) -> int:
    layers = (model.get_submodule(n) for n in names)
    return sum(m.weight.numel() for m in layers)  # pyright: ignore[reportCallIssue]


def _question(model: nn.Module, x: Tensor, levels: dict[str, float]) -> str:
    """Tells this model, in this mode and at these densities, from any other."""
    facts = [(n, m.extra_repr(), m.training) for n, m in model.named_modules()]
    types = [type(m).__name__ for m in model.modules()]
    digest = hashlib.sha256(repr((facts, types, levels)).encode()).hexdigest()[:8]
    densities = sorted(set(levels.values()))
    span = "-".join(f"{d:g}" for d in dict.fromkeys((densities[0], densities[-1])))
    passes = "step" if torch.is_grad_enabled() else "forward pass"
    dtype = autocast_dtype()
    cast = "" if dtype is None else f"autocast to {dtype}, "
    return (
        f"{passes} of {type(model).__name__} {digest}, input "
        f"{'x'.join(map(str, x.shape))}, weights at density {span}, "
        f"{cast}{torch.get_num_threads()} threads"
    )


def _trial(module: nn.Module, model: nn.Module, x: Tensor) -> Callable[[], None]:
    """A pass through a module, back as well if gradients are on; nothing is kept."""
    parameters = [p for p in model.parameters() if p.requires_grad]

    def run() -> None:
        value = x.detach().requires_grad_(x.requires_grad and torch.is_grad_enabled())
        outputs = [t for t in tree_leaves(module(value)) if isinstance(t, Tensor)]
        outputs = [t for t in outputs if t.requires_grad]
        wanted = [*parameters, *([value] if value.requires_grad else [])]
        if outputs and wanted:
            ones = [torch.ones_like(t) for t in outputs]
            torch.autograd.grad(outputs, wanted, ones, allow_unused=True)

    return run
