"""What a policy for saved activations would come to on a trained recipe."""

from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import torch.nn.functional as F

from elision.common.restoring import restored
from elision.memory import codec_noise, policy_for, saver
from elision.memory.measures.measure import measure_policies
from elision.study.probes.base import Probe, Trained

__all__ = ["ActivationMemory"]


@dataclass(frozen=True)
class ActivationMemory(Probe):
    """Bytes, measured peak, gradient error per layer, and codec noise beside the batch's.

    Attributes:
        policy: as for :class:`elision.memory.saver`, such as ``bits(4)``.
        batches: training batches to compare the noise on.
        rounds: timed steps.

    Raises:
        ValueError: an unknown policy, fewer than two batches, or no round.
    """

    policy: str = "bits(4)"
    batches: int = 6
    rounds: int = 3

    def __post_init__(self) -> None:
        from torch import nn

        policy_for(self.policy, nn.Identity())
        if self.batches < 2 or self.rounds < 1:
            raise ValueError(
                f"memory: batches must be >= 2 and rounds >= 1, "
                f"got {self.batches} and {self.rounds}"
            )

    def ask(self, trained: Trained) -> dict[str, Any]:
        """Take further training batches and look at their steps."""
        model, workload = trained.model, trained.workload
        following = workload.train_batches(
            trained.dataset, seed=trained.seed, epoch=workload.epochs
        )
        batches = list(islice(following, self.batches))
        images, labels = batches[0]
        (row,) = measure_policies(model, images, labels, (self.policy,), self.rounds)
        with restored(model), saver(model, self.policy, seed=0) as saved:
            model(images)
        noise = codec_noise(
            model, lambda b: F.cross_entropy(model(b[0]), b[1]), batches, self.policy
        )
        return {
            "policy": self.policy,
            "row": {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in asdict(row).items()
            },
            "ledger": saved.ledger.by_module(),
            "notes": saved.policy.notes(),
            "noise": [asdict(share) for share in noise],
        }
