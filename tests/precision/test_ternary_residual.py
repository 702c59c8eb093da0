"""Ternary residual networks: what is enabled, counted, saved, restored, refused."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import elision
from elision.formats.ternary_blocks import rows_of
from elision.native.shared_object import unavailable
from elision.precision import load_ternary, save_ternary, ternary_residual
from elision.precision.calibration import Calibration
from elision.precision.ternary_counts import PUBLISHED, fewer_multiplications, smaller
from elision.precision.ternary_layers import InputGrid


def network(seed: int = 0) -> nn.Sequential:
    """Convolutions with groups, a batch norm and a linear layer, and its statistics."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, stride=2, padding=1, groups=2),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, groups=32),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )
    model[1].momentum = None  # the average so far: that of these images
    model(images())
    model.eval()
    with torch.no_grad():  # every class is the answer to some images
        model[8].bias -= model(images()).mean(0)
    return model


def images(seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(64, 3, 8, 8, generator=generator)


def test_residuals_are_nested() -> None:
    model = ternary_residual(network(), images(), None, budget=2.5)
    before = {n: t.counts for n, t in model.ternary._terms()}
    least = {n: torch.zeros_like(c) for n, c in before.items()}
    for share in (0.0, 0.1, 0.35, 0.8, 1.0):
        model.set_residuals(share)
        total = 0
        for name, terms in model.ternary._terms():
            assert (terms.counts >= least[name]).all()
            least[name] = terms.counts
            total += int((terms.counts - 1).sum())
        assert total == round(share * model.ternary.given)
    for name, counts in before.items():
        assert torch.equal(least[name], counts)


def test_output_is_that_of_rounded_inputs_and_decoded_weights() -> None:
    plain, x = network(), images()
    model = ternary_residual(copy.deepcopy(plain), x, None, budget=2, batch_norm="kept")
    own = model[0]._elision_ternary
    grid = InputGrid.of(x)
    weight = own.blocks.decode(own.counts)
    assert torch.equal(rows_of(model[0].weight), weight)
    expected = F.conv2d(grid.rounded(x), model[0].weight, None, padding=1)
    assert torch.equal(model[0](x), expected)
    # The state dict is a plain model's.
    plain.load_state_dict(model.state_dict())
    assert torch.equal(plain[0].weight, model[0].weight)


def test_more_terms_bring_the_output_nearer() -> None:
    plain, x = network(), images()
    expected = plain(x)
    errors = []
    for budget in (1, 1.5, 2, 3, 5):
        model = ternary_residual(
            network(), x, None, budget=budget, activation_bits=None, batch_norm="kept"
        )
        errors.append((model(x) - expected).norm().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1 * expected.norm().item()


@pytest.mark.parametrize("margin", [0.0, 1.0])
def test_the_search_meets_the_drop_with_few_terms(margin: float) -> None:
    x = images()
    model = ternary_residual(network(), x, drop=0.1, margin=margin)
    total = model.ternary.counts()
    assert 1 < total.mean_terms < 6
    flipped = (model(x).argmax(1) != network()(x).argmax(1)).double()
    error = flipped.std(unbiased=False) / 8
    assert flipped.mean() + margin * error <= 0.1
    # Where a trial had fewer terms than were chosen, it failed.
    for given, accuracy in model.ternary.tried:
        spread = (accuracy * (1 - accuracy)) ** 0.5 / 8
        if given < model.ternary.given:
            assert 1 - accuracy + margin * spread > 0.1


def test_the_standard_error_of_what_is_lost() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    plain, changed = torch.eye(2)[labels], torch.eye(2)[[0, 1, 1, 1]]
    data = Calibration.of(nn.Identity(), (plain, labels))
    lost, error = data.lost(lambda x: changed)  # pyright: ignore[reportArgumentType]
    assert lost == 0.5
    assert error == pytest.approx((2 - 4 / 4) ** 0.5 / 4)


def test_counts_by_formula() -> None:
    torch.manual_seed(0)
    model = ternary_residual(nn.Linear(256, 32), torch.randn(9, 256), None, budget=2.25)
    counts = model.ternary.counts()
    assert counts.blocks == 32 * 4
    assert counts.mean_terms == 2.25
    assert counts.fewer == pytest.approx(fewer_multiplications(64, 2.25))
    assert counts.smaller == pytest.approx(smaller(64, 2.25))
    codes = model[0] if isinstance(model, nn.Sequential) else model
    own = codes._elision_ternary
    by_hand = sum(
        int(own.blocks.codes[t, k, b].count_nonzero())
        for k in range(32)
        for b in range(4)
        for t in range(int(own.counts[k, b]))
    )
    assert counts.additions == by_hand


def test_a_short_last_block_counts_its_own_codes() -> None:
    model = ternary_residual(nn.Linear(70, 4), torch.randn(9, 70), None, budget=1)
    counts = model.ternary.counts()
    assert counts.multiplications == 4 * 2
    assert counts.bits == 4 * (70 * 2 + 2 * 8)


@pytest.mark.parametrize("row", PUBLISHED, ids=str)
def test_published_factors_follow_from_the_formulas(row: Any) -> None:
    assert fewer_multiplications(row.block, row.terms) == pytest.approx(
        row.fewer, rel=0.03
    )
    if row.smaller is not None:
        assert round(smaller(row.block, row.terms), 1) == row.smaller


def test_restored_to_the_last_bit() -> None:
    plain = network()
    model = ternary_residual(copy.deepcopy(plain), images(), None, budget=2)
    assert not torch.equal(model[1].running_mean, plain[1].running_mean)
    restored = model.ternary.restore()
    assert restored is model
    assert not hasattr(model, "ternary")
    assert [type(m) for m in model] == [type(m) for m in plain]
    for name, value in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert torch.equal(model(images()), plain(images()))


@pytest.mark.parametrize("scales", ["8-bit", "exact"])
def test_saved_and_loaded(tmp_path: Path, scales: Any) -> None:
    model = ternary_residual(network(), images(), None, budget=2.5, scales=scales)
    path = tmp_path / "ternary.safetensors"
    model.set_residuals(0.3)
    save_ternary(model, path)
    loaded = load_ternary(network(5), path)
    for share in (1.0, 0.7, 0.3, 0.0):
        model.set_residuals(share)
        loaded.set_residuals(share)
        assert torch.equal(loaded(images()), model(images()))
    with pytest.raises(ValueError, match="are not in a ternary file"):
        loaded.ternary.restore()


def test_size_on_disk(tmp_path: Path) -> None:
    layer = nn.Linear(4096, 256, bias=False)
    model = ternary_residual(layer, torch.randn(8, 4096), None, budget=2.4)
    path = tmp_path / "ternary.safetensors"
    save_ternary(model, path)
    bits = model.ternary.counts().bits
    assert bits == pytest.approx(2.4 * (2 + 8 / 64) * 4096 * 256, rel=1e-4)
    # Beyond the formula: a byte for each block's number of terms, and the header.
    beyond = path.stat().st_size - bits / 8
    assert 0 <= beyond <= 256 * 64 + 1024


def test_copied_and_pickled() -> None:
    x = images()
    model = ternary_residual(network(), x, None, budget=2)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.ternary.model is other
        other.set_residuals(0)
        assert not torch.equal(other[0].weight, model[0].weight)


@pytest.mark.skipif(unavailable() is not None, reason="no compiler for the kernels")
def test_the_kernel_gives_the_same_outputs() -> None:
    x = images()
    made = [
        ternary_residual(network(), x, None, budget=2, engine=engine)
        for engine in ("torch", "native")
    ]
    for share in (1.0, 0.4, 0.9):
        for model in made:
            model.set_residuals(share)
        plain, native = (model(x) for model in made)
        # An 8-bit input may round to its neighbour where two sums differ in the last bit.
        assert (plain - native).abs().max() < 1e-2 * plain.abs().max()
        first = [model[0](x) for model in made]
        torch.testing.assert_close(*first, rtol=1e-5, atol=1e-5)
    value = x.clone()
    value[0, 0, 0, 0] = float("nan")
    assert made[1](value)[0].isnan().all()


def test_the_input_grid() -> None:
    grid = InputGrid.of(torch.tensor([-1.0, 0.5]))
    assert (grid.zero, grid.step) == (0, pytest.approx(1 / 127))
    assert InputGrid.of(torch.zeros(3)).rounded(torch.zeros(3)).tolist() == [0.0] * 3
    x = torch.linspace(0, 2, 999)
    grid = InputGrid.of(x)
    assert (grid.rounded(x) - x).abs().max() <= 0.5001 * grid.step
    assert grid.rounded(torch.tensor([0.0, float("nan"), 9.0]))[1].isnan()


def test_zero_weights_and_shared_weights() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8))
    model[2].weight = model[1].weight
    shared = model[1].weight.detach().clone()
    nn.init.zeros_(model[0].weight)
    ternary_residual(model, torch.randn(9, 8), None, budget=2)
    assert not model[0].weight.any()
    assert torch.equal(model[1].weight, shared)
    assert [row["layer"] for row in model.ternary.rows()] == ["0"]


def test_labels_and_a_score_of_ones_own() -> None:
    x = images()
    labels = torch.arange(64) % 10
    right = (network()(x).argmax(1) == labels).float().mean().item()
    assert Calibration.of(network(), (x, labels)).accuracy == pytest.approx(right)
    halves = [(x[:30], labels[:30]), (x[30:], labels[30:])]
    assert Calibration.of(network(), halves).accuracy == pytest.approx(right)
    model = ternary_residual(network(), x, 0.0, score=lambda model: 0.5)
    assert model.ternary.given == 0


def test_the_report() -> None:
    model = ternary_residual(network(), images(), None, budget=2)
    assert "times fewer multiplications" in str(model.ternary)
    shares = model.ternary.curve((images(), torch.zeros(64)), (0, 0.5, 1))
    assert [row["share"] for row in shares] == [0, 0.5, 1]
    assert model.ternary.enabled == model.ternary.given
    assert model.ternary.to_dict()["counts"]["mean_terms"] == pytest.approx(2, abs=0.01)


def elided() -> Any:
    model = elision.elide(network(), elision.methods.Static(0.5))
    return ternary_residual(model, images())


def twice() -> Any:
    model = ternary_residual(network(), images(), None, budget=1)
    return ternary_residual(model, images())


def not_finite() -> Any:
    model = network()
    with torch.no_grad():
        model[0].weight[0] = float("inf")
    return ternary_residual(model, images())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ternary_residual(nn.ReLU(), images()), "no layer of ReLU to change"),
        (
            lambda: ternary_residual(network(), images(), dense=("*",)),
            r"4 plain Conv2d and Linear layers",
        ),
        (
            lambda: ternary_residual(network(), images(), 0.0, terms=1),
            r"is not met: with 1 terms .* falls by 0\.\d+ \+- .* is 0\.\d+ too much",
        ),
        (lambda: ternary_residual(network(), images(), 1.5), r"drop=1.5\): must be"),
        (lambda: ternary_residual(network(), images(), budget=2), "give either drop"),
        (
            lambda: ternary_residual(network(), images(), None, budget=9),
            r"budget=9\): must be a number in \[1, 6\]",
        ),
        (lambda: ternary_residual(network(), images()[:0]), "no examples"),
        (lambda: ternary_residual(network(), images() / 0), "a NaN or an infinity"),
        (lambda: ternary_residual(network(), [{"x": 1}]), "got a dict"),
        (elided, "is elided"),
        (twice, "is ternary already"),
        (not_finite, "layer 0: its weight holds a NaN"),
        (
            lambda: ternary_residual(network(), images(), block=0),
            r"block=0\): must be an integer >= 1",
        ),
        (
            lambda: network_with_share(1.2),
            r"set_residuals\(share=1.2\): must be a number in \[0, 1\]",
        ),
        (lambda: save_ternary(network(), "x"), "Sequential is not ternary"),
    ],
)
def test_bad_input(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def network_with_share(share: float) -> None:
    ternary_residual(network(), images(), None, budget=1).set_residuals(share)


def test_a_drop_that_is_not_met_leaves_the_model_as_it_was() -> None:
    model, plain = network(), network()
    with pytest.raises(ValueError, match="is not met"):
        ternary_residual(model, images(), 0.0, terms=1)
    for name, value in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert type(model[0]) is nn.Conv2d


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ternary.safetensors"
    save_ternary(ternary_residual(network(), images(), None, budget=1), path)
    with pytest.raises(ValueError, match="holds a layer '0' with 32 rows"):
        load_ternary(nn.Sequential(nn.Linear(3, 3)), path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="not a complete ternary network file"):
        load_ternary(network(), path)
    with pytest.raises(FileNotFoundError):
        load_ternary(network(), tmp_path / "none")
