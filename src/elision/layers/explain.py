"""explain: what of a model a recipe's table reaches, and what it does not.

The table is of layers, and of the products of a model's own calls (``matmul``, ``einsum``,
attention) that a recipe names. A network also multiplies in calls that it does not name, in
layers of other types and with parameters that belong to no layer of the table. All that is
listed by name, with its share of the work on a given input.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from elision.common.notebook import html_table
from elision.common.restoring import restored
from elision.layers.between.called import changed_calls
from elision.layers.between.replace import replaced_functions
from elision.layers.between.work import Replaced
from elision.layers.meter import WorkMeter, metered
from elision.layers.modules import ELIDED, WHOLES, elided_whole, is_derived, plain_type
from elision.layers.modules.base import ElidedLayer, plan_of, tied_reader
from elision.layers.modules.part import ElidedWhole
from elision.layers.parts import Part, parameter_of
from elision.layers.reach import elidable_layers, elided_layers

__all__ = ["Explanation", "Unreached", "explain"]


@dataclass(frozen=True)
class Unreached:
    """A part of a model whose products no recipe's table changes.

    Attributes:
        name: of the module; empty for the model itself.
        what: its type, or the operator.
        why: the reason.
        macs: its multiply-accumulates in a forward pass; None: no input was given.

    Example:
        >>> Unreached("bags", "EmbeddingBag", "a bag of lookups", 0).what
        'EmbeddingBag'
    """

    name: str
    what: str
    why: str
    macs: int | None


@dataclass(frozen=True)
class Explanation:
    """The parts of a model in a recipe's table, and those outside of it.

    Attributes:
        reached: names of the layers in the table.
        unreached: the rest, in the order of the model, functions last.
        macs: multiply-accumulates of a forward pass, all of them; None: no input given.
        functions: what is computed between the layers instead of torch's functions.

    Example:
        >>> import elision
        >>> class Mix(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.weight = nn.Parameter(torch.ones(4, 3))
        ...     def forward(self, x):
        ...         return x @ self.weight
        >>> model = nn.Sequential(nn.Linear(4, 4), Mix())
        >>> found = elision.explain(model, torch.ones(2, 4))
        >>> found.reached, round(found.share, 2), found.unreached[0].what
        (['0'], 0.57, 'Mix')
    """

    reached: list[str]
    unreached: list[Unreached]
    macs: int | None
    functions: tuple[Replaced, ...] = ()

    @property
    def share(self) -> float | None:
        """Share of the multiply-accumulates in the table; None: no input was given."""
        if self.macs is None:
            return None
        outside = sum(part.macs or 0 for part in self.unreached)
        return 1 - outside / self.macs if self.macs else 1.0

    def _cells(self) -> Iterator[tuple[str, str, str, str]]:
        for part in self.unreached:
            share = ""
            if part.macs is not None:
                share = f"{part.macs / self.macs:.1%}" if self.macs else "0.0%"
            yield part.name or "(the model itself)", part.what, part.why, share

    def _summary(self) -> str:
        number = len(self.reached)
        text = f"{number} layer{'' if number == 1 else 's'} in the table"
        if self.share is None:
            text += "; give an input for shares of the work"
        else:
            text += f", {self.share:.1%} of {self.macs:,} forward MACs"
        return "; ".join([text, *map(_told, self.functions)])

    def __str__(self) -> str:
        """One line on what is reached and replaced, then a table of the rest."""
        lines = [("not reached", "what", "why", "MACs"), *self._cells()]
        if len(lines) == 1:
            return f"{self._summary()}; nothing is left out of it"
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = (
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True))
            for line in lines
        )
        return "\n".join([self._summary(), *(line.rstrip() for line in table)])

    def _repr_html_(self) -> str:
        header = ("not reached", "what", "why", "MACs")
        return html_table(header, self._cells(), self._summary())


def explain(model: nn.Module, *inputs: Any, **keywords: Any) -> Explanation:
    """List what of a model a recipe's table reaches, and what it does not.

    Args:
        model: elided: by its recipe; plain: by any recipe. Not compiled.
        *inputs: arguments of a forward pass, from which shares of the work are taken;
            the model's state and the random state are as before. Without any argument
            there are no shares.
        **keywords: its arguments by name.

    Returns:
        The layers in the table, and what is not in it with the reason; as text, a table
        of the latter.

    Raises:
        ValueError: the model is compiled.
    """
    parts = _parts(model)
    meter = None
    if inputs or keywords:
        # Fused forms, which hide their parts, run without gradients alone.
        whole = restored(model, random_state=True), torch.enable_grad()
        with whole[0], whole[1], metered(model) as meter:
            model(*inputs, **keywords)
    listed = {name for name, *_ in parts}
    frozen = {name for name, _, why in parts if why == _FROZEN}
    macs: dict[str, int] = {}
    functions: dict[tuple[str, str], int] = {}
    calls: dict[tuple[str, str], int] = {}
    changed = changed_calls(model)
    if meter is not None:
        for (module, operator), count in _outside(meter).items():
            if module in listed:
                macs[module] = macs.get(module, 0) + count
            else:
                functions[module, operator] = count
        layers = {name for name, _ in model.named_modules()} | {*_candidates(model)}
        for (name, _), work in meter.by_layer.items():
            module, _, call = name.rpartition(".")
            if name in layers or name in changed:
                if name not in frozen:
                    macs[name] = macs.get(name, 0) + work.dense_macs
            elif module in listed:
                macs[module] = macs.get(module, 0) + work.dense_macs
            else:
                calls[module, call] = work.dense_macs
    unreached = [
        Unreached(name, what, why, None if meter is None else macs.get(name, 0))
        for name, what, why in parts
    ]
    unreached += [
        Unreached(module, operator, "a function, no layer", count)
        for (module, operator), count in functions.items()
    ]
    unreached += [
        Unreached(module, call, _OF_A_CALL, count)
        for (module, call), count in calls.items()
    ]
    reached = [name for name in _candidates(model) if name not in listed - frozen]
    reached += changed
    total = None if meter is None else meter.total(kernels=True).dense_macs
    return Explanation(reached, unreached, total, replaced_functions(model))


def _told(function: Replaced) -> str:
    """What stands for a function, and where it was met."""
    text = f"{function.what} is {function.by}"
    if function.calls is None:
        return text
    times = f"{function.calls} call{'' if function.calls == 1 else 's'}"
    where = f" by {', '.join(function.through)}" if function.through else ""
    return f"{text} ({times}{where})"


def _outside(meter: WorkMeter) -> dict[tuple[str, str], int]:
    return meter.outside | meter.kernels


def _candidates(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that are in the table, or would be."""
    elided = dict(elided_layers(model))
    return dict(elided) if elided else elidable_layers(model)


def _parts(model: nn.Module) -> list[tuple[str, str, str]]:
    """Name, type and reason of every module that is outside the table."""
    candidates = {id(module) for module in _candidates(model).values()}
    found = []
    for name, module in model.named_modules():
        if isinstance(module, ElidedLayer):
            why = _why_dense(module)
        elif id(module) in candidates:
            why = ""
        else:
            why = _why_unknown(module)
        if why:
            found.append((name, _type_name(module), why))
    return found


def _type_name(module: nn.Module) -> str:
    """Name of a module's plain type; of a part, that of the layer it is a part of."""
    kind = type(module.whole if isinstance(module, Part) else module)
    if issubclass(kind, ElidedLayer | ElidedWhole):
        kind = plain_type(kind)
    return kind.__name__


def _why_dense(layer: ElidedLayer) -> str:
    """Why nothing is left out of an elided layer; empty if something is."""
    reader = tied_reader(layer)
    if reader is not None:
        return f"its weight is also read by {reader}"
    if not plan_of(layer).table:
        return "left dense by the recipe"
    weight = parameter_of(layer)
    return _FROZEN if weight is not None and not weight.requires_grad else ""


#: Its operands are recorded and priced like a layer's.
_OF_A_CALL = "a call's product: in the table where a recipe's products= name it"

#: A frozen layer's other products are in the table.
_FROZEN = "frozen: it has no weight gradient"


def _why_unknown(module: nn.Module) -> str:
    """Why a module is no layer of the table; empty if it has no products to speak of."""
    if isinstance(module, parametrize.ParametrizationList):
        return ""  # its module is listed
    own: list[Tensor] = [p for p in module._parameters.values() if p is not None]
    if isinstance(module, nn.EmbeddingBag):
        return "a bag of lookups, no layer of the table"
    if isinstance(module, ElidedWhole) or elided_whole(module) is not None:
        return ""  # its parts are listed
    if isinstance(module, tuple(WHOLES)) and not is_derived(module):
        return "a subclass with a forward of its own"
    if parametrize.is_parametrized(module):
        names = ", ".join(module.parametrizations)  # pyright: ignore[reportCallIssue, reportArgumentType]
        return f"parametrised: {names} is computed"
    if not any(p.dim() >= 2 for p in own):
        return ""
    if any(isinstance(module, kind) for kind in ELIDED):
        if type(module) in ELIDED:
            return "complex numbers, integers or another kind of tensor"
        return "a subclass that is not registered"
    if isinstance(module, nn.modules.conv._ConvNd):
        return "a layer type that is not registered"
    return "parameters of its own, in no layer of the table"
