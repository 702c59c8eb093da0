"""The saver: tensors that autograd keeps for the backward pass, in fewer bytes."""

import threading
import warnings
from contextlib import ExitStack
from threading import get_ident
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from elision.common.checks import integer
from elision.common.restoring import Buffers
from elision.memory.codecs import OffloadError
from elision.memory.compiled import compiled_parts, packed_in_graphs
from elision.memory.packing import Packing
from elision.memory.peak import Peak, profiler_is_running, watch_peak
from elision.memory.policies.base import Policy
from elision.memory.policies.presets import policy_for
from elision.memory.saved.findings import findings
from elision.memory.saved.ledger import Ledger
from elision.memory.saved.roles import Role

__all__ = ["saver"]

_innermost = threading.local()

#: Model -> kinds of findings that its user was warned of.
_warned: "WeakKeyDictionary[nn.Module, set[str]]" = WeakKeyDictionary()


class saver:
    """Keep the saved tensors of ``model`` under a policy.

    Leaving the block ends the packing only; the backward pass may run inside or outside
    it, and as often as the graph is retained. The model is not modified. What runs in
    other threads is left alone. A saver may be used again once its block is left; the
    ledger is that of the last use. Inside the block of another saver the inner one packs,
    and both account.

    Args:
        model: the module whose forward passes run in the block.
        policy: a policy, rules, or a preset by name: ``"exact"``, ``"int8"``,
            ``"bits(2.5)"``, ``"guaranteed(0.1)"``, ``"jpeg"``, ``"offload"``,
            ``"rad(0.1)"``, ... (see :mod:`elision.memory.policies.presets`).
        pack_batch: also pack the tensors that the model is called with. By default they
            are kept, because the caller usually holds the batch anyway.
        seed: seed of stochastic rounding; the same seed gives the same packs. By
            default it follows ``torch.manual_seed`` and the savers without one so far.
        measure: also measure the allocator's bytes in the block, for the
            report; on the CPU this runs torch's profiler, which takes time, and is left
            out, with a warning, where somebody else's profiler runs.

    Raises:
        ValueError: unknown policy (lists the known ones), or a codec given a role
            that it may not touch, or a seed that is no integer or below zero.
        TypeError: the model is no module.
        RuntimeError: on entering, if the model is compiled and the policy cannot be
            traced into its graphs (see :mod:`elision.memory.compiled`), or if the
            saver's own block is not left yet; on leaving, if that was entered in
            another thread.

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
        if not isinstance(model, nn.Module):
            raise TypeError(
                "elision.memory.saver: model must be a torch.nn.Module, got "
                f"{type(model).__name__}"
            )
        if seed is not None:
            seed = integer("elision.memory.saver", "seed", seed, "[0, inf)")
        self.model = model
        self.policy: Policy = policy_for(policy, model)
        self.ledger = Ledger()
        self.pack_batch = pack_batch
        self.measured: Peak | None = None
        self._measure = measure
        if seed is None:
            saver._uses += 1
            seed = torch.initial_seed() + saver._uses
        self._seed = seed
        self._packing: Packing | None = None
        self._uses_now: list[ExitStack] = []
        self._contexts, self._thread = ExitStack(), get_ident()
        self._buffers: Buffers | None = None

    def __enter__(self) -> "saver":
        if torch.compiler.is_compiling():
            raise RuntimeError(
                "elision.memory.saver cannot itself be compiled: compile the model, and "
                "use the saver around it"
            )
        contexts = ExitStack()
        try:
            self._enter(contexts)
            return self
        except BaseException:
            contexts.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._uses_now and self._thread != get_ident():
            raise RuntimeError(
                "elision.memory.saver: this saver's block was entered in another "
                "thread; leave it there, where its hooks are"
            )
        try:
            self._contexts.__exit__(kind, error, traceback)
        except OffloadError as late:  # of small tensors, which are packed last
            error = late
            raise
        finally:
            if isinstance(error, OffloadError) and self._buffers is not None:
                self._buffers.put_back()
        if error is None and self.ledger.checkpointed and self.policy.name != "none":
            self._warn_of_checkpointing()

    def _warn_of_checkpointing(self) -> None:
        """Say, once for a model, where checkpointing and the saver undo each other."""
        warned = _warned.setdefault(self.model, set())
        for finding in findings(self.ledger):
            if finding.useless and finding.kind not in warned:
                warned.add(finding.kind)
                warnings.warn(f"elision.memory.saver: {finding.text}", stacklevel=3)

    def _enter(self, contexts: ExitStack) -> None:
        """Prepare a use; whatever is done is undone by ``contexts``, in turn."""
        uses = self._uses_now
        contexts.callback(lambda: contexts in uses and uses.remove(contexts))
        uses.append(contexts)
        if uses[0] is not contexts:
            raise RuntimeError(
                "elision.memory.saver: this saver's block is not left yet; "
                "make another saver for a block inside it or in another thread"
            )
        self._contexts, self._thread = contexts, get_ident()
        modules = dict(self.model.named_modules())
        outer = getattr(_innermost, "packing", None)
        self.ledger = Ledger(enclosing=None if outer is None else outer.ledger)
        self.measured = self._packing = self._buffers = None
        if compiled_parts(modules):
            inside = packed_in_graphs(self.model, self.policy, self.ledger)
            self._watch_memory()
            contexts.enter_context(inside)
            return
        self.policy.begin()
        packing = Packing(
            modules, self.policy, self.ledger, self._seed, self.pack_batch, outer
        )
        self._packing = packing
        if self.policy.offloads:
            self._buffers = Buffers(self.model)
        self._watch_memory()
        contexts.callback(setattr, _innermost, "packing", outer)
        _innermost.packing = packing
        contexts.enter_context(
            torch.autograd.graph.saved_tensors_hooks(packing.pack, packing.unpack)
        )
        contexts.push(packing.finish)
        packing.follow(contexts)

    def _watch_memory(self) -> None:
        if not self._measure:
            return
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        if device.type == "cpu" and profiler_is_running():
            warnings.warn(
                "elision.memory.saver(measure=True): memory is not measured, because "
                "another torch.profiler is running, which measuring would end",
                stacklevel=4,
            )
            return
        self.measured = self._contexts.enter_context(watch_peak(device))

    def see_batch(self, batch: Any) -> None:
        """Take tensors for the batch, as if the model itself were called with them.

        For loops that call parts of the model. Without effect outside of the block, on
        a compiled model, or under ``pack_batch``.

        Args:
            batch: tensors in nested tuples, lists and mappings.
        """
        if self._packing is not None:
            self._packing.see_batch(batch)

    @property
    def custom_functions(self) -> set[str]:
        """Names of the custom autograd functions that saved tensors in the block."""
        return set() if self._packing is None else self._packing.custom_functions

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
        if self.policy.name != "none":  # which is to gain nothing
            parts += [finding.text for finding in findings(self.ledger)]
        parts += self.policy.notes()
        if self.ledger.rows:
            parts += ["", self.ledger.table()]
        return "\n".join(parts)
