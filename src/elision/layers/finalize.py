"""Export: a trained sparse model as a plain one, and its weights in sparse files.

``finalize`` writes the weights that the forward product reads into the parameters and
restores the model; the other functions read plain models.
"""

import importlib.util
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from elision.common.extras import check_installed
from elision.common.files import load_tensors, replacing, save_tensors, taken_apart
from elision.common.sharding import full
from elision.layers.between.called import changed_calls
from elision.layers.between.replace import replaced_functions
from elision.layers.elide import restore
from elision.layers.extras import tell_extras
from elision.layers.modules.base import plan_of, states_of
from elision.layers.parts import Part, home_of, parameter_of
from elision.layers.reach import elidable_layers, elided_layers
from elision.operands import KEEP, TORCH, density
from elision.products import Product

__all__ = ["finalize", "load_sparse", "save_onnx", "save_sparse", "to_csr"]

Model = TypeVar("Model", bound=nn.Module)

_DENSE, _SPARSE = "dense/", "csr/"


@torch.no_grad()
def finalize(model: Model) -> Model:
    """Make an elided model a plain one whose outputs are the same, in place.

    Every weight becomes the operand of the layer's forward product in evaluation mode:
    the masked weights, or the largest of a top-k method (SWAT's hard pruning at the
    end). State, hooks and buffers are removed, as by :func:`elision.restore`.

    Args:
        model: an elided model.

    Returns:
        The same model.

    Raises:
        ValueError: the model is not elided, or a layer's forward product transforms its
            input or sums in an accumulator of its own, which no plain layer does, its
            weight is computed, functions between the layers are replaced, or products of
            the model's own calls changed; nothing was changed.

    Warns:
        elision.topology.ScheduleWarning: the masks of the model never moved, or are far
            from the sparsity that they were to reach.

    Example:
        >>> import torch, elision
        >>> model = elision.elide(torch.nn.Linear(4, 2), elision.methods.Swat(0.5, dense=()))
        >>> int((elision.export.finalize(model).weight == 0).sum())
        4
    """
    layers = dict(elided_layers(model))
    if not layers:
        raise ValueError(
            f"{type(model).__name__} is not elided, so there is nothing to finalize"
        )
    if replaced := replaced_functions(model):
        raise ValueError(
            "functions between the layers are replaced, which no plain model computes: "
            f"{', '.join(f.what for f in replaced)}; elide the model without functions "
            "first, or keep it as it is"
        )
    if calls := changed_calls(model):
        raise ValueError(
            "the recipe changes products of the model's own calls, which no plain model "
            f"does: {', '.join(calls)}; use elision.restore"
        )
    baked: dict[int, tuple[nn.Parameter, Tensor]] = {}
    for name, layer in layers.items():
        plan = plan_of(layer)
        on_input = plan.table[Product.FORWARD, "input"]
        if on_input != KEEP:
            raise ValueError(
                f"layer {name}: its forward product reads its input through "
                f"'{on_input}', which a plain layer cannot; use elision.restore"
            )
        sums = plan.accumulate(Product.FORWARD)
        if sums != TORCH:
            raise ValueError(
                f"layer {name}: its forward product sums in '{sums}', which a plain "
                "layer cannot; use elision.restore"
            )
        use = plan.use(Product.FORWARD, "weight")
        transform = plan.uses[use]
        if transform != KEEP and parameter_of(layer) is None:
            raise ValueError(
                f"layer {name}: its weight is computed (a parametrisation, weight_norm), "
                "so there is none to write the sparse one into; remove that first"
            )
        if transform != KEEP:
            weight: nn.Parameter = layer.weight  # pyright: ignore[reportAssignmentType]
            state = list(states_of(layer, use).values())
            baked[id(weight)] = (weight, transform(weight, state, False))
    tell_extras(model)
    for weight, value in baked.values():
        weight.copy_(value)
    return restore(model)


def to_csr(model: nn.Module, *, below: float = 0.5) -> dict[str, Tensor]:
    """Return the sparse weights of a plain model as torch CSR matrices.

    Args:
        model: a finalised model.
        below: weights of at least this density are left out.

    Returns:
        For each layer of lower density, its weight as a ``sparse_csr`` tensor of shape
        ``(K, C/groups·R·S)`` or ``(columns, inner)``, by layer name.
    """
    found = {}
    for name, layer in elidable_layers(model).items():
        weight = full(layer.weight.detach())  # pyright: ignore[reportCallIssue, reportArgumentType, reportAttributeAccessIssue]
        if density(weight) < below:
            found[name] = _csr(weight.flatten(1))
    return found


def save_sparse(model: nn.Module, path: str | Path, *, below: float = 0.5) -> None:
    """Write a plain model's state as safetensors, its sparse weights as CSR.

    A sparse weight is stored as row pointers, column indices (32 bit) and values; all
    else of the state dict as it is. :func:`load_sparse` reads the file.

    Args:
        model: a finalised model.
        path: the file; written under a temporary name, then renamed.
        below: density; a weight of this density or more is stored dense.

    Raises:
        ValueError: the model is still elided.
        OSError: the file cannot be written.
    """
    if next(elided_layers(model), None) is not None:
        raise ValueError(
            "the model is still elided: call elision.export.finalize first"
        )
    sparse = to_csr(model, below=below)
    layers = elidable_layers(model)
    names = {_key_of(name, layers[name]): matrix for name, matrix in sparse.items()}
    tensors: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    for name, value in model.state_dict().items():
        if name not in names:
            tensors[_DENSE + name] = full(value).clone()
            continue
        matrix, shapes[name] = names[name], list(value.shape)
        tensors[f"{_SPARSE}{name}/rows"] = matrix.crow_indices().int()
        tensors[f"{_SPARSE}{name}/columns"] = matrix.col_indices().int()
        tensors[f"{_SPARSE}{name}/values"] = matrix.values()
    save_tensors(Path(path), tensors, {"shapes": shapes})


def _key_of(name: str, layer: nn.Module) -> str:
    """Key of a layer's weight in the state dict of its model."""
    _, key = home_of(layer)
    module = name.rpartition(".")[0] if isinstance(layer, Part) else name
    return f"{module}.{key}" if module else key


def load_sparse(path: str | Path) -> dict[str, Tensor]:
    """The dense state dict that :func:`save_sparse` wrote.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is truncated or of another kind.
    """
    tensors, facts = load_tensors(Path(path), "sparse model")
    if not isinstance(facts, Mapping) or "shapes" not in facts:
        raise ValueError(
            f"{path}: not a sparse model file, but {json.dumps(facts)[:80]}"
        )
    state = {
        name.removeprefix(_DENSE): value
        for name, value in tensors.items()
        if name.startswith(_DENSE)
    }
    with taken_apart(Path(path), "not a sparse model file"):
        for name, shape in facts["shapes"].items():
            parts = ("rows", "columns", "values")
            stored = [tensors[f"{_SPARSE}{name}/{part}"] for part in parts]
            state[name] = _dense(torch.Size(shape), *stored)
    return state


#: Zeros that a file may stand for, to each number in it (an own choice).
_MOST_ZEROS = 10_000


def _dense(shape: torch.Size, rows: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    """The tensor of a CSR matrix."""
    numbers = len(rows) + len(values)
    if shape.numel() > _MOST_ZEROS * numbers:
        raise ValueError(f"shape {tuple(shape)} of {numbers} numbers is not plausible")
    dense = values.new_zeros(shape[0], shape[1:].numel())
    row = torch.repeat_interleave(torch.arange(shape[0]), rows.diff().long())
    dense[row, columns.long()] = values
    return dense.view(shape)


def save_onnx(model: nn.Module, example: Any, path: str | Path, **options: Any) -> None:
    """Write a finalised model as ONNX (needs ``pip install 'elision[onnx]'``).

    Zeros are written as the weights they are; ONNX has no sparse convolution.

    Args:
        model: a finalised model; exported in evaluation mode.
        example: an input of the model.
        path: the file; written under a temporary name, then renamed.
        **options: further arguments of ``torch.onnx.export``.

    Raises:
        ValueError: the model is still elided.
        ModuleNotFoundError: onnx is not installed.
    """
    if next(elided_layers(model), None) is not None:
        raise ValueError(
            "the model is still elided: call elision.export.finalize first"
        )
    check_installed("onnx", "onnx", "ONNX export")
    # Torch's newer exporter needs one more package; without it the older one serves.
    options.setdefault("dynamo", importlib.util.find_spec("onnxscript") is not None)
    training = model.training
    model.eval()
    try:
        with replacing(Path(path)) as temporary, warnings.catch_warnings():
            # Torch's exporter warns of itself.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            torch.onnx.export(model, (example,), str(temporary), **options)
    finally:
        model.train(training)


def _csr(matrix: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return matrix.to_sparse_csr()
