"""Packing: what a saver does with the tensors that one block saves.

PyTorch calls a pair of hooks for every saved tensor, but without the function that saves
it. The packing finds the function in the graph. Every function numbers itself when it
starts, so a tensor that is being saved belongs to the function with the latest number.
The tensor itself is held until that function's node turns up in the graph (when the next
tensor is saved, or a module returns), and there the node's slots say which tensor is its
input, which its weight. Only then is anything packed: a mask is taken for a mask because
a ReLU reads it, not because it looks like one.

Packing takes some dozens of calls for every tensor. For the small tensors of an unrolled
recurrent network that is many times the work of the layer that saves them, so what a
module saves over and over is kept, unless it stays few; nothing is looked up for it.

No mode of torch sees this work: the products of a codec are none of the model's.

Only nodes that hold tokens of the saver are ever read, so that a checkpointed region,
whose own hooks would recompute it on being read, is left alone.
"""

import functools
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from threading import get_ident
from typing import Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.parameter import is_lazy

from elision.common.modes import unseen_by_modes
from elision.memory.modules import ModulePaths, outermost, owned_by, tensors_in
from elision.memory.policies.base import Policy
from elision.memory.saved.codec import Guarantee
from elision.memory.saved.layout import dense_part, has_memory, is_dense
from elision.memory.saved.ledger import Ledger, Row, StorageRecord
from elision.memory.saved.origin import Origins
from elision.memory.saved.regions import Region, Regions
from elision.memory.saved.roles import SMOOTH_ROLES, Role, Slot, role_of
from elision.memory.saved.tag import content_tag
from elision.memory.saved.token import CodecEntry, Token

__all__ = ["Packing"]

_sequence_nr = torch._C._autograd._get_sequence_nr  # pyright: ignore[reportAttributeAccessIssue]
_top_hooks = torch._C._autograd._top_saved_tensors_default_hooks  # pyright: ignore[reportAttributeAccessIssue]
#: Number of the backward pass that is running; -1 if none is.
_graph_task = torch._C._current_graph_task_id

#: Bytes from which a tensor is always worth its packing, tensors of one module beyond
#: which smaller ones wait, and tensors beyond which those that wait are kept (own
#: choices: no layer but a recurrent one saves as many).
_SMALL, _UNROLLED, _FEW = 2**16, 2, 64


class _Waiting:
    """Tokens of one function whose node is not known yet.

    Attributes:
        module: the module that was running.
        tokens: each with whether it lies in the batch.
    """

    __slots__ = ("module", "tokens")

    def __init__(self, module: str) -> None:
        self.module = module
        self.tokens: list[tuple[weakref.ref[Token], bool]] = []

    def alive(self) -> Iterator[Token]:
        """The tokens that autograd still has."""
        yield from filter(None, (reference() for reference, _ in self.tokens))


class Packing:
    """The hooks of one use of the saver, in the thread that makes it.

    Args:
        modules: path -> module, the model itself first.
        policy: decides.
        ledger: is filled in.
        seed: of the first tensor's random rounding.
        pack_batch: whether the tensors that the model is called with are packed, too.
        outer: that of the saver in whose block this one is used.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        policy: Policy,
        ledger: Ledger,
        seed: int,
        pack_batch: bool,
        outer: "Packing | None" = None,
    ) -> None:
        self.ledger = ledger
        self.custom_functions: set[str] = set()
        self._policy, self._seed, self._pack_batch = policy, seed, pack_batch
        self._regions = Regions(ledger, None if outer is None else outer._regions)
        self._paths = ModulePaths(modules)
        self._modules = modules
        self._owned: set[int] = set()
        self._unready = self._find_owned()
        self._origins = Origins(self._owned, _slots)
        self._batch: set[int] = set()
        self._waiting: dict[int, _Waiting] = {}
        self._roots: list[Any] = []
        self._walked: set[int] = set()
        # Small tensors of modules that save many: the first few, and all others.
        self._saves: Counter[str] = Counter()
        self._few: dict[int, _Waiting] = {}
        self._few_roots: list[Any] = []
        self._many: dict[str, list[weakref.ref[Token]]] = {}
        self._unsettled = False
        # Modules that ran under checkpointing, without and with reentrance.
        self._checkpointed: dict[str, None] = {}
        self._without_gradient: dict[str, None] = {}
        self._restored: dict[int, tuple[StorageWeakRef, tuple, weakref.ref[Token]]] = {}
        self._copy = -1
        self._first_function = _sequence_nr()
        self._thread = get_ident()
        self._active, self._deciding = True, False

    def follow(self, contexts: ExitStack) -> None:
        """Follow the model's modules until ``contexts`` are left."""
        self._paths.attach(contexts, self._see_arguments, self._see_result)

    @unseen_by_modes
    def finish(self, kind: type[BaseException] | None, *_: Any) -> None:
        """Decide on all tensors that still wait.

        Args:
            kind: of the error that ends the block, after which nothing more is packed.
        """
        try:
            self._settle(keep=kind is not None)
        finally:
            self._active = False
            self._roots.clear()
            self._restored.clear()
            self._regions.finish()
            if "CheckpointFunctionBackward" in self.custom_functions:
                self._checkpointed |= self._without_gradient
            self.ledger.checkpointed = outermost(self._checkpointed, self._modules)

    def _settle(self, keep: bool = False) -> None:
        """Decide on all that waits.

        Args:
            keep: do not pack anything more.
        """
        if not keep:
            self._identify(self._waiting, self._roots, self._walked)
            self._identify(self._few, self._few_roots, set())
        for waiting in (*self._waiting.values(), *self._few.values()):
            for token in waiting.alive():
                if token.tensor is not None:
                    slot = Slot("unknown", "?", Role.OTHER, waiting.module)
                    self._keep(token, slot, self._regions.find(token.tensor))
        for module, references in self._many.items():
            self._keep_many(module, references)
        for waiting in (self._waiting, self._few, self._few_roots, self._many):
            waiting.clear()
        self._unsettled = False

    # The pack side, in the order in which things happen.

    @unseen_by_modes
    def pack(self, tensor: torch.Tensor) -> Token:
        """The hook that a saved tensor goes through."""
        token = Token(tensor)
        if get_ident() != self._thread or not self._active:
            return token
        module = self._paths.current
        many = self._many.get(module)
        small = tensor.numel() * tensor.element_size() < _SMALL
        if many is not None and small:
            many.append(weakref.ref(token))
            return token
        self._unsettled = True
        if not has_memory(tensor):
            self._pass(token, tensor)
            return token
        address = tensor.untyped_storage()._cdata
        if self._is_owned(address):
            self.ledger.count_parameter(tensor.nbytes)
            token.settled = True
            return token
        if _graph_task() != -1:
            self.ledger.recomputed_bytes += tensor.nbytes
        # A function takes its number before it saves anything.
        function = _sequence_nr() - 1
        producer = tensor.grad_fn
        if function == self._copy or _copied_by(producer, function):
            # An in-place function clones its argument to save it; the clone takes the
            # next number but saves nothing.
            self._copy, function = function, function - 1
        self._regions.release()
        if self._waiting and function not in self._waiting:
            self._roots.append(producer)
            self._identify(self._waiting, self._roots, self._walked, producer)
        if address in self._restored and self._saved_again(token, tensor, address):
            return token
        self._saves[module] += 1
        small = small and self._saves[module] > _UNROLLED
        waiting = self._few if small else self._waiting
        if function not in waiting:
            waiting[function] = _Waiting(module)
        waiting[function].tokens.append((weakref.ref(token), address in self._batch))
        if small:
            self._few_roots.append(producer)
            if len(waiting) > _FEW or self._many:
                self._give_up_the_few()
        return token

    def _give_up_the_few(self) -> None:
        """Keep the small tensors that wait, and all that their modules save later."""
        for waiting in self._few.values():
            many = self._many.setdefault(waiting.module, [])
            many += [reference for reference, _ in waiting.tokens]
        self._few.clear()
        self._few_roots.clear()

    def _keep_many(self, module: str, references: list["weakref.ref[Token]"]) -> None:
        """Enter the small tensors of a module that are kept unlooked-at."""
        found: dict[int, torch.Tensor] = {}
        for token in filter(None, (reference() for reference in references)):
            tensor = token.tensor
            assert tensor is not None
            try:
                found[tensor.untyped_storage()._cdata] = tensor
            except (NotImplementedError, RuntimeError):
                self._pass(token, tensor)
        others: dict[int, int] = {}
        for address, tensor in found.items():
            storage = tensor.untyped_storage()
            if self._is_owned(address):
                self.ledger.count_parameter(tensor.nbytes)
            elif not self._regions.hold(storage):
                others[address] = storage.nbytes()
        if others:
            storage = StorageRecord(sum(others.values()), held=True)
            self.ledger.enter(storage)
            note = f"{len(others)} small tensors, quicker to keep than to pack"
            slot = Slot("many", "small", Role.OTHER, module)
            shape = (len(others),)
            self.ledger.add(slot, shape, storage.nbytes, storage, note=note)

    @unseen_by_modes
    def unpack(self, token: Token) -> torch.Tensor:
        """The hook that a saved tensor comes back through."""
        if self._deciding or not self._active:  # a codec that reads its node, for one
            return token.restore()
        again = torch.is_grad_enabled()
        if not again and self._unsettled:  # a backward pass, which ends what it reads
            self._settle()
        tensor = token.restore()
        if again and token.entry is not None:
            # A function of the backward pass may save it once more.
            storage = tensor.untyped_storage()
            place = tensor.storage_offset(), tensor.numel(), tensor._version
            found = StorageWeakRef(storage), place, weakref.ref(token)
            self._restored[storage._cdata] = found
        return tensor

    def _saved_again(self, token: Token, tensor: torch.Tensor, address: int) -> bool:
        """Let a restored tensor share the packed form that it was restored from."""
        alive, place, reference = self._restored[address]
        source = reference()
        whole = tensor.storage_offset(), tensor.numel(), tensor._version
        if source is None or alive.expired() or place != whole:
            return False
        if not is_dense(tensor.shape, tensor.stride()):
            return False
        token.share(source)
        return True

    def _is_owned(self, address: int) -> bool:
        if self._unready:  # parameters that a lazy module may have made by now
            self._unready = self._find_owned()
        return address in self._owned

    def _find_owned(self) -> bool:
        """Find the memory of the model; True if some of it is yet to be made."""
        unready = False
        for tensor in owned_by(self._modules):
            if is_lazy(tensor):
                unready = True
            elif has_memory(tensor):
                self._owned.add(tensor.untyped_storage()._cdata)
        return unready

    def _pass(self, token: Token, tensor: torch.Tensor) -> None:
        """Enter a tensor that is none of the codecs' business."""
        storage = StorageRecord(_nbytes(tensor), held=True)
        self.ledger.enter(storage)
        note = "no memory that a codec could read"
        slot = Slot("unknown", "?", Role.OTHER, self._paths.current)
        shape = () if tensor.is_nested else tensor.shape
        self.ledger.add(slot, shape, storage.nbytes, storage, note=note)

    def _see_arguments(self, args: Any, kwargs: Any) -> None:
        """The model is called: these are the caller's tensors."""
        self.see_batch((args, kwargs))

    def see_batch(self, batch: Any) -> None:
        """Take the tensors in ``batch`` for the caller's."""
        if not self._pack_batch:
            for tensor in filter(has_memory, tensors_in(batch)):
                self._batch.add(tensor.untyped_storage()._cdata)

    @unseen_by_modes
    def _see_result(self, result: Any, path: str | None) -> None:
        """A module has returned: its functions have nodes now."""
        if path is not None and not torch.is_grad_enabled():
            self._without_gradient[path] = None
        elif path is not None and _under_checkpoint():
            self._checkpointed[path] = None
        if self._waiting:
            self._roots += [tensor.grad_fn for tensor in tensors_in(result)]
            self._identify(self._waiting, self._roots, self._walked)
        self._regions.release()
        if self._few:
            self._few_roots += [tensor.grad_fn for tensor in tensors_in(result)]

    def _identify(
        self,
        waiting: dict[int, _Waiting],
        roots: list[Any],
        walked: set[int],
        newest: Any = None,
    ) -> None:
        """Find the consumers of waiting tokens among the ancestors of the roots.

        Ancestors are older, and tokens that start to wait later are newer: the search
        stops once the consumers of all tokens that wait now are found.

        Args:
            waiting: those whose consumers are found are taken out.
            roots: nodes to start from; empty afterwards.
            walked: numbers of the functions that need not be visited again.
            newest: root that may still be about to save its results.
        """
        if not waiting:
            return
        found: dict[int, Any] = {}
        first = max(self._first_function, min(waiting))
        stack = roots.copy()
        roots.clear()
        while stack and len(found) < len(waiting):
            node = stack.pop()
            if node is None:
                continue
            number = node._sequence_nr()
            if number < first or number in walked:
                continue
            if number in waiting:
                found[number] = node
            if node is not newest:
                walked.add(number)
            stack += [f for f, _ in node.next_functions]
        self._deciding = True
        try:
            # Oldest first: what a tensor could be computed from is decided before it.
            for number in sorted(found):
                self._decide_all(found[number], waiting.pop(number))
        finally:
            self._deciding = False

    def _decide_all(self, node: Any, waiting: _Waiting) -> None:
        tokens = {
            id(t): batch for t, batch in ((r(), b) for r, b in waiting.tokens) if t
        }
        function = type(node).__name__
        roles = _declared_roles(node)
        if roles is not None:
            self.custom_functions.add(function)
        for index, (name, token) in enumerate(_slots(node)):
            batch = tokens.get(id(token))
            if batch is None or token.tensor is None:
                continue
            tensor = token.tensor.detach()
            region = self._regions.find(tensor)
            region.nonnegative |= function == "ReluBackward0"
            role = self._role(node, name, index, roles, tensor, batch)
            if region.nonnegative and role in SMOOTH_ROLES:
                # It was, when the ReLU made it.
                region.nonnegative = bool(tensor.min() >= 0)
            self._seed += 1
            slot = Slot(
                function=function,
                name=name,
                role=role,
                module=waiting.module,
                node=node,
                nonnegative=region.nonnegative,
                region=region,
                seed=self._seed,
            )
            self._policy.watch(slot)
            self._decide(token, tensor, slot, region)
            token.settled = True

    def _role(
        self,
        node: Any,
        name: str,
        index: int,
        declared: Sequence[Role | None] | None,
        tensor: torch.Tensor,
        batch: bool,
    ) -> Role:
        """Role of the tensor in a slot."""
        if batch:
            return Role.BATCH
        if declared and index < len(declared) and declared[index] is not None:
            return declared[index]  # pyright: ignore[reportReturnType]
        by_slot = role_of(type(node).__name__, name, tensor)
        return self._origins.role(node, name, by_slot, tensor)

    def _decide(
        self, token: Token, tensor: torch.Tensor, slot: Slot, region: Region
    ) -> None:
        """Give a token whose consumer is known to the first codec that takes it."""
        if token.stale:  # written before it could be packed: let the backward say so
            region.storage.held = True
            self._enter(slot, tensor, region, note="modified in place")
            return
        if region.held() is not None or not tensor.numel() or token.pinned:
            self._keep(token, slot, region)
            return
        if slot.role is Role.SQUARE:
            self._keep(token, slot, region)
            if (entry := region.packed()) is not None:
                region.square(entry)
            return
        codecs = self._policy.codecs_for(slot, tensor)
        note = ""
        for codec in codecs:
            entry = region.entry(codec, slot)
            if entry is None:
                packed = codec.pack(dense_part(tensor), slot)
                if packed is None:
                    if codec.guarantee is not Guarantee.EXACT:
                        note = f"not finite, or not for {codec}"
                    continue
                entry = CodecEntry(codec, self._policy.packed(slot, packed))
                if codec.shared:
                    region.share(codec, slot, entry)
                if codec.reads_values and not region.marked:
                    region.mark(content_tag(dense_part(tensor)))
                    self._regions.guard(tensor)
            row = self._enter(slot, tensor, region)
            entry.describe(row)
            self._policy.chosen(slot, codec)
            token.hand_over(entry, region)
            if entry.keeps_sign:
                region.read_signs_from(entry, codec.name)
            region.users.append((weakref.ref(token), row))
            if slot.role in SMOOTH_ROLES:
                region.square(entry)
            return
        self._policy.chosen(slot, None)
        self._keep(token, slot, region, note)

    def _keep(self, token: Token, slot: Slot, region: Region, note: str = "") -> None:
        """Let the token hold the tensor itself, and others of its region with it."""
        tensor = token.tensor
        assert tensor is not None
        if slot.role is not Role.SQUARE:
            region.take_back(tensor)
        row = self._enter(slot, tensor, region, note=note)
        region.users.append((weakref.ref(token), row))

    def _enter(
        self, slot: Slot, tensor: torch.Tensor, region: Region, note: str = ""
    ) -> Row:
        """Enter a tensor into the ledger."""
        nbytes, storage = tensor.nbytes, region.storage
        call = -1 if slot.node is None else slot.node._sequence_nr()
        return self.ledger.add(
            slot, tensor.shape, nbytes, storage, note=note, call=call
        )


def _under_checkpoint() -> bool:
    """True in a region that checkpointing, without reentrance, has its own hooks on."""
    hooks = _top_hooks(False)
    module = None if hooks is None else getattr(hooks[0], "__module__", None)
    return module == "torch.utils.checkpoint"


def _nbytes(tensor: torch.Tensor) -> int:
    """Bytes of a tensor of any kind; 0 where that cannot be told."""
    try:
        if tensor.layout is torch.sparse_coo:
            return tensor._indices().nbytes + tensor._values().nbytes
        return tensor.nbytes
    except (RuntimeError, NotImplementedError):
        return 0


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
