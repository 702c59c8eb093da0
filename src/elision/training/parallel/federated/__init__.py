"""Federated learning: clients with data of their own, rounds, and what travels."""

from elision.training.parallel.federated.client import Clients as Clients
from elision.training.parallel.federated.partitions import PARTITIONS as PARTITIONS
from elision.training.parallel.federated.partitions import Partition as Partition
from elision.training.parallel.federated.plan import FederatedPlan as FederatedPlan
from elision.training.parallel.federated.rounds import (
    FederatedResult as FederatedResult,
)
from elision.training.parallel.federated.rounds import RoundMetrics as RoundMetrics
from elision.training.parallel.federated.rounds import run as run
from elision.training.parallel.federated.stragglers import STRAGGLERS as STRAGGLERS
