"""A model elided by the text of the command line."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import elision
from elision.methods import make_recipe


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.Linear(6, 4))


@pytest.mark.parametrize(
    "spec",
    ["swat:sparsity=0.5", "swat(0.5, refresh=3)", "rigl:sparsity=0.5", "mine.toml"],
)
def test_text_is_the_recipe_that_it_names(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(elision.methods.MeProp(0.5).to_toml())
    by_name = elision.elide(small(), spec, engine="torch")
    by_object = elision.elide(small(), make_recipe(spec), engine="torch")
    for model in (by_name, by_object):
        torch.manual_seed(1)
        model(torch.randn(5, 6)).square().sum().backward()
    for one, other in zip(by_name.parameters(), by_object.parameters(), strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one.grad, other.grad)  # pyright: ignore[reportArgumentType]


def test_text_that_names_nothing_leaves_the_model_plain() -> None:
    model = small()
    for spec, said in (
        ("swatt", "did you mean 'swat'"),
        ("swat:sparsity=2", r"must be a number in \[0, 1\)"),
    ):
        with pytest.raises(ValueError, match=said):
            elision.elide(model, spec)
    with pytest.raises(TypeError, match="must be a Recipe or text, got int"):
        elision.elide(model, 3)  # pyright: ignore[reportArgumentType]
    assert type(model[0]) is nn.Linear


def test_a_fresh_process_knows_the_names() -> None:
    code = (
        "import elision; from torch import nn; "
        "model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)); "
        "elision.elide(model, 'swat:sparsity=0.9'); print(type(model[1]).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "ElidedLinear"
