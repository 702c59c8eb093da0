"""Federated runs whose clients are nodes of Flower."""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_federated import DIGITS, MLP, PLANS, weights

from elision.training.parallel.federated import Clients, FederatedPlan, run
from elision.training.parallel.federated.client import Job, Report
from elision.training.parallel.federated.flower import (
    client_app,
    from_wire,
    over_grid,
    to_wire,
)


@pytest.mark.parametrize("name", PLANS)
def test_jobs_and_reports_are_read_as_they_were_written(name: str) -> None:
    workload, recipe, plan = PLANS[name]
    clients = Clients(workload, recipe, DIGITS, plan)
    told: list[dict[str, torch.Tensor]] = [{} for _ in clients.parameters]
    buffers = {n: b.clone() for n, b in clients.buffers.items()}
    job = Job(1, 0, True, clients.first_weights(), buffers, told)
    here = clients.train(job)
    again = from_wire(to_wire(job), Job)
    there = from_wire(to_wire(clients.train(again)), Report)
    assert to_wire(there) == to_wire(here)
    later = replace(job, memories=here.memories, sent=here.sent)
    assert to_wire(from_wire(to_wire(later), Job)) == to_wire(later)


def test_a_message_of_another_form_is_refused() -> None:
    job = Job(1, 0, False, [torch.ones(2)], {}, [{}])
    broken = to_wire(job)
    broken["rest"] = json.dumps({"client": 1})
    with pytest.raises(ValueError, match="another form than a job's"):
        from_wire(broken, Job)
    with pytest.raises(ValueError, match="another form than a report's"):
        from_wire(to_wire(job), Report)


def grid_of(app: Any, owners: dict[int, int]) -> Any:
    """A grid of this process: nodes answer Flower's messages by the app, one by one."""
    from flwr.app import Context, Error, Message, RecordDict  # pyright: ignore
    from flwr.serverapp import Grid  # pyright: ignore
    from flwr.supercore.task_identity import TaskIdentity  # pyright: ignore

    # As a SuperLink tells the process of a ServerApp.
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1

    class Here(Grid):
        def __init__(self) -> None:
            self.waiting: dict[str, Message] = {}

        def set_run(self, run: Any) -> None:
            raise NotImplementedError

        @property
        def run(self) -> Any:
            raise NotImplementedError

        def create_message(self, *args: Any, **options: Any) -> Message:
            raise NotImplementedError

        def get_node_ids(self) -> Iterable[int]:
            return owners

        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            raise NotImplementedError

        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            raise NotImplementedError

        def send_and_receive(
            self, messages: Iterable[Message], *, timeout: float | None = None
        ) -> Iterable[Message]:
            for message in messages:
                node = message.metadata.dst_node_id
                config = {"partition-id": owners[node]}
                context = Context(0, node, config, RecordDict(), {})
                try:
                    reply = app(message, context)
                except ValueError as error:
                    reply = Message(Error(0, str(error)), reply_to=message)
                yield reply

    return Here()


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.filterwarnings("ignore")
def test_a_run_over_flower_has_the_bits_of_one_process(name: str) -> None:
    pytest.importorskip("flwr")
    workload, recipe, plan = PLANS[name]
    app = client_app(lambda: Clients(workload, recipe, DIGITS, plan))
    count = plan.partition().clients
    grid = grid_of(app, {100 + node: count - 1 - node for node in range(count)})
    over = run(workload, recipe, DIGITS, plan, train=over_grid(grid, count))
    here = run(workload, recipe, DIGITS, plan)
    assert torch.equal(weights(over), weights(here))
    assert over.history == here.history


@pytest.mark.filterwarnings("ignore")
def test_every_client_needs_one_node() -> None:
    pytest.importorskip("flwr")
    app = client_app(lambda: Clients(MLP, PLANS["late"][1], DIGITS, FederatedPlan()))
    with pytest.raises(ValueError, match=r"2 nodes hold clients \[0, 2\]; each of 3"):
        over_grid(grid_of(app, {7: 0, 8: 2}), 3)
    with pytest.raises(ValueError, match=r"2 nodes hold clients \[1\]"):
        over_grid(grid_of(app, {7: 1, 8: 1}), 1)
