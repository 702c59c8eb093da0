"""Low-precision training: one table of recipes x workloads, composed with sparsity."""

from pathlib import Path

import pytest
import torch
from operand_recipes import batch, network
from torch import nn

import elision
from elision.layers.recipe import Recipe
from elision.methods import (
    Bf16,
    Dfp16,
    Fp8,
    Fp16,
    Int8,
    MeProp,
    Mx,
    ReSprop,
    RigL,
    SRigL,
    Swat,
    SwatM,
    TopKAST,
    make_recipe,
    recipe_from_toml,
)
from elision.native import shared_object
from elision.operands import KEEP, Cast, Chain, Mask
from elision.products import Product
from elision.training import Execution, RunPlan, TrainResult, checkpoint, train
from elision.workloads import Workload

ALONE: dict[str, Recipe] = {
    "bf16": Bf16(),
    "fp16": Fp16(),
    "fp16-fixed": Fp16(128),
    "fp8": Fp8(history=4),
    "fp8-recent": Fp8(history=4, amax="most-recent", margin=1),
    "fp8-current": Fp8("tensor"),
    "dfp16": Dfp16(),
    "dfp8": Dfp16(8),
    "mxfp8": Mx(),
    "mxfp6": Mx("mxfp6"),
    "mxfp4": Mx("mxfp4", gradient_rounding="stochastic"),
    "nvfp4": Mx("nvfp4", gradients="mxfp8-e5m2"),
    "int8": Int8(),
    "bf16-held": Bf16(updates="bf16"),
    "fp8-held": Fp8("power-of-two", updates="fp16", update_rounding="nearest"),
}

TOGETHER: dict[str, Recipe] = {
    "swat+fp8": Swat(0.8) + Fp8(history=4),
    "swat-refreshed+mx": Swat(0.8, refresh=2) + Mx(),
    "rigl+dfp16": RigL(0.8, every=3, until=12) + Dfp16(),
    "mx+rigl-held": Mx() + RigL(0.8, every=3, until=12) + Bf16(updates="bf16"),
    "top-kast+mx": TopKAST(0.8, backward_sparsity=0.6, every=3) + Mx(),
    "resprop+bf16": ReSprop(0.5) + Bf16(),
    "resprop+int8": ReSprop(0.5) + Int8(),
    "meprop+fp16": MeProp(0.5) + Fp16(),
}

RECIPES = ALONE | TOGETHER


def small(dataset: str, model: str, **settings: object) -> Workload:
    usual = {"epochs": 2, "train_images": 192, "test_images": 24, "batch_size": 48}
    return Workload(name="small", dataset=dataset, model=model, **(usual | settings))  # pyright: ignore[reportArgumentType]


WORKLOADS = {
    "cnn": small("digits", "cnn"),
    "resnet8": small("photo-patches", "resnet8", learning_rate=0.05),
    "transformer": small("photo-patches", "transformer", learning_rate=0.05),
    "lstm": small("digits", "lstm", learning_rate=0.5),
}

PAIRS = [
    *(("cnn", recipe) for recipe in RECIPES),
    *(("resnet8", recipe) for recipe in ("fp8", "swat+fp8", "rigl+dfp16")),
    *(("transformer", recipe) for recipe in ("mxfp8", "int8", "bf16-held")),
    *(("lstm", recipe) for recipe in ("fp16", "swat-refreshed+mx")),
]


def run(workload: str, recipe: str, folder: Path | None = None) -> TrainResult:
    chosen = WORKLOADS[workload]
    # What a run keeps for the backward pass is packed where two of its rooms could meet.
    execution = Execution(memory="bits(4)" if recipe == "rigl+dfp16" else None)
    return train(
        chosen,
        RECIPES[recipe],
        chosen.load_dataset(),
        RunPlan(seed=1),
        execution=execution,
        folder=folder,
    )


@pytest.mark.parametrize(("workload", "recipe"), PAIRS)
def test_it_learns_and_resumes_to_the_last_bit(
    workload: str, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, original = run(workload, recipe), checkpoint.save

    def killed(*args: object) -> None:
        original(*args)  # pyright: ignore[reportArgumentType]
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            run(workload, recipe, tmp_path)
    resumed = run(workload, recipe, tmp_path)
    assert resumed.history == whole.history
    values = resumed.model.state_dict()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, values[name]), name
    assert whole.history[-1].loss < whole.history[0].loss


def steps(recipe: Recipe, engine: str, count: int = 3) -> dict[str, torch.Tensor]:
    """State after some steps on the network whose sums are exact."""
    model = elision.elide(network(), recipe, engine=engine)
    optimizer = torch.optim.SGD(model.parameters(), lr=2**-2)
    elision.topology.attach(model, optimizer)
    for step in range(count):
        x, weight = batch(step)
        optimizer.zero_grad()
        # Small enough that no gradient is beyond float16.
        (model(x / 8) * weight / 2**12).sum().backward()
        optimizer.step()
    return model.state_dict()


@pytest.mark.parametrize("recipe", ALONE)
def test_every_engine_computes_the_same(recipe: str) -> None:
    expected = steps(ALONE[recipe], "torch")
    for engine in ("auto", "native"):
        found = steps(ALONE[recipe], engine)
        for name, value in expected.items():
            assert torch.equal(found[name], value), (engine, name)


@pytest.mark.parametrize("recipe", ["swat+fp8", "rigl+dfp16", "resprop+bf16"])
def test_leaving_zeros_out_changes_no_rounded_value(recipe: str) -> None:
    # One step: later ones differ by the order of sums and what it decides.
    expected = steps(TOGETHER[recipe], "torch", count=1)
    found = steps(TOGETHER[recipe], "native", count=1)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("recipe", RECIPES)
def test_it_goes_to_a_file_and_back(recipe: str) -> None:
    assert recipe_from_toml(RECIPES[recipe].to_toml()) == RECIPES[recipe]


def test_blocks_run_along_the_terms_of_each_sum() -> None:
    # One large value in each block of 32 makes its neighbours zero along one axis only.
    w = torch.full((64, 64), 2.0**-20)
    w[:, ::32] = 1.0
    layer = nn.Linear(64, 64, bias=False)
    with torch.no_grad():
        layer.weight.copy_(w)
    elision.elide(layer, Mx(), engine="torch")
    with elision.record(layer) as trace:
        layer(torch.ones(64, 64, requires_grad=True)).sum().backward()
    read = {product.kind: product.second for product in trace}
    assert int((torch.as_tensor(read[Product.FORWARD]) == 0).sum()) == 64 * 62
    assert not bool((torch.as_tensor(read[Product.INPUT_GRAD]) == 0).any())


def test_a_cell_does_what_the_first_does_then_what_the_second_does() -> None:
    both = Swat(0.5) + Bf16()
    weight = both.table[Product.FORWARD, "weight"]
    assert isinstance(weight, Chain)
    assert weight.links == (
        Swat(0.5).table[Product.FORWARD, "weight"],
        Cast("bf16", overflow="ieee"),
    )
    assert both.name == "swat+bf16"
    assert "raihan2020swat" in both.citation()
    assert "kalamkar2019study" in both.citation()


def test_each_part_leaves_its_own_layers_dense() -> None:
    model = elision.elide(network(), Swat(0.5) + Bf16(dense=(":last",)), "torch")
    first, last = model[0]._elision_plan.table, model[8]._elision_plan.table  # pyright: ignore
    assert first[Product.FORWARD, "weight"] == Cast("bf16", overflow="ieee")
    assert last[Product.FORWARD, "input"] == KEEP
    assert last[Product.FORWARD, "weight"] != KEEP


@pytest.mark.parametrize("text", ["swat:sparsity=0.9+fp8", "swat(0.9) + fp8()"])
def test_a_plus_sign_in_text(text: str) -> None:
    assert make_recipe(text) == Swat(0.9) + Fp8()


def test_schedules_of_parts_fit_the_run() -> None:
    fitted = make_recipe("rigl(0.9)+bf16", steps=400)
    assert fitted == RigL(0.9).fitted(400) + Bf16()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RigL(0.9) + SwatM(0.9), "rigl and swat-m each bring a rule"),
        (
            lambda: Bf16(updates="bf16") + Fp8(updates="bf16"),
            "bf16 and fp8 each round the updates",
        ),
        (lambda: Fp16() + Fp16(2), "fp16 and fp16 each scale the loss"),
        (lambda: make_recipe("swat+fp9"), "unknown recipe 'fp9'"),
        (lambda: make_recipe("swat+fp8", refresh=2), "write refresh with the part"),
        (
            lambda: Fp16(-1),
            r"Fp16\(loss_scale=-1\): must be a number > 0, 'dynamic' or",
        ),
        (lambda: Mx("bf16"), "shares no scale in blocks; give mxfp8"),
        (lambda: Bf16(chunk=8), "name the format of the sums"),
        (lambda: Int8(accumulate="int32"), "give weights='tensor'"),
        (lambda: Bf16(updates="bf15"), "unknown number format 'bf15'"),
        (lambda: Cast("mxfp8", "tensor"), "has scales of its own"),
    ],
)
def test_one_clear_line(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make()  # pyright: ignore[reportCallIssue]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("second", [Mx(), Dfp16(), Fp8()], ids=str)
@pytest.mark.parametrize(
    "mask",
    [
        RigL(0.8, every=2, until=12, dense=()),
        SRigL(0.8, every=2, until=12, dense=()),
        TopKAST(0.8, backward_sparsity=0.5, every=2, dense=()),
    ],
    ids=lambda m: m.key,
)
def test_masks_move_under_rounded_weights(mask: Recipe, second: Recipe) -> None:
    """Both products read the mask, and it is the one that moves without rounding."""
    masks = []
    for recipe in (mask, mask + second):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(40, 32), nn.ReLU(), nn.Linear(32, 8))
        model = elision.elide(net, recipe, engine="torch")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        topology = elision.topology.attach(model, optimizer)
        for step in range(1):
            x = torch.randn(16, 40, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            model(x.requires_grad_()).square().sum().backward()
            optimizer.step()
        masks.append(topology.masks())
    assert masks[0].keys() == masks[1].keys()
    for name, found in masks[1].items():
        assert torch.equal(found, masks[0][name])
    buffers = {n: b for n, b in model.named_buffers() if n.endswith("mask")}
    for name, mask_buffer in buffers.items():
        assert torch.equal(mask_buffer, masks[1][name.partition(".")[0]]), name


def test_every_use_of_a_weight_has_the_mask() -> None:
    chain = (RigL(0.5) + Mx()).table[Product.INPUT_GRAD, "weight"]
    assert isinstance(chain, Chain)
    assert isinstance(chain.links[0], Mask)


@pytest.mark.parametrize("name", ["bf16", "fp8", "mxfp8", "dfp16"])
def test_the_same_layout_in_channels_last(name: str) -> None:
    conv = nn.Conv2d(8, 8, 3, padding=1).to(memory_format=torch.channels_last)
    elision.elide(conv, ALONE[name], engine="torch")
    if name == "mxfp8" and shared_object.unavailable() is not None:
        pytest.skip("torch's way changes the layout")
    x = torch.randn(8, 8, 16, 16).to(memory_format=torch.channels_last)
    assert conv(x).is_contiguous(memory_format=torch.channels_last)
