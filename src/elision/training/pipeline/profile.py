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
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from elision.common.checks import number
from elision.training.pipeline.costs import LayerCost, as_costs

__all__ = ["parse_profile", "read_profile"]

_NODE = re.compile(
    r"(?P<id>\S+) -- (?P<what>.*) -- forward_compute_time=(?P<forward>[\d.]+), "
    r"backward_compute_time=(?P<backward>[\d.]+), "
    r"activation_size=(?P<sent>[\d.]+|\[[\d.; ]*\]), parameter_size=(?P<own>[\d.]+)"
)
_EDGE = re.compile(r"\t(\S+) -- (\S+)")

#: Seconds of a unit of the files.
_SECONDS = 1e-3


def read_profile(
    path: Path | str, weight_grad_share: float = 0.5
) -> tuple[LayerCost, ...]:
    """Layers of a profile file; see :func:`parse_profile`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as :func:`parse_profile` does; the message has the file's name.
    """
    place = Path(path)
    if not place.is_file():
        raise FileNotFoundError(f"{place}: no such profile")
    try:
        return parse_profile(place.read_text(encoding="utf-8"), weight_grad_share)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def parse_profile(text: str, weight_grad_share: float = 0.5) -> tuple[LayerCost, ...]:
    r"""Layers of the text of a profile.

    Args:
        text: nodes and edges.
        weight_grad_share: share of the weight gradient in a layer's own backward time.

    Returns:
        Costs of the layers with a weight, in seconds and bytes.

    Raises:
        ValueError: a line is neither node nor edge, an edge names an unknown node, the
            edges form a circle, or no node has a weight.

    Example:
        >>> line = "node{0} -- {1} -- forward_compute_time=2.0, backward_compute_time=4.0, "
        >>> line += "activation_size=8.0, parameter_size={2}\n"
        >>> text = line.format(1, "Linear(2, 2)", 16.0) + line.format(2, "ReLU()", 0.0)
        >>> (layer,) = parse_profile(text + "\tnode1 -- node2")
        >>> layer.name, layer.forward, layer.input_grad, layer.weight_grad
        ('Linear(2, 2)', 0.004, 0.0, 0.008)
    """
    number("parse_profile", "weight_grad_share", weight_grad_share, "[0, 1]")
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
    layers: list[LayerCost] = []
    for node in _in_order(nodes, before):
        forward, backward = (float(node[k]) * _SECONDS for k in ("forward", "backward"))
        sent = sum(float(size) for size in re.findall(r"[\d.]+", node["sent"]))
        own = float(node["own"])
        if own and not node["what"].startswith("BatchNorm"):
            layers.append(
                LayerCost(
                    forward,
                    (1 - weight_grad_share) * backward,
                    weight_grad_share * backward,
                    name=node["what"],
                    kept_bytes=sent,
                    sent_bytes=sent,
                    parameter_bytes=own,
                )
            )
        elif layers:
            layers[-1] = _charged(layers[-1], forward, backward, sent, own)
    if not layers:
        raise ValueError("no node has a weight")
    first = layers[0]
    # Data need no gradient: all that the first layer takes is for its weights.
    layers[0] = replace(first, input_grad=0.0, weight_grad=first.backward)
    return as_costs(layers)


def _charged(
    layer: LayerCost, forward: float, backward: float, sent: float, own: float
) -> LayerCost:
    """The layer with a node that follows it; its output is now that node's."""
    return replace(
        layer,
        forward=layer.forward + forward,
        input_grad=layer.input_grad + backward,
        kept_bytes=layer.kept_bytes + sent,
        sent_bytes=sent or layer.sent_bytes,
        parameter_bytes=layer.parameter_bytes + own,
    )


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
