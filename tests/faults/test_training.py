"""Faults while a network is trained: each site is struck, and only when it should be."""

import copy

import pytest
import torch
from torch import nn

import elision
from elision.faults import Fault, recovery, striking
from elision.memory import DamagedError, saver
from elision.study.faults import recovery_rows, struck_training
from elision.workloads import find_workload

STEPS = 5


def _model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 8), nn.ReLU(),
        nn.Linear(8, 3),
    )  # fmt: skip


def _trained(faults=None, recipe=None, policy=None, **options):
    """Losses, weights after each step, and the striking, of one small training."""
    model = _model()
    if recipe is not None:
        elision.elide(model, recipe, engine="torch")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    losses, weights = [], []

    def run(struck):
        chosen = struck.policy(policy, model) if struck and policy else policy
        for _ in range(STEPS):
            x = torch.randn(8, 2, 6, 6, generator=generator)
            y = torch.randint(3, (8,), generator=generator)
            optimizer.zero_grad()
            if chosen is None:
                loss = nn.functional.cross_entropy(model(x), y)
            else:
                with saver(model, chosen, seed=0):
                    loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            weights.append(copy.deepcopy([p.detach() for p in model.parameters()]))
        return struck

    if faults is None:
        return losses, weights, run(None)
    with striking(model, optimizer, faults, **options) as struck:
        run(struck)
    return losses, weights, struck


def _differs(a, b):
    return [
        any(not torch.equal(x, y) for x, y in zip(s, t, strict=True))
        for s, t in zip(a, b, strict=True)
    ]


CASES = {
    "weight": Fault(bits=(29,), lifetime="transient"),
    "weight-in-int8": Fault(bits=(6,), format="int8"),
    "scale": Fault(site="scale", format="int8", bits=(23,)),
    "bitmap": Fault(site="bitmap", storage="bitmap"),
    "activation": Fault(site="activation", bits=(29,), number=20),
    "gradient": Fault(site="gradient", bits=(29,), number=20),
    "weight-gradient": Fault(site="weight-gradient", bits=(29,)),
    "optimizer": Fault(site="optimizer", bits=(29,)),
    "message": Fault(site="message", bits=(29,)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_site_is_struck_in_its_step_alone(name):
    losses, weights, _ = _trained()
    struck_losses, struck_weights, struck = _trained(CASES[name], first=2)
    late = name == "optimizer"  # its state is read in the next step
    assert _differs(weights, struck_weights) == [False, False, not late, True, True]
    assert losses[:2] == struck_losses[:2]
    assert struck.struck == CASES[name].number
    assert struck.step == STEPS - 1
    again, again_weights, _ = _trained(CASES[name], first=2)
    assert again == struck_losses
    assert not any(_differs(again_weights, struck_weights))


def test_a_transient_weight_is_as_it_was_before_the_optimiser():
    fault = Fault(
        lifetime="transient", bits=(0,)
    )  # too small to change a gradient much
    _, weights, _ = _trained()
    _, after, _ = _trained(fault, first=2)
    for a, b in zip(weights[2], after[2], strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
    stays = Fault(bits=(30,))
    _, after, _ = _trained(stays, first=2)
    assert any(
        (a - b).abs().max() > 0.5 for a, b in zip(weights[2], after[2], strict=True)
    )


def test_a_permanent_fault_strikes_one_place_in_every_step():
    fault = Fault(
        site="weight-gradient", action="stuck-at-1", bits=(30,), lifetime="permanent"
    )
    _, _, struck = _trained(fault, first=1, steps=3)
    assert struck.struck == 1
    moving = Fault(site="weight-gradient", action="stuck-at-1", bits=(30,))
    _, _, struck = _trained(moving, first=1, steps=3)
    assert struck.struck == 3


@pytest.mark.parametrize("policy", ["int8", "bits(4)"])
def test_a_struck_mask_of_zeros_is_refused_in_one_line(policy: str) -> None:
    with pytest.raises(DamagedError, match="mask names"):
        _trained(Fault(site="saved", number=200), policy=policy, first=2)


@pytest.mark.parametrize("policy", ["sfpr", "fp8", "jpeg"])
def test_saved_bytes_change_the_gradients_and_not_the_loss(policy):
    losses, weights, _ = _trained(policy=policy)
    fault = Fault(site="saved", number=200)
    struck_losses, struck_weights, struck = _trained(fault, policy=policy, first=2)
    assert losses[:3] == struck_losses[:3]
    assert struck.struck == 200
    assert _differs(weights, struck_weights)[:2] == [False, False]
    assert _differs(weights, struck_weights)[2]


@pytest.mark.parametrize(
    "spec", [None, "int8", "top-k:share=0.5", "powersgd:rank=1", "sign"]
)
def test_messages_of_a_compressor_are_struck(spec):
    fault = Fault(site="message", number=30)
    _, weights, _ = _trained(Fault(site="message"), first=9, compressor=spec)
    _, after, struck = _trained(fault, first=2, compressor=spec)
    assert _differs(weights, after)[2]
    assert struck.struck == 30


def test_bytes_that_cannot_be_unpacked_end_the_trial_and_are_an_outcome() -> None:
    """JPEG's mask of coefficients names as many as are kept; a flip in it is refused."""
    workload = find_workload("digits-cnn").changed(epochs=1, batch_size=32)
    dataset = workload.load_dataset(None).limited(train=96, test=16)
    faults = {
        "many": Fault(site="saved", number=2000),
        "none": Fault(site="saved", rate=0.0),
    }
    many, none = struck_training(
        workload, "dense", dataset, faults, first=1, steps=1, memory="jpeg"
    )
    assert many.refused is not None
    assert many.refused.startswith("DamagedError: ")
    assert many.score[0] != many.score[0]  # no number
    assert none.refused is None
    assert none.struck == none.clean
    ends = [row["end"] for row in recovery_rows([many, none])]
    assert ends[0].startswith("detected at step 1: DamagedError")
    assert ends[1] == "recovered in 0 steps"


def test_an_error_before_any_fault_is_no_outcome() -> None:
    workload = find_workload("digits-cnn").changed(epochs=1)
    dataset = workload.load_dataset(None).limited(train=64, test=16)
    faults = {"of nothing": Fault(site="error-memory")}
    with pytest.raises(ValueError, match="remembers no values"):
        struck_training(workload, "dense", dataset, faults, first=0, steps=1)


def test_error_memory_of_a_recipe_is_struck():
    recipe = elision.methods.ReSprop(reuse=0.5)
    _, weights, _ = _trained(recipe=recipe)
    # A reference that shrinks is made up for by the difference; one of 1e35 rounds it off.
    fault = Fault(site="error-memory", bits=(30,), number=50)
    _, after, _ = _trained(fault, recipe=recipe, first=2)
    assert _differs(weights, after) == [False, False, False, True, True]


def test_a_rate_strikes_as_often_as_it_says():
    bits = 32 * sum(p.numel() for p in _model().parameters())
    fault = Fault(site="weight-gradient", rate=40 / bits, bits=None)
    _, _, struck = _trained(fault, first=0, steps=STEPS)
    assert 120 < struck.struck < 290  # 200 expected, sd 14


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(site="error-memory"), "remembers no values"),
        (Fault(layers="encoder.*"), "nothing there to change"),
    ],
)
def test_a_site_that_the_training_lacks_is_named(fault, message):
    with pytest.raises(ValueError, match=message):
        _trained(fault, first=1)


def test_a_plain_optimiser_has_no_state():
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with striking(model, optimizer, Fault(site="optimizer"), first=0):
        model(torch.ones(1, 2)).sum().backward()
        with pytest.raises(ValueError, match="SGD as it is set up here has no state"):
            optimizer.step()


def test_recovery_tells_the_three_ends_apart():
    clean = [1.0] * 100
    back = recovery(clean, [1.0] * 10 + [5.0] * 5 + [1.0] * 85, last=14, window=4)
    assert back.steps == 4  # the mean of 4 losses forgets the last high one
    assert not back.silent
    never = recovery(clean, [1.0] * 10 + [1.2] * 90, last=10)
    assert (never.steps, never.silent) == (None, True)
    gone = recovery(clean, [1.0] * 10 + [float("nan")], last=10)
    assert (gone.diverged_at, gone.silent) == (10, False)
    with pytest.raises(ValueError, match="losses"):
        recovery([1.0], [1.0, 1.0], last=0)


def test_a_step_without_gradients_is_not_struck() -> None:
    """RigL's optimiser step on a move is left out, and so are its gradients."""
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with striking(model, optimizer, Fault(site="weight-gradient"), first=0) as struck:
        model(torch.ones(1, 2))
        optimizer.step()
    assert struck.step == 0
    assert struck.struck == 0
