"""``elision.nn.LSTM`` and ``GRU`` in place of torch's: every option, what is refused."""

import copy
import itertools
import logging
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import elision
from elision.native.shared_object import unavailable
from elision.nn import GRU, LSTM, choice, kernel, modules, sparse
from elision.nn.modules import ACTIVATIONS, ENGINES

MODULES: list[tuple[Any, Any]] = [(LSTM, nn.LSTM), (GRU, nn.GRU)]
INPUTS, UNITS, STEPS, SEQUENCES = 5, 7, 4, 3

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "_SAID", set())


def engines() -> list[str]:
    return [e for e in ENGINES if e != "native" or unavailable() is None]


def close(found: Tensor, expected: Tensor) -> bool:
    error = (found - expected).norm()
    return found.shape == expected.shape and bool(
        error <= 1e-5 * expected.norm() + 1e-12
    )


def pair(classes: tuple[Any, Any], *args: Any, engine: str = "auto", **kwargs: Any):
    torch.manual_seed(0)
    own = classes[1](*args, **kwargs)
    ours = classes[0](*args, **kwargs, engine=engine)
    ours.load_state_dict(own.state_dict())
    return ours, own


def flat(result: Any) -> list[Tensor]:
    y, last = result
    last = last if isinstance(last, tuple) else (last,)
    return [y.data if isinstance(y, PackedSequence) else y, *last]


def assert_same(ours: nn.Module, own: nn.Module, x: Any, hx: Any, leaves: list[Tensor]):
    found = []
    for module in (ours, own):
        torch.manual_seed(2)  # of dropout
        results = flat(module(x, hx))
        torch.manual_seed(3)
        directions = [torch.randn(part.shape) for part in results]
        grads = torch.autograd.grad(
            results, [*leaves, *module.parameters()], directions, retain_graph=True
        )
        found.append([*results, *grads])
    assert all(close(a, b) for a, b in zip(*found, strict=True))


OPTIONS = list(
    itertools.product(
        MODULES, engines(), (1, 2), (False, True), (False, True), (False, True)
    )
)


@pytest.mark.parametrize("form", ["padded", "packed", "unsorted", "single"])
@pytest.mark.parametrize("hidden", ["zero", "given"])
def test_every_option_is_torchs(form: str, hidden: str) -> None:
    for classes, engine, layers, first, bias, both in OPTIONS:
        options: dict[str, Any] = {"batch_first": first, "bias": bias}
        ours, own = pair(
            *(classes, INPUTS, UNITS, layers),
            **options,
            bidirectional=both,
            engine=engine,
        )
        shape = (SEQUENCES, STEPS, INPUTS) if first else (STEPS, SEQUENCES, INPUTS)
        x = torch.randn((STEPS, INPUTS) if form == "single" else shape).requires_grad_()
        given: Any = x
        if form in ("packed", "unsorted"):
            lengths = torch.tensor([4, 2, 1] if form == "packed" else [2, 4, 1])
            given = pack_padded_sequence(x, lengths, first, form == "packed")
        rows = () if form == "single" else (SEQUENCES,)
        states = [
            torch.randn(layers * (1 + both), *rows, UNITS).requires_grad_()
            for _ in range(2 if classes[1] is nn.LSTM else 1)
        ]
        hx: Any = tuple(states) if classes[1] is nn.LSTM else states[0]
        if hidden == "zero":
            assert_same(ours, own, given, None, [x])
        else:
            assert_same(ours, own, given, hx, [x, *states])


@pytest.mark.parametrize("classes", MODULES)
@pytest.mark.parametrize("engine", engines())
@pytest.mark.parametrize("both", [False, True])
def test_dropout_draws_what_torchs_draws(classes: Any, engine: str, both: bool) -> None:
    ours, own = pair(
        classes, INPUTS, UNITS, 3, dropout=0.4, bidirectional=both, engine=engine
    )
    x = torch.randn(STEPS, SEQUENCES, INPUTS, requires_grad=True)
    assert_same(ours, own, x, None, [x])
    assert_same(ours.eval(), own.eval(), x, None, [x])


@pytest.mark.parametrize("engine", ["auto", "torch", "loop"])
def test_projections_are_torchs(engine: str) -> None:
    ours, own = pair(
        MODULES[0], INPUTS, UNITS, 2, proj_size=3, bidirectional=True, engine=engine
    )
    x = torch.randn(STEPS, SEQUENCES, INPUTS, requires_grad=True)
    assert_same(ours, own, x, None, [x])


def test_state_dicts_and_copies_are_exchanged() -> None:
    for ours, own in MODULES:
        mine, theirs = (
            ours(3, 4, 2, bidirectional=True),
            own(3, 4, 2, bidirectional=True),
        )
        assert list(mine.state_dict()) == list(theirs.state_dict())
        theirs.load_state_dict(mine.state_dict())
        mine.mask_weights({"weight_hh_l0": torch.rand_like(mine.weight_hh_l0) < 0.5})
        assert list(mine.state_dict()) == list(theirs.state_dict())
        x = torch.randn(2, 3, 3)
        for copied in (copy.deepcopy(mine), pickle.loads(pickle.dumps(mine))):
            assert torch.equal(copied(x)[0], mine(x)[0])
        assert isinstance(mine, own)


def test_the_house_names_them() -> None:
    assert elision.nn.LSTM is LSTM
    assert elision.nn.GRU is GRU


@pytest.mark.parametrize("classes", MODULES)
def test_what_torch_refuses_is_refused_in_its_words(classes: Any) -> None:
    ours, own = pair(classes, INPUTS, UNITS)
    wrong: list[tuple[Any, Any]] = [
        (torch.zeros(0, SEQUENCES, INPUTS), None),  # no step
        (torch.zeros(STEPS, SEQUENCES, INPUTS + 1), None),
        (torch.zeros(STEPS, SEQUENCES, INPUTS, dtype=torch.float64), None),
        (torch.zeros(2, STEPS, SEQUENCES, INPUTS), None),
        (torch.zeros(STEPS, SEQUENCES, INPUTS), torch.zeros(2, SEQUENCES, UNITS)),
        (torch.zeros(STEPS, SEQUENCES, INPUTS), (torch.zeros(1, 1, UNITS),) * 2),
        (torch.zeros(STEPS, INPUTS), torch.zeros(1, 1, UNITS)),
    ]
    for x, hx in wrong:
        with pytest.raises(Exception) as theirs:
            own(x, hx)
        with pytest.raises(type(theirs.value)) as mine:
            ours(x, hx)
        assert str(mine.value) == str(theirs.value)
    with pytest.raises(RuntimeError, match="greater than 0"):
        pack_padded_sequence(torch.zeros(2, 2, INPUTS), torch.tensor([2, 0]))


def test_a_name_that_is_unknown_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"LSTM\(engine='fast'\): must be 'auto' or"):
        LSTM(3, 4, engine="fast")
    with pytest.raises(ValueError, match=r"GRU\(activation='relu'\): .*'k-tanh'"):
        GRU(3, 4, activation="relu")
    lstm = LSTM(3, 4)
    with pytest.raises(ValueError, match="weight_hh_l0"):
        lstm.mask_weights({"bias_hh_l0": torch.ones(16, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"boolean tensor of shape \(16, 3\), got"):
        lstm.mask_weights({"weight_ih_l0": torch.ones(16, 3)})
    with pytest.raises(ValueError, match=r"boolean tensor of shape \(16, 4\), got"):
        lstm.mask_weights({"weight_hh_l0": torch.ones(16, 3, dtype=torch.bool)})


# --- what goes to torch ------------------------------------------------------------------


def other_calls() -> list[tuple[str, Any, Any]]:
    double = LSTM(3, 4).double(), torch.ones(2, 1, 3, dtype=torch.float64)
    half = GRU(3, 4).half(), torch.ones(2, 1, 3, dtype=torch.float16)
    meta = LSTM(3, 4, device="meta"), torch.ones(2, 1, 3, device="meta")
    projected = LSTM(3, 4, proj_size=2), torch.ones(2, 1, 3)
    return [
        ("float64", *double),
        ("float16", *half),
        ("tensors on meta", *meta),
        ("projections", *projected),
    ]


@pytest.mark.skipif(unavailable() is not None, reason="no kernels here")
@pytest.mark.parametrize(("why", "module", "x"), other_calls())
def test_torch_takes_the_rest_and_says_so_once(why, module, x, caplog) -> None:
    with caplog.at_level(logging.WARNING, "elision"):
        types = [module(x)[0].dtype for _ in range(2)]
    assert types == [x.dtype] * 2
    assert [why in r.message for r in caplog.records] == [True]
    module.engine = "native"
    with pytest.raises(RuntimeError, match=f"no kernel for {why}"):
        module(x)


def test_without_a_compiler_torch_computes(monkeypatch, caplog) -> None:
    ours, own = pair(MODULES[0], INPUTS, UNITS)
    monkeypatch.setattr(kernel, "unavailable", lambda: "no C++ compiler")
    x = torch.randn(STEPS, SEQUENCES, INPUTS, requires_grad=True)
    with caplog.at_level(logging.WARNING, "elision"):
        assert_same(ours, own, x, None, [x])
    assert "no C++ compiler" in caplog.text


@pytest.mark.parametrize("classes", MODULES)
def test_autocast_and_function_transforms(classes: Any) -> None:
    ours, own = pair(classes, INPUTS, UNITS)
    x = torch.randn(STEPS, SEQUENCES, INPUTS)
    # Without the CPU's instructions for bfloat16 oneDNN has no such LSTM.
    if type(own) is not nn.LSTM or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        with torch.autocast("cpu", torch.bfloat16):
            assert ours(x)[0].dtype == own(x)[0].dtype

    def loss(module: nn.Module, x: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(module.named_parameters()), x)[
            0
        ].sum()

    mine, theirs = (torch.func.grad(loss, argnums=1)(m, x) for m in (ours, own))
    assert close(mine, theirs)


def test_the_faster_is_taken(monkeypatch) -> None:
    if unavailable():
        pytest.skip("no kernels here")
    asked, ran = [], []
    times = {"torch": 1.0, "native": 2.0}
    real = kernel.recurrence
    monkeypatch.setattr(choice, "measured", lambda s: asked.append(s) or dict(times))
    monkeypatch.setattr(
        modules, "recurrence", lambda *a, **k: ran.append(1) or real(*a, **k)
    )
    lstm, x = LSTM(3, 4, 2, bidirectional=True), torch.ones(6, 2, 3)
    lstm(x)
    assert not ran
    assert [(s.inputs, s.sequences, s.steps, s.back) for s in asked] == [
        (3, 2, 6, True),
        (8, 2, 6, True),
    ]
    times["native"] = 1.0
    lstm(x)
    assert len(ran) == 4
    with torch.no_grad():
        lstm(x)
    assert not asked[-1].back


def test_a_trial_leaves_no_trace() -> None:
    if unavailable():
        pytest.skip("no kernels here")
    state = torch.get_rng_state()
    shape = choice.Shape("gru", 3, 4, sequences=2, steps=3, back=True)
    with torch.no_grad():
        assert set(choice.measured(shape)) == {"torch", "native"}
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), state)


# --- other gates, masks ------------------------------------------------------------------


@pytest.mark.parametrize("classes", MODULES)
@pytest.mark.parametrize("activation", ACTIVATIONS[1:])
def test_other_gates_are_those_that_elide_puts_in(
    classes: Any, activation: str
) -> None:
    ours, own = pair(classes, INPUTS, UNITS, 2, bidirectional=True)
    ours = classes[0](INPUTS, UNITS, 2, bidirectional=True, activation=activation)
    ours.load_state_dict(own.state_dict())
    functions = {"tanh": activation, "sigmoid": activation.replace("tanh", "sigmoid")}
    elided = elision.elide(own, "dense", functions=functions)
    x = torch.randn(STEPS, SEQUENCES, INPUTS)
    assert torch.equal(ours(x)[0], elided(x)[0])
    assert f"activation={activation}" in repr(ours)


@pytest.mark.parametrize("classes", MODULES)
@pytest.mark.parametrize("engine", engines())
@pytest.mark.parametrize("kept", [0.1, 0.8])
@pytest.mark.parametrize("sequences", [2, 17])
@pytest.mark.parametrize("which", ["weight_hh", "weight_"])
def test_masked_weights(
    classes: Any, engine: str, kept: float, sequences: int, which: str
) -> None:
    ours, own = pair(classes, INPUTS, UNITS, 2, bidirectional=True, engine=engine)
    masks = {
        name: torch.rand_like(weight) < kept
        for name, weight in own.named_parameters()
        if name.startswith(which)
    }
    before = {name: weight.clone() for name, weight in ours.named_parameters()}
    ours.mask_weights(masks)
    with torch.no_grad():
        for name, mask in masks.items():
            own.get_parameter(name).mul_(mask)
    x = torch.randn(STEPS, sequences, INPUTS)
    found, expected = flat(ours(x)), flat(own(x))
    assert all(close(a, b) for a, b in zip(found, expected, strict=True))
    for module in (ours, own):
        sum(part.square().sum() for part in flat(module(x))).backward()  # pyright: ignore
    for name, weight in ours.named_parameters():
        assert torch.equal(weight, before[name])
        grad = own.get_parameter(name).grad
        assert close(weight.grad, grad * masks.get(name, torch.tensor(True)))
    ours.mask_weights({})
    assert not torch.equal(ours(x)[0], found[0])


def test_sparse_layers_take_the_sparse_kernel(monkeypatch) -> None:
    if unavailable():
        pytest.skip("no kernels here")
    ran, real = [], sparse.sparse_recurrence
    monkeypatch.setattr(
        modules, "sparse_recurrence", lambda *a, **k: ran.append(1) or real(*a, **k)
    )
    for kept, rows, times in ((0.1, 20, 2), (0.6, 20, 0), (0.1, 2, 0)):
        lstm = LSTM(30, 30, 2)
        lstm.mask_weights(
            {
                name: torch.rand_like(weight) < kept
                for name, weight in lstm.named_parameters()
                if name.startswith("weight")
            }
        )
        ran.clear()
        lstm(torch.ones(3, rows, 30))
        assert len(ran) == times
