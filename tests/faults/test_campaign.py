"""Campaigns: what they count, that they can be repeated, continued and shared out."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from elision.faults import Fault, Normalised, campaign, learned_ranges, restricted
from elision.faults.intervals import clopper_pearson, sample_size, stratified, wilson


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    x, y = torch.randn(200, 16), torch.randint(4, (200,))
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, (x, y)


FAULTS = {
    "weight": Fault(),
    "int8": Fault(format="int8"),
    "scale": Fault(site="scale", format="int8"),
    "burst": Fault(length=4),
    "stuck": Fault(action="stuck-at-1"),
    "rate": Fault(rate=1e-4),
    "transient": Fault(lifetime="transient"),
    "csr": Fault(site="index", storage="csr"),
    "bitmap": Fault(site="bitmap", storage="bitmap"),
    "activation": Fault(site="activation"),
    "activation in fp8": Fault(site="activation", format="fp8-e4m3"),
    "activation in int8": Fault(site="activation", format="int8"),
    "both": (Fault(), Fault(site="activation")),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_campaign_repeats_and_leaves_the_model_as_it_was(trained, name):
    model, data = trained
    before = copy.deepcopy(model.state_dict())
    first = campaign(model, data, FAULTS[name], trials=60, block=30)
    again = campaign(model, data, FAULTS[name], trials=60, block=30)
    assert first.to_dict() == again.to_dict()
    assert len(first.trials) == 60
    assert sum(
        first.rate(o).estimate for o in ("masked", "silent", "critical", "detected")
    ) == (pytest.approx(1))
    assert model.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_another_seed_draws_other_faults(trained):
    fault = Fault(bits=(30,))
    found = [campaign(*trained, fault, trials=60, seed=seed) for seed in range(2)]
    assert found[0].trials.changed != found[1].trials.changed


def test_flips_of_high_exponent_bits_are_what_matters(trained):
    found = campaign(*trained, Fault(), trials=32 * 30)
    rows = {row["stratum"]: row for row in found.rows()}
    low = sum(rows[f"bit {b} of 32"]["changed %"] for b in range(16))
    assert rows["bit 30 of 32"]["changed %"] > 10 > low


def test_strata_estimate_what_plain_draws_do(trained):
    strata = campaign(*trained, Fault(format="bf16"), trials=1600, block=400)
    plain = campaign(
        *trained, Fault(format="bf16"), trials=1600, block=400, strata=None
    )
    assert abs(strata.changed - plain.changed) < 0.01
    assert strata.wrong.low <= plain.wrong.high
    assert plain.wrong.low <= strata.wrong.high


def test_a_campaign_goes_on_in_its_folder_and_refuses_another_model(trained, tmp_path):
    model, data = trained
    whole = campaign(model, data, Fault(), trials=90, block=30)
    campaign(model, data, Fault(), trials=30, block=30, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    rest = campaign(model, data, Fault(), trials=90, block=30, folder=tmp_path)
    assert rest.to_dict() == whole.to_dict()
    with pytest.raises(ValueError, match="another model and data"):
        campaign(nn.Linear(16, 4), data, Fault(), trials=30, block=30, folder=tmp_path)
    with pytest.raises(ValueError, match="another faults, seed"):
        campaign(
            model, data, Fault(length=2), trials=30, block=30, seed=3, folder=tmp_path
        )


def test_any_number_of_workers_gives_one_result(trained):
    alone = campaign(*trained, Fault(), trials=40, block=10)
    shared = campaign(*trained, Fault(), trials=40, block=10, workers=2)
    assert alone.to_dict() == shared.to_dict()


def test_trials_end_when_the_interval_is_narrow_enough(trained):
    found = campaign(*trained, Fault(), trials=5000, width=0.1)
    assert len(found.trials) < 5000
    assert found.wrong.width <= 0.1


def test_a_restriction_of_ranges_tells_of_faults(trained):
    model, data = trained
    ranges = learned_ranges(model, data[0])
    faults = Fault(bits=(30,))
    plain = campaign(model, data, faults, trials=100)
    kept = campaign(model, data, faults, trials=100, defence=_restriction(ranges))
    assert kept.rate("detected").estimate > plain.rate("detected").estimate
    assert kept.changed < plain.changed


def _restriction(ranges):
    return lambda model: restricted(model, ranges)


def test_the_four_measures_disagree_on_pruned_and_narrow_networks():
    dense = Normalised.of(0.0098, stored_bits=32_000, surviving=1000, work=1.0)
    pruned = Normalised.of(0.0098, stored_bits=10_000, surviving=200, work=0.2)
    assert dense.per_flip == pruned.per_flip
    assert dense.per_stored_bit > pruned.per_stored_bit
    assert dense.per_surviving_weight < pruned.per_surviving_weight
    assert dense.per_inference > 5 * pruned.per_inference


@pytest.mark.parametrize("method", [wilson, clopper_pearson])
@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5])
def test_an_interval_covers_a_known_rate(method, rate):
    counts = np.random.default_rng(0).binomial(200, rate, 1000)
    covered = [
        low <= rate <= high for _, low, high in (method(int(c), 200) for c in counts)
    ]
    assert np.mean(covered) > 0.93 if method is wilson else 0.95


def test_the_interval_of_strata_covers_a_known_rate():
    generator = np.random.default_rng(1)
    rates, shares = np.array([0.5, 0.05, 0.0, 0.0]), np.array([0.1, 0.2, 0.3, 0.4])
    covered = 0
    for _ in range(1000):
        counts = generator.binomial(50, rates)
        found = stratified(
            [(w, wilson(int(c), 50)) for w, c in zip(shares, counts, strict=True)]
        )
        covered += found.low <= rates @ shares <= found.high
    assert covered > 950


def test_the_sample_size_is_that_of_the_formula():
    assert sample_size(10**9, 0.01) == 9604  # z²/(4·e²)
    assert sample_size(100, 0.01) == 99


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 0}, r"campaign\(trials=0\)"),
        ({"critical": 2}, r"campaign\(critical=2\)"),
        ({"method": "wald"}, "must be 'wilson'"),
        ({"strata": "bits"}, "strata='bits'"),
        ({"width": 0}, r"campaign\(width=0\)"),
        ({"faults": ()}, "must name a fault"),
        ({"faults": Fault(layers="conv*")}, "no such layer; it has 0, 2"),
        ({"faults": Fault(site="activation", layers="conv*")}, "no such layer runs"),
        ({"faults": Fault(site="scale")}, "nothing there to change"),
        ({"faults": Fault(bits=(40,))}, "words have 32 bits"),
        ({"faults": Fault(site="gradient")}, "only while a network is trained"),
    ],
)
def test_wrong_input_is_named(trained, options, message):
    with pytest.raises(ValueError, match=message):
        campaign(*trained, options.pop("faults", Fault()), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"site": "wieght"}, "unknown site 'wieght'.*did you mean 'weight'"),
        ({"format": "int8", "bits": (8,)}, r"\[0, 8\)"),
        ({"site": "bitmap"}, "storage must be bitmap"),
        ({"rate": 2}, r"rate=2"),
        ({"lifetime": "forever"}, "lifetime='forever'"),
        ({"action": "flop"}, "action='flop'"),
    ],
)
def test_a_wrong_fault_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        Fault(**options)
