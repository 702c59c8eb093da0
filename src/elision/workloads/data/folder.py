"""Any folder of class folders of images, in whatever formats Pillow reads."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from elision.common.checks import integer, one_of
from elision.workloads.data.base import Dataset

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["load_folder"]

#: Side to which images of several sizes are brought (own choice: CIFAR's).
SIDE = 32
#: Largest height and width at which images of one size stay as they are (own choice).
LARGEST = 64
#: Without a folder for test, every fifth file of a class is a test image.
TEST_EVERY = 5
#: Names of the folder beside ``train`` that holds the test images, the first that is there.
TEST_FOLDERS = ("test", "val", "valid", "validation")

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
)

#: Modes of Pillow for grey images, besides those of 16 and 32 bits, which begin with I.
_GREY = ("1", "L", "LA", "F")
#: Number of the EXIF tag whose values above 4 say that height and width are exchanged.
_ORIENTATION = 0x0112

_LAYOUT = (
    "<class>/<image>, or train/<class>/<image> and test/<class>/<image> "
    "(val, valid and validation are names of test, too)"
)


def load_folder(
    path: Path | None = None, *, side: int | None = None, channels: int | None = None
) -> Dataset:
    """Your own images: a folder with one folder per class.

    The folder holds either ``<class>/<image>``, of which every fifth image in the order
    of names is for test, or ``train/<class>/<image>`` and ``test/<class>/<image>``.

    Images that all have one size of at most 64x64 keep it; others are cropped to their
    central square and scaled to 32x32. They have one channel if all of them are grey,
    else three. A photograph is turned as its camera held it, what is transparent becomes
    white, and an animation is its first frame. ``source`` says what was decided.

    Args:
        path: the folder.
        side: height and width to bring every image to.
        channels: 1 or 3.

    Raises:
        ValueError: there is no path, fewer than two classes, a class without images, a
            file that is not an image, or an argument out of range.
        FileNotFoundError: the folder does not exist.
    """
    if side is not None:
        integer("folder", "side", side)
    one_of("folder", "channels", channels, (None, 1, 3))
    if path is None:
        raise ValueError(f"data set 'folder' needs a path: a folder with {_LAYOUT}")
    if not path.is_dir():
        raise FileNotFoundError(f"data set 'folder': {path} is not a folder")
    split = _split(path)
    _check(path, split)
    form = _form(_files(split), side, channels)
    train_images, train_labels = _read(split.train, form)
    test_images, test_labels = _read(split.test, form)
    pixels = train_images.to(torch.float32)
    return Dataset(
        name="folder",
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        class_names=tuple(split.train),
        mean=tuple(pixels.mean((0, 2, 3)).tolist()),
        # A folder of flat images has no deviation to divide by.
        std=tuple(pixels.std((0, 2, 3)).clamp(min=1.0).tolist()),
        source=f"images in {path}, {form}; {split.how}",
    )


Files = dict[str, list[Path]]


class _Split(NamedTuple):
    """Files of each class, for training and for test, and how they were told apart."""

    train: Files
    test: Files
    how: str


class _Form(NamedTuple):
    """The one form of all images: channels, height, width, and whether they were scaled."""

    channels: int
    height: int
    width: int
    scaled: bool

    def __str__(self) -> str:
        size = f"{self.channels}x{self.height}x{self.width}"
        how = "central squares, scaled" if self.scaled else "as they are"
        return f"{size} ({how}, {'grey' if self.channels == 1 else 'RGB'})"


def _split(path: Path) -> _Split:
    """The files of each class in the order of names."""
    tests = [name for name in TEST_FOLDERS if (path / name).is_dir()]
    if (path / "train").is_dir() and tests:
        first, *unread = tests
        how = f"train/ and {first}/"
        if unread:
            how += f" ({', '.join(f'{name}/' for name in unread)} unread)"
        train, test = _classes(path / "train"), _classes(path / first)
        return _Split(train, test, how)
    every = _classes(path)
    test = {name: files[::TEST_EVERY] for name, files in every.items()}
    train = {
        name: [f for i, f in enumerate(files) if i % TEST_EVERY]
        for name, files in every.items()
    }
    return _Split(train, test, f"every {TEST_EVERY}th of a class for test")


def _classes(path: Path) -> Files:
    folders = sorted(f for f in path.iterdir() if f.is_dir() and f.name[0] != ".")
    return {
        folder.name: sorted(filter(_is_image, folder.iterdir())) for folder in folders
    }


def _is_image(file: Path) -> bool:
    # The copies that macOS leaves beside files begin with a dot and hold no image.
    return file.suffix.lower() in SUFFIXES and file.name[0] != "."


def _check(path: Path, split: _Split) -> None:
    """Refuse what is no data set of several classes, naming what is missing."""
    train, test, _ = split
    if len(train) < 2 or list(train) != list(test):
        raise ValueError(
            f"data set 'folder': {path} must hold two or more class folders, {_LAYOUT}; "
            f"found classes {', '.join(train) or 'none'} for training and "
            f"{', '.join(test) or 'none'} for test"
        )
    for files in (train, test):
        for name, members in files.items():
            if not members:
                raise ValueError(
                    f"data set 'folder': class {name!r} in {path} has too few images "
                    f"(2 at least; known suffixes: {', '.join(sorted(SUFFIXES))})"
                )


def _files(split: _Split) -> Iterator[Path]:
    for classes in (split.train, split.test):
        for members in classes.values():
            yield from members


def _form(files: Iterator[Path], side: int | None, channels: int | None) -> _Form:
    """The form of all images, from the heads of the files."""
    sizes, grey = set(), True
    for file in files:
        with _opened(file) as image:
            turned = image.getexif().get(_ORIENTATION, 1) > 4
            sizes.add(image.size[::-1] if turned else image.size)
            grey = grey and (image.mode in _GREY or image.mode[0] == "I")
    (width, height), *others = sizes
    kept = side is None and not others and max(width, height) <= LARGEST
    if not kept:
        width = height = side or SIDE
    return _Form(channels or (1 if grey else 3), height, width, not kept)


def _read(classes: Files, form: _Form) -> tuple[torch.Tensor, torch.Tensor]:
    images = [_pixels(f, form) for members in classes.values() for f in members]
    labels = [i for i, members in enumerate(classes.values()) for _ in members]
    return torch.from_numpy(np.stack(images)), torch.tensor(labels)


@contextmanager
def _opened(file: Path) -> "Iterator[Image]":
    """An image, of which only the head is read yet; what cannot be read is named."""
    # Imported here to keep the module light; Pillow comes with scikit-image.
    from PIL import Image

    bombs = (Image.DecompressionBombWarning, Image.DecompressionBombError)
    try:
        with warnings.catch_warnings():
            # An image is copied several times until it has its size and its colours.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            opened = Image.open(file)
        with opened as image:
            yield image
    except (OSError, SyntaxError, *bombs) as error:
        raise ValueError(f"{file}: not a readable image ({error})") from error
    except (
        MemoryError
    ) as error:  # Pillow reads as many bytes as a block says that it has
        raise ValueError(
            f"{file}: not a readable image (a block is too long)"
        ) from error


def _pixels(file: Path, form: _Form) -> np.ndarray:
    """One image: ``(channels, height, width)``, uint8."""
    from PIL import ImageOps

    image = _opaque(file).convert("L" if form.channels == 1 else "RGB")
    if form.scaled:
        image = ImageOps.fit(image, (form.width, form.height))
    pixels = np.asarray(image)
    return pixels[None] if form.channels == 1 else pixels.transpose(2, 0, 1)


def _opaque(file: Path) -> "Image":
    """The image upright, eight bits a value, on white where it is transparent."""
    from PIL import Image, ImageOps

    with _opened(file) as found:
        image = ImageOps.exif_transpose(found)
    if image.mode == "F":
        raise ValueError(
            f"{file}: its pixels are floating-point numbers, not 8 or 16 bits"
        )
    if image.mode[0] == "I":  # 16 bits, which Pillow would clip to 255
        deep = np.asarray(image).astype(np.int64)
        return Image.fromarray((deep.clip(0, 65535) >> 8).astype(np.uint8))
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image
    ground = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(ground, image.convert("RGBA"))
