"""Ternary networks in files: two bits a code, eight a scale.

The terms of a block stand in the order of their worth, which follows from codes, scales
and one sensitivity a layer; so a file need not say which are disabled first.
"""

from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from elision.common.checks import count
from elision.common.files import load_tensors, save_tensors, taken_apart
from elision.formats.ternary_blocks import SCALE, TernaryBlocks
from elision.precision.ternary_layers import TERNARY, InputGrid, Terms
from elision.precision.ternary_network import TernaryNetwork, network_of

__all__ = ["load_ternary", "packed", "save_ternary", "unpacked"]

Model = TypeVar("Model", bound=nn.Module)

VERSION = 1


def packed(codes: Tensor) -> Tensor:
    """Codes in {−1, 0, 1} as two bits each, four a byte, the first lowest.

    Example:
        >>> packed(torch.tensor([1, 0, -1, 0, 1], dtype=torch.int8)).tolist()
        [70, 2]
    """
    fields = torch.zeros(-(-len(codes) // 4) * 4, dtype=torch.int32)
    fields[: len(codes)] = codes.int() + 1
    shifts = torch.tensor([0, 2, 4, 6], dtype=torch.int32)
    return (fields.view(-1, 4) << shifts).sum(1).to(torch.uint8)


def unpacked(words: Tensor, count: int) -> Tensor:
    """The first ``count`` codes, int8.

    Example:
        >>> unpacked(torch.tensor([70, 2], dtype=torch.uint8), 5).tolist()
        [1, 0, -1, 0, 1]
    """
    shifts = torch.tensor([0, 2, 4, 6], dtype=torch.int32)
    fields = (words.int().view(-1, 1) >> shifts) & 3
    return (fields.flatten()[:count] - 1).to(torch.int8)


def save_ternary(model: nn.Module, path: str | Path) -> None:
    """Write the terms that a ternary model was given, and all else of its state.

    Args:
        model: of :func:`elision.precision.ternary_residual`.
        path: a safetensors file; written under a temporary name, then renamed.

    Raises:
        ValueError: the model is not ternary.
        OSError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> from elision.precision import ternary_residual
        >>> model = ternary_residual(nn.Linear(64, 8), torch.randn(9, 64), None, budget=2)
        >>> path = Path(tempfile.mkdtemp()) / "ternary.safetensors"
        >>> save_ternary(model, path)
        >>> loaded = load_ternary(nn.Linear(64, 8), path)
        >>> torch.equal(loaded.weight, model.weight)
        True
    """
    network = network_of(model)
    tensors: dict[str, Tensor] = {}
    facts: dict[str, Any] = {"version": VERSION, "layers": {}, "given": network.given}
    enabled = network.enabled
    network.set_residuals(1)
    terms = dict(network._terms())
    for name, own in terms.items():
        blocks, held = own.blocks, _held(own.blocks, own.counts)
        inside = held[..., None] & _inside(blocks)
        tensors[f"codes/{name}"] = packed(blocks.codes.permute(1, 2, 0, 3)[inside])
        scales = blocks.scales.permute(1, 2, 0)[held]
        if blocks.unit:
            scales = SCALE.encode(scales.double() / blocks.unit).to(torch.uint8)
        tensors[f"scales/{name}"] = scales
        tensors[f"terms/{name}"] = own.counts.to(torch.uint8)
        facts["layers"][name] = {
            "block": blocks.block,
            "columns": blocks.columns,
            "unit": blocks.unit,
            "worth": network.worth[name],
            "pixels": network._pixels[name],
            "input": own.grid and [own.grid.step, own.grid.zero, own.grid.bits],
        }
    weights = {f"{name}.weight" if name else "weight" for name in terms}
    for name, value in network.model.state_dict().items():
        if name not in weights:
            tensors[f"rest/{name}"] = value.clone()
    network._enable(enabled)
    save_tensors(Path(path), tensors, facts)


@torch.no_grad()
def load_ternary(model: Model, path: str | Path, engine: str = "torch") -> Model:
    """Fill a plain model with a ternary network's file, in place.

    Args:
        model: of the structure that was saved; its values are replaced.
        path: what :func:`save_ternary` wrote.
        engine: see :func:`elision.precision.ternary_residual`.

    Returns:
        The same model, in evaluation mode, all residual terms enabled; it cannot be
        restored, since the weights that the terms stand for are not in the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is truncated, of another kind, or of another model.
    """
    tensors, facts = load_tensors(Path(path), "ternary network")
    with taken_apart(Path(path), "not a file of this ternary network"):
        return _filled(model, tensors, facts, engine)


def _filled(
    model: Model, tensors: dict[str, Tensor], facts: dict[str, Any], engine: str
) -> Model:
    """The model with the terms and the rest of a file."""
    if facts["version"] != VERSION:
        raise ValueError(
            f"of version {facts['version']!r}; this version of elision reads {VERSION}"
        )
    modules, layers = dict(model.named_modules()), facts["layers"]
    terms = {
        name: _terms(modules.get(name), name, fact, tensors, engine)
        for name, fact in layers.items()
    }
    rest = {k.removeprefix("rest/"): v for k, v in tensors.items() if k[:5] == "rest/"}
    wrong = model.load_state_dict(rest, strict=False)
    weights = {f"{name}.weight" if name else "weight" for name in layers}
    missing = [key for key in wrong.missing_keys if key not in weights]
    if missing or wrong.unexpected_keys:
        raise ValueError(
            f"of another model than {type(model).__name__}; without a value: "
            f"{missing}; without a place: {wrong.unexpected_keys}"
        )
    for name, own in terms.items():
        layer: Any = modules[name]
        layer._elision_ternary = own
        layer.__class__ = TERNARY[type(layer)]
    network = TernaryNetwork(
        model.eval(),
        {name: fact["worth"] for name, fact in layers.items()},
        {name: fact["pixels"] for name, fact in layers.items()},
        None,
        {},
        {},
    )
    network.give(facts["given"])
    network.forget_the_rest()
    return model


#: Most weights of a block (an own choice).
_MOST_BLOCK = 2**16


def _terms(
    layer: Any, name: str, fact: dict[str, Any], tensors: dict[str, Tensor], engine: str
) -> Terms:
    """The terms of a layer that the model must have in this size."""
    rows, blocks = tensors[f"terms/{name}"].shape
    columns, block = fact["columns"], fact["block"]
    fits = type(layer) in TERNARY and layer.weight.shape[0] == rows
    if not fits or layer.weight[0].numel() != columns:
        raise ValueError(
            f"holds a layer {name!r} with {rows} rows of {columns} weights, which the model "
            "does not have"
        )
    if blocks != -(-columns // count("layer", "block", block, most=_MOST_BLOCK)):
        raise ValueError(
            f"layer {name!r}: {blocks} blocks of {block} are not {columns}"
        )
    grid = InputGrid(*fact["input"]) if fact["input"] else None
    terms = Terms(_read(tensors, name, fact), layer.weight, grid, engine)
    terms.original = torch.empty_like(layer.weight, device="meta")
    return terms


def _read(tensors: dict[str, Tensor], name: str, fact: dict[str, Any]) -> TernaryBlocks:
    counts = tensors[f"terms/{name}"].long()
    stored = tensors[f"scales/{name}"]
    if int(counts.min()) < 0 or int(counts.sum()) != stored.numel():
        raise ValueError(f"layer {name!r}: its terms and its scales are not as many")
    rows, number = counts.shape
    most = int(counts.max())
    codes = torch.zeros((most, rows, number, fact["block"]), dtype=torch.int8)
    scales = torch.zeros((most, rows, number))
    blocks = TernaryBlocks(codes, scales, fact["columns"], fact["unit"])
    held = _held(blocks, counts)
    inside = held[..., None] & _inside(blocks)
    if blocks.unit:
        stored = (SCALE.decode(stored) * blocks.unit).to(scales.dtype)
    words = tensors[f"codes/{name}"]
    codes.permute(1, 2, 0, 3)[inside] = unpacked(words, int(inside.sum()))
    scales.permute(1, 2, 0)[held] = stored
    return blocks


def _held(blocks: TernaryBlocks, counts: Tensor) -> Tensor:
    """Which terms of each block are there, ``(K, B, T)``."""
    return torch.arange(blocks.terms) < counts[..., None]


def _inside(blocks: TernaryBlocks) -> Tensor:
    """Which places of each block lie inside a row, ``(1, B, 1, N)``."""
    count, block = blocks.codes.shape[2:]
    places = torch.arange(count * block).view(1, count, 1, block)
    return places < blocks.columns
