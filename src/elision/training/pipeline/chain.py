"""A model as a chain of modules that pass one tensor on.

The user's forward pass is traced once (``torch.fx``) and cut wherever a single value is on
its way; a block with a shortcut is therefore one piece. A piece begins at a layer with a
weight, and what lies between two of them, such as a normalisation or an activation
function, belongs to the one before.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.grad import conv2d_input, conv2d_weight

from elision.common.restoring import restored
from elision.layers import elided_layers

__all__ = [
    "chain",
    "channel_dimension",
    "halves",
    "input_gradient",
    "stages_of",
    "weight_gradients",
]


class _Tracer(fx.Tracer):
    """Traces down to the modules without children."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        del module_qualified_name
        return not any(m.children()) or isinstance(
            m, (nn.MultiheadAttention, nn.RNNBase)
        )


def chain(model: nn.Module, example: Tensor) -> list[nn.Module]:
    """The pieces of a model, which share its layers and parameters.

    Parameters keep their names. The pieces are checked on the example: one after the other
    they must give the model's own output to the last bit.

    Args:
        model: takes one tensor and gives one tensor, with a forward pass that does not
            depend on values.
        example: a batch that it takes.

    Raises:
        ValueError: the forward pass cannot be traced, or the pieces do not compute the
            same; a container of layers has hooks, which would not run (those that a recipe
        installs among them: an elided model is not cut).

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> pieces = chain(model, torch.ones(4, 2))
        >>> [[name for name, _ in piece.named_parameters()] for piece in pieces]
        [['0.weight', '0.bias'], ['2.weight', '2.bias']]
    """
    name = type(model).__name__
    _no_hooks_on_containers(model)
    try:
        graph = _Tracer().trace(model)
    except Exception as error:
        # Whatever the user's code raises when it meets a traced value.
        raise ValueError(
            f"{name}: the forward pass cannot be traced, so it cannot be cut into "
            f"stages ({error}); give the stages as a list of modules"
        ) from error
    if len([n for n in graph.nodes if n.op == "placeholder"]) != 1:
        raise ValueError(f"{name}: a pipeline's model takes one tensor")
    pieces = [_module(model, run) for run in _runs(model, graph)]
    with torch.no_grad():
        with restored(model, random_state=True):
            expected = model(example)
        with restored(model, random_state=True):
            found = example
            for piece in pieces:
                found = piece(found)
    if not isinstance(expected, Tensor) or not torch.equal(found, expected):
        raise ValueError(
            f"{name}: its traced pieces give another output than the model itself, so "
            "it cannot be cut into stages; give the stages as a list of modules"
        )
    return pieces


def stages_of(pieces: Sequence[nn.Module], counts: Sequence[int]) -> list[nn.Module]:
    """Stages of so many pieces each, in their order.

    Raises:
        ValueError: the counts are not those of all pieces, or a stage has none.
    """
    if min(counts, default=0) < 1 or sum(counts) != len(pieces):
        raise ValueError(
            f"{len(pieces)} layers cannot be stages of {list(counts)} layers: each stage "
            "needs at least one, and every layer one stage"
        )
    rest = iter(pieces)
    return [nn.Sequential(*(next(rest) for _ in range(count))) for count in counts]


def _no_hooks_on_containers(model: nn.Module) -> None:
    for name, module in model.named_modules():
        hooks = module._forward_hooks or module._forward_pre_hooks
        if any(module.children()) and (hooks or module._backward_hooks):
            elided = next(elided_layers(model), None) is not None
            instead = (
                "; the model is elided: cut the plain one, "
                "elision.restore(copy.deepcopy(model))"
            )
            raise ValueError(
                f"module {name or type(model).__name__!r} has hooks, which the pieces of "
                f"a pipeline would not call{instead if elided else ''}"
            )


def _runs(model: nn.Module, graph: fx.Graph) -> Iterator[list[fx.Node]]:
    """The nodes of each piece; parameters read by name come with their readers."""
    nodes = [
        n for n in graph.nodes if n.op not in ("placeholder", "output", "get_attr")
    ]
    order = {node: place for place, node in enumerate(nodes)}
    # After which place each value is no longer needed; the output needs its own.
    last = {
        n: max((order.get(u, len(nodes)) for u in n.users), default=-1) for n in nodes
    }
    source = next(n for n in graph.nodes if n.op == "placeholder")
    source_last = max((order.get(u, len(nodes)) for u in source.users), default=-1)
    run: list[fx.Node] = []
    weighted = False
    segment: list[fx.Node] = []
    for place, node in enumerate(nodes):
        segment.append(node)
        alive = sum(last[n] > place for n in nodes[: place + 1]) + (source_last > place)
        if alive > 1 and place + 1 < len(nodes):
            continue
        begins = any(_has_weight(model, n) for n in segment)
        if begins and weighted:
            yield run
            run = []
        weighted |= begins
        run, segment = run + segment, []
    if run:
        yield run


def _has_weight(model: nn.Module, node: fx.Node) -> bool:
    """Whether a node multiplies by a weight: a parameter of two dimensions or more."""
    if node.op == "call_module":
        owner = model.get_submodule(str(node.target))
        return any(p.dim() > 1 for p in owner.parameters())
    read = [n for n in node.all_input_nodes if n.op == "get_attr"]
    return any(
        model.get_parameter(str(n.target)).dim() > 1 for n in read if _is(model, n)
    )


def _is(model: nn.Module, node: fx.Node) -> bool:
    return str(node.target) in dict(model.named_parameters(remove_duplicate=False))


def _module(model: nn.Module, nodes: Sequence[fx.Node]) -> nn.Module:
    """The piece that computes these nodes from the one value that enters them."""
    graph = fx.Graph()
    inside = set(nodes)
    copies: dict[fx.Node, fx.Node] = {}
    entry = graph.placeholder("x")

    def copied(node: fx.Node) -> fx.Node:
        if node in inside or node.op == "get_attr":
            if node not in copies:
                copies[node] = graph.node_copy(node, copied)
            return copies[node]
        return entry

    for node in nodes:
        copied(node)
    graph.output(copies[nodes[-1]])
    return fx.GraphModule(model, graph, type(model).__name__)


def halves(piece: nn.Module) -> tuple[nn.Module, nn.Module] | None:
    """The product that a piece begins with, and what follows it.

    Their composition is the piece. So the piece's weight gradient is one product of its
    input and the gradient between the halves, which another processor can compute.

    Returns:
        A plain convolution or linear layer and the rest, or None where the piece begins
        with anything else, such as an elided layer or a block with a shortcut.
    """
    if _is_product(piece):
        return piece, nn.Identity()
    if not isinstance(piece, fx.GraphModule):
        return None
    nodes = [n for n in piece.graph.nodes if n.op not in ("placeholder", "get_attr")]
    entry, first = next(iter(piece.graph.nodes)), nodes[0]
    if first.op != "call_module" or first.args != (entry,) or len(entry.users) > 1:
        return None
    product = piece.get_submodule(str(first.target))
    if not _is_product(product):
        return None
    if len(nodes) == 2:  # the product and the output
        return product, nn.Identity()
    return product, _module(piece, nodes[1:-1])


def _is_product(module: nn.Module) -> bool:
    if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
        return False
    if type(module) is nn.Conv2d:
        return module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return type(module) is nn.Linear


def weight_gradients(product: nn.Module, x: Tensor, g: Tensor) -> list[Tensor]:
    """Gradients of a product's parameters from its input and its output's gradient.

    Args:
        product: a plain ``Conv2d`` or ``Linear``, as :func:`halves` gives it; its weight
            is not read, only its shape.
        x: the input.
        g: gradient of the output.
    """
    if isinstance(product, nn.Conv2d):
        weight = conv2d_weight(x, list(product.weight.shape), g, **_options(product))
        sums = (0, 2, 3)
    else:
        assert isinstance(product, nn.Linear)
        rows = g.reshape(-1, product.out_features)
        weight = rows.t() @ x.reshape(-1, product.in_features)
        sums = tuple(range(g.dim() - 1))
    found = {"weight": weight, "bias": g.sum(sums)}
    return [found[n] for n, p in product.named_parameters() if p.requires_grad]


def input_gradient(
    product: nn.Module, weight: Tensor, shape: torch.Size, g: Tensor
) -> Tensor:
    """Gradient of a product's input, or of some of its channels.

    Args:
        product: a plain ``Conv2d`` or ``Linear``, as :func:`halves` gives it; its own
            weight is not read.
        weight: the weight, or what of it these input channels read
            (``weight[:, channels]``; of a convolution in one group).
        shape: of the gradient.
        g: gradient of the output.
    """
    if isinstance(product, nn.Conv2d):
        return conv2d_input(list(shape), weight, g, **_options(product))
    return g @ weight


def channel_dimension(product: nn.Module) -> int:
    """Dimension of a product's input that its channels or features are."""
    return 1 if isinstance(product, nn.Conv2d) else -1


def _options(product: nn.Conv2d) -> dict[str, Any]:
    """Of a convolution; torch's annotations say int, and take a pair as the layer's."""
    names = ("stride", "padding", "dilation", "groups")
    return {name: getattr(product, name) for name in names}
