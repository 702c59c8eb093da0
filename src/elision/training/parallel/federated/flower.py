"""Federated runs over Flower: nodes that train a client each, and a server of rounds.

Flower brings the network, and this library the rounds: jobs and reports travel as
safetensors and JSON in Flower's messages, never as pickles. A node reads the number of its
client from ``partition-id`` of its node configuration, as Flower's own examples do.
"""

import functools
import json
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from elision.common.extras import check_installed
from elision.common.trees import pack, unpack
from elision.training.parallel.compressors.base import Message
from elision.training.parallel.federated.client import Clients, Job, Report
from elision.training.parallel.federated.workers import Train

__all__ = ["client_app", "from_wire", "over_grid", "to_wire"]

#: Name of the record in a message.
_RECORD = "elision"


def to_wire(value: Job | Report) -> dict[str, Any]:
    """A job or a report as bytes of safetensors and a text of JSON.

    Example:
        >>> job = Job(3, 0, slow=False, weights=[torch.ones(2)], buffers={}, told=[{}])
        >>> from_wire(to_wire(job), Job).weights
        [tensor([1., 1.])]
    """
    tree = dict(vars(value))
    if isinstance(value, Report):
        tree["messages"] = [_plain(m) for m in value.messages]
    tensors, rest = pack(tree)
    # Two names of one storage are refused, so each tensor has its own.
    own = {name: t.detach().clone().contiguous() for name, t in tensors.items()}
    return {"tensors": safetensors.torch.save(own), "rest": json.dumps(rest)}


def from_wire(record: Any, kind: type[Any]) -> Any:
    """The job or report of :func:`to_wire`.

    Raises:
        ValueError: it is of another form.
    """
    try:
        tree = unpack(
            safetensors.torch.load(record["tensors"]), json.loads(record["rest"])
        )
        tree["sent"] = [(step, tensors) for step, tensors in tree["sent"]]
        if "messages" in tree:
            tree["messages"] = [_message(m) for m in tree["messages"]]
        return kind(**tree)
    except (
        AttributeError,
        LookupError,
        RecursionError,
        SafetensorError,
        TypeError,
        ValueError,
    ) as error:
        said = " ".join(str(error).split())
        raise ValueError(
            f"a message of another form than a {kind.__name__.lower()}'s: {said}"
        ) from error


def client_app(make: Callable[[], Clients]) -> Any:
    """Flower's ``ClientApp`` of a node that trains the client of its ``partition-id``.

    Args:
        make: makes the clients of the run, once a process; of them a node uses one.

    Raises:
        ModuleNotFoundError: flwr is not installed; the message says what to install.

    Example:
        >>> from importlib.util import find_spec
        >>> from elision.methods import Dense
        >>> from elision.training.parallel.federated import FederatedPlan
        >>> from elision.workloads import Workload
        >>> small = Workload(name="small", dataset="digits", model="mlp", train_images=50)
        >>> if find_spec("flwr"):
        ...     app = client_app(
        ...         lambda: Clients(small, Dense(), small.load_dataset(), FederatedPlan())
        ...     )
    """
    flwr = _flower()
    clients = functools.cache(make)
    app = flwr.clientapp.ClientApp()

    @app.query()
    def which(message: Any, context: Any) -> Any:
        """Tell the number of the node's client."""
        record = flwr.app.ConfigRecord({"client": _own(context)})
        return flwr.app.Message(
            flwr.app.RecordDict({_RECORD: record}), reply_to=message
        )

    @app.train()
    def train(message: Any, context: Any) -> Any:
        """Train the node's client."""
        job = from_wire(message.content[_RECORD], Job)
        if job.client != _own(context):
            raise ValueError(
                f"a job of client {job.client} came to the node of {_own(context)}"
            )
        record = flwr.app.ConfigRecord(to_wire(clients().train(job)))
        return flwr.app.Message(
            flwr.app.RecordDict({_RECORD: record}), reply_to=message
        )

    return app


def over_grid(grid: Any, clients: int, timeout: float | None = None) -> Train:
    """What trains jobs on the nodes of a Flower grid: ``train=`` of a federated run.

    ::

        app = flwr.serverapp.ServerApp()

        @app.main()
        def main(grid, context):
            run(workload, recipe, dataset, plan, train=over_grid(grid, clients=10))

    Args:
        grid: of a ``ServerApp``.
        clients: of the run; each needs a node.
        timeout: seconds that nodes have for a round; None: no limit.

    Raises:
        ValueError: a client has no node, or two.
        RuntimeError: a node failed or did not answer in time.
    """
    flwr = _flower()

    def asked(kind: str, contents: Sequence[tuple[int, Any]]) -> dict[int, Any]:
        """The records that nodes answer with."""
        messages = [
            flwr.app.Message(flwr.app.RecordDict({_RECORD: content}), node, kind)
            for node, content in contents
        ]
        found: dict[int, Any] = {}
        for reply in grid.send_and_receive(messages, timeout=timeout):
            node = reply.metadata.src_node_id
            if reply.has_error():
                raise RuntimeError(f"node {node}: {reply.error.reason}")
            found[node] = reply.content[_RECORD]
        silent = [str(node) for node, _ in contents if node not in found]
        if silent:
            raise RuntimeError(f"nodes {', '.join(silent)} did not answer in time")
        return found

    nodes = list(grid.get_node_ids())
    told = asked("query", [(node, flwr.app.ConfigRecord()) for node in nodes])
    owner = {int(record["client"]): node for node, record in told.items()}
    if len(owner) < len(nodes) or set(range(clients)) - set(owner):
        raise ValueError(
            f"{len(nodes)} nodes hold clients {sorted(owner)}; each of {clients} clients "
            "needs one node, whose configuration says partition-id=NUMBER"
        )

    def train(jobs: Sequence[Job]) -> list[Report]:
        contents = [
            (owner[job.client], flwr.app.ConfigRecord(to_wire(job))) for job in jobs
        ]
        found = asked("train", contents)
        return [from_wire(found[node], Report) for node, _ in contents]

    return train


def _own(context: Any) -> int:
    config = context.node_config
    if "partition-id" not in config:
        raise ValueError(
            "this node's configuration has no partition-id, which says whose client it "
            "is: flower-supernode --node-config 'partition-id=0'"
        )
    return int(config["partition-id"])


def _plain(message: Message | Tensor) -> Any:
    if isinstance(message, Tensor):
        return message
    return {**vars(message), "shape": list(message.shape)}


def _message(found: Any) -> Message | Tensor:
    if isinstance(found, Tensor):
        return found
    return Message(
        tuple(found["parts"]),
        torch.Size(found["shape"]),
        found["summed"],
        found["places"],
    )


def _flower() -> Any:
    check_installed("flwr", "flower", "a node or a grid of Flower")
    with warnings.catch_warnings():
        # Of its own dependencies, at its first import.
        warnings.simplefilter("ignore", DeprecationWarning)
        import flwr.app  # pyright: ignore[reportMissingImports]
        import flwr.clientapp  # pyright: ignore[reportMissingImports]
    return flwr
