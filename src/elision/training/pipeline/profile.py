"""PipeDream's profile files: the layers of a network, as measured by its profiler.

A line for each node, and after them a line for each edge, which begins with a tab::

    node4 -- Conv2d(64, 64, ...) -- forward_compute_time=46.2, backward_compute_time=113.3,
        activation_size=1644167168.000, parameter_size=147712.000
        node4 -- node5

Times are in ms, sizes in bytes. The profile has one time for the whole backward pass of a
node, and branches, so assumptions turn it into a chain of layers with three products:

- ``weight_grad_share`` of a layer's own backward time is its weight gradient; a half by
  default, which no source states;
- the first layer has no input gradient: all its backward time is its weight gradient;
- nodes without a weight, and batch norms, are charged to the layer before; those before
  the first layer, which read the data, are left out, as PipeDream's planner leaves them;
- branches stand one after the other, in the order of a topological sort.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from elision.common.checks import number
from elision.training.pipeline.costs import LayerCost, as_costs

__all__ = ["ProfiledLayer", "layer_costs", "parse_profile", "read_profile"]

_NODE = re.compile(
    r"(?P<id>\S+) -- (?P<what>.*) -- forward_compute_time=(?P<forward>[\d.]+), "
    r"backward_compute_time=(?P<backward>[\d.]+), "
    r"activation_size=(?P<sent>[\d.]+|\[[\d.; ]*\]), parameter_size=(?P<own>[\d.]+)"
)
_EDGE = re.compile(r"\t(\S+) -- (\S+)")

#: Seconds of a unit of the files.
_SECONDS = 1e-3


@dataclass(frozen=True)
class ProfiledLayer:
    """A layer with a weight, and the nodes up to the next, as profiled.

    Attributes:
        name: description of the layer.
        forward_ms: forward time of the layer and of what follows it.
        backward_ms: backward time of the layer, both gradients together.
        following_ms: backward time of what follows it.
        kept_bytes: outputs of all its nodes.
        sent_bytes: output of its last node.
        parameter_bytes: parameters of all its nodes.

    Example:
        >>> layers = [ProfiledLayer("fc", 2.0, 4.0, 1.0, 8.0, 8.0, 16.0)] * 2
        >>> [cost.input_grad for cost in layer_costs(layers)]
        [0.0, 0.003]
    """

    name: str
    forward_ms: float
    backward_ms: float
    following_ms: float
    kept_bytes: float
    sent_bytes: float
    parameter_bytes: float


def layer_costs(
    layers: Sequence[ProfiledLayer], weight_grad_share: float = 0.5
) -> tuple[LayerCost, ...]:
    """Costs of profiled layers, in seconds and bytes.

    Args:
        layers: in the order in which they run; the first has no input gradient.
        weight_grad_share: share of the weight gradient in a layer's own backward time.

    Raises:
        ValueError: there is no layer, or the share is outside [0, 1].
    """
    number("layer_costs", "weight_grad_share", weight_grad_share, "[0, 1]")
    costs = []
    for place, layer in enumerate(layers):
        weight_grad = weight_grad_share * layer.backward_ms
        input_grad = layer.backward_ms - weight_grad + layer.following_ms
        if not place:
            # Data need no gradient: all that the first layer takes is for its weights.
            weight_grad, input_grad = weight_grad + input_grad, 0.0
        costs.append(
            LayerCost(
                layer.forward_ms * _SECONDS,
                input_grad * _SECONDS,
                weight_grad * _SECONDS,
                name=layer.name,
                kept_bytes=layer.kept_bytes,
                sent_bytes=layer.sent_bytes,
                parameter_bytes=layer.parameter_bytes,
            )
        )
    return as_costs(costs)


def read_profile(
    path: Path | str, weight_grad_share: float = 0.5
) -> tuple[LayerCost, ...]:
    """Costs of the layers of a profile file.

    Args:
        path: the file.
        weight_grad_share: as in :func:`layer_costs`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as :func:`parse_profile` does; the message has the file's name.
    """
    place = Path(path)
    if not place.is_file():
        raise FileNotFoundError(f"{place}: no such profile")
    try:
        layers = parse_profile(place.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    return layer_costs(layers, weight_grad_share)


def parse_profile(text: str) -> tuple[ProfiledLayer, ...]:
    r"""Layers of the text of a profile.

    Args:
        text: nodes and edges.

    Raises:
        ValueError: a line is neither node nor edge, an edge names an unknown node, the
            edges form a circle, or no node has a weight.

    Example:
        >>> line = "node{0} -- {1} -- forward_compute_time=2.0, backward_compute_time=4.0, "
        >>> line += "activation_size=8.0, parameter_size={2}\n"
        >>> text = line.format(1, "Linear(2, 2)", 16.0) + line.format(2, "ReLU()", 0.0)
        >>> (layer,) = parse_profile(text + "\tnode1 -- node2")
        >>> layer.name, layer.forward_ms, layer.backward_ms, layer.following_ms
        ('Linear(2, 2)', 4.0, 4.0, 4.0)
    """
    nodes: dict[str, dict[str, str]] = {}
    before: dict[str, list[str]] = {}
    for line_number, line in enumerate(text.splitlines(), start=1):
        if edge := _EDGE.fullmatch(line):
            before.setdefault(edge[2], []).append(edge[1])
        elif node := _NODE.fullmatch(line):
            nodes[node["id"]] = node.groupdict()
        elif line.strip():
            raise ValueError(
                f"line {line_number}: neither a node nor an edge: {line!r}"
            )
    layers: list[ProfiledLayer] = []
    for node in _in_order(nodes, before):
        forward, backward = float(node["forward"]), float(node["backward"])
        sent = sum(float(size) for size in re.findall(r"[\d.]+", node["sent"]))
        own = float(node["own"])
        if own and not node["what"].startswith("BatchNorm"):
            layers.append(
                ProfiledLayer(node["what"], forward, backward, 0.0, sent, sent, own)
            )
        elif layers:
            last = layers[-1]
            layers[-1] = replace(
                last,
                forward_ms=last.forward_ms + forward,
                following_ms=last.following_ms + backward,
                kept_bytes=last.kept_bytes + sent,
                sent_bytes=sent or last.sent_bytes,
                parameter_bytes=last.parameter_bytes + own,
            )
    if not layers:
        raise ValueError("no node has a weight")
    return tuple(layers)


def _in_order(
    nodes: Mapping[str, dict[str, str]], before: Mapping[str, list[str]]
) -> list[dict[str, str]]:
    """Nodes after all those before them; a branch to its end before the next begins."""
    for end, starts in before.items():
        for name in (end, *starts):
            if name not in nodes:
                raise ValueError(f"an edge names node {name!r}, which has no line")
    after: dict[str, list[str]] = {}
    for end, starts in before.items():
        for start in starts:
            after.setdefault(start, []).append(end)
    missing = {name: len(before.get(name, ())) for name in nodes}
    ready = sorted((n for n, count in missing.items() if not count), key=_number)[::-1]
    found = []
    while ready:
        name = ready.pop()
        found.append(nodes[name])
        for end in sorted(after.get(name, ()), key=_number)[::-1]:
            missing[end] -= 1
            if not missing[end]:
                ready.append(end)
    if len(found) < len(nodes):
        stuck = next(name for name, count in missing.items() if count)
        raise ValueError(f"the edges form a circle through {stuck}")
    return found


def _number(name: str) -> tuple[int, str]:
    digits = re.sub(r"\D", "", name)
    return int(digits or 0), name
