"""FederatedPlan: who trains on what, how often, and how messages travel, as data."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from elision.common.checks import count, number, one_of, random_seed
from elision.common.specs import build
from elision.training.parallel.compressors import (
    COMPRESSORS,
    Compressor,
    make_compressor,
)
from elision.training.parallel.compressors.masked import Masked
from elision.training.parallel.compressors.random_k import RandomK
from elision.training.parallel.federated.partitions import PARTITIONS, Partition
from elision.training.parallel.federated.privacy import PRIVACY, Gaussian
from elision.training.parallel.federated.secure import SECURE, PairwiseMasks
from elision.training.parallel.federated.stragglers import STRAGGLERS, Stragglers
from elision.training.parallel.outer.rules import OUTER_RULES, OuterRule

__all__ = ["FederatedPlan"]


@dataclass(frozen=True, kw_only=True)
class FederatedPlan:
    """A federated run, but for its workload and recipe. Text fields are specs.

    Attributes:
        clients: partition of the training examples
            (:data:`~elision.training.parallel.federated.PARTITIONS`).
        rule: an :class:`~elision.training.parallel.outer.OuterRule`; its ``every`` is the
            number of a client's steps in a round.
        local_epochs: passes over its own examples that a client makes in a round instead.
        rounds: of the run; the learning rate follows the workload's schedule over them.
        participation: share of all clients that take part in a round.
        sampling: ``"fixed"`` draws so many clients, one at least, without replacement;
            ``"poisson"`` draws each by itself, which the account of privacy needs.
        dropout: chance of a client of a round never to report.
        stragglers: None, or a kind of slow clients
            (:data:`~elision.training.parallel.federated.STRAGGLERS`).
        up: compressor of what clients send, with a memory where it needs one; ``"mask"``
            sends a masked recipe's surviving weights alone. None: as it is.
        down: compressor of the server's changes; all clients hold one copy of the sum of
            what was sent, and what it lacks is in the next change. None: whole weights.
        secure: ``"masks"``: clients' messages are masked, and only their sum is read.
        privacy: ``"gaussian"``: clipping, noise and the account of it.
        seed: of initial weights, partition, sampling, batches and noise.

    Raises:
        ValueError: an unknown name, a number out of range, or settings that do not go
            together.

    Example:
        >>> FederatedPlan(rule="fedavg:every=5", secure="masks", up="int8")
        Traceback (most recent call last):
        ValueError: up 'int8' with secure 'masks': masked messages are added as fixed-point ...
    """

    clients: str = "iid:clients=10"
    rule: str = "fedavg:every=8"
    local_epochs: int | None = None
    rounds: int = 20
    participation: float = 1.0
    sampling: Literal["fixed", "poisson"] = "fixed"
    dropout: float = 0.0
    stragglers: str | None = None
    up: str | None = None
    down: str | None = None
    secure: str | None = None
    privacy: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        owner = type(self).__name__
        for name in ("rounds", "local_epochs"):
            if getattr(self, name) is not None:
                count(owner, name, getattr(self, name))
        random_seed(owner, "seed", self.seed)
        number(owner, "participation", self.participation, "(0, 1]")
        number(owner, "dropout", self.dropout, "[0, 1)")
        one_of(owner, "sampling", self.sampling, ("fixed", "poisson"))
        self.partition()
        rule, up, slow = self.outer_rule(), self.up_compressor(), self.slow()
        self.down_compressor()
        if rule.shares_gradients(0):
            raise ValueError(
                f"rule {self.rule!r}: begins with synchronous steps, and clients take none"
            )
        if rule.fragments > 1:
            raise ValueError(
                f"rule {self.rule!r}: clients of a round send whole updates; leave "
                "fragments out"
            )
        masks, noise = self.secure_sum(), self.mechanism()
        if masks is not None:
            masks.width(self.partition().clients)
            if up is not None and not isinstance(up, (Masked, RandomK)):
                raise ValueError(
                    f"up {self.up!r} with secure {self.secure!r}: masked messages are added "
                    "as fixed-point values in places that all clients know; give mask, "
                    "random-k or nothing"
                )
            if up is not None and up.guarantee == "biased":
                raise ValueError(
                    f"up {self.up!r} with secure {self.secure!r}: nobody knows what was "
                    "sent, so nothing is remembered; give random-k:unbiased=true"
                )
            if slow is not None and slow.delay:
                raise ValueError(
                    f"stragglers {self.stragglers!r} with secure {self.secure!r}: the masks "
                    "of a round cancel in its own sum; give fewer:... instead"
                )
        if noise is not None:
            if rule.told:
                raise ValueError(
                    f"privacy {self.privacy!r} with rule {self.rule!r}: its controls would "
                    "leave without noise; use a rule that sends updates alone"
                )
            if self.participation < 1 and self.sampling != "poisson":
                raise ValueError(
                    f"privacy {self.privacy!r}: its account is of clients that take part "
                    "each by itself; give sampling 'poisson'"
                )
            if slow is not None and slow.delay:
                raise ValueError(
                    f"privacy {self.privacy!r} with stragglers {self.stragglers!r}: a late "
                    "update would be in a round for which its client was not drawn"
                )

    def partition(self) -> Partition:
        """Of :attr:`clients`."""
        return build("partition", self.clients, PARTITIONS)

    def outer_rule(self) -> OuterRule:
        """Of :attr:`rule`."""
        return build("rule", self.rule, OUTER_RULES)

    def slow(self) -> Stragglers | None:
        """Of :attr:`stragglers`."""
        return (
            None
            if self.stragglers is None
            else build("stragglers", self.stragglers, STRAGGLERS)
        )

    def up_compressor(self) -> Compressor | None:
        """Of :attr:`up`; its memory stays with the client.

        Under a secure sum it has none: what was sent is known to nobody.
        """
        if self.up is None:
            return None
        made = make_compressor(self.up)
        bare = build("compressor", self.up, COMPRESSORS)
        return bare if self.secure and isinstance(bare, (Masked, RandomK)) else made

    def down_compressor(self) -> Compressor | None:
        """Of :attr:`down`, without a memory: what clients lack is in the next change."""
        return (
            None if self.down is None else build("compressor", self.down, COMPRESSORS)
        )

    def secure_sum(self) -> PairwiseMasks | None:
        """Of :attr:`secure`."""
        return None if self.secure is None else build("secure sum", self.secure, SECURE)

    def mechanism(self) -> Gaussian | None:
        """Of :attr:`privacy`."""
        return None if self.privacy is None else build("privacy", self.privacy, PRIVACY)

    def to_dict(self) -> dict[str, Any]:
        """Plain values of the settings that are set."""
        default = {f.name: f.default for f in fields(self)}
        always = ("clients", "rule", "rounds", "seed")
        return {k: v for k, v in asdict(self).items() if k in always or v != default[k]}
