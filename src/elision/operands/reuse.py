"""The previous gradient plus a sparse difference (ReSprop)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from elision.common.checks import integer, number, one_of
from elision.operands.base import State, Transform

__all__ = ["PAIRINGS", "Reuse"]

#: Choices of the reference sample from the previous batch of ``B``.
PAIRINGS = ("random", "cyclic", "same_index", "batch_mean")

Pairing = Literal["random", "cyclic", "same_index", "batch_mean"]

#: Knuth's multiplicative hash, 2^32 divided by the golden ratio, made odd.
_HASH = 2_654_435_761


@dataclass(frozen=True)
class Reuse(Transform):
    """Hybrid gradient ``HG = P + S_t(G − P)``, ``S_t`` keeping what exceeds ``t``.

    ``P`` is the full gradient of one sample of the previous batch on this device,
    broadcast over the batch; its part of a product is computed once and shared, so the
    product costs ``density(S) + 1/B`` of a dense one. After each use the threshold
    halves if the density of ``S`` fell below its target and doubles if it was above;
    this settles into a two-value cycle around the target.

    The first step passes the full gradient on, and so do the first and the last of
    every ``restart`` steps. A gradient with a value that is not finite is passed on in
    full, too, and moves no state: a loss scaler skips that step.

    Attributes:
        reuse: fraction of the differences discarded, in [0, 1).
        margin: density aimed at above ``1 − reuse`` (published code: 0.05).
        warmup_steps: length of the warm-up during which the target density falls from
            1 as published over 9 epochs: 1 for the first two ninths, then
            ``1 − e/10`` at epoch-equivalent ``e`` while that is not below the final
            density. 0 for none.
        restart: steps of an epoch, the first and last of which pass the full gradient
            on (as published); 0 for the first step of all only.
        pairing: ``"random"`` sample (the reference); ``"cyclic"`` takes sample
            ``step mod B``, ``"same_index"`` pairs sample ``n`` with sample ``n`` of
            the previous batch, ``"batch_mean"`` uses the mean.
        initial_threshold: ``t`` before the first use (published code: 1e-7).
        seed: of the random pairing, which depends on (seed, step) alone.

    Example:
        >>> Reuse(0.9, warmup_steps=900).target_density(0)
        1.0
        >>> round(Reuse(0.9).target_density(0), 2)
        0.15
    """

    reuse: float
    margin: float = 0.05
    warmup_steps: int = 0
    restart: int = 0
    pairing: Pairing = "random"
    initial_threshold: float = 1e-7
    seed: int = 0

    sparsifies = True
    reuses = True

    def check(self) -> None:
        number("Reuse", "reuse", self.reuse, "[0, 1)")
        number("Reuse", "margin", self.margin, "[0, 1)")
        one_of("Reuse", "pairing", self.pairing, PAIRINGS)
        for name in ("warmup_steps", "restart"):
            integer("Reuse", name, getattr(self, name), ">= 0")
        number("Reuse", "initial_threshold", self.initial_threshold, "> 0")

    def target_density(self, step: int) -> float:
        """Density of ``S`` aimed at in ``step`` (from 0)."""
        final = 1 - self.reuse
        settled = min(1.0, final + self.margin)
        if step >= self.warmup_steps:
            return settled
        epoch = 9 * step // self.warmup_steps
        falling = 1 - epoch / 10
        if epoch < 2:
            return 1.0
        return falling if final <= falling else settled

    def initial_state(self) -> State:
        # By the same index no sample is shared by the batch.
        shared = {"shared": torch.zeros(0)} if self.pairing != "same_index" else {}
        return {
            "reference": torch.zeros(0),
            **shared,
            "threshold": torch.tensor(self.initial_threshold),
            "step": torch.zeros((), dtype=torch.int64),
            "density": torch.ones(()),
        }

    def state_shapes(self, operand_shape: torch.Size) -> dict[str, torch.Size]:
        one = torch.Size((1, *operand_shape[1:]))
        if self.pairing == "same_index":
            return {"reference": operand_shape}
        return {"reference": one, "shared": one}

    def apply(self, x: Tensor, state: State, training: bool) -> Tensor:
        if not training or not x.numel():
            return x
        if not torch.isfinite(x).all():
            state["density"].fill_(1.0)
            if "shared" in state:
                state["shared"].zero_()
            return x
        step = int(state["step"].item())
        reference = state["reference"]
        fits = reference.shape == self.state_shapes(x.shape)["reference"]
        if self._passes_all(step) or not fits:
            hybrid = x
            state["density"].fill_(1.0)
            if "shared" in state:
                state["shared"].zero_()
        else:
            reference = reference.to(x.dtype)
            difference = x - reference
            exceeds = difference.abs() > state["threshold"].to(x.dtype)
            hybrid = reference + torch.where(exceeds, difference, 0)
            realised = exceeds.float().mean()
            too_dense = torch.sign(realised - self.target_density(step))
            state["threshold"].mul_(torch.exp2(too_dense))
            state["density"].copy_(realised)
            if "shared" in state:
                state["shared"].copy_(reference)
        if fits:
            state["reference"].copy_(self._next_reference(x, step))
        state["step"].add_(1)
        return hybrid

    def _passes_all(self, step: int) -> bool:
        """True if a step begins or ends an epoch."""
        at_edge = self.restart and step % self.restart in (0, self.restart - 1)
        return step == 0 or bool(at_edge)

    def _next_reference(self, x: Tensor, step: int) -> Tensor:
        if self.pairing == "same_index":
            return x
        if self.pairing == "batch_mean":
            return x.mean(0, keepdim=True)
        batch = x.shape[0]
        index = step % batch
        if self.pairing == "random":
            index = (step + 1 + self.seed) * _HASH % 2**32 * batch // 2**32
        return x[index : index + 1]

    def shared(self, state: State) -> Tensor | None:
        """``P`` of the last use; zeros after a full gradient. None by the same index."""
        shared = state.get("shared")
        return None if shared is None or not shared.numel() else shared

    def reused(self, state: State) -> Tensor | None:
        """The reference sample, unless the next step passes the full gradient on."""
        step, reference = int(state["step"].item()), state["reference"]
        if step == 0 or not reference.numel() or self.pairing == "same_index":
            return None
        full = self.restart and step % self.restart == 0
        return None if full else reference.clone()

    def work(self, result: Tensor, state: State) -> float:
        """Density of the sparse part plus ``1/B`` for the shared part."""
        batch = max(1, result.shape[0])
        realised = state["density"].item()
        return 1.0 if realised == 1.0 else min(1.0, realised + 1 / batch)

    def __str__(self) -> str:
        words = f"reuse {self.reuse:.4g} of the previous"
        return f"{words}, warm-up {self.warmup_steps}" if self.warmup_steps else words
