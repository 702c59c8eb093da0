"""Two transforms of one text stay two transforms: operators find the right instance."""

import copy
import gc
import pickle
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import elision
from elision.operands import TopK, Transform
from elision.products import Product


def scaling(factor: float) -> type[Transform]:
    """A class that a notebook cell defines again after an edit of ``factor``."""

    @dataclass(frozen=True, repr=False)
    class Scaled(Transform):
        def initial_state(self) -> dict[str, Tensor]:
            return {"step": torch.zeros(())}

        def apply(self, x: Tensor, state: Any, training: bool) -> Tensor:
            state["step"].add_(1)
            return factor * x

        def __repr__(self) -> str:
            return "Scaled()"

        def __str__(self) -> str:
            return "scaled"

    return Scaled


def elided(transform: Transform) -> nn.Module:
    layer = nn.Linear(2, 2, bias=False)
    nn.init.eye_(layer.weight)
    table = elision.Table({Product.FORWARD: {"weight": transform}})
    return elision.elide(nn.Sequential(layer), elision.Recipe("mine", table))


@pytest.mark.parametrize("compiled", [False, True])
def test_classes_of_one_repr_keep_their_arithmetic(compiled: bool) -> None:
    first, second = elided(scaling(2.0)()), elided(scaling(3.0)())
    x = torch.ones(1, 2)
    runs = [first, second]
    if compiled:
        runs = [torch.compile(m, backend="aot_eager", fullgraph=True) for m in runs]
    for _ in range(2):
        assert [m(x)[0, 0].item() for m in runs] == [2.0, 3.0]
    # The same model under another transform of the same text: traced again.
    table = elision.Table({Product.FORWARD: {"weight": scaling(5.0)()}})
    elision.elide(first, elision.Recipe("mine", table))
    assert [m(x)[0, 0].item() for m in runs] == [5.0, 3.0]


def test_copies_have_handles_of_their_own_and_equal_parameters() -> None:
    transform = TopK(0.5, refresh=2)
    copies = [copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))]
    for made in copies:
        assert made == transform
        assert made._token != transform._token
        assert Transform._by_token[made._token] is made


def test_a_copied_model_outlives_the_first() -> None:
    model = elided(scaling(2.0)())
    twin = copy.deepcopy(model)
    del model
    gc.collect()
    assert twin(torch.ones(1, 2))[0, 0].item() == 2.0


def test_handles_do_not_leak_and_a_dead_one_is_explained() -> None:
    transform = scaling(2.0)()
    token = transform._token
    del transform
    gc.collect()
    assert token not in Transform._by_token
    with pytest.raises(RuntimeError, match="while its elided model exists"):
        torch.ops.elision.transform(torch.ones(1), [torch.ones(1)], token, True)


def test_a_changed_apply_inherits_no_blocked_form() -> None:
    class Other(TopK):
        def apply(self, x: Tensor, state: Any, training: bool) -> Tensor:
            return x

    assert TopK(0.5).blocked_form() is not None
    assert Other(0.5).blocked_form() is None
