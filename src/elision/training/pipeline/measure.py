"""Costs of a network's layers, measured on this machine."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from statistics import median
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from elision.common.checks import integer
from elision.common.restoring import restored
from elision.common.timing import interleaved
from elision.training.pipeline.chain import chain
from elision.training.pipeline.costs import LayerCost, as_costs

__all__ = ["measured"]

#: Timed calls of each product; their median counts.
_ROUNDS = 7


class _Sizes(TypedDict):
    """Sizes of a piece, as a cost names them."""

    kept_bytes: float
    sent_bytes: float
    parameter_bytes: float


def measured(
    model: nn.Module | Sequence[nn.Module], example: Tensor, rounds: int = _ROUNDS
) -> tuple[LayerCost, ...]:
    """Costs, in seconds and bytes, of the pieces that a network can be cut into.

    A piece begins at a layer with a weight, and what lies between two of them belongs to
    the one before (:func:`~elision.training.pipeline.chain.chain`). Each piece is timed
    alone, warm, the pieces by turns: forward pass, gradient of its input, all gradients.
    The weight gradient is what all gradients take beyond that of the input. The first
    piece has no input gradient. Parameters, buffers and random state are left as they are.

    Args:
        model: a network that :func:`chain` can cut, or its pieces.
        example: inputs of one micro-batch.
        rounds: timed calls of each.

    Raises:
        ValueError: the network cannot be cut, or two pieces share a parameter.

    Example:
        >>> net = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> first, last = measured(net, torch.ones(16, 8), rounds=1)
        >>> first.input_grad, first.parameter_bytes, last.sent_bytes
        (0.0, 144, 128)
    """
    integer("measured", "rounds", rounds)
    pieces = chain(model, example) if isinstance(model, nn.Module) else list(model)
    _refuse_shared(pieces)
    calls: dict[str, Callable[[], object]] = {}
    sizes: list[_Sizes] = []
    whole = nn.ModuleList(pieces)
    with restored(whole, random_state=True):
        x = example
        for number, piece in enumerate(pieces):
            x, size, own = _prepared(piece, x, first=number == 0)
            sizes.append(size)
            calls |= {f"{number} {name}": call for name, call in own.items()}
        seconds = interleaved(calls, rounds)
    costs = []
    for number, size in enumerate(sizes):
        forward, input_grad, backward = (
            seconds.get(f"{number} {name}", [0.0] * rounds)
            for name in ("forward", "input_grad", "backward")
        )
        beyond = [both - one for both, one in zip(backward, input_grad, strict=True)]
        # Of a small layer the difference of medians may drown; that of minima is steadier.
        weight_grad = max(median(beyond), min(backward) - min(input_grad), 0.0)
        costs.append(
            LayerCost(
                median(forward),
                median(input_grad),
                weight_grad if size["parameter_bytes"] else 0.0,
                name=_name(pieces[number], number),
                **size,
            )
        )
    return as_costs(costs)


def _prepared(
    piece: nn.Module, x: Tensor, *, first: bool
) -> tuple[Tensor, _Sizes, dict[str, Callable[[], object]]]:
    """Output of a piece, its sizes in bytes, and what is to be timed."""
    x = x.detach()
    if not first and x.is_floating_point():
        x.requires_grad_()
    parameters = [p for p in piece.parameters() if p.requires_grad]
    own = {p.untyped_storage().data_ptr() for p in piece.parameters()}
    kept: dict[int, int] = {}

    def keep(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        y = piece(x)
    if not isinstance(y, Tensor):
        raise ValueError(f"{_name(piece, 0)}: a pipeline's piece gives one tensor")
    sizes = _Sizes(
        kept_bytes=sum(kept.values()),
        sent_bytes=y.numel() * y.element_size(),
        parameter_bytes=sum(p.numel() * p.element_size() for p in piece.parameters()),
    )
    calls: dict[str, Callable[[], object]] = {"forward": partial(piece, x)}
    wanted = {"input_grad": [x] if x.requires_grad else []}
    wanted["backward"] = [*wanted["input_grad"], *parameters]
    gradient = torch.ones_like(y)
    for name, of in wanted.items():
        if of and y.requires_grad:
            calls[name] = partial(_gradients, y, of, gradient)
    return y, sizes, calls


def _gradients(y: Tensor, of: list[Any], gradient: Tensor) -> object:
    return torch.autograd.grad(y, of, gradient, retain_graph=True, allow_unused=True)


def _refuse_shared(pieces: Sequence[nn.Module]) -> None:
    """Raise ValueError if two pieces share a parameter."""
    owners: dict[Tensor, tuple[int, str]] = {}
    for number, piece in enumerate(pieces):
        for name, parameter in piece.named_parameters():
            other, first_name = owners.setdefault(parameter, (number, name))
            if other != number:
                raise ValueError(
                    f"layers {other} and {number} share a parameter ({first_name} and "
                    f"{name}): tied weights cannot be on two stages; untie them, or give "
                    "both layers as one piece"
                )


def _name(piece: nn.Module, number: int) -> str:
    """The module that holds all of the piece's parameters, else the first's, else a number."""
    owners = [name.split(".")[:-1] for name, _ in piece.named_parameters()]
    shared = takewhile(lambda words: len(set(words)) == 1, zip(*owners, strict=False))
    common = [words[0] for words in shared]
    found = next(filter(None, (common, *owners)), None)
    return ".".join(found) if found else f"{type(piece).__name__} {number}"
