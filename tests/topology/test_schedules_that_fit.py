"""A method that never acts says so, and can be fitted to the length of a run."""

import re
import warnings
from typing import Any

import pytest
import torch
from sparse_models import MOVING, sgd, small_net, train
from torch import nn

import elision
from elision import methods
from elision.topology import ScheduleWarning


def start(method: Any, **how: Any) -> tuple[nn.Module, Any, Any]:
    model = elision.elide(small_net(), method, engine="torch")
    optimizer = sgd(model)
    return model, optimizer, elision.topology.attach(model, optimizer, **how)


DEFAULTS = {
    "rigl": methods.RigL(0.8),
    "set": methods.SET(0.8),
    "snfs": methods.SNFS(0.8),
    "dsr": methods.DSR(0.8),
    "srigl": methods.SRigL(0.8),
    "top-kast": methods.TopKAST(0.8, backward_sparsity=0.5),
    "gradual": methods.Gradual(0.8),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_schedule_is_fitted_to_the_steps_of_a_run(name: str) -> None:
    model, optimizer, topology = start(DEFAULTS[name], steps=52)
    train(model, optimizer, range(52))
    steps = {move.step for move in topology.history}
    assert len(steps) == topology.moves >= 2
    if name != "top-kast":
        assert max(steps) <= 39 == topology.rule.until()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        topology.detach()
        elision.export.finalize(model)


def test_what_was_given_stays_and_the_rest_is_fitted() -> None:
    _, _, topology = start(methods.RigL(0.8, every=7), steps=1000)
    assert (topology.rule.when.every, topology.rule.when.until) == (7, 750)
    _, _, topology = start(methods.RigL(0.8, until=200), steps=1000)
    assert (topology.rule.when.every, topology.rule.when.until) == (25, 200)
    _, _, topology = start(methods.RigL(0.8))
    assert (topology.rule.when.every, topology.rule.when.until) == (100, 25_000)


def test_a_second_attach_fits_anew_or_not() -> None:
    model, optimizer, _ = start(methods.RigL(0.8), steps=52)
    topology = elision.topology.attach(model, optimizer)
    assert topology.rule.until() == 25_000  # pyright: ignore[reportOptionalMemberAccess]


@pytest.mark.parametrize("name", ["static", "dst", "n-m", "swat-m"])
def test_what_has_no_schedule_has_nothing_to_fit(name: str) -> None:
    model, optimizer, topology = start(MOVING[name], steps=20)
    train(model, optimizer, range(5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        topology.detach()
    assert "no schedule of moves" in topology.report()


@pytest.mark.parametrize("steps", [0, -1, 2.5, True])
def test_steps_are_a_number_of_steps(steps: Any) -> None:
    with pytest.raises(ValueError, match=r"attach\(steps=.*must be an integer >= 1"):
        start(methods.RigL(0.8), steps=steps)


@pytest.mark.parametrize("end", ["detach", "finalize"])
@pytest.mark.parametrize("name", DEFAULTS)
def test_masks_that_never_moved_are_said(name: str, end: str) -> None:
    model, optimizer, topology = start(DEFAULTS[name])
    train(model, optimizer, range(3))
    message = (
        rf"the masks of {name} never moved in 3 steps; the first move is due in step "
    )
    with warnings.catch_warnings(record=True, action="always") as caught:
        if end == "detach":
            topology.detach()
        elision.export.finalize(model)
    assert [warning.category for warning in caught] == [ScheduleWarning]
    assert re.match(message, str(caught[0].message))
    assert "attach(model, optimizer, steps=3)" in str(caught[0].message)


def test_a_target_that_is_missed_is_said_with_both_numbers() -> None:
    model, optimizer, topology = start(methods.Gradual(0.8, end=40, every=5))
    train(model, optimizer, range(11))
    reached = topology.sparsity
    message = (
        rf"gradual ends at sparsity {reached:.3f} after 11 steps, its target is 0.800"
    )
    with pytest.warns(ScheduleWarning, match=message):
        elision.export.finalize(model)


def test_a_learned_target_that_is_missed_is_said() -> None:
    _, optimizer, topology = start(methods.DST(target=0.9))
    train(topology.model, optimizer, range(2))
    with pytest.warns(
        ScheduleWarning, match=r"dst ends at sparsity 0.* target is 0.900"
    ):
        topology.detach()


def test_no_steps_and_restore_say_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, optimizer, topology = start(methods.RigL(0.8))
        topology.detach()
        elision.topology.attach(model, optimizer)
        train(model, optimizer, range(2))
        elision.restore(model)


def test_a_report_says_what_moved_and_what_is_to_come() -> None:
    model, optimizer, topology = start(methods.RigL(0.8, every=3, until=18))
    assert (
        "rigl: 0 steps, 0 with moves, next in step 3, until step 18"
        in topology.report()
    )
    train(model, optimizer, range(7))
    assert (
        "rigl: 7 steps, 2 with moves, next in step 9, until step 18"
        in topology.report()
    )
    train(model, optimizer, range(7, 20))
    assert "20 steps, 5 with moves, none to come, until step 18" in topology.report()


def test_a_topology_shows_itself() -> None:
    _, _, topology = start(methods.RigL(0.8, every=3, until=18))
    assert repr(topology).startswith(f"<rigl: {topology.nnz:,} of ")
    assert "weights active in 4 layers; 0 steps" in repr(topology)
    page = topology._repr_html_()
    assert page.startswith("<table>")
    assert all(f'<td class="word">{name}</td>' in page for name in topology.masks())
    assert "next in step 3" in page
    model = elision.elide(small_net(), methods.Swat(0.5))
    nothing = elision.topology.attach(model, sgd(model))
    assert (
        repr(nothing) == "<this recipe moves no mask>" == f"<{nothing._repr_html_()}>"
    )


def test_an_unfitted_recipe_moves_only_with_its_published_schedule() -> None:
    model, optimizer, topology = start(methods.RigL(0.8))
    train(model, optimizer, range(52))
    assert not topology.history
    assert torch.equal(topology.state("moves"), torch.zeros((), dtype=torch.int64))
