"""The replaced functions of one model, at work while it runs.

A function mode of torch stands around the model's forward pass and answers the calls of
the replaced functions, whoever makes them: modules, functional calls, methods of tensors.
How it is entered and left: :mod:`elision.layers.between.passes`.
"""

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from elision.functional import Replacement
from elision.layers.between.calls import HIDDEN, Adapter, adapters, name_of
from elision.layers.between.passes import Around
from elision.layers.effects import NoEffectWarning
from elision.layers.recomputation import is_recomputation

__all__ = ["Between", "Replaced"]


@dataclass(frozen=True)
class Replaced:
    """A function that is replaced between the layers of a model.

    Attributes:
        what: the function: ``tanh``, ``sigmoid``, ``silu``, ``gelu`` or ``softmax``.
        by: name of its replacement.
        calls: that the latest forward pass made, those of compiled graphs left out;
            None: there was none yet.
        through: torch's functions that made them.

    Example:
        >>> Replaced("tanh", "k-tanh", 2, ("lstm", "tanh")).by
        'k-tanh'
    """

    what: str
    by: str
    calls: int | None
    through: tuple[str, ...]


class Between(Around):
    """The replacements of one model; copies and pickles keep them, not the counts.

    Args:
        replacements: by what they replace.

    Example:
        >>> from elision.functional import make
        >>> between = Between({"tanh": make("tanh", "hard-tanh")})
        >>> with between.at_work():
        ...     torch.tensor(3.0).tanh().item()
        1.0
    """

    def __init__(self, replacements: Mapping[str, Replacement]) -> None:
        super().__init__()
        self.replacements = dict(replacements)
        self._adapters = adapters(self.replacements, self._met)
        self._calls: Counter[tuple[str, str]] | None = None
        self._has_graphs = False
        self._hidden: dict[str, str] = {}
        self._told = False
        self._told_hidden: set[str] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        return Between, (self.replacements,)

    @property
    def replaced(self) -> tuple[Replaced, ...]:
        """What is replaced, with the calls of the latest forward pass."""
        calls = self._calls
        return tuple(
            Replaced(
                kind,
                found.name,
                None
                if calls is None
                else sum(n for (k, _), n in calls.items() if k == kind),
                tuple(sorted({f for k, f in calls or () if k == kind})),
            )
            for kind, found in self.replacements.items()
        )

    def _met(self, kind: str, func: Any) -> None:
        if torch.compiler.is_compiling():  # a graph's calls cannot be counted
            self._has_graphs = True
        elif self._calls is not None:
            self._calls[kind, name_of(func)] += 1

    def note_hidden(self, func: Any) -> None:
        """Remember a function that holds a replaced one inside."""
        if HIDDEN[func] in self.replacements:
            self._hidden[name_of(func)] = HIDDEN[func]

    # --- a pass --------------------------------------------------------------------------

    def mode(self, *, again: bool = False) -> TorchFunctionMode:
        """The mode that answers the calls."""
        return _Mode(self, self._adapters, again)

    def begin(self) -> None:
        """Count anew."""
        self._calls = Counter()

    def end(self, *, ended_well: bool) -> None:
        """Say once what the pass did not meet."""
        if not ended_well:
            return
        if not self._told:
            self._told = True
            unmet = [r for r in self.replaced if not r.calls]
            if unmet and not self._has_graphs:
                named = ", ".join(f"{r.what} ({r.by})" for r in unmet)
                warnings.warn(
                    f"the forward pass computed no {named}: nothing is replaced by that",
                    NoEffectWarning,
                    stacklevel=5,
                )
        new = {f: k for f, k in self._hidden.items() if f not in self._told_hidden}
        if new:
            self._told_hidden |= set(new)
            named = ", ".join(f"{func} (its {kind})" for func, kind in new.items())
            warnings.warn(
                f"functions that compute a replaced one inside stay exact: {named}",
                NoEffectWarning,
                stacklevel=5,
            )


class _Mode(TorchFunctionMode):
    """Answers calls of the replaced functions."""

    def __init__(
        self, between: Between, computed: dict[Any, Adapter], again: bool = False
    ) -> None:
        super().__init__()
        self._between, self._adapters, self._again = between, computed, again

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Compute the replacement, or the function."""
        kwargs = kwargs or {}
        if self._again and not is_recomputation():  # an interrupt has left it behind
            return func(*args, **kwargs)
        adapter = self._adapters.get(func)
        if adapter is not None:
            return adapter(*args, **kwargs)
        if func in HIDDEN:
            self._between.note_hidden(func)
        return func(*args, **kwargs)
