"""A folder of the user's own images: what is read, what is decided, what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from elision.workloads import Dataset, load_dataset
from elision.workloads.data.folder import TEST_EVERY


def fill(folder: Path, mode: str = "RGB", size: tuple[int, int] = (20, 12)) -> None:
    """Two classes of six flat images each."""
    for level, name in ((40, "dark"), (200, "light")):
        (folder / name).mkdir(parents=True)
        for i in range(6):
            image = Image.new("RGB", size, (level, level, level)).convert(mode)
            image.save(folder / name / f"{i}.png")


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("RGB", 3), ("RGBA", 3), ("P", 3), ("L", 1), ("LA", 1), ("1", 1), ("I;16", 1)],
)
def test_images_of_one_small_size_keep_it_and_grey_ones_have_one_channel(
    tmp_path: Path, mode: str, channels: int
) -> None:
    if mode == "I;16":
        fill(tmp_path, "L")
        for file in tmp_path.glob("*/*.png"):
            deep = np.asarray(Image.open(file)).astype(np.uint16) * 257
            Image.fromarray(deep).save(file)
    else:
        fill(tmp_path, mode)
    dataset = load_dataset("folder", tmp_path)
    assert dataset.train_images.shape == (8, channels, 12, 20)
    assert f"{channels}x12x20 (as they are" in dataset.source
    light = dataset.test_images[dataset.test_labels == 1]
    if mode not in ("P", "1"):  # whose few levels are not that of the image
        assert light.unique().tolist() == [200]


def test_images_of_several_or_large_sizes_are_scaled_and_it_is_said(
    tmp_path: Path,
) -> None:
    fill(tmp_path / "large", size=(90, 70))
    fill(tmp_path / "mixed")
    Image.new("RGB", (30, 30)).save(tmp_path / "mixed" / "dark" / "1.png")
    for name in ("large", "mixed"):
        dataset = load_dataset("folder", tmp_path / name)
        assert dataset.image_size == (32, 32)
        assert "3x32x32 (central squares, scaled" in dataset.source
        assert f"every {TEST_EVERY}th of a class for test" in dataset.source
    chosen = load_dataset("folder", tmp_path / "mixed", side=16, channels=1)
    assert chosen.train_images.shape[1:] == (1, 16, 16)


def test_what_is_transparent_is_white_and_photographs_stand_upright(
    tmp_path: Path,
) -> None:
    fill(tmp_path)
    clear = Image.new("RGBA", (20, 12), (0, 0, 0, 0))
    turned = Image.new("RGB", (12, 20), (9, 9, 9))
    exif = turned.getexif()
    exif[0x0112] = 6  # held upright: the file lies on its side
    clear.save(tmp_path / "dark" / "0.png")
    turned.save(tmp_path / "light" / "1.png", exif=exif)
    dataset = load_dataset("folder", tmp_path)
    assert dataset.image_size == (12, 20)
    assert dataset.test_images[0].unique().tolist() == [255]
    assert dataset.train_images[dataset.train_labels == 1][0].unique().tolist() == [9]


@pytest.mark.parametrize("test", ["test", "val", "valid", "validation"])
def test_a_split_of_its_own_is_kept(tmp_path: Path, test: str) -> None:
    fill(tmp_path / "train")
    fill(tmp_path / test)
    dataset = load_dataset("folder", tmp_path)
    assert len(dataset.train_images) == len(dataset.test_images) == 12
    assert f"train/ and {test}/" in dataset.source


def test_a_third_folder_is_said_to_be_unread(tmp_path: Path) -> None:
    for name in ("train", "test", "val"):
        fill(tmp_path / name)
    assert "train/ and test/ (val/ unread)" in load_dataset("folder", tmp_path).source


def test_what_cannot_be_studied_is_named(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"class 'empty' .* too few images"):
        load_dataset("folder", tmp_path)
    (tmp_path / "empty").rmdir()
    wrongs: tuple[dict[str, Any], ...] = (
        {"side": 0},
        {"side": 2.5},
        {"channels": 2},
        {"sides": 3},
    )
    for wrong in wrongs:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            load_dataset("folder", tmp_path, **wrong)
    broken = tmp_path / "dark" / "3.png"
    for content in (b"", b"text", broken.read_bytes()[:50]):
        broken.write_bytes(content)
        with pytest.raises(ValueError, match=r"dark.3\.png: not a readable image"):
            load_dataset("folder", tmp_path)
    broken.unlink()
    for file in (tmp_path / "light").iterdir():
        file.unlink()
    (tmp_path / "light").rmdir()
    with pytest.raises(
        ValueError, match=r"two or more class folders.*found classes dark"
    ):
        load_dataset("folder", tmp_path)


def test_a_loader_of_the_user_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_data.py").write_text(
        "from elision.workloads import load_dataset\n"
        "def few(path, count=20):\n"
        "    return load_dataset('digits').limited(count, 10)\n"
        "def number(path):\n"
        "    return 3\n"
    )
    dataset = load_dataset("my_data:few", count=30)
    assert isinstance(dataset, Dataset)
    assert len(dataset.train_images) == 30
    cases: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("my_data:number", {}, "must return a Dataset, it returned a int"),
        ("my_data:few", {"many": 3}, "unexpected keyword argument 'many'"),
        ("my_data:fwe", {}, "did you mean 'few'"),
        ("no_such_data:load", {}, "cannot be imported: ModuleNotFoundError"),
        ("my_data:few(3", {}, "write package.module:NAME"),
    )
    for name, options, said in cases:
        with pytest.raises(ValueError, match=said):
            load_dataset(name, **options)


def test_an_image_of_more_pixels_than_pillows_bound_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("day", "night"):
        (tmp_path / name).mkdir()
        for i in range(5):
            Image.new("L", (16, 16)).save(tmp_path / name / f"{i}.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)  # a warning, below 400
    with pytest.raises(ValueError, match="not a readable image"):
        load_dataset("folder", tmp_path)
