"""A byte budget: the least lossy codec per tensor that keeps the total within it."""

import torch

from elision.common.checks import number
from elision.memory.codecs import (
    AttentionQuant,
    GroupQuant,
    Normalised,
    Offload,
    Recompute,
    Rerun,
)
from elision.memory.policies.base import MIN_BYTES, Placed
from elision.memory.saved.codec import Codec
from elision.memory.saved.roles import VALUE_ROLES, Role, Slot

__all__ = ["LADDER", "ByteBudget", "plan_bytes"]

MIB = 2**20

#: Codecs from the mildest to the last resort, with the share of the bytes that stays in
#: memory: keep, 8 bits, 4 bits, offload. (Own choice: offloading is exact, but on most
#: machines it costs more time than 4 bits.)
LADDER: tuple[tuple[Codec | None, float], ...] = (
    (None, 1.0),
    (GroupQuant(8), 8.5 / 32),
    (GroupQuant(4), 4.5 / 32),
    (Offload(), 0.0),
)


def plan_bytes(sizes: dict[tuple, int], budget: int) -> dict[tuple, int]:
    """Rung of the ladder per tensor at which the bytes in memory fit the budget.

    Tensors move down one rung at a time, the largest first, all of them to one rung
    before any moves to the next, until the budget holds. A budget that does not hold on
    the last rung is exceeded.

    Args:
        sizes: tensor -> bytes.
        budget: bytes that may stay in memory.
    """
    rungs = dict.fromkeys(sizes, 0)
    left = float(sum(sizes.values()))
    order = sorted(sizes, key=sizes.__getitem__, reverse=True)
    for rung in range(1, len(LADDER)):
        for name in order:
            if left <= budget:
                return rungs
            left -= sizes[name] * (LADDER[rung - 1][1] - LADDER[rung][1])
            rungs[name] = rung
    return rungs


def _for_softmax(codec: Codec | None) -> tuple[Codec, ...]:
    """What takes the place of a rung's codec for attention and probabilities."""
    if not isinstance(codec, GroupQuant):
        return ()
    return Normalised(codec.bits), AttentionQuant(codec.bits)


class ByteBudget(Placed):
    """Keep, compress, offload or recompute, to stay within a number of bytes.

    The first step applies the exact rules, recomputation among them, and records the
    sizes. If the exact rules keep within the budget, later steps apply them as well.
    Otherwise all layer inputs, norm inputs and smooth activations move down the
    :data:`LADDER` until the budget holds; tensors that can still be recomputed are. A
    tensor with two consumers counts twice in the plan, so the plan stores less than the
    budget allows. Other tensors count but are never packed.

    Args:
        budget_mib: MiB of saved tensors to stay within, parameters excepted.

    Raises:
        ValueError: the budget is not positive.
    """

    def __init__(self, budget_mib: float) -> None:
        number("ByteBudget", "budget_mib", budget_mib, "> 0")
        super().__init__(name=f"budget({budget_mib:g})")
        self.budget = int(budget_mib * MIB)
        self.rungs: dict[tuple, int] = {}
        self._sizes: dict[tuple, int] = {}
        self._kept: dict[tuple, int] = {}
        self._current_bytes = 0

    @property
    def offloads(self) -> bool:
        """True: the last rung of the ladder offloads."""
        return True

    def begin(self) -> None:
        """Start a step; plan once the sizes are known."""
        if self._kept and not self.rungs and sum(self._kept.values()) > self.budget:
            others = sum(n for key, n in self._kept.items() if key not in self._sizes)
            self.rungs = plan_bytes(self._sizes, self.budget - others)
        super().begin()

    def codecs_for(self, slot: Slot, tensor: torch.Tensor) -> tuple[Codec, ...]:
        """Recomputation and the codec on this tensor's rung, or the exact rules'."""
        self._current_bytes = tensor.nbytes
        if slot.role is Role.ATTENTION_RESULT and self.rungs:  # with its operands
            return (Rerun(lossy=True),)
        if slot.role not in VALUE_ROLES or tensor.nbytes < MIN_BYTES:
            return super().codecs_for(slot, tensor)
        self._sizes[self.place] = tensor.nbytes
        codec, _ = LADDER[self.rungs.get(self.place, 0)]
        wanted = Recompute(), Rerun(), codec, *_for_softmax(codec)
        return tuple(c for c in wanted if c is not None and slot.role in c.roles)

    def chosen(self, slot: Slot, codec: Codec | None) -> None:
        """Count the tensors that the exact rules keep unpacked."""
        if codec is None and not self.rungs:
            self._kept[self.place] = self._current_bytes

    def notes(self) -> list[str]:
        """Number of tensors on each rung."""
        kept = sum(self._kept.values()) / MIB
        if not self.rungs:
            return [
                f"budget {self.budget / MIB:g} MiB: exact rules keep {kept:.2f} MiB"
            ]
        names = ["keep" if codec is None else str(codec) for codec, _ in LADDER]
        counts = [list(self.rungs.values()).count(i) for i in range(len(LADDER))]
        plan = ", ".join(f"{n} x {name}" for n, name in zip(counts, names, strict=True))
        return [f"budget {self.budget / MIB:g} MiB: {plan}"]
