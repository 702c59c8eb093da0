"""Recipes as plain values, TOML and JSON, and as names on a command line."""

import json
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from operand_recipes import RECIPES, network
from torch import Tensor

import elision
from elision.common.toml import to_toml
from elision.layers.recipe import Recipe, Table
from elision.methods import (
    METHODS,
    SET,
    Swat,
    SwatErk,
    check_recipe,
    is_external,
    make_recipe,
    recipe_from_dict,
    recipe_from_json,
    recipe_from_toml,
)
from elision.operands import TRANSFORMS, Accumulate, Cast, Mask, TopK, Transform
from elision.products import Product

OWN = Recipe(
    "own",
    Table({Product.WEIGHT_GRAD: {"input": TopK(0.5)}}),
    overrides=(
        ("layer1.*", Table({Product.FORWARD: {"weight": Mask(learns_beyond=True)}})),
        (":last", Table()),
    ),
    dense=(":first", 'a "quoted" name\\.*'),
)
ALL = {
    **{f"method {name}": make_recipe(name) for name in METHODS},
    **{f"method {name}, fitted": make_recipe(name, steps=200) for name in METHODS},
    **RECIPES,
    "own": OWN,
    "fixed layers": SET(0.8, layers=((":first", 0.5),), until=7),
}


@pytest.mark.parametrize("recipe", ALL.values(), ids=ALL)
def test_a_recipe_comes_back_from_toml_and_json(recipe: Recipe) -> None:
    for back in (
        recipe_from_toml(recipe.to_toml()),
        recipe_from_json(recipe.to_json()),
        type(recipe).from_toml(recipe.to_toml()),
    ):
        assert back == recipe
        assert type(back) is type(recipe)
        assert str(back) == str(recipe)
        assert hash(back) == hash(recipe)
    assert tomllib.loads(recipe.to_toml())["version"] == 1


def test_a_method_resolved_for_a_model_comes_back() -> None:
    layers = elision.layers.elidable_layers(network())
    recipe = SwatErk(0.5).resolved(layers)
    assert recipe.overrides
    assert recipe_from_toml(recipe.to_toml()) == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "recipe of version 2; this version of elision reads 1"),
        ({"dence": []}, "unknown key of a recipe 'dence' .did you mean 'dense'"),
        ({"name": 3}, "name must be a string, got 3"),
        ({"table": {"forwards": {}}}, "unknown product 'forwards'"),
        ({"table": {"forward": {"grad_output": {"transform": "Keep"}}}}, "reads input"),
        (
            {"table": {"forward": {"weight": {"transform": "TopQ"}}}},
            "did you mean 'TopK'",
        ),
        (
            {"table": {"forward": {"weight": {"transform": "TopK", "share": 1}}}},
            "unknown parameter of transform 'TopK' 'share'",
        ),
        ({"table": {"forward": {"weight": {"transform": "TopK"}}}}, "'sparsity'"),
        (
            {"table": {"forward": {"weight": {"transform": "TopK", "sparsity": 2}}}},
            r"must be a number in \[0, 1\)",
        ),
        ({"table": {"forward": {"weight": 3}}}, "must be a Transform"),
        ({"table": {"forward": {"accumulate": {"chunks": 3}}}}, "accumulate 'chunks'"),
        ({"overrides": [{"layers": "a"}]}, "needs layers and table"),
        ({"method": "swat"}, "unknown key of a method's recipe 'name'"),
    ],
)
def test_a_wrong_file_is_answered_with_the_fault(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        recipe_from_dict({**Recipe("mine").to_dict(), **change})


def test_a_class_of_a_known_name_is_not_written_as_the_known_one() -> None:
    @dataclass(frozen=True)
    class TopK(Transform):
        def apply(self, x: Tensor, state: Any, training: bool) -> Tensor:
            return x

        def __str__(self) -> str:
            return "nothing"

    recipe = Recipe("mine", Table({Product.FORWARD: {"weight": TopK()}}))
    with pytest.raises(ValueError, match=r"not in elision\.operands\.TRANSFORMS"):
        recipe.to_toml()


def test_a_class_of_ones_own_is_written_once_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @dataclass(frozen=True)
    class Halved(Transform):
        times: int = 1

        def apply(self, x: Tensor, state: Any, training: bool) -> Tensor:
            return x / 2**self.times

        def __str__(self) -> str:
            return "halved"

    monkeypatch.setitem(TRANSFORMS, "Halved", Halved)
    recipe = Recipe("mine", Table({Product.FORWARD: {"input": Halved(3)}}))
    assert recipe_from_toml(recipe.to_toml()) == recipe


def test_accumulation_is_a_cell_that_prints_hashes_and_comes_back() -> None:
    narrow = Table({Product.FORWARD: {"accumulate": Accumulate("fp16", chunk=64)}})
    plain = Table({Product.FORWARD: {"accumulate": Accumulate()}})
    assert plain == Table()
    assert not plain
    assert hash(plain) == hash(Table())
    assert "accumulate" not in str(plain)
    assert narrow != Table()
    assert narrow
    assert "fp16 in chunks of 64" in str(narrow).splitlines()[1]
    assert "Accumulate(format='fp16', chunk=64" in repr(narrow)
    recipe = Recipe("narrow", narrow)
    assert recipe_from_toml(recipe.to_toml()) == recipe
    cell = Accumulate(
        "fp8-e5m2", 16, "bf16", rounding="stochastic", wide="fp16", wide_chunk=8, seed=3
    )
    recipe = Recipe("layered", Table({Product.INPUT_GRAD: {"accumulate": cell}}))
    assert recipe_from_toml(recipe.to_toml()) == recipe
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert "at random) in chunks of 16, fp16 in chunks of 8, fp32" in str(recipe)
    with pytest.raises(ValueError, match="must be an Accumulate"):
        Table({Product.FORWARD: {"accumulate": Cast("fp16")}})
    with pytest.raises(ValueError, match=r"Accumulate\(format='fp61'\)"):
        Accumulate("fp61")


def test_toml_text_comes_back() -> None:
    values = {
        "a b": 'quote " and \\ and \x7f and \n and ü',
        "number": [1, 1.0, 1e-7, True, float("inf"), [[], ["x", 2]]],
        "nested": {"deep": {"x": 1}, "empty": {}, "rows": [{"y": 2}, {"z": {"w": 3}}]},
    }
    assert tomllib.loads(to_toml(values)) == values
    with pytest.raises(ValueError, match=r"a\.b: TOML holds no NoneType"):
        to_toml({"a": {"b": None}})


def test_a_recipe_by_name_file_and_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert make_recipe("swat:sparsity=0.5", refresh=3) == Swat(0.5, refresh=3)
    assert make_recipe("w-resprop", steps=500) == make_recipe(
        "w-resprop:warmup_steps=50"
    )
    given = make_recipe("w-resprop:warmup_steps=9", steps=500)
    assert given == make_recipe("w-resprop:warmup_steps=9")
    (tmp_path / "mine.toml").write_text(OWN.to_toml())
    (tmp_path / "mine.json").write_text(Swat(0.5).to_json())
    assert make_recipe("mine.toml", steps=500) == OWN
    assert make_recipe("mine.json") == Swat(0.5)
    assert make_recipe("mine.json", sparsity=0.25) == Swat(0.25)
    (tmp_path / "my_recipes.py").write_text(
        "import elision\nMINE = elision.methods.Swat(0.3)\nOTHER = 3\n"
    )
    assert make_recipe("my_recipes:MINE", steps=9) == replace(Swat(), sparsity=0.3)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("swta", "did you mean 'swat'"),
        ("swat:sparsity", "is not a parameter"),
        ("no_such_module:MINE", "cannot be imported: ModuleNotFoundError"),
        ("broken_recipes:MINE", "cannot be imported: ZeroDivisionError"),
        ("good_recipes:MIEN", "did you mean 'MINE'"),
        ("good_recipes:OTHER", "must be a Recipe, it is a int"),
        ("missing.toml", "recipe file missing.toml: .*No such file"),
        ("empty.toml", "recipe file empty.toml: not a recipe: it has no version"),
        ("empty.json", "recipe file empty.json: Expecting value"),
    ],
)
def test_a_wrong_name_is_answered_in_one_line(
    spec: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_recipes.py").write_text("1 / 0\n")
    (tmp_path / "good_recipes.py").write_text(
        "from elision.methods import Swat\nMINE = Swat()\nOTHER = 3\n"
    )
    for name in ("empty.toml", "empty.json"):
        (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match=message) as caught:
        make_recipe(spec)
    assert "\n" not in str(caught.value)


def test_checking_a_name_imports_and_reads_nothing() -> None:
    assert is_external("no_such_module:MINE")
    assert is_external("folder/none.toml")
    assert not is_external("swat:sparsity")
    check_recipe("no_such_module:MINE")
    check_recipe("folder/none.toml")
    with pytest.raises(ValueError, match="unknown recipe"):
        check_recipe("nothing:sparsity=0.5")


def test_json_is_plain() -> None:
    assert json.loads(Swat(0.5).to_json())["parameters"]["sparsity"] == 0.5
