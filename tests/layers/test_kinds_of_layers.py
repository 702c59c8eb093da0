"""Layers of every kind before and after elide: right, or refused in one sentence."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.optim.swa_utils import AveragedModel

import elision
from elision.layers import NoEffectWarning, elided_layers, plan_of, states_of
from elision.methods import DST, NM, Dense, MeProp, ReSprop, Static, Swat

pytestmark = [
    pytest.mark.filterwarnings("ignore::elision.topology.install.UnattachedWarning"),
    pytest.mark.filterwarnings("ignore:Initializing zero-element"),
    pytest.mark.filterwarnings("ignore:Complex modules are a new feature"),
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor"),
    pytest.mark.filterwarnings("ignore:FSDP2-wrapped module .FSDPSequential. returned"),
]

METHODS = [
    Swat(0.5, dense=()),
    Swat(0.5, refresh=2, dense=()),
    ReSprop(0.8, dense=()),
    MeProp(0.5, dense=()),
    Static(0.5, dense=()),
    DST(),
]


def name_of(value: Any) -> str:
    return getattr(value, "name", getattr(value, "__name__", str(value)))


def net(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32, 8),
    ).to(dtype)


def batch(step: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(4, 3, 6, 6, generator=generator).to(dtype)


def passed(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Output and gradients of a pass."""
    model.zero_grad()
    y = model(x)
    y.abs().square().sum().backward()
    return [y.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    assert all(map(torch.equal, found, expected))


# --- numbers other than float32 -------------------------------------------------------


def complex_linear() -> tuple[nn.Module, Tensor]:
    return nn.Linear(6, 8, dtype=torch.cfloat), torch.randn(5, 6, dtype=torch.cfloat)


def complex_convolution() -> tuple[nn.Module, Tensor]:
    return (
        nn.Conv2d(2, 4, 3, dtype=torch.cdouble),
        torch.randn(2, 2, 5, 5, dtype=torch.cdouble),
    )


def integers() -> tuple[nn.Module, Tensor]:
    layer = nn.Linear(4, 4, bias=False)
    values = torch.randint(-3, 3, (4, 4), dtype=torch.int32)
    layer.weight = nn.Parameter(values, requires_grad=False)
    return layer, torch.randint(0, 5, (2, 4), dtype=torch.int32)


def sparse() -> tuple[nn.Module, Tensor]:
    layer = nn.Linear(4, 4, bias=False)
    values = layer.weight.detach().to_sparse()
    layer.weight = nn.Parameter(values, requires_grad=False)
    return layer, torch.randn(2, 4)


@pytest.mark.parametrize("method", METHODS, ids=name_of)
@pytest.mark.parametrize(
    "make", [complex_linear, complex_convolution, integers, sparse]
)
def test_what_is_not_real_stays_dense_and_one_warning_says_so(
    make: Callable[[], tuple[nn.Module, Tensor]], method: elision.Recipe
) -> None:
    torch.manual_seed(0)
    odd, x = make()
    model = nn.ModuleList([nn.Linear(8, 8), odd])
    run = passed if odd.weight.requires_grad else lambda m, x: [m(x)]
    expected = run(odd, x)
    with pytest.warns(NoEffectWarning, match="complex numbers, integers.*dense: 1"):
        elision.elide(model, method, engine="torch")
    assert_equal(run(odd, x), expected)
    elision.restore(model)
    assert_equal(run(odd, x), expected)


def test_the_dense_recipe_says_nothing_of_complex_layers() -> None:
    layer, x = complex_linear()
    expected = passed(layer, x)
    elision.elide(nn.ModuleList([layer, nn.Linear(2, 2)]), Dense())
    assert_equal(passed(layer, x), expected)


def test_a_layer_that_becomes_complex_is_refused_in_one_sentence() -> None:
    model = elision.elide(nn.Sequential(nn.Linear(4, 4)), Swat(0.5, dense=()))
    model.to(torch.cfloat)
    with pytest.raises(ValueError, match=r"layer 0: its input is torch.complex64"):
        model(torch.ones(2, 4, dtype=torch.cfloat))


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_float64_keeps_its_digits(method: elision.Recipe) -> None:
    model = elision.elide(net(torch.float64), method, engine="native")
    other = elision.elide(net(torch.float64), method, engine="torch")
    for step in range(3):
        x = batch(step, torch.float64)
        for found, expected in zip(passed(model, x), passed(other, x), strict=True):
            assert found.dtype == torch.float64
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    if method.name == "swat":
        for name, value in model.named_buffers():
            if name.endswith("threshold"):
                assert value.dtype == torch.float64


@pytest.mark.parametrize("engine", ["torch", "native", "auto"])
@pytest.mark.parametrize("method", [*METHODS, NM(2, 4)], ids=name_of)
def test_layers_and_inputs_without_values(method: elision.Recipe, engine: str) -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(8, 0),
            nn.ReLU(),
            nn.Linear(0, 4),
            nn.Unflatten(1, (2, 2)),
            nn.Linear(2, 4),
        )

    model = make()
    recipe = method if method.name != "n-m" else NM(1, 2, dense=())
    elision.elide(model, recipe, engine=engine)
    expected = passed(make(), torch.ones(3, 8))
    found = passed(model, torch.ones(3, 8))
    assert [t.shape for t in found] == [t.shape for t in expected]
    assert model(torch.ones(0, 8)).shape == (0, 2, 4)
    elision.restore(model)
    assert type(model[0]) is nn.Linear  # pyright: ignore[reportIndexIssue]


@pytest.mark.parametrize(
    "shape", [(8,), (3, 8), (2, 3, 8), (2, 0, 8), (0, 8), (2, 2, 2, 8)]
)
def test_inputs_of_every_rank(shape: tuple[int, ...]) -> None:
    plain = nn.Linear(8, 4)
    elided = elision.elide(copy.deepcopy(plain), Dense(), engine="torch")
    x = torch.randn(shape, requires_grad=True)
    y = elided(x)
    assert torch.equal(y, plain(x))
    assert not y._is_view()
    (y * 1).add_(1).sum().backward()


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
@pytest.mark.parametrize("engine", ["torch", "native", "auto"])
def test_infinities_behind_a_mask_reach_no_product(engine: str, bad: float) -> None:
    def results(behind: float) -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3))
        elision.elide(model, Static(0.5, dense=()), engine=engine)
        for _, layer in elided_layers(model):
            use = plan_of(layer).use(elision.Product.FORWARD, "weight")
            weight: Tensor = layer.weight  # pyright: ignore[reportAssignmentType]
            with torch.no_grad():
                weight[~states_of(layer, use)["mask"]] = behind
        return passed(model, batch())

    found, expected = results(bad), results(0.0)
    assert all(t.isfinite().all() for t in found)
    assert_equal(found, expected)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_sequences_of_different_lengths() -> None:
    plain = nn.Linear(8, 4)
    model = elision.elide(copy.deepcopy(plain), Dense(), engine="torch")
    rows = [torch.randn(2, 8), torch.randn(3, 8)]
    x = torch.nested.nested_tensor(rows, layout=torch.jagged)
    y = model(x) + plain(x)
    y.values().sum().backward()
    assert torch.equal(y.values(), 2 * plain(torch.cat(rows)))
    assert model.weight.grad is not None
    torch.testing.assert_close(model.weight.grad, plain.weight.grad)
    with pytest.raises(ValueError, match=r"layout torch\.jagged"):
        model(torch.nested.nested_tensor(rows, layout=torch.strided))


def test_functional_transforms_are_refused_in_one_sentence() -> None:
    model = elision.elide(nn.Sequential(nn.Linear(8, 4)), Swat(0.5, dense=()))
    parameters: dict[str, Tensor] = dict(model.named_parameters())

    def one(p: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(model, p, (x,)).sum()

    x = torch.randn(3, 8)
    for transformed in (torch.func.grad(one), torch.func.vmap(one, (None, 0))):
        with pytest.raises(RuntimeError, match=r"layer 0: .* under torch.func"):
            transformed(parameters, x)
    with torch.no_grad():
        each = torch.func.vmap(one, (None, 0))(parameters, x)
    torch.testing.assert_close(each, model(x).sum(1).detach())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tracing_is_refused_in_one_sentence_and_works_when_finalised() -> None:
    model, x = elision.elide(net(), Swat(0.5, dense=()), engine="torch"), batch()
    expected = model(x)
    with pytest.raises(RuntimeError, match=r"layer 0: torch\.jit\.trace would keep"):
        torch.jit.trace(model, x)  # pyright: ignore
    traced: Any = torch.jit.trace(elision.export.finalize(model), x)  # pyright: ignore
    assert torch.equal(traced(x), expected)


# --- parts, copies, averages ----------------------------------------------------------


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_a_slice_of_a_sequential_shares_its_elided_layers(
    method: elision.Recipe,
) -> None:
    model = elision.elide(net(), method, engine="torch")
    head, tail = model[:2], model[2:]
    whole = elision.elide(net(), method, engine="torch")
    for step in range(2):
        expected = passed(whole, batch(step))
        model.zero_grad()
        y = tail(head(batch(step)))
        y.abs().square().sum().backward()
        assert_equal(
            [y.detach(), *(p.grad for p in model.parameters() if p.grad is not None)],
            expected,
        )
    elision.restore(head)
    assert [name for name, _ in elided_layers(model)] == ["2", "5"]


def reached(method: elision.Recipe) -> nn.Module:
    return elision.elide(net(), method, engine="torch")


@pytest.mark.parametrize("used", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_copies_and_states_before_and_after_the_first_step(
    method: elision.Recipe, used: bool
) -> None:
    model = reached(method)
    if used:
        passed(model, batch())
    loaded = reached(method)
    passed(loaded, batch(7))  # of another shape of state than the one loaded
    loaded.load_state_dict(model.state_dict())
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded]
    assert all(m.state_dict().keys() == model.state_dict().keys() for m in copies)
    expected = passed(model, batch(1)), passed(model, batch(2))
    for other in copies:
        assert_equal(passed(other, batch(1)), expected[0])
        assert_equal(passed(other, batch(2)), expected[1])


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize(
    "method", [ReSprop(0.8, dense=()), MeProp(0.5), Swat(0.5, refresh=2)], ids=name_of
)
def test_an_average_made_before_the_first_step_follows(
    method: elision.Recipe, use_buffers: bool
) -> None:
    model = reached(method)
    average = AveragedModel(model, use_buffers=use_buffers)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    weights = []
    for step in range(3):
        passed(model, batch(step))
        optimizer.step()
        average.update_parameters(model)
        weights.append(model[0].weight.detach().clone())  # pyright: ignore[reportIndexIssue]
    torch.testing.assert_close(average.module[0].weight, sum(weights) / 3)  # pyright: ignore
    average(batch())
    average.load_state_dict(average.state_dict())


def over_the_state_dict(average: nn.Module, model: nn.Module) -> None:
    """As timm's first averages: value by value, floating point or not."""
    pairs = zip(average.state_dict().values(), model.state_dict().values(), strict=True)
    for mean, value in pairs:
        mean.copy_(mean * 0.9 + 0.1 * value.detach())


def by_lists(average: nn.Module, model: nn.Module) -> None:
    """As timm's third: the floating-point values in one call."""
    pairs = zip(average.state_dict().values(), model.state_dict().values(), strict=True)
    found = [pair for pair in pairs if pair[0].is_floating_point()]
    means, values = (list(column) for column in zip(*found, strict=True))
    torch._foreach_lerp_(means, values, weight=0.1)  # pyright: ignore


@pytest.mark.parametrize("update", [over_the_state_dict, by_lists], ids=name_of)
def test_an_average_of_the_state_dict_made_before_the_first_step_follows(
    update: Callable[[nn.Module, nn.Module], None],
) -> None:
    model, plain = reached(ReSprop(0.8, dense=())), net()
    averages = [copy.deepcopy(model), copy.deepcopy(plain)]
    for step in range(2):
        passed(model, batch(step))
        with torch.no_grad():
            for p, q in zip(model.parameters(), plain.parameters(), strict=True):
                p.mul_(1.1)
                q.mul_(1.1)
            for average, of in zip(averages, (model, plain), strict=True):
                update(average, of)
    for found, expected in zip(*(a.parameters() for a in averages), strict=True):
        assert torch.equal(found, expected)
    assert (
        not averages[0]
        .state_dict()["0.elision_grad_output_for_input_grad_reference"]
        .numel()
    )
    passed(averages[0], batch())


def test_state_whose_shape_a_batch_shows_is_no_buffer_and_moves_with_the_model() -> (
    None
):
    model = reached(ReSprop(0.8, dense=()))
    names = [name for name in model.state_dict() if name.endswith("reference")]
    assert len(names) == 3
    assert not any(model.state_dict()[name].numel() for name in names)
    passed(model, batch())
    assert all(model.state_dict()[name].numel() for name in names)
    assert not set(names) & set(dict(model.named_buffers()))
    model.double()
    assert all(model.state_dict()[name].dtype == torch.float64 for name in names)
    passed(model, batch(1, torch.float64))
    assert not [v for v in vars(elision.restore(model)[0]) if "elision" in v]  # pyright: ignore


# --- classes that others change -------------------------------------------------------

Change = Callable[[nn.Sequential], object]

CHANGES: dict[str, tuple[Change, Change]] = {
    "spectral_norm": (
        lambda m: parametrizations.spectral_norm(m[0]),
        lambda m: parametrize.remove_parametrizations(m[0], "weight"),
    ),
    "weight_norm": (
        lambda m: parametrizations.weight_norm(m[5]),
        lambda m: parametrize.remove_parametrizations(m[5], "weight"),
    ),
    "orthogonal": (
        lambda m: parametrizations.orthogonal(m[5]),
        lambda m: parametrize.remove_parametrizations(m[5], "weight"),
    ),
    "spectral_norm, by hooks": (
        lambda m: nn.utils.spectral_norm(m[2]),
        lambda m: nn.utils.remove_spectral_norm(m[2]),
    ),
    "pruning": (
        lambda m: prune.l1_unstructured(m[5], "weight", 0.5),
        lambda m: prune.remove(m[5], "weight"),
    ),
}


@pytest.mark.parametrize("method", [METHODS[0], Dense(), MeProp(0.5)], ids=name_of)
@pytest.mark.parametrize("change", CHANGES)
def test_a_computed_weight_after_elide_and_the_way_back(
    change: str, method: elision.Recipe
) -> None:
    apply, undo = CHANGES[change]
    plain, model = net().eval(), net().eval()
    torch.manual_seed(1)
    apply(plain)
    elision.elide(model, method, engine="torch")
    torch.manual_seed(1)
    apply(model)
    found, expected = passed(model, batch()), passed(plain, batch())
    assert [t.shape for t in found] == [t.shape for t in expected]
    if method.name == "dense":
        torch.testing.assert_close(found, expected)
    elision.restore(model)
    assert_equal(passed(model, batch()), passed(plain, batch()))
    assert [type(m).__name__ for m in model] == [type(m).__name__ for m in plain]
    undo(model)
    undo(plain)
    assert [type(m) for m in model] == [type(m) for m in net()]
    assert_equal(passed(model, batch()), passed(plain, batch()))


def test_a_parametrised_layer_can_be_elided_anew_and_copied() -> None:
    model = elision.elide(net(), Swat(0.5, dense=()), engine="torch")
    parametrizations.weight_norm(model[0])
    assert_equal(passed(copy.deepcopy(model), batch()), passed(model, batch()))
    with pytest.warns(NoEffectWarning, match="somebody else has changed.*dense: 0;"):
        elision.elide(model, Swat(0.8, dense=()), engine="torch")
    assert [name for name, _ in elided_layers(model)] == ["2", "5"]


@pytest.mark.parametrize("change", ["spectral_norm", "weight_norm", "orthogonal"])
def test_a_parametrised_layer_stays_dense_and_one_warning_says_so(change: str) -> None:
    apply, _ = CHANGES[change]
    plain, model = net().eval(), net().eval()
    for m in (plain, model):
        torch.manual_seed(1)
        apply(m)
    with pytest.warns(NoEffectWarning, match="elide the model first"):
        elision.elide(model, Static(0.5, dense=()), engine="torch")
    elision.restore(model)
    assert [type(m).__name__ for m in model] == [type(m).__name__ for m in plain]
    model(batch()).sum().backward()


def test_a_computed_weight_cannot_be_finalised() -> None:
    model = elision.elide(net(), Swat(0.5, dense=()), engine="torch")
    parametrizations.spectral_norm(model[0])
    with pytest.raises(ValueError, match="layer 0: its weight is computed"):
        elision.export.finalize(model)
    assert len(list(elided_layers(model))) == 3


@pytest.mark.parametrize("first", [True, False], ids=["sharded-last", "sharded-first"])
@pytest.mark.parametrize("parts", [True, False], ids=["layers", "root"])
def test_fully_sharded_in_one_process(first: bool, parts: bool, tmp_path: Any) -> None:
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    rendezvous = dist.FileStore(str(tmp_path / "store"), 1)  # pyright: ignore
    dist.init_process_group("gloo", store=rendezvous, rank=0, world_size=1)
    try:
        mesh = dist.device_mesh.init_device_mesh("cpu", (1,))

        def shard(model: nn.Sequential) -> None:
            for layer in model if parts else ():
                if isinstance(layer, nn.Linear | nn.Conv2d):
                    fully_shard(layer, mesh=mesh)
            fully_shard(model, mesh=mesh)

        model, method = net(), Swat(0.5, dense=())
        if first:
            elision.elide(model, method, engine="torch")
            shard(model)
        else:
            shard(model)
            if parts:
                with (
                    pytest.warns(NoEffectWarning, match="FSDP"),
                    pytest.warns(NoEffectWarning, match="changes no layer"),
                ):
                    elision.elide(model, method, engine="torch")
            else:
                elision.elide(model, method, engine="torch")
        dense = parts and not first
        expected = net() if dense else elision.elide(net(), method, engine="torch")
        torch.testing.assert_close(model(batch()), expected(batch()))
        model(batch()).sum().backward()
        elision.restore(model)
        torch.testing.assert_close(model(batch()), net()(batch()))
        assert not list(elided_layers(model))
    finally:
        dist.destroy_process_group()


def test_quantisation_of_torch_leaves_elided_layers_alone() -> None:
    from torch.ao import quantization

    model = elision.elide(net(), Swat(0.5, dense=()), engine="torch").eval()
    quantised = quantization.quantize_dynamic(model, {nn.Linear})
    assert torch.equal(quantised(batch()), model(batch()))
    elision.restore(model)
    quantised = quantization.quantize_dynamic(model, {nn.Linear})
    elision.elide(quantised, Swat(0.5, dense=()), engine="torch")
    assert "5" not in dict(elided_layers(quantised))
    quantised(batch())


# --- a refused elide ------------------------------------------------------------------


def everything(model: nn.Module) -> dict[str, Any]:
    """What a refused elide must not touch."""
    return {
        "types": [(type(m), type(m._buffers)) for m in model.modules()],
        "attributes": [
            {k: v for k, v in vars(m).items() if not k.startswith("_")}
            for m in model.modules()
        ],
        "state": {k: v.clone() for k, v in model.state_dict().items()},
        "hooks": [
            [
                list(m._forward_hooks),
                list(m._forward_pre_hooks),
                list(m._backward_hooks),
            ]
            for m in model.modules()
        ],
        "buffers": [list(m._buffers) for m in model.modules()],
        "ignored": getattr(model, "_ddp_params_and_buffers_to_ignore", None),
    }


def assert_untouched(model: nn.Module, before: dict[str, Any]) -> None:
    now = everything(model)
    states = now.pop("state"), before.pop("state")
    assert now == before
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


REFUSED: dict[str, Callable[[], elision.Recipe]] = {
    "a pattern that does not divide": lambda: NM(3, 7),
    "a budget that cannot be met": lambda: Static(0.999, dense=("5",)),
    "an unknown selector": lambda: Swat(0.5, dense=(":middle",)),
}


@pytest.mark.parametrize("before", [None, *METHODS], ids=name_of)
@pytest.mark.parametrize("refused", REFUSED)
def test_a_refused_elide_leaves_the_model_as_it_was(
    refused: str, before: elision.Recipe | None
) -> None:
    model, twin = net(), net()
    optimizers = []
    for m in (model, twin):
        torch.manual_seed(2)
        if before is not None:
            elision.elide(m, before, engine="torch")
        optimizers.append(torch.optim.SGD(m.parameters(), lr=0.1))
        if before is not None:
            elision.topology.attach(m, optimizers[-1])
        passed(m, batch())
        optimizers[-1].step()
    known = everything(model)
    with pytest.raises(ValueError, match=r".+"):
        elision.elide(model, REFUSED[refused]())
    assert_untouched(model, known)
    for m, optimizer in zip((model, twin), optimizers, strict=True):
        passed(m, batch(1))
        optimizer.step()
    assert_equal(list(model.parameters()), list(twin.parameters()))
