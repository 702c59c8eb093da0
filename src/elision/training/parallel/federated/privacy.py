"""Differential privacy of clients: clipped updates, Gaussian noise, and its account."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from elision.common.checks import number
from elision.common.extras import imported

__all__ = ["PRIVACY", "Gaussian", "clipped"]


@dataclass(frozen=True)
class Gaussian:
    """The Gaussian mechanism on the sum of clipped updates (DP-FedAvg).

    ``(sum_k min(1, clip / |g_k|) g_k + N(0, (noise clip)^2 I)) / (q N)``, where each of
    ``N`` clients takes part with chance ``q`` by itself. McMahan et al., Learning
    Differentially Private Recurrent Language Models, ICLR 2018; clients count alike. The
    guarantee is of whole clients, against whoever sees the weights, not the server.
    Noise is drawn from the run's seed: enough to study its cost, and no protection.

    Attributes:
        clip: largest 2-norm of a client's update, all parameters together.
        noise: deviation of the noise over ``clip``.
        delta: of the guarantee (epsilon, delta).

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> Gaussian(clip=0)
        Traceback (most recent call last):
        ValueError: Gaussian(clip=0): must be a number > 0
    """

    name: ClassVar[str] = "gaussian"
    clip: float = 1.0
    noise: float = 1.0
    delta: float = 1e-5

    def __post_init__(self) -> None:
        number("Gaussian", "clip", self.clip, "> 0")
        number("Gaussian", "noise", self.noise, "> 0")
        number("Gaussian", "delta", self.delta, "(0, 1)")

    def epsilon(self, chance: float, rounds: int) -> float:
        """Epsilon of so many rounds, by opacus' account of Renyi divergences.

        Args:
            chance: of a client to take part in a round, independently of the others.
            rounds: in which noise was added.

        Raises:
            ModuleNotFoundError: opacus is not installed; the message says what to install.
        """
        if not rounds:
            return 0.0
        analysis = _opacus()
        orders = _ORDERS
        divergences = analysis.compute_rdp(
            q=chance, noise_multiplier=self.noise, steps=rounds, orders=orders
        )
        with warnings.catch_warnings():
            # At an end of the orders the bound is looser than it could be, and holds.
            warnings.filterwarnings("ignore", message="Optimal order is the")
            epsilon, _ = analysis.get_privacy_spent(
                orders=orders, rdp=divergences, delta=self.delta
            )
        return float(epsilon)

    def check(self) -> None:
        """Raise ModuleNotFoundError unless the account can be made."""
        _opacus()

    def noisy_mean(
        self, totals: Sequence[Tensor], expected: float, seed: int
    ) -> list[Tensor]:
        """Sums of clipped updates with noise, over the expected number of clients."""
        random = torch.Generator().manual_seed(seed)
        deviation = self.noise * self.clip
        return [
            (t + deviation * torch.randn(t.shape, generator=random)) / expected
            for t in totals
        ]


#: Orders of the divergences: those of opacus' accountant, and larger ones, at which the
#: best of much noise lies.
_ORDERS = [1 + x / 10 for x in range(1, 100)] + list(range(12, 64)) + [128, 256, 512]


def clipped(tensors: Sequence[Tensor], norm: float) -> tuple[list[Tensor], bool]:
    """The tensors scaled down to a 2-norm of all together, and whether they were longer.

    Example:
        >>> clipped([torch.tensor([3.0]), torch.tensor([4.0])], 1.0)
        ([tensor([0.6000]), tensor([0.8000])], True)
    """
    length = math.sqrt(sum(t.double().square().sum().item() for t in tensors))
    if length <= norm:
        return list(tensors), False
    return [t * (norm / length) for t in tensors], True


def _opacus() -> Any:
    return imported(
        "opacus.accountants.analysis.rdp", "privacy", "the account of privacy"
    )


#: Mechanisms by their name in specs.
PRIVACY: dict[str, type[Gaussian]] = {Gaussian.name: Gaussian}
