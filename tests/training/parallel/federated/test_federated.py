"""Federated runs beside plain loops; what travels; runs killed, resumed and spread."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from elision import methods
from elision.training.parallel.compressors import make_compressor
from elision.training.parallel.federated import (
    Clients,
    FederatedPlan,
    FederatedResult,
    run,
)
from elision.training.parallel.federated.partitions import generator
from elision.training.parallel.federated.rounds import _drawn
from elision.workloads import Workload

#: Plain SGD at one rate, as SCAFFOLD needs it.
MLP = Workload(
    name="small",
    dataset="digits",
    model="mlp",
    model_options={"width": 8},
    train_images=120,
    test_images=60,
    batch_size=8,
    learning_rate=0.1,
    momentum=0.0,
    nesterov=False,
    weight_decay=0.0,
    schedule="constant",
)
CNN = replace(MLP, model="cnn", model_options={"width": 4}, momentum=0.9)
DIGITS = MLP.load_dataset()


def trained(
    plan: FederatedPlan,
    workload: Workload = MLP,
    recipe: Any = None,
    **options: Any,
) -> FederatedResult:
    return run(workload, recipe or methods.Dense(), DIGITS, plan, **options)


def weights(result: FederatedResult) -> Tensor:
    return torch.nn.utils.parameters_to_vector(result.model.parameters()).detach()


def plain(plan: FederatedPlan) -> Tensor:
    """The same run by loops that know nothing of servers, messages or rules."""
    clients = Clients(MLP, methods.Dense(), DIGITS, plan)
    model, count = clients.model, len(clients.sizes)
    x = [p.detach().clone() for p in model.parameters()]
    name, _, options = plan.rule.partition(":")
    said = dict(o.split("=") for o in options.split(","))
    steps, mu = int(said["every"]), float(said.get("mu", 0))
    c = [torch.zeros_like(p) for p in x]
    own = [[torch.zeros_like(p) for p in x] for _ in range(count)]
    momentum = [torch.zeros_like(p) for p in x]
    for number in range(plan.rounds):
        drawn = _drawn(plan, count, generator(plan.seed, 1, number))
        moved = [torch.zeros_like(p) for p in x]
        changed = [torch.zeros_like(p) for p in x]
        total = sum(clients.sizes[k] for k in drawn)
        for k in drawn:
            y = [p.clone() for p in x]
            for batch in clients._batches(k, number, steps):
                for p, value in zip(model.parameters(), y, strict=True):
                    p.data.copy_(value)
                grads = torch.autograd.grad(
                    MLP.task.loss(model, batch), list(model.parameters())
                )
                for i, g in enumerate(grads):
                    y[i] = y[i] - 0.1 * (g + mu * (y[i] - x[i]) - own[k][i] + c[i])
            share = clients.sizes[k] / total if name != "scaffold" else 1 / len(drawn)
            for i, p in enumerate(x):
                moved[i] += share * (y[i] - p)
                if name == "scaffold":
                    new = own[k][i] - c[i] + (p - y[i]) / (steps * 0.1)
                    changed[i] += new - own[k][i]
                    own[k][i] = new
        for i, p in enumerate(x):
            if name == "fedavgm":
                momentum[i] = 0.9 * momentum[i] + moved[i]
                x[i] = p + momentum[i]
            else:
                x[i] = p + moved[i]
            c[i] = c[i] + changed[i] / count
    return torch.cat([p.flatten() for p in x])


@pytest.mark.parametrize(
    "rule",
    ["fedavg:every=3", "fedprox:every=3,mu=0.5", "scaffold:every=3", "fedavgm:every=2"],
)
def test_a_run_is_that_of_plain_loops(rule: str) -> None:
    plan = FederatedPlan(
        clients="quantity:clients=6", rule=rule, rounds=4, participation=0.5, seed=3
    )
    torch.testing.assert_close(
        weights(trained(plan)), plain(plan), rtol=1e-4, atol=1e-5
    )


def test_one_step_of_everybody_on_all_examples_is_gradient_descent() -> None:
    whole = replace(MLP, batch_size=120)
    plan = FederatedPlan(clients="quantity:clients=5", rule="fedavg:every=1", rounds=3)
    clients = Clients(whole, methods.Dense(), DIGITS, plan)
    optimizer = torch.optim.SGD(clients.model.parameters(), 0.1)
    for epoch in range(3):
        (batch,) = whole.train_batches(DIGITS, seed=0, epoch=epoch)
        optimizer.zero_grad()
        whole.task.loss(clients.model, batch).backward()
        optimizer.step()
    expected = torch.nn.utils.parameters_to_vector(clients.model.parameters()).detach()
    torch.testing.assert_close(weights(trained(plan, whole)), expected)


#: Plans that use what there is.
PLANS: dict[str, tuple[Workload, Any, FederatedPlan]] = {
    "scaffold": (
        MLP,
        methods.Dense(),
        FederatedPlan(
            clients="dirichlet:clients=5",
            rule="scaffold:every=2",
            rounds=4,
            participation=0.6,
            dropout=0.3,
        ),
    ),
    "late": (
        CNN,
        methods.Swat(0.5),
        FederatedPlan(
            clients="iid:clients=4",
            rule="fedadam:every=2",
            rounds=4,
            stragglers="late:share=0.5",
            up="top-k:share=0.1",
            down="int8",
        ),
    ),
    "secure": (
        CNN,
        methods.Static(0.5),
        FederatedPlan(
            clients="shards:clients=4",
            rule="fedavg:every=2",
            rounds=4,
            dropout=0.3,
            up="mask",
            secure="masks:range=4.0",
            stragglers="fewer:share=0.5",
        ),
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_run_that_was_killed_goes_on_to_the_same_bits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload, recipe, plan = PLANS[name]
    monkeypatch.setattr("elision.training.parallel.federated.rounds._SAVE_EVERY", -1.0)

    def kill(done: int, of: int, metrics: object) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(plan, workload, recipe, folder=tmp_path, progress=kill)
    torch.manual_seed(99)
    resumed = trained(plan, workload, recipe, folder=tmp_path)
    whole = trained(plan, workload, recipe)
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.history == whole.history
    finished = trained(plan, workload, recipe, folder=tmp_path)
    assert torch.equal(weights(finished), weights(whole))


def test_processes_give_the_bits_of_one() -> None:
    workload, recipe, plan = PLANS["late"]
    alone = trained(plan, workload, recipe)
    spread = trained(plan, workload, recipe, workers=2)
    assert torch.equal(weights(alone), weights(spread))
    assert alone.history == spread.history


def test_learning_takes_place() -> None:
    found = trained(
        FederatedPlan(clients="shards:clients=6", rounds=30, local_epochs=2)
    )
    assert found.history[-1].score > 0.7
    assert found.rounds_to(0.5) is not None
    assert found.rounds_to(1.1) is None


def test_bits_are_those_of_the_messages() -> None:
    clients = Clients(MLP, methods.Dense(), DIGITS, FederatedPlan())
    values = sum(p.numel() for p in clients.parameters)

    def bits(**settings: Any) -> tuple[int, int]:
        settings = {"clients": "iid:clients=4", "rounds": 1, **settings}
        found = trained(FederatedPlan(**settings))
        return found.history[-1].up_bits, found.history[-1].down_bits

    assert bits() == (4 * 32 * values, 4 * 32 * values)
    assert bits(participation=0.5) == (2 * 32 * values, 2 * 32 * values)
    # Controls double what goes up; at first there are none to send down.
    assert bits(rule="scaffold:every=2")[0] == 4 * 2 * 32 * values
    twice = bits(rule="scaffold:every=2", rounds=2)
    assert twice == (4 * 2 * 32 * values, 4 * 2 * 32 * values)
    tensors = 6
    assert bits(up="int8")[0] == 4 * (8 * values + 32 * tensors)
    # The first weights are whole; a change of eight bits follows.
    assert bits(down="int8", rounds=2)[1] == 4 * (8 * values + 32 * tensors)
    assert bits(secure="masks:bits=16,range=4.0")[0] == 4 * 16 * values + 4 * 128


def test_a_client_that_missed_changes_is_sent_them() -> None:
    plan = FederatedPlan(
        clients="iid:clients=3",
        rule="fedavg:every=1",
        rounds=9,
        participation=0.34,
        down="int8",
        seed=1,
    )
    found = trained(plan)
    drawn = [_drawn(plan, 3, generator(1, 1, number))[0] for number in range(9)]
    values = sum(p.numel() for p in found.model.parameters())
    change, seen = 8 * values + 32 * 6, dict[int, int]()
    for number, (client, row) in enumerate(zip(drawn, found.history, strict=True)):
        missed = number - seen[client] if client in seen else 9
        assert row.down_bits == min(32 * values, missed * change)
        seen[client] = number
    assert len(seen) == 3


def test_a_view_of_lossy_changes_stays_near_the_weights() -> None:
    plan = FederatedPlan(clients="iid:clients=3", rounds=25, down="top-k:share=0.1")
    lossy, exact = trained(plan), trained(replace(plan, down=None))
    assert lossy.down_bytes < 0.4 * exact.down_bytes
    assert lossy.history[-1].score > 0.5
    same = trained(replace(plan, down="top-k:share=1.0"))
    torch.testing.assert_close(weights(same), weights(exact), rtol=1e-3, atol=1e-4)


def test_a_secure_sum_is_that_of_open_messages_but_for_rounding() -> None:
    plan = FederatedPlan(clients="quantity:clients=5", rounds=3, dropout=0.3, seed=2)
    open_, sealed = trained(plan), trained(replace(plan, secure="masks:range=4.0"))
    assert any(r.reported < r.drawn for r in open_.history)
    torch.testing.assert_close(weights(sealed), weights(open_), rtol=1e-3, atol=1e-5)


def test_too_few_for_a_secure_sum_move_nothing() -> None:
    plan = FederatedPlan(clients="iid:clients=2", rounds=1, secure="masks:least=3")
    before = Clients(MLP, methods.Dense(), DIGITS, plan).first_weights()
    found = weights(trained(plan))
    assert torch.equal(found, torch.cat([w.flatten() for w in before]))


def test_a_mask_saves_its_share_of_the_bytes() -> None:
    plan = FederatedPlan(clients="iid:clients=3", rounds=2, up="mask", down="mask")
    recipe = methods.Static(0.8, dense=())
    found = trained(plan, MLP, recipe)
    left = sum(int((p != 0).sum()) for p in found.model.parameters())
    whole = sum(p.numel() for p in found.model.parameters())
    assert found.history[-1].up_bits == pytest.approx(3 * 32 * left, rel=0.02)
    assert left < 0.3 * whole
    assert torch.equal(
        weights(found), weights(trained(replace(plan, up=None, down=None), MLP, recipe))
    )


def test_stragglers_do_less_or_come_later() -> None:
    plan = FederatedPlan(clients="iid:clients=4", rule="fedavg:every=4", rounds=3)
    fewer = trained(replace(plan, stragglers="fewer:share=1.0,work=0.5"))
    assert [r.steps for r in fewer.history] == [8, 8, 8]
    late = trained(replace(plan, stragglers="late:share=1.0,rounds=2"))
    assert [(r.reported, r.late) for r in late.history] == [(0, 0), (0, 0), (0, 4)]
    assert late.history[0].up_bits > 0
    # Nobody is in time: after two rounds the weights are still the first, and what then
    # comes is the first round's.
    assert torch.equal(weights(late), weights(trained(replace(plan, rounds=1))))


def test_private_rounds_are_clipped_noisy_and_accounted() -> None:
    pytest.importorskip("opacus")
    plan = FederatedPlan(
        clients="iid:clients=6",
        rounds=2,
        participation=0.5,
        sampling="poisson",
        privacy="gaussian:clip=0.1,noise=1.0",
    )
    first, again = trained(plan), trained(plan)
    assert torch.equal(weights(first), weights(again))
    epsilons = [r.epsilon for r in first.history]
    assert 0 < epsilons[0] < epsilons[1]  # pyright: ignore[reportOptionalOperand]
    # Next to no noise, everybody in: the mean of clipped updates.
    quiet = replace(
        plan, participation=1.0, rounds=1, privacy="gaussian:clip=0.1,noise=1e-6"
    )
    clients = Clients(MLP, methods.Dense(), DIGITS, quiet)
    before = torch.cat([w.flatten() for w in clients.first_weights()])
    assert (weights(trained(quiet)) - before).norm() <= 0.1001
    sealed = trained(replace(quiet, secure="masks:bits=32,range=0.1"))
    torch.testing.assert_close(
        weights(sealed), weights(trained(quiet)), rtol=1e-3, atol=1e-5
    )


def test_a_moving_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="PruneAndGrow moves masks by the weights"):
        trained(FederatedPlan(), MLP, methods.RigL(0.5, dense=()))


def test_a_network_with_batch_norms_is_not_private() -> None:
    pytest.importorskip("opacus")
    with pytest.raises(ValueError, match="would leave without noise; give one without"):
        trained(FederatedPlan(privacy="gaussian"), CNN)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"clients": "dirichlett"}, "did you mean 'dirichlet'"),
        ({"clients": "iid:clients=1000"}, "120 training examples"),
        ({"rule": "post-local-sgd"}, "synchronous steps"),
        ({"rule": "diloco:every=4,fragments=2"}, "leave fragments out"),
        ({"participation": 0.0}, "participation=0.0"),
        ({"sampling": "some"}, "'fixed' or 'poisson'"),
        ({"up": "int8", "secure": "masks"}, "fixed-point values in places"),
        ({"up": "random-k", "secure": "masks"}, "unbiased=true"),
        ({"stragglers": "late", "secure": "masks"}, "cancel in its own sum"),
        ({"privacy": "gaussian", "rule": "scaffold"}, "controls would leave"),
        ({"privacy": "gaussian", "participation": 0.5}, "sampling 'poisson'"),
        ({"privacy": "gaussian", "stragglers": "late"}, "was not drawn"),
        ({"secure": "masks:bits=8"}, "16 or 32"),
        ({"up": "mask"}, "this recipe has no mask"),
    ],
)
def test_what_has_no_meaning_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        trained(FederatedPlan(**settings))


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    plan = FederatedPlan(clients="iid:clients=2", rounds=1)
    trained(plan, folder=tmp_path)
    with pytest.raises(ValueError, match="does not fit this run"):
        trained(plan, replace(MLP, model_options={"width": 9}), folder=tmp_path)


def test_momentum_and_scaffold_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="momentum=0 is allowed"):
        trained(FederatedPlan(rule="scaffold"), replace(MLP, momentum=0.5))


def test_feedback_is_a_clients_own() -> None:
    """What a client sent in its rounds and what it remembers are what it was to send."""
    up = make_compressor("top-k:share=0.2")
    plan = FederatedPlan(clients="iid:clients=2", rounds=3, up="top-k:share=0.2")
    clients = Clients(MLP, methods.Dense(), DIGITS, plan)
    from elision.training.parallel.federated.client import Job

    weights_, sent, owed = clients.first_weights(), [], None
    total = [torch.zeros_like(w) for w in weights_]
    true = [torch.zeros_like(w) for w in weights_]
    for number in range(3):
        job = Job(0, number, False, weights_, {}, [{} for _ in weights_], [], sent)
        report = clients.train(job)
        dense = replace(plan, up=None)
        whole = Clients(MLP, methods.Dense(), DIGITS, dense).train(job)
        for i, (message, exact) in enumerate(
            zip(report.messages, whole.messages, strict=True)
        ):
            total[i] += up.decompress(message)  # pyright: ignore[reportArgumentType]
            true[i] += exact  # pyright: ignore[reportOperatorIssue]
        sent = report.sent
        owed = [tensors["memory"] for _, tensors in sent]
    assert owed is not None
    for have, left, expected in zip(total, owed, true, strict=True):
        torch.testing.assert_close(have + left, expected, rtol=1e-4, atol=1e-6)
