"""Choices by pattern: which places there are, and the recipe of a combination."""

import pytest
import torch
from torch import nn

import elision
from elision.layers.recipe import Recipe
from elision.methods import RigL, Swat, recipe_from_toml
from elision.products import Product
from elision.study.search.choices import layer_space, read_choice


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.Flatten(),
        nn.Linear(128, 4),
    )


def test_the_first_pattern_that_selects_a_layer_is_its_own() -> None:
    space = layer_space(net(), {":first": ("dense",), "*": ("dense", "4")})
    assert [(p.name, p.specs) for p in space.places] == [
        ("0", ("dense",)),
        ("2", ("dense", "4")),
        ("4", ("dense", "4")),
    ]
    assert space.size == 4


def test_a_layer_without_a_pattern_stays_dense() -> None:
    space = layer_space(net(), {"4": ("2", "8")})
    recipe = space.recipe((0,))
    assert [p.layer for p in space.places] == ["4"]
    assert [name for name, _ in recipe.overrides] == ["4"]


def test_tables_are_those_of_the_methods() -> None:
    space = layer_space(net(), {"*": ("swat:sparsity=0.5", "8a-4w")})
    recipe = space.recipe((0, 0, 1))
    tables = dict(recipe.overrides)
    assert "0" not in tables  # SWAT leaves the first layer dense
    assert tables["2"] == Swat(0.5).table
    assert str(tables["4"][Product.INPUT_GRAD, "weight"]) == "4 bits by channel"
    assert recipe_from_toml(recipe.to_toml()) == recipe


def test_masks_of_one_method_have_a_sparsity_for_each_layer() -> None:
    space = layer_space(
        net(), {"*": ("dense", "rigl:sparsity=0.9", "rigl:sparsity=0.5")}, steps=400
    )
    recipe = space.recipe((0, 1, 2))
    assert isinstance(recipe, RigL)
    assert recipe.layers == (("2", 0.9), ("4", 0.5))
    assert recipe.dense == ("0",)
    assert recipe.every == 10  # fitted to the run, as training fits it
    model = elision.elide(net(), recipe)
    with elision.metered(model) as meter:
        model(torch.ones(2, 3, 8, 8)).sum()
    density = {
        name: work.densities["weight"] for (name, _), work in meter.by_layer.items()
    }
    assert density["0"] == 1
    assert density["2"] == pytest.approx(0.1, abs=0.01)
    assert density["4"] == pytest.approx(0.5, abs=0.01)
    assert recipe_from_toml(recipe.to_toml()) == recipe


def test_masks_and_formats_are_composed() -> None:
    space = layer_space(
        net(), {"*": ("static:sparsity=0.5", "8a-4w", "static:sparsity=0.5+fp8")}
    )
    recipe = space.recipe((0, 1, 2))
    assert recipe.name == "static+searched"
    assert recipe_from_toml(recipe.to_toml()) == recipe
    elision.elide(net(), recipe)


def test_operands_are_chosen_apart() -> None:
    space = layer_space(net(), {"*/weight": ("2", "4"), "*/input": ("4a", "8a")})
    assert [p.name for p in space.places][:2] == ["0/weight", "0/input"]
    table = dict(space.recipe((1, 0, 0, 0, 0, 0)).overrides)["0"]
    assert str(table[Product.FORWARD, "weight"]) == "4 bits by channel"
    assert "uint4" in str(table[Product.FORWARD, "input"])


def test_uniform_needs_the_choice_everywhere() -> None:
    space = layer_space(net(), {":first": ("8",), "*": ("4", "8")})
    assert space.uniform("8") == (0, 1, 1)
    with pytest.raises(ValueError, match="choice '4': not offered at 0"):
        space.uniform("4")


def test_a_recipe_needs_a_choice_for_each_place() -> None:
    with pytest.raises(ValueError, match="3 places needs a choice for each, got 1"):
        layer_space(net(), {"*": ("4",)}).recipe((0,))


def test_dense_choices_make_a_recipe_that_changes_nothing() -> None:
    space = layer_space(net(), {"*": ("dense", "4")})
    assert space.recipe((0, 0, 0)) == Recipe("searched")


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({}, "at least one pattern"),
        (
            {"features.*": ("4",)},
            "pattern 'features.*' selects no layer; layers: 0, 2, 4",
        ),
        ({"*": ()}, "give a sequence"),
        ({"*": "4"}, "give a sequence"),
        ({"*": ("swatt",)}, "choice 'swatt': neither a recipe"),
        ({"*": ("17",)}, "choice '17'"),
        ({"*": ("swat:sparsity=2",)}, "sparsity=2"),
        ({"*": ("fp16",)}, "scales the loss"),
        ({"*": ("dst",)}, "rule for the weights"),
        ({"*": ("dfp16:updates=dfp16",)}, "rounds the updates"),
        ({"*": ("rigl", "set")}, "one method with one setting"),
        ({"*": ("rigl:every=5", "rigl:every=9")}, "one method with one setting"),
        ({"*/weight": ("rigl",)}, "masks are of a layer"),
        ({"*/bias": ("4",)}, "unknown operand"),
        ({":conv1": ("4",)}, "unknown layer selector"),
    ],
)
def test_bad_choices(choices: dict[str, tuple[str, ...]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        layer_space(net(), choices)


def test_bits_alone_are_the_weights() -> None:
    assert read_choice("3").table == read_choice("3w").table
