"""elision federate."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from elision.cli.flags import Integer
from elision.cli.progress import Bar
from elision.cli.training import WorkloadFlags

__all__ = ["federate"]


def federate(
    recipe: str = "dense",
    *,
    workload: str = "digits-mlp",
    clients: str = "iid:clients=10",
    rule: str = "fedavg:every=8",
    local_epochs: Integer | None = None,
    rounds: Integer = 20,
    participation: float = 1.0,
    sampling: Literal["fixed", "poisson"] = "fixed",
    dropout: float = 0.0,
    stragglers: str | None = None,
    up: str | None = None,
    down: str | None = None,
    secure: str | None = None,
    privacy: str | None = None,
    engine: str = "auto",
    seed: Integer = 0,
    target: float | None = None,
    workers: Integer = 1,
    data: Path | None = None,
    changes: WorkloadFlags | None = None,
    out: Path | None = None,
) -> None:
    """Train one network on the data of many clients, which stay where they are.

    In each round some clients begin with the server's weights, take steps on examples of
    their own and send what changed. The table counts the bits of both directions. All
    clients are played by this machine; the numbers are those of a run on many.

    The run folder holds the rounds, the weights and a checkpoint. Started again with the
    same arguments, the run continues where it was interrupted.

    Parameters
    ----------
    recipe
        What clients leave out: NAME or NAME:parameter=value,... Masks must stay.
    workload
        Preset of task, data, model and a client's training settings, or a TOML file with
        a table [workload]. Its schedule runs over the rounds.
    clients
        Which client has which examples, such as 'dirichlet:clients=20,alpha=0.3'.
    rule
        What the server makes of the clients' updates; every: local steps of a round.
    local_epochs
        Passes of a client over its examples in a round, instead of the rule's steps.
    rounds
        Of the run.
    participation
        Share of all clients that take part in a round.
    sampling
        fixed: so many, drawn without replacement; poisson: each by itself.
    dropout
        Chance of a client of a round never to report.
    stragglers
        Slow clients, such as 'fewer:share=0.3,work=0.5' or 'late:share=0.3'.
    up
        Compressor of what clients send, such as top-k:share=0.01 or mask; default: as
        it is.
    down
        Compressor of what the server sends; default: whole weights.
    secure
        masks: clients' messages are masked, and only their sum is read.
    privacy
        gaussian: clipped updates, noise, and the account of it (privacy extra).
    engine
        Who computes the products: auto, native or torch.
    seed
        Of initial weights, partition, sampling, batches and noise.
    target
        Metric whose first round is told.
    workers
        Processes that train clients; the result is that of one.
    data
        Folder of the data set, for those that need one.
    out
        Run folder; default: runs/federate-WORKLOAD-RECIPE, or the next of that name with
        -2, -3 and so on that holds no other run.
    """
    import torch

    from elision.common.files import save_tensors, to_csv, write_json, write_text
    from elision.methods import make_recipe
    from elision.report.table import rows_as_text
    from elision.study import file_name
    from elision.study.folder import claimed, numbered
    from elision.study.sources import digests
    from elision.training.parallel.federated import Clients, FederatedPlan, run

    chosen = (changes or WorkloadFlags()).workload(workload)
    plan = FederatedPlan(
        clients=clients,
        rule=rule,
        local_epochs=local_epochs,
        rounds=rounds,
        participation=participation,
        sampling=sampling,
        dropout=dropout,
        stragglers=stragglers,
        up=up,
        down=down,
        secure=secure,
        privacy=privacy,
        seed=seed,
    )
    dataset = chosen.load_dataset(data)
    # A schedule of the recipe is fitted to the steps of one client that is in every round.
    made = make_recipe(recipe, steps=rounds * plan.outer_rule().every)
    config: dict[str, Any] = {
        "federated": plan.to_dict(),
        "workload": chosen.to_dict(),
        "recipe": recipe,
        "engine": engine,
    }
    usual = Path("runs") / f"federate-{chosen.name}-{file_name(recipe)}"
    Clients(chosen, made, dataset, plan, engine)  # what is refused claims nothing
    folder = numbered(usual, config) if out is None else out
    sources = digests(chosen, dataset, own=False)
    with claimed(folder, config, sources):
        with Bar() as bar:
            result = run(
                chosen,
                made,
                dataset,
                plan,
                engine=engine,
                workers=workers,
                folder=folder,
                progress=lambda done, of, _: bar.step("federate", done, of),
            )
        metric = chosen.task.metric
        write_text(folder / "rounds.csv", to_csv([asdict(r) for r in result.history]))
        last = result.history[-1]
        weights: dict[str, torch.Tensor] = dict(result.model.state_dict())
        save_tensors(folder / "model.safetensors", weights, {"recipe": recipe})
        sent = {"up_bytes": result.up_bytes, "down_bytes": result.down_bytes}
        facts: dict[str, Any] = {metric.name: last.score, "rounds": len(result.history)}
        facts |= sent | {"clients": result.sizes, "epsilon": last.epsilon}
        if target is not None:
            facts["rounds_to_target"] = result.rounds_to(target)
        write_json(folder / "summary.json", facts)
    shown = sorted({round(rounds * (i + 1) / 5) or 1 for i in range(5)})
    print(
        f"{len(result.sizes)} clients with {min(result.sizes)} to {max(result.sizes)} "
        f"examples, {plan.rule}\n"
    )
    print(
        rows_as_text(
            [
                {
                    "round": str(r.round),
                    metric.label: metric.text(r.score),
                    "clients": f"{r.reported + r.late} of {r.drawn}",
                    "MB up": f"{_sum(result, n, 'up_bits'):.3f}",
                    "MB down": f"{_sum(result, n, 'down_bits'):.3f}",
                }
                | ({} if r.epsilon is None else {"epsilon": f"{r.epsilon:.2f}"})
                for n, r in enumerate(result.history, 1)
                if n in shown
            ]
        )
    )
    if target is not None:
        reached = result.rounds_to(target)
        said = "not reached" if reached is None else f"reached in round {reached}"
        print(f"\n{metric.label} of {metric.text(target)}: {said}")
    print(f"\nrun folder: {folder}")


def _sum(result: Any, rounds: int, what: str) -> float:
    """Megabytes of the first rounds."""
    return sum(getattr(r, what) for r in result.history[:rounds]) / 8e6
