"""Execution of a training run: engine, saved activations, device, number format."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from elision.common.checks import one_of
from elision.common.names import lookup
from elision.common.specs import build
from elision.engines import ENGINES
from elision.layers.recipe import Recipe
from elision.memory import Policy, policy_for
from elision.training.parallel import make_compressor
from elision.training.parallel.outer import OUTER_RULES

__all__ = ["PRECISIONS", "Execution", "repeatable"]

#: Autocast dtypes by the names of the command line; None: no autocast.
PRECISIONS: dict[str, torch.dtype | None] = {
    "fp32": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Engine, saved activations, device and number format of a training run.

    Attributes:
        engine: who computes the products (see :func:`elision.elide`).
        memory: policy for saved activations (see :class:`elision.memory.saver`), such
            as ``"bits(4)"``; None: plain autograd.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:0"``, ``"mps"``.
        precision: key of :data:`PRECISIONS`; products under autocast, weights float32.
        compress: spec of the compressor by which weight gradients travel between ranks,
            such as ``"top-k:share=0.01"`` (:mod:`elision.training.parallel`); None: as
            they are.
        outer: spec of the rule by which ranks that train alone meet, such as
            ``"diloco:every=50"`` (:class:`~elision.training.parallel.OuterOptimizer`),
            and what travels then is compressed; None: gradients travel at every step.

    Raises:
        ValueError: an unknown engine, policy, precision, compressor or rule, or a native
            engine for a device that is not the CPU. A device is looked for only when it is
            used.

    Example:
        >>> Execution(engine="native", memory="bits(4)").not_default()
        {'engine': 'native', 'memory': 'bits(4)'}
    """

    engine: str = "torch"
    memory: str | None = None
    device: str = "cpu"
    precision: str = "fp32"
    compress: str | None = None
    outer: str | None = None

    def __post_init__(self) -> None:
        lookup("engine", self.engine, ENGINES)
        one_of("Execution", "precision", self.precision, tuple(PRECISIONS))
        self.policy()
        if self.compress is not None:
            make_compressor(self.compress)
        if self.outer is not None:
            build("outer rule", self.outer, OUTER_RULES)
        if self.engine == "native" and self.device != "cpu":
            raise ValueError(
                f"engine native computes on the CPU, not on {self.device!r}; "
                "use engine torch or auto there"
            )

    def check_ranks(self, count: int) -> None:
        """Refuse to compress what does not travel.

        Raises:
            ValueError: a compressor, and one process.
        """
        if self.compress is not None and count == 1:
            raise ValueError(
                f"compress {self.compress!r}: one process sends no gradients; start two or "
                "more by torchrun --nproc_per_node=2 -m elision train ..."
            )

    def not_default(self) -> dict[str, str]:
        """The settings that differ from a plain run's."""
        return {
            name: getattr(self, name)
            for name, field in self.__dataclass_fields__.items()
            if getattr(self, name) != field.default
        }

    def policy(self) -> Policy | None:
        """A policy for saved activations that has learnt nothing yet.

        Policies that learn are kept by model; one made for another model is new.
        """
        return None if self.memory is None else policy_for(self.memory, nn.Identity())

    def torch_device(self, local_rank: int = 0) -> torch.device:
        """The device; ``"cuda"`` is that of the process among those of its machine.

        Raises:
            ValueError: no such device here.
        """
        try:
            device = torch.device(self.device)
        except RuntimeError:
            raise ValueError(
                f"device {self.device!r}: not a device; give cpu, cuda, cuda:0 or mps"
            ) from None
        if device.type == "cuda":
            index = local_rank if device.index is None else device.index
            count = torch.cuda.device_count()
            if index >= count:
                found = f"{count} CUDA devices" if count else "no CUDA device"
                raise ValueError(f"device {self.device!r}: this machine has {found}")
            return torch.device("cuda", index)
        if device.type == "mps" and not torch.backends.mps.is_available():
            raise ValueError(f"device {self.device!r}: this machine has no MPS device")
        if device.type not in ("cpu", "mps"):
            raise ValueError(
                f"device {self.device!r}: not supported; give cpu, cuda, cuda:0 or mps"
            )
        return device

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Autocast to the precision's dtype; nothing for ``fp32``."""
        dtype = PRECISIONS[self.precision]
        return nullcontext() if dtype is None else torch.autocast(device.type, dtype)

    def loss_scaling(self, recipe: Recipe) -> float | Literal["dynamic"] | None:
        """Loss scaling of a recipe, or of ``fp16``, whose small gradients would be lost."""
        if recipe.loss_scaling is not None:
            return recipe.loss_scaling
        return "dynamic" if self.precision == "fp16" else None


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Deterministic kernels on an accelerator, so that a resumed run is the same.

    Operators without one warn. The CPU's are deterministic as they are.
    """
    if device.type == "cpu":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True
        ):
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
