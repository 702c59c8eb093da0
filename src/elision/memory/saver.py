"""The saver: tensors that autograd keeps for the backward pass, in fewer bytes.

PyTorch calls a pair of hooks for every saved tensor, but without the function that saves
it. The saver finds the function in the graph. Every function numbers
itself when it starts, so a tensor that is being saved belongs to the function with the
latest number. The tensor itself is held until that function's node turns up in the
graph (when the next tensor is saved, or a module returns), and there the node's slots
say which tensor is its input, which its weight. Only then is anything packed: a mask is
taken for a mask because a ReLU reads it, not because it looks like one.

Only nodes that hold tokens of the saver are ever read, so that a checkpointed region,
whose own hooks would recompute it on being read, is left alone.
"""

import functools
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from torch import nn

from elision.common.restoring import Buffers
from elision.memory.codecs import OffloadError
from elision.memory.compiled import compiled_parts, packed_in_graphs
from elision.memory.modules import ModulePaths, owned_by, tensors_in
from elision.memory.peak import Peak, watch_peak
from elision.memory.policies.base import Policy
from elision.memory.policies.presets import policy_for
from elision.memory.saved.codec import Guarantee
from elision.memory.saved.layout import dense_part
from elision.memory.saved.ledger import Ledger, Row
from elision.memory.saved.origin import Origins
from elision.memory.saved.regions import Region, Regions
from elision.memory.saved.roles import SMOOTH_ROLES, Role, Slot, role_of
from elision.memory.saved.token import CodecEntry, Token

__all__ = ["saver"]

_sequence_nr = torch._C._autograd._get_sequence_nr  # pyright: ignore[reportAttributeAccessIssue]


class saver:
    """Keep the saved tensors of ``model`` under a policy.

    Leaving the block ends the packing only; the backward pass may run inside or outside
    it, and as often as the graph is retained. The model is not modified.

    Args:
        model: the module whose forward passes run in the block.
        policy: a policy, rules, or a preset by name: ``"exact"``, ``"int8"``,
            ``"bits(2.5)"``, ``"guaranteed(0.1)"``, ``"jpeg"``, ``"offload"``,
            ``"rad(0.1)"``, ... (see :mod:`elision.memory.policies.presets`).
        pack_batch: also pack the tensors that the model is called with. By default they
            are kept, because the caller usually holds the batch anyway.
        seed: seed of stochastic rounding; the same seed gives the same packs. By
            default it follows ``torch.manual_seed`` and the savers used so far.
        measure: also measure the allocator's bytes in the block, for the
            report; on the CPU this runs torch's profiler, which takes time.

    Raises:
        ValueError: unknown policy (lists the known ones), or a codec given a role
            that it may not touch.
        RuntimeError: on entering, if the model is compiled and the policy cannot be
            traced into its graphs (see :mod:`elision.memory.compiled`).

    Example:
        >>> import torch, elision
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
        >>> x = torch.randn(4, 3, 16, 16)
        >>> with elision.memory.saver(model, "bits(4)") as saved:
        ...     loss = model(x).square().mean()
        >>> loss.backward()
        >>> saved.ledger.ratio > 1
        True
    """

    _uses = 0

    def __init__(
        self,
        model: nn.Module,
        policy: Any = "exact",
        *,
        pack_batch: bool = False,
        seed: int | None = None,
        measure: bool = False,
    ) -> None:
        self.model = model
        self.policy: Policy = policy_for(policy, model)
        self.ledger = Ledger()
        self.pack_batch = pack_batch
        self.measured: Peak | None = None
        self._measure = measure
        self.custom_functions: set[str] = set()
        saver._uses += 1
        self._seed = torch.initial_seed() + saver._uses if seed is None else seed
        self._regions = Regions(self.ledger)
        self._modules = dict(model.named_modules())
        self._paths = ModulePaths(self._modules)
        self._owned = {t.untyped_storage()._cdata for t in owned_by(self._modules)}
        self._origins = Origins(self._owned, _slots)
        self._batch: set[int] = set()
        # Tokens without a consumer yet, by the number of the function that saved them,
        # and the module that was running then.
        self._waiting: dict[int, tuple[str, list[weakref.ref[Token]]]] = {}
        self._walked: set[int] = set()
        self._copy = -1
        self._first_function = 0
        self._contexts = ExitStack()
        self._buffers: Buffers | None = None

    def __enter__(self) -> "saver":
        if torch.compiler.is_compiling():
            raise RuntimeError(
                "elision.memory.saver cannot itself be compiled: compile the model, and "
                "use the saver around it"
            )
        if compiled_parts(self._modules):
            inside = packed_in_graphs(self.model, self.policy, self.ledger)
            self._watch_memory()
            self._contexts.enter_context(inside)
            return self
        self.policy.begin()
        self._first_function = _sequence_nr()
        hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack)
        self._watch_memory()
        if self.policy.offloads:
            self._buffers = Buffers(self.model)
        self._contexts.enter_context(hooks)
        self._paths.attach(self._see_arguments, self._see_result)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._paths.detach()
        for module, references in self._waiting.values():
            for token in filter(None, (reference() for reference in references)):
                assert token.tensor is not None
                slot = Slot("unknown", "?", Role.OTHER, module)
                self._keep(token, slot, self._regions.find(token.tensor))
        self._waiting.clear()
        self._regions.mark_elsewhere()
        if isinstance(error, OffloadError) and self._buffers is not None:
            self._buffers.put_back()
        self._contexts.__exit__(kind, error, traceback)

    def _watch_memory(self) -> None:
        if self._measure:
            device = next((p.device for p in self.model.parameters()), "cpu")
            self.measured = self._contexts.enter_context(watch_peak(device))

    @property
    def unseen_bytes(self) -> int | None:
        """Measured bytes that no saved tensor accounts for; None if not measured.

        Results that the caller still holds, and what custom functions keep outside
        ``save_for_backward``. The batch was there before and is in neither.
        """
        if self.measured is None:
            return None
        batch = {id(r.storage): r.storage for r in self.ledger.rows_of([Role.BATCH])}
        before = sum(s.nbytes for s in batch.values() if s.held)
        return self.measured.end_bytes - (self.ledger.stored_bytes - before)

    def report(self) -> str:
        """Report of the saved tensors and of their stored bytes, by module and role."""
        parts = [f"policy: {self.policy.name}", self.ledger.summary()]
        if self.measured is not None and self.unseen_bytes is not None:
            mib = 2**20
            parts.append(
                f"measured: {self.measured.end_bytes / mib:.2f} MiB more than before "
                f"alive at the end of the block, {self.measured.peak_bytes / mib:.2f} "
                f"MiB at its peak; {self.unseen_bytes / mib:.2f} MiB of the former are "
                "in no saved tensor: results, and what custom functions keep for "
                "themselves (the batch was there before)"
            )
        if self.custom_functions:
            names = ", ".join(sorted(self.custom_functions))
            parts.append(
                f"custom autograd functions: {names}; "
                "what they keep outside save_for_backward is unseen here and shows "
                "only in a measured peak"
            )
        parts += self.policy.notes()
        if self.ledger.rows:
            parts += ["", self.ledger.table()]
        return "\n".join(parts)

    # The pack side, in the order in which things happen.

    def _pack(self, tensor: torch.Tensor) -> Token:
        # A function takes its number before it saves anything.
        function = _sequence_nr() - 1
        producer = tensor.grad_fn
        if function == self._copy or _copied_by(producer, function):
            # An in-place function clones its argument to save it; the clone takes the
            # next number but saves nothing.
            self._copy, function = function, function - 1
        if self._waiting and function not in self._waiting:
            self._identify(producer)
        token = Token(tensor)
        if tensor.untyped_storage()._cdata in self._owned:
            self.ledger.parameter_bytes += tensor.numel() * tensor.element_size()
        else:
            if function not in self._waiting:
                self._waiting[function] = self._paths.current, []
            self._waiting[function][1].append(weakref.ref(token))
        return token

    def _unpack(self, token: Token) -> torch.Tensor:
        return token.restore()

    def _see_arguments(self, args: Any, kwargs: Any) -> None:
        """The model is called: these are the caller's tensors."""
        if not self.pack_batch:
            given = tensors_in((args, kwargs))
            self._batch = {t.untyped_storage()._cdata for t in given}

    def _see_result(self, result: Any) -> None:
        """A module has returned: its functions have nodes now."""
        if self._waiting:
            for tensor in tensors_in(result):
                self._identify(tensor.grad_fn)

    def _identify(self, newest: Any) -> None:
        """Find the consumers of waiting tokens among the ancestors of ``newest``.

        Ancestors are older, and tokens that start to wait later are newer: the search
        stops once the consumers of all tokens that wait now are found.
        """
        waiting, walked, first = self._waiting, self._walked, self._first_function
        found: list[tuple[int, Any]] = []
        stack = [newest]
        while stack and len(found) < len(waiting):
            node = stack.pop()
            if node is None:
                continue
            number = node._sequence_nr()
            if number < first or number in walked:
                continue
            if number in waiting:
                found.append((number, node))
            # The newest may still be about to save its results: visit it again.
            if node is not newest:
                walked.add(number)
            stack += [f for f, _ in node.next_functions]
        # Oldest first: what a tensor could be computed from is decided before it.
        for number, node in sorted(found, key=lambda pair: pair[0]):
            self._decide_all(node, *self._waiting.pop(number))

    def _decide_all(
        self, node: Any, module: str, references: list["weakref.ref[Token]"]
    ) -> None:
        waiting = {id(t) for t in (r() for r in references) if t is not None}
        function = type(node).__name__
        roles = _declared_roles(node)
        if roles is not None:
            self.custom_functions.add(function)
        for index, (name, token) in enumerate(_slots(node)):
            if id(token) not in waiting or token.tensor is None:
                continue
            declared = roles[index] if roles and index < len(roles) else None
            role = declared or self._origins.role(
                node, name, role_of(function, name, token.tensor), token.tensor
            )
            if token.tensor.untyped_storage()._cdata in self._batch:
                role = Role.BATCH
            self._seed += 1
            region = self._regions.find(token.tensor)
            region.nonnegative |= function == "ReluBackward0"
            slot = Slot(
                function=function,
                name=name,
                role=role,
                module=module,
                node=node,
                nonnegative=region.nonnegative,
                region=region,
                seed=self._seed,
            )
            self.policy.watch(slot)
            self._decide(token, slot, region)

    def _decide(self, token: Token, slot: Slot, region: Region) -> None:
        """Give a token whose consumer is known to the first codec that takes it."""
        tensor = token.tensor
        assert tensor is not None
        if token.stale:  # written before it could be packed: let the backward say so
            region.storage.held = True
            note = "modified in place"
            self._enter(slot, tensor, region, note=note)
            return
        if region.held() is not None or not tensor.numel():
            self._keep(token, slot, region)
            return
        if slot.role is Role.SQUARE:
            self._keep(token, slot, region)
            if (entry := region.packed()) is not None:
                region.square(entry)
            return
        note = ""
        for codec in self.policy.codecs_for(slot, tensor):
            entry = region.entries.get(codec)
            stored_bytes = 0
            if entry is None:
                packed = codec.pack(dense_part(tensor), slot)
                if packed is None:
                    if codec.guarantee is not Guarantee.EXACT:
                        note = f"not finite, or not for {codec}"
                    continue
                entry = CodecEntry(codec, packed)
                stored_bytes = entry.nbytes
                if codec.shared:
                    region.entries[codec] = entry
            row = self._enter(
                slot,
                tensor,
                region,
                codec=codec.name,
                guarantee=codec.guarantee,
                stored_bytes=stored_bytes,
                bound=codec.bound(entry.packed),
            )
            self.policy.chosen(slot, codec)
            token.hand_over(entry)
            if codec.keeps_sign(entry.packed):
                region.read_signs_from(entry)
            region.users.append((weakref.ref(token), row))
            if slot.role in SMOOTH_ROLES:
                region.square(entry)
            return
        self.policy.chosen(slot, None)
        self._keep(token, slot, region, note)

    def _keep(self, token: Token, slot: Slot, region: Region, note: str = "") -> None:
        """Let the token hold the tensor itself, and others of its region with it."""
        tensor = token.tensor
        assert tensor is not None
        if slot.role is not Role.SQUARE:
            region.storage.held = True
            region.take_back(tensor)
        row = self._enter(slot, tensor, region, note=note)
        region.users.append((weakref.ref(token), row))

    def _enter(
        self, slot: Slot, tensor: torch.Tensor, region: Region, **how: Any
    ) -> Row:
        """Enter a tensor into the ledger."""
        return self.ledger.add(slot, tensor.shape, tensor.nbytes, region.storage, **how)


def _copied_by(producer: Any, function: int) -> bool:
    """True if a tensor was copied by the function of this number."""
    copying = type(producer).__name__ == "CloneBackward0"
    return copying and producer._sequence_nr() == function


def _slots(node: Any) -> Iterator[tuple[str, Any]]:
    """The slots of a node and the tokens in them, without unpacking."""
    for attribute, name in _slot_attributes(type(node)):
        try:
            saved = getattr(node, attribute)
        except RuntimeError:  # already freed by a backward pass
            continue
        if isinstance(saved, (tuple, list)):
            for index, one in enumerate(saved):
                yield f"{name}[{index}]", one.data
        else:
            yield name, saved.data


@functools.cache
def _slot_attributes(kind: type) -> tuple[tuple[str, str], ...]:
    """The attributes of a kind of node that hold its slots, and the slots' names."""
    prefix = "_raw_saved_"
    return tuple((a, a[len(prefix) :]) for a in dir(kind) if a.startswith(prefix))


def _declared_roles(node: Any) -> list[Role | None] | None:
    """Roles that a custom function declares; None for a function of PyTorch's own.

    A ``torch.autograd.Function`` may have an attribute ``saved_roles``: for each tensor
    that it gives to ``save_for_backward``, the value of a role, or None.
    """
    forward = getattr(type(node), "_forward_cls", None)
    if forward is None:
        return None
    return [role and Role(role) for role in getattr(forward, "saved_roles", ())]
