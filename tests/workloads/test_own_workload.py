"""A workload of the user's own: network, optimiser, settings and file."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from elision.common.toml import to_toml
from elision.workloads import WORKLOADS, Workload, find_workload, make_model

NETWORKS = """
from torch import nn

def head(inputs, outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs))

class Plain(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 10))

def timm_like(num_classes, in_chans=3, img_size=None):
    return head(in_chans * img_size[0] * img_size[1], num_classes)

def ours_like(*, in_channels, classes, image_size, width=4):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(in_channels * image_size[0] * image_size[1], width),
        nn.ReLU(), nn.Linear(width, classes),
    )

def open_ended(**options):
    return head(64, options["num_classes"])

def lazy(num_classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))

def tuples(num_classes):
    class Two(nn.Linear):
        def forward(self, x):
            return super().forward(x.flatten(1)), x
    return Two(64, num_classes)

def wide():
    return head(64, 12)

def narrow():
    return head(63, 10)

def still():
    return nn.Flatten()

def broken(num_classes):
    raise RuntimeError("out of luck")

def needy(num_classes, secret):
    return head(64, num_classes)

def number():
    return 3

built = head(64, 10)
"""


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_nets.py").write_text(NETWORKS)
    return tmp_path


def own(name: str, **settings: object) -> Workload:
    values = {"dataset": "digits", "model": f"my_nets:{name}", "train_images": 64}
    return Workload.from_dict(values | settings)


@pytest.mark.parametrize(
    "name",
    ["Plain", "timm_like", "ours_like", "ours_like(width=2)", "open_ended", "lazy"],
)
@pytest.mark.usefixtures("networks")
def test_a_network_is_called_with_what_it_takes(name: str) -> None:
    workload = own(name)
    dataset = workload.load_dataset()
    torch.manual_seed(3)
    model = workload.make_model(dataset)
    images, _ = next(workload.test_batches(dataset))
    assert model(images).shape == (len(images), 10)
    torch.manual_seed(3)
    again = workload.make_model(dataset)
    for first, second in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tuples", "must answer with scores of 10 classes, .* it gave a tuple"),
        ("wide", r"scores of 10 classes, .* it gave \(2, 12\) for 2 images"),
        ("narrow", "shapes cannot be multiplied"),
        ("still", "has no parameter to train"),
        ("broken", r"called with \(num_classes=10\): RuntimeError: out of luck"),
        ("needy", "missing 1 required positional argument: 'secret'"),
        ("number", "must build an nn.Module, it gave a int"),
        ("built", "is a network; name the class"),
        ("palin", "unknown model of my_nets 'palin'"),
        ("Plain(3)", r"write my_nets:Plain\(option=value"),
    ],
)
@pytest.mark.usefixtures("networks")
def test_a_network_that_does_not_fit_is_named_in_one_line(name: str, said: str) -> None:
    dataset = own("Plain").load_dataset()
    with pytest.raises(ValueError, match=said) as caught:
        own(name).make_model(dataset)
    assert "\n" not in str(caught.value)


def test_a_text_that_names_no_network_says_what_could_stand_there() -> None:
    for text in ("no_such_library:resnet18", "my/nets:Net"):
        with pytest.raises(ValueError, match=r"timm:NAME, .* or package\.module:NAME"):
            make_model(text)


class Net(nn.Sequential):
    """A network of this module."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, num_classes))


def test_a_class_is_kept_by_its_address() -> None:
    workload = Workload(name="mine", dataset="digits", model=Net)  # pyright: ignore[reportArgumentType]
    assert workload.model == f"{__name__}:Net"
    assert Workload.from_dict(workload.to_dict()) == workload
    with pytest.raises(ValueError, match="stands in a module by its own name"):
        Workload(name="mine", dataset="digits", model=lambda: Net(10))  # pyright: ignore[reportArgumentType]


def test_changed_settings_name_themselves() -> None:
    base = find_workload("fashion-resnet8")
    assert base.changed() is base
    assert base.changed(batch_size=base.batch_size) is base
    assert base.changed(batch=8).name == "fashion-resnet8-batch-size-8"
    assert base.changed(name="mine", lr=0.3).name == "mine"
    other = base.changed(
        dataset="folder(side=16)", model="timm:resnet18(drop_rate=0.1)"
    )
    assert (other.dataset, other.dataset_options) == ("folder", {"side": 16})
    assert (other.model, other.model_options) == ("timm:resnet18", {"drop_rate": 0.1})
    assert other.train_images is None
    wide = find_workload("digits-mlp").changed(model="resnet8:width=8")
    assert (wide.model, wide.model_options) == ("resnet8", {"width": 8})


def test_the_optimisers() -> None:
    model = nn.Linear(2, 2)
    base = find_workload("digits-cnn")
    adamw = base.changed(optimizer="adamw", momentum=0.8, weight_decay=0.1)
    made = adamw.make_optimizer(model)
    assert isinstance(made, torch.optim.AdamW)
    assert made.defaults["betas"] == (0.8, 0.999)
    assert made.defaults["weight_decay"] == 0.1
    assert base.changed(momentum=0.0).make_optimizer(model).defaults["momentum"] == 0
    for wrong in ({"optimizer": "lion"}, {"optimizer": "adamw", "nesterov": True}):
        with pytest.raises(ValueError, match="optimizer"):
            replace(base, **wrong)


def test_every_workload_is_read_again_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "w.toml"
    own = Workload(
        name="mine",
        dataset="folder",
        model="timm:resnet18",
        dataset_options={"side": 16},
        data="some where",
        optimizer="adamw",
    )
    for workload in (*WORKLOADS.values(), own):
        path.write_text(to_toml({"workload": workload.to_dict()}))
        assert find_workload(str(path)) == workload


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("", r"it has no table \[workload\]"),
        ("[workload]\ndataset = 'digits'", "model is missing"),
        ("[workload]\ndatset = 'digits'", "did you mean 'dataset'"),
        ("[workload]\nlr = 0.1\nlearning_rate = 0.2", "learning_rate is given twice"),
        ("[workload]\npreset = 'digit-cnn'", "did you mean 'digits-cnn'"),
        ("[workload]\npreset = 'digits-cnn'\nbatch = 0", "batch_size=0"),
        ("[workload", "w.toml: Expected"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, table: str, said: str) -> None:
    path = tmp_path / "w.toml"
    path.write_text(table)
    with pytest.raises(ValueError, match=said) as caught:
        find_workload(str(path))
    assert str(caught.value).startswith(f"workload file {path}: ")
    with pytest.raises(ValueError, match=r"none\.toml: No such file"):
        find_workload(str(tmp_path / "none.toml"))
