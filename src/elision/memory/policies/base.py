"""Policies: which codecs may keep which saved tensors."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch

from elision.memory.codecs import (
    NarrowInteger,
    PoolIndices,
    Recompute,
    Rerun,
    ShapeOnly,
    ThresholdMask,
    TwoValued,
)
from elision.memory.saved.codec import Codec, Packed
from elision.memory.saved.roles import SMOOTH_ROLES, Role, Slot

__all__ = ["EXACT_RULES", "MIN_BYTES", "Placed", "Policy", "Restricted", "Rule"]

#: Tensors below this size are kept as they are (own choice; TRL and torchtune use it
#: for their offloading, too).
MIN_BYTES = 1024


@dataclass(frozen=True)
class Rule:
    """Codecs for the saved tensors that a rule matches.

    Attributes:
        codecs: tried in order; a codec that cannot pack a tensor leaves it to the next,
            and a tensor that none can pack is kept. Empty: keep.
        roles: roles that the rule is for; None stands for all that the codecs allow.
        module: glob over module paths, ``"layer1.*"``.
        consumer: glob over consumers, ``"Convolution.*"``.
        min_bytes: size of the smallest tensors that match.
        max_share: if given, only tensors below this share of the largest tensor of
            values saved in this forward pass so far match.

    Raises:
        ValueError: a codec is given a role that it may not touch.

    Example:
        >>> from elision.memory.codecs import GroupQuant
        >>> Rule((GroupQuant(4),), module="layer1.*").means(Role.LINEAR_INPUT)
        True
    """

    codecs: tuple[Codec, ...]
    roles: frozenset[Role] | None = None
    module: str = "*"
    consumer: str = "*"
    min_bytes: int = MIN_BYTES
    max_share: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.codecs, tuple):
            object.__setattr__(self, "codecs", (self.codecs,))
        for codec in self.codecs:
            refused = (self.roles or frozenset()) - codec.roles
            if refused:
                raise ValueError(
                    f"codec {codec} may not touch "
                    f"{', '.join(sorted(r.value for r in refused))}; it is for "
                    f"{', '.join(sorted(r.value for r in codec.roles))}"
                )

    def means(self, role: Role) -> bool:
        """True if the rule may match tensors of this role."""
        if self.roles is not None:
            return role in self.roles
        return not self.codecs or any(role in c.roles for c in self.codecs)

    def matches(self, slot: Slot, nbytes: int, largest: int) -> bool:
        """True if the rule matches a tensor of ``nbytes``.

        Args:
            slot: its consumer.
            nbytes: its size.
            largest: size of the largest tensor of values saved in this pass so far.
        """
        return (
            self.means(slot.role)
            and nbytes >= self.min_bytes
            and (self.max_share is None or nbytes < self.max_share * largest)
            and (self.module == "*" or fnmatchcase(slot.module, self.module))
            and (self.consumer == "*" or fnmatchcase(slot.consumer, self.consumer))
        )


#: Exact codecs; every policy but "none" ends with these rules.
EXACT_RULES = (
    Rule((ThresholdMask(),)),
    Rule((ShapeOnly(),)),
    Rule((PoolIndices(),)),
    Rule((TwoValued(),)),
    Rule((NarrowInteger(),)),
    Rule((Recompute(),)),
    Rule((Rerun(),), frozenset({Role.WORKSPACE})),
)


class Policy:
    """An ordered list of rules; the first that matches a saved tensor decides.

    Subclasses may choose codecs by statistics of earlier steps; :meth:`watch` is called
    for every consumer.

    Args:
        rules: the rules of this policy.
        exact: whether the exact rules follow them.
        name: for the report.

    Example:
        >>> from elision.memory.codecs import Offload
        >>> Policy([Rule((Offload(),))], name="all to files").offloads
        True
    """

    def __init__(
        self, rules: Iterable[Rule] = (), *, exact: bool = True, name: str = "rules"
    ) -> None:
        self.rules = (*rules, *(EXACT_RULES if exact else ()))
        self.name = name
        self._largest = 0
        self._by_role: dict[Role, list[tuple[Rule, tuple[Codec, ...]]]] = {}

    def __str__(self) -> str:
        return self.name

    @property
    def offloads(self) -> bool:
        """True if any codec offloads, which may fail for lack of space."""
        return any(codec.offloads for rule in self.rules for codec in rule.codecs)

    def codecs_for(self, slot: Slot, tensor: torch.Tensor) -> tuple[Codec, ...]:
        """The codecs to try on a saved tensor, in order; none: keep it."""
        nbytes = tensor.numel() * tensor.element_size()
        if slot.role in SMOOTH_ROLES and isinstance(nbytes, int):  # else yet unknown
            self._largest = max(self._largest, nbytes)
        for rule, codecs in self._rules_for(slot.role):
            if rule.matches(slot, nbytes, self._largest):
                return codecs
        return ()

    def _rules_for(self, role: Role) -> list[tuple[Rule, tuple[Codec, ...]]]:
        """The rules that may match a role, with their codecs that may touch it."""
        found = self._by_role.get(role)
        if found is None:
            found = self._by_role[role] = [
                (rule, tuple(c for c in rule.codecs if role in c.roles))
                for rule in self.rules
                if rule.means(role)
            ]
        return found

    def begin(self) -> None:
        """A saver was entered with this policy."""
        self._largest = 0

    def watch(self, slot: Slot) -> None:
        """The consumer of a saved tensor is known; ``slot.node`` may be hooked."""

    def chosen(self, slot: Slot, codec: Codec | None) -> None:
        """Called after a decision, ``slot.node`` still set; None: the tensor is kept."""

    def packed(self, slot: Slot, packed: Packed) -> Packed:
        """What is kept of a packed form: the form itself, or a copy with faults in it."""
        del slot
        return packed

    def notes(self) -> list[str]:
        """Sentences that the policy adds to the report."""
        return []


class Placed(Policy):
    """A policy that identifies a saved tensor across steps by its place.

    Attributes:
        place: of the current tensor: module, consumer, and the number of tensors of this
            module and consumer in the step so far.
    """

    place: tuple[str, str, int]

    def begin(self) -> None:
        """A new step: count from the start."""
        super().begin()
        self._met: Counter[tuple[str, str]] = Counter()

    def watch(self, slot: Slot) -> None:
        """Number the consumer."""
        self._met[slot.module, slot.consumer] += 1
        number = self._met[slot.module, slot.consumer]
        self.place = slot.module, slot.consumer, number


class Restricted(Policy):
    """Another policy for some roles, and the exact rules for all others.

    Restricted to layer inputs, the gradients that reach a layer are exact, so that the
    error of its weight gradient is its own input's alone.

    Args:
        policy: decides on the tensors in ``roles``.
        roles: the roles of ``policy``.
    """

    def __init__(self, policy: Policy, roles: Iterable[Role]) -> None:
        self._inner, self._roles = policy, frozenset(roles)
        names = ", ".join(sorted(role.value for role in self._roles))
        super().__init__(name=f"{policy.name} on {names}")

    @property
    def offloads(self) -> bool:
        """True if the inner policy has a codec that offloads."""
        return self._inner.offloads

    def begin(self) -> None:
        """A new step for the other policy."""
        super().begin()
        self._inner.begin()

    def watch(self, slot: Slot) -> None:
        """Pass every consumer on to the inner policy."""
        self._inner.watch(slot)

    def codecs_for(self, slot: Slot, tensor: torch.Tensor) -> tuple[Codec, ...]:
        """The other policy's codecs, or the exact ones."""
        if slot.role in self._roles:
            return self._inner.codecs_for(slot, tensor)
        return super().codecs_for(slot, tensor)

    def chosen(self, slot: Slot, codec: Codec | None) -> None:
        """Pass decisions on the inner policy's roles on to it."""
        if slot.role in self._roles:
            self._inner.chosen(slot, codec)

    def packed(self, slot: Slot, packed: Packed) -> Packed:
        """What the inner policy keeps of its own roles' packed forms."""
        return self._inner.packed(slot, packed) if slot.role in self._roles else packed
