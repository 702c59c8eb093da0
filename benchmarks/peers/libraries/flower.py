"""Flower: federated learning over a network (Beutel et al., 2020)."""

import importlib
from collections.abc import Iterator

import torch

from benchmarks.peers.base import OURS, Agreement, Peer, Work, relative
from elision.methods import Dense
from elision.training.parallel.federated.client import Clients, Report
from elision.training.parallel.federated.plan import FederatedPlan
from elision.training.parallel.federated.server import Server
from elision.workloads import Workload

#: A client's step beside the weights, which are about this large.
CHANGE = 1e-2


def works(small: bool) -> Iterator[Work]:
    """The server's half of a round of FedAvg: weights of clients become new weights."""
    aggregate = importlib.import_module("flwr.server.strategy.aggregate").aggregate
    network, many = ("resnet8", 3) if small else ("resnet18", 10)
    workload = Workload(name="peer", dataset="digits", model=network, train_images=100)
    plan = FederatedPlan(clients=f"iid:clients={many}")
    server = Server(Clients(workload, Dense(), workload.load_dataset(), plan))
    first = [weight.clone() for weight in server.weights]
    torch.manual_seed(0)
    changes = [[CHANGE * torch.randn_like(w) for w in first] for _ in range(many)]
    examples = [50 + 10 * client for client in range(many)]
    reports = [
        # Messages are what the steps took off the weights.
        Report(c, examples[c], 1, 0.0, [-d for d in changes[c]], dict(server.buffers))
        for c in range(many)
    ]
    sent = [
        (
            [(w + d).numpy() for w, d in zip(first, changes[c], strict=True)]
            + [b.numpy() for b in server.buffers.values()],
            examples[c],
        )
        for c in range(many)
    ]

    def ours() -> None:
        server.finish(0, range(many), reports)

    ours()
    here = torch.cat([weight.flatten() for weight in server.weights])
    averages = aggregate(sent)[: len(first)]
    there = torch.cat([torch.from_numpy(average).flatten() for average in averages])
    yield Work(
        f"{network}, new weights from those of {many} clients",
        {OURS: ours, "Flower": lambda: aggregate(sent)},
        (Agreement("the new weights", relative(here, there), 1e-5),),
        "ours adds changes of PyTorch's to the weights, and copies what clients hold next; "
        "Flower's averages NumPy's arrays of whole weights; no network and no training in it",
    )


PEER = Peer(
    "Flower",
    "federated learning",
    works,
    requirements=("flwr",),
    distribution="flwr",
)
