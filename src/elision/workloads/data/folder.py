"""Any folder of class folders of images, in whatever formats Pillow reads."""

from pathlib import Path

import numpy as np
import torch

from elision.workloads.data.base import Dataset

__all__ = ["load_folder"]

#: Side to which every image is brought (own choice: CIFAR's).
SIDE = 32
#: Without folders train/ and test/, every fifth file of a class is a test image.
TEST_EVERY = 5

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
)


def load_folder(path: Path | None = None, side: int = SIDE) -> Dataset:
    """Your own images, scaled to 3x32x32: a folder with one folder per class.

    The folder holds either ``<class>/<image>``, of which every fifth image in the order
    of names is for test, or ``train/<class>/<image>`` and ``test/<class>/<image>``.
    An image is cropped to its central square and scaled to ``side``.

    Raises:
        ValueError: there is no path, no class folder, a class without images, or a file
            that is not an image.
        FileNotFoundError: the folder does not exist.
    """
    layout = "<class>/<image> or train/<class>/<image> and test/<class>/<image>"
    if path is None:
        raise ValueError(f"data set 'folder' needs a path: a folder with {layout}")
    if not path.is_dir():
        raise FileNotFoundError(f"data set 'folder': {path} is not a folder")
    train, test = _split(path)
    if len(train) < 2 or list(train) != list(test):
        raise ValueError(
            f"data set 'folder': {path} must hold two or more class folders, {layout}; "
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
    train_images, train_labels = _read(train, side)
    test_images, test_labels = _read(test, side)
    pixels = train_images.to(torch.float32)
    return Dataset(
        name="folder",
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        class_names=tuple(train),
        mean=tuple(pixels.mean((0, 2, 3)).tolist()),
        # A folder of flat images has no deviation to divide by.
        std=tuple(pixels.std((0, 2, 3)).clamp(min=1.0).tolist()),
        source=f"images in {path}",
    )


Files = dict[str, list[Path]]


def _split(path: Path) -> tuple[Files, Files]:
    """The files of each class, for training and for test, in the order of names."""
    if (path / "train").is_dir() and (path / "test").is_dir():
        return _classes(path / "train"), _classes(path / "test")
    every = _classes(path)
    test = {name: files[::TEST_EVERY] for name, files in every.items()}
    train = {
        name: [f for i, f in enumerate(files) if i % TEST_EVERY]
        for name, files in every.items()
    }
    return train, test


def _classes(path: Path) -> Files:
    folders = sorted(f for f in path.iterdir() if f.is_dir() and f.name[0] != ".")
    return {
        folder.name: sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES)
        for folder in folders
    }


def _read(files: Files, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    images = [_square(f, side) for members in files.values() for f in members]
    labels = [i for i, members in enumerate(files.values()) for _ in members]
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return stacked, torch.tensor(labels)


def _square(file: Path, side: int) -> np.ndarray:
    # Imported here to keep the module light; Pillow comes with scikit-image.
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as image:
            return np.asarray(ImageOps.fit(image.convert("RGB"), (side, side)))
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{file}: not a readable image ({error})") from error
