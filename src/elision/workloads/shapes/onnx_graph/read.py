"""An ONNX file, its open dimensions and what was not read of it."""

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elision.common.checks import integer
from elision.common.extras import check_installed
from elision.products import Geometry

if TYPE_CHECKING:
    import onnx

__all__ = ["open_dimensions", "read_onnx"]


def read_onnx(
    path: str | Path, dims: Mapping[str, int] | None = None
) -> list[tuple[str, Geometry]]:
    """Shapes of the products of a graph, in the order in which it runs.

    Read are convolutions, transposed ones, matrix products (of two computed tensors, too:
    attention), recurrent layers step by step with their gates side by side, and the
    integer and quantised forms of these; in functions of the file and in bodies of
    ``If`` (the branch taken, where that is known), ``Loop`` and ``Scan`` (as often as
    they repeat), too. A weight is whatever hangs on constants alone, on either side of a
    product. As for models, an image whose padding differs between two sides, or is
    negative, is given as the padded image. The graph is not run.

    Args:
        path: an ``.onnx`` file; weights in other files are not needed.
        dims: size of every dimension that the graph's inputs leave open, by its name,
            or by input and axis as in ``x.0``.

    Warns:
        UserWarning: operators that multiply and were not read, with their number: those
            of other domains, of shapes that cannot be inferred, and the few that are not
            known here.

    Raises:
        ModuleNotFoundError: the extra is not installed.
        ValueError: the file is not an ONNX graph, a dimension has no size or ``dims`` has
            one that the graph has not, nothing was read, or a node's shapes do not fit
            together (named).
    """
    model = _load(path)
    from onnx.inliner import inline_local_functions

    from elision.workloads.shapes.onnx_graph.values import Value
    from elision.workloads.shapes.onnx_graph.walk import Walk

    if model.functions:
        model = inline_local_functions(model)
    _give_sizes(model.graph, dims or {}, str(path))
    opsets = {
        "" if opset.domain == "ai.onnx" else opset.domain: opset.version
        for opset in model.opset_import
    }
    walk = Walk(opsets)
    inputs = {value.name: Value(value.type) for value in model.graph.input}
    try:
        layers, _ = walk.graph(model.graph, inputs)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        # A node without an input or attribute that its operator must have.
        raise ValueError(f"{path}: a damaged ONNX graph: {error!r}") from error
    said = [*walk.notes]
    said += [
        f"input {value.name!r} has no shape"
        for value in model.graph.input
        if value.type.HasField("tensor_type")
        and not value.type.tensor_type.HasField("shape")
    ]
    if walk.unread:
        said.insert(0, f"not read: {_counted(walk.unread)}")
    if not layers:
        operators = Counter(node.op_type for node in model.graph.node)
        said.append(f"its operators are {_counted(operators)}")
        raise ValueError("; ".join([f"{path}: no product was read", *said]))
    if said:
        warnings.warn("; ".join([f"{path}: {said[0]}", *said[1:]]), stacklevel=2)
    return layers


def open_dimensions(path: str | Path) -> list[str]:
    """Names that :func:`read_onnx` takes a size for, in the order of the inputs.

    A dimension that the graph names goes by ``input.axis`` as well.

    Raises:
        ModuleNotFoundError: the extra is not installed.
        ValueError: the file is not an ONNX graph.
    """
    sizes = _open_sizes(_load(path).graph)
    return list(dict.fromkeys(n for name, place, _ in sizes for n in (name, place)))


def _load(path: str | Path) -> "onnx.ModelProto":
    check_installed("onnx", "onnx", "reading ONNX graphs")
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except FileNotFoundError:
        raise
    except Exception as error:  # protobuf's own kinds of error
        raise ValueError(f"{path}: not an ONNX graph: {error}") from error
    if not model.graph.node:
        raise ValueError(f"{path}: not an ONNX graph: it has no nodes")
    return model


def _open_sizes(graph: "onnx.GraphProto") -> "Iterator[tuple[str, str, Any]]":
    """Name, ``input.axis`` and place of every dimension that the inputs leave open."""
    stored = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.name in stored:
            continue
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if size.dim_value > 0:
                continue
            place = f"{value.name}.{axis}"
            # Exporters write "?" where they have no name.
            yield size.dim_param if size.dim_param.strip("?") else place, place, size


def _counted(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{what} ({number})" for what, number in numbers.items())


def _give_sizes(graph: "onnx.GraphProto", dims: Mapping[str, int], path: str) -> None:
    """Give every open dimension of the graph's inputs its size.

    Raises:
        ValueError: a size is missing, unknown or not positive; all are named.
    """
    missing: dict[str, None] = {}
    known: set[str] = set()
    named: dict[str, int] = {}
    for name, place, size in _open_sizes(graph):
        known |= {name, place}
        given = dims.get(place, dims.get(name))
        if given is None:
            missing[name] = None
            continue
        # A cache of keys may be empty, so that a size may be zero.
        size.dim_value = integer("read_onnx", f"dims[{name!r}]", given, ">= 0")
        named[name] = size.dim_value
    for name in dims:
        if name not in known:
            allowed = ", ".join(sorted(known)) or "none"
            raise ValueError(
                f"{path}: unknown dimension {name!r}; open ones: {allowed}"
            )
    if missing:
        names = list(missing)
        flags = " ".join(f"{name}=SIZE" for name in names)
        raise ValueError(
            f"{path}: the graph's inputs leave dimensions open, and each needs a size: "
            f"{', '.join(names)}; give dims={{{names[0]!r}: SIZE, ...}}, or --dim {flags}"
        )
    for size in _noted_sizes(graph):
        if size.dim_param:
            if size.dim_param in named:
                size.dim_value = named[size.dim_param]
            else:
                size.ClearField("dim_param")


def _noted_sizes(graph: "onnx.GraphProto") -> "Iterator[Any]":
    """Sizes that the file notes of values in between."""
    for value in (*graph.value_info, *graph.output):
        yield from value.type.tensor_type.shape.dim
