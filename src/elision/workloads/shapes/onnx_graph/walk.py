"""The products of a graph in the order in which it runs, bodies of control flow included."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from elision.products import Geometry
from elision.workloads.shapes.onnx_graph.operation import Operation, UnreadError
from elision.workloads.shapes.onnx_graph.operators import READERS, UNREAD
from elision.workloads.shapes.onnx_graph.values import (
    NOTHING,
    Value,
    inferred,
    of_tensor,
)

__all__ = ["Walk"]

Layers = list[tuple[str, Geometry]]
Scope = Mapping[str, Value]


class Walk:
    """One pass over a model's graph.

    Args:
        opsets: version by domain.

    Attributes:
        unread: numbers of the nodes that multiply, or may, and are not read; by operator.
        notes: sentences on what was read with a reserve.
    """

    def __init__(self, opsets: Mapping[str, int]) -> None:
        self.opsets = opsets
        self.unread: Counter[str] = Counter()
        self.notes: list[str] = []

    def graph(
        self, graph: onnx.GraphProto, outer: Scope, prefix: str = ""
    ) -> tuple[Layers, list[Value]]:
        """Products of a graph or a body, and its outputs.

        Args:
            graph: the graph.
            outer: values by name that it can read: its inputs and those around it.
            prefix: put before the names of its layers.

        Raises:
            ValueError: shapes that do not fit together; the message names the node.
        """
        scope = dict(outer)
        scope.update((tensor.name, of_tensor(tensor)) for tensor in graph.initializer)
        scope.update(
            (tensor.values.name, Value(_dense_type(tensor), None, True))
            for tensor in graph.sparse_initializer
        )
        noted = {v.name: Value(v.type) for v in (*graph.value_info, *graph.output)}
        layers: Layers = []
        for index, node in enumerate(graph.node):
            name = f"{prefix}{node.name or f'{node.op_type}_{index}'}"
            found, outputs = self._node(node, name, scope)
            layers += found
            for key, value in zip(node.output, outputs, strict=False):
                if value.shape is None and noted.get(key, NOTHING).shape is not None:
                    value = Value(noted[key].type, constant=value.constant)
                scope[key] = value
        return layers, [scope.get(value.name, NOTHING) for value in graph.output]

    def _node(
        self, node: onnx.NodeProto, name: str, scope: Scope
    ) -> tuple[Layers, list[Value]]:
        if node.domain == "ai.onnx":  # the longer name of the same domain
            node.domain = ""
        domain = node.domain
        control = {"If": self._if, "Loop": self._loop, "Scan": self._scan}
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if not domain and node.op_type in control:
            return control[node.op_type](node, name, scope, attributes)
        inputs = [scope.get(key, NOTHING) for key in node.input]
        constant = all(
            value.constant for key, value in zip(node.input, inputs, strict=True) if key
        ) and not node.op_type.startswith("Random")
        outputs = inferred(node, inputs, self.opsets, constant)
        operator = f"{domain}:{node.op_type}" if domain else node.op_type
        if domain not in UNREAD or node.op_type in UNREAD[domain]:
            self.unread[operator] += 1
        if domain or node.op_type not in READERS:
            return [], outputs
        if constant:
            self.unread[f"{operator} of constants"] += 1
            return [], outputs
        operation = Operation(
            [value.shape for value in inputs],
            [value.constant for value in inputs],
            attributes,
        )
        try:
            products = READERS[node.op_type](operation)
        except UnreadError as error:
            self.unread[f"{operator} {error}"] += 1
            return [], outputs
        except ValueError as error:
            raise ValueError(f"{node.op_type} {name!r}: {error}") from None
        return [(name + part, geometry) for part, geometry in products], outputs

    def _if(
        self,
        node: onnx.NodeProto,
        name: str,
        scope: Scope,
        attributes: Mapping[str, Any],
    ) -> tuple[Layers, list[Value]]:
        condition = scope.get(node.input[0], NOTHING).array
        branches = {
            branch: attributes[f"{branch}_branch"] for branch in ("then", "else")
        }
        if condition is not None:
            taken = "then" if condition.item() else "else"
            return self.graph(branches[taken], scope, f"{name}.")
        found: list[tuple[Layers, list[Value]]] = []
        for branch, body in branches.items():
            unread = self.unread.copy()
            try:
                found.append(self.graph(body, scope, f"{name}.{branch}."))
            except ValueError as error:  # it is for inputs of other sizes
                self.unread = unread
                self.notes.append(
                    f"branch {branch!r} of If {name!r} is left out: {error}"
                )
        if not found:
            raise ValueError(self.notes[-1])
        (first, ours), (second, others) = found[0], found[-1]
        outputs = [
            a if a.shape == b.shape else a.of_shape(None)
            for a, b in zip(ours, others, strict=True)
        ]
        if [geometry for _, geometry in first] == [geometry for _, geometry in second]:
            return first, outputs  # whichever is taken
        self.notes.append(
            f"both branches of If {name!r} are listed, of which one runs"
            if first and second
            else f"one branch of If {name!r} has products; it is listed and may not run"
        )
        return first + second, outputs

    def _loop(
        self,
        node: onnx.NodeProto,
        name: str,
        scope: Scope,
        attributes: Mapping[str, Any],
    ) -> tuple[Layers, list[Value]]:
        inputs = [scope.get(key, NOTHING) for key in node.input]
        most, start, carried = inputs[0], inputs[1], inputs[2:]
        count = Value(helper.make_tensor_type_proto(onnx.TensorProto.INT64, []))
        kind = helper.make_tensor_type_proto(onnx.TensorProto.BOOL, [])
        # Whether it goes on is known if that follows from its having begun.
        begun = Value(kind, np.array(True) if start.array is None else start.array)
        layers, (again, *outputs) = self._steady(
            name, attributes["body"], [count, begun], carried, [], scope
        )
        free = not node.input[1]  # the trip count alone decides
        sure = start.array is not None and again.array is not None
        times = None
        if most.array is not None and (free or (sure and start.array and again.array)):
            times = int(most.array.item())
        return self._times(name, layers, outputs, len(carried), times)

    def _scan(
        self,
        node: onnx.NodeProto,
        name: str,
        scope: Scope,
        attributes: Mapping[str, Any],
    ) -> tuple[Layers, list[Value]]:
        if self.opsets.get("", 1) < 9:  # with a batch, and lengths of sequences
            self.unread["Scan of version 8"] += 1
            return [], [NOTHING] * len(node.output)
        count = attributes["num_scan_inputs"]
        inputs = [scope.get(key, NOTHING) for key in node.input]
        carried, scanned = inputs[:-count], inputs[-count:]
        axes = attributes.get("scan_input_axes", [0] * count)
        slices: list[Value] = []
        times: int | None = None
        for value, axis in zip(scanned, axes, strict=True):
            sizes = None if value.shape is None else list(value.shape)
            times = times if sizes is None else sizes.pop(axis)
            slices.append(value.of_shape(sizes))
        layers, outputs = self._steady(
            name, attributes["body"], [], carried, slices, scope
        )
        axes = attributes.get("scan_output_axes")
        return self._times(name, layers, outputs, len(carried), times, axes)

    def _steady(
        self,
        name: str,
        body: onnx.GraphProto,
        before: list[Value],
        carried: list[Value],
        after: list[Value],
        scope: Scope,
    ) -> tuple[Layers, list[Value]]:
        """Products and outputs of one run of a body; its inputs are the three lists.

        The last outputs but those that are gathered are carried to the next run. What is
        carried and changes its shape from run to run has none.
        """
        names = [value.name for value in body.input]
        first = 1 if before else 0  # a loop's body says first whether to go on
        carried = [Value(value.type) for value in carried]
        while True:
            unread, notes = self.unread.copy(), [*self.notes]
            given = [*before, *carried, *after]
            inner = {**scope, **dict(zip(names, given, strict=True))}
            layers, outputs = self.graph(body, inner, f"{name}.")
            steady = [
                a if a.shape == b.shape else a.of_shape(None)
                for a, b in zip(carried, outputs[first:], strict=False)
            ]
            if [a.shape for a in steady] == [a.shape for a in carried]:
                outputs[first : first + len(steady)] = steady
                return layers, outputs
            carried, self.unread, self.notes = steady, unread, notes

    def _times(
        self,
        name: str,
        layers: Layers,
        outputs: list[Value],
        carried: int,
        times: int | None,
        axes: Sequence[int] | None = None,
    ) -> tuple[Layers, list[Value]]:
        """A body's products as often as it runs, and what it gathers with an axis more."""
        if times is None and layers:
            self.notes.append(
                f"how often {name!r} repeats its body is not known: it is listed once"
            )
        found = outputs[:carried]
        for index, value in enumerate(outputs[carried:]):
            sizes = None
            if times is not None and value.shape is not None:
                sizes = list(value.shape)
                axis = axes[index] if axes else 0
                sizes.insert(axis if axis >= 0 else len(sizes) + 1 + axis, times)
            found.append(value.of_shape(sizes))
        return layers * (1 if times is None else times), found


def _dense_type(tensor: onnx.SparseTensorProto) -> onnx.TypeProto:
    return helper.make_tensor_type_proto(tensor.values.data_type, list(tensor.dims))
