"""Partitions of the training examples among clients, a short file each."""

from elision.training.parallel.federated.partitions.base import Partition as Partition
from elision.training.parallel.federated.partitions.base import Places as Places
from elision.training.parallel.federated.partitions.base import generator as generator
from elision.training.parallel.federated.partitions.base import labels_of as labels_of
from elision.training.parallel.federated.partitions.dirichlet import Dirichlet, Quantity
from elision.training.parallel.federated.partitions.iid import Contiguous, Iid
from elision.training.parallel.federated.partitions.labels import Shards

__all__ = ["PARTITIONS", "Partition", "Places", "generator", "labels_of"]

#: Partitions by their name in specs.
PARTITIONS: dict[str, type[Partition]] = {
    kind.name: kind for kind in (Iid, Dirichlet, Quantity, Shards, Contiguous)
}
