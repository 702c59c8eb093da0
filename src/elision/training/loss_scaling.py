"""The scale of the loss, and when to give it up."""

from typing import Any, Literal

import torch

__all__ = ["LossScaleError", "LossScaling"]

#: A dynamic scale below this is given up (an own choice): gradients that overflow float16
#: even so are beyond 6e8.
LEAST_SCALE = 1e-4

#: Steps in a row that a fixed scale may skip before it is given up (an own choice).
MOST_SKIPPED = 50


class LossScaleError(RuntimeError):
    """Every scale that is tried overflows.

    Example:
        >>> issubclass(LossScaleError, RuntimeError)
        True
    """


class LossScaling:
    """A loss scaler around one optimiser: dynamic, fixed, or none.

    Args:
        device: type of the device.
        scaling: ``"dynamic"``, a fixed scale, or None.
        optimizer: whose steps are skipped where a gradient is not finite.

    Attributes:
        took_step: whether the last call of :meth:`step` was no skipped one.
        skipped: steps skipped in a row.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> scaling = LossScaling("cpu", 8.0, torch.optim.SGD([weight], lr=1.0))
        >>> scaling.backward((2 * weight).sum())
        >>> weight.grad.item(), scaling.step(step=0), weight.item()
        (16.0, True, -1.0)
    """

    def __init__(
        self,
        device: str,
        scaling: float | Literal["dynamic"] | None,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.fixed = None if isinstance(scaling, str) else scaling
        enabled = scaling is not None
        self.scaler = (
            torch.amp.GradScaler(device, enabled=enabled)
            if self.fixed is None
            else torch.amp.GradScaler(device, init_scale=self.fixed, enabled=enabled)
        )
        self.optimizer = optimizer
        self.skipped = 0
        self.took_step = False
        optimizer.register_step_post_hook(self._note)

    @property
    def enabled(self) -> bool:
        """Whether the loss is scaled, and steps are skipped."""
        return self.scaler.is_enabled()

    def _note(self, *args: Any) -> None:
        self.took_step = True

    def backward(self, loss: torch.Tensor) -> None:
        """Backward pass of the scaled loss."""
        self.scaler.scale(loss).backward()

    def step(self, step: int) -> bool:
        """Take the optimiser's step, or skip it where a gradient is not finite.

        Args:
            step: number of the step, for the message.

        Returns:
            Whether the optimiser took its step.

        Raises:
            LossScaleError: the scale does not recover.
        """
        self.took_step = False
        self.scaler.step(self.optimizer)
        self.scaler.update(self.fixed)
        self.skipped = 0 if self.took_step else self.skipped + 1
        if not self.scaler.is_enabled():
            return self.took_step
        scale = self.scaler.get_scale()
        if self.fixed is None and scale < LEAST_SCALE:
            raise LossScaleError(
                f"the loss scale fell to {scale:.3g} at step {step} and does not recover: "
                f"gradients overflowed in {self.skipped} steps in a row; lower the learning "
                "rate, or use a format with a wider range (bf16)"
            )
        if self.fixed is not None and self.skipped >= MOST_SKIPPED:
            raise LossScaleError(self.gave_up())
        return self.took_step

    def gave_up(self) -> str:
        """The steps skipped up to now, in words."""
        advice = "give a smaller one, or 'dynamic'"
        if self.fixed is None:
            advice = "give it more steps to come down"
        return (
            f"the loss scale {self.scaler.get_scale():.6g} overflowed in {self.skipped} "
            f"steps in a row, up to the last; {advice}"
        )

    def state_dict(self) -> dict[str, Any]:
        """The scaler's state, and the steps skipped in a row; empty without a scale."""
        if not self.scaler.is_enabled():
            return {}
        return {**self.scaler.state_dict(), "skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state; without a scale, none."""
        if not self.scaler.is_enabled():
            return
        own = dict(state)
        self.skipped = int(own.pop("skipped", 0))
        self.scaler.load_state_dict(own)
