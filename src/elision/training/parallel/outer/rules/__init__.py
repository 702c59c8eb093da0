"""Rules of rare exchange, a short file each: data and three lines for one optimiser."""

from elision.training.parallel.outer.rules.adaptive import FedAdagrad, FedAdam, FedYogi
from elision.training.parallel.outer.rules.base import OuterRule as OuterRule
from elision.training.parallel.outer.rules.diloco import DiLoCo
from elision.training.parallel.outer.rules.fedavg import FedAvg
from elision.training.parallel.outer.rules.fedavgm import FedAvgM
from elision.training.parallel.outer.rules.fedprox import FedProx
from elision.training.parallel.outer.rules.local_sgd import LocalSgd, PostLocalSgd
from elision.training.parallel.outer.rules.scaffold import Scaffold

__all__ = ["OUTER_RULES", "OuterRule"]

#: Rules by their name in specs.
OUTER_RULES: dict[str, type[OuterRule]] = {
    rule.name: rule
    for rule in (
        LocalSgd,
        PostLocalSgd,
        FedAvg,
        FedAvgM,
        FedProx,
        Scaffold,
        FedAdagrad,
        FedAdam,
        FedYogi,
        DiLoCo,
    )
}
