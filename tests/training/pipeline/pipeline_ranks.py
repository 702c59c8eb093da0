"""What each of two processes does in the tests of pipelines that really run."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from elision.training.pipeline import LayerCost, Plan, plan
from elision.training.pipeline.partition import whole_layers
from elision.training.pipeline.partition.task_split import inter_layer, intra_layer
from elision.training.pipeline.runtime import LostProcessorError, run
from elision.workloads.models.cnn import cnn
from elision.workloads.models.resnet import resnet8

MICROBATCHES = 4
BATCHES = 3

#: Layers of the network: a residual one has products that cannot be computed elsewhere.
MODELS = {"cnn": (cnn, 4), "resnet": (resnet8, 5)}

#: Case -> network, schedule, and what the backward pass reads.
CASES: dict[str, tuple[str, str, str | None]] = {
    "gpipe": ("resnet", "gpipe", None),
    "1f1b": ("resnet", "1f1b", None),
    "zb1p": ("cnn", "zb1p", None),
    "zbv": ("cnn", "zbv", None),
    "pipedream": ("resnet", "pipedream", None),
    "pipedream, today's weights": ("cnn", "pipedream-no-stash", None),
    "pipedream, recomputed": ("cnn", "pipedream", "recompute"),
    "2bw": ("cnn", "pipedream-2bw", None),
    "layerpipe": ("resnet", "layerpipe-intra", None),
    "layerpipe, dW elsewhere": ("cnn", "layerpipe-intra", None),
    "layerpipe, dX in two": ("cnn", "layerpipe", None),
    "layerpipe2, dX in two": ("cnn", "layerpipe2", None),
}


def model(name: str) -> nn.Module:
    torch.manual_seed(7)
    return MODELS[name][0](in_channels=3, classes=4, width=4)


def batches() -> list[tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(3)
    return [
        (
            torch.randn(4 * MICROBATCHES, 3, 8, 8, generator=random),
            torch.randint(0, 4, (4 * MICROBATCHES,), generator=random),
        )
        for _ in range(BATCHES)
    ]


def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 0.05, momentum=0.9, weight_decay=1e-3)


def planned(case: str) -> Plan:
    network, schedule, _ = CASES[case]
    count = MODELS[network][1]
    # Two layers in stage 0, whose heavy weight gradients have no room there.
    costs = [LayerCost(1.0, 1.0, 6.0 if i < 2 else 1.0) for i in range(count)]
    if case == "layerpipe, dW elsewhere":
        partition = intra_layer(costs, 2)
    elif case.endswith("dX in two"):
        # The third layer's input gradient is too much for either processor.
        costs = [
            LayerCost(1.0, 6.0 if i == 2 else float(i > 0), 4.0 if i == 3 else 1.0)
            for i in range(count)
        ]
        partition = inter_layer(costs, 2)
    elif case == "zbv":
        partition = whole_layers([1] * 4)
    else:
        partition = whole_layers([2, count - 2])
    return plan(costs, 2, schedule, MICROBATCHES, partition=partition)


def trained(case: str) -> dict[str, Any]:
    network, _, weights = CASES[case]
    own = model(network)
    done = run(
        planned(case), own, nn.functional.cross_entropy, sgd, batches(), weights=weights
    )
    return {
        "state": own.state_dict(),
        "losses": done.losses,
        "kept": done.kept,
        "operations": [str(t.operation) for t in done.operations],
    }


def all_cases(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=30),
    )
    torch.save({case: trained(case) for case in CASES}, folder / f"rank{rank}.pt")
    distributed.destroy_process_group()


def one_dies(rank: int, folder: Path, schedule: str, port: int) -> None:
    """Rank 1 ends without a word in its second step; rank 0 writes what it is told."""
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
    }
    calls = 0

    def loss(output: Tensor, target: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > MICROBATCHES + 2:
            os._exit(1)
        return nn.functional.cross_entropy(output, target)

    made = planned("pipedream, recomputed")
    made = plan(made.costs, 2, schedule, MICROBATCHES, partition=made.partition)
    try:
        run(made, model("cnn"), loss, sgd, batches() * 4, timeout=10)
    except LostProcessorError as error:
        (folder / f"lost-{schedule}.txt").write_text(str(error))
