"""The likeliest classes in several arithmetics: against a network rounded by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import elision
from elision.precision import TopClasses, rounding, top_classes, uniform_recipe


def network() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(6, 9)


def inputs() -> torch.Tensor:
    return torch.randn(7, 6, generator=torch.Generator().manual_seed(1))


def test_classes_and_shares_are_those_of_rounded_operands() -> None:
    model, x = network(), inputs()
    exact, rounded = top_classes(model, x, ["8a-2w"], count=3)
    assert (exact.arithmetic, rounded.arithmetic) == ("float", "8a-2w")
    w = rounding("2", "weight")(model.weight.detach(), [], False)
    x8 = rounding("8", "input")(x, [], False)
    for found, scores in ((exact, model(x)), (rounded, F.linear(x8, w, model.bias))):
        shares = scores.detach().softmax(1)
        torch.testing.assert_close(found.shares, shares.sort(descending=True)[0][:, :3])
        assert torch.equal(found.classes[:, 0], scores.argmax(1))
        torch.testing.assert_close(shares.gather(1, found.classes), found.shares)
    assert not torch.equal(exact.shares, rounded.shares)


def test_each_arithmetic_begins_with_the_network_as_it_is() -> None:
    """Not with the one before it rounded once more."""
    model, x = network(), inputs()
    together = top_classes(model, x, ["8a-2w", "8a-8w", "bf16"])
    for found in together[1:]:
        alone = top_classes(model, x, [found.arithmetic])[1]
        assert torch.equal(found.classes, alone.classes)
        assert torch.equal(found.shares, alone.shares)


def test_the_model_stays_as_it_was_and_runs_in_evaluation() -> None:
    model = nn.Sequential(nn.Linear(6, 9), nn.Dropout(0.9)).train()
    before = copy.deepcopy(model.state_dict())
    first, second = (top_classes(model, inputs(), ["8a-4w"]) for _ in range(2))
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert type(model[0]) is nn.Linear
    assert torch.equal(first[0].shares, second[0].shares)
    elided = elision.elide(copy.deepcopy(model), uniform_recipe("2"))
    seen = top_classes(elided, inputs(), ["8a-4w"])
    assert torch.equal(seen[0].shares, first[0].shares)


def test_a_label_is_held_where_it_is_among_the_classes() -> None:
    top = TopClasses("float", torch.tensor([[3, 1], [3, 1], [0, 2]]), torch.zeros(3, 2))
    assert top.holds(torch.tensor([1, 2, 0])).tolist() == [True, False, True]


@pytest.mark.parametrize("count", [0, 10])
def test_no_more_classes_than_there_are(count: int) -> None:
    with pytest.raises(ValueError, match=rf"top_classes\(count={count}.*\[1, 9\]"):
        top_classes(network(), inputs(), ["8a-8w"], count=count)


def test_an_unknown_arithmetic_is_said_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"8q.*write bits") as caught:
        top_classes(network(), inputs(), ["8q"])
    assert "\n" not in str(caught.value)
