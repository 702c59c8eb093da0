"""Colour patches cut from ten real photographs that ship in two dependencies.

The task is to tell from a 32x32 patch which photograph it comes from. Its statistics
are those of natural colour images, and it needs no download; it is no recognition
benchmark and its accuracies compare only with each other.

The split is honest: every photograph is cut into square tiles, one tile in four is for
test, and a patch lies within one tile, so that no test pixel is ever trained on.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from elision.common.checks import integer, one_of
from elision.workloads.data.base import Dataset, installed_folder, needs_no_path

__all__ = ["load_photo_patches", "tile_corners"]

#: Class name -> package and file, only files that are really inside the wheels. The
#: right half of the stereo pair motorcycle shows the same scene and is left out.
PHOTOS = {
    "astronaut": ("skimage", "data", "astronaut.png"),
    "cat": ("skimage", "data", "chelsea.png"),
    "china": ("sklearn", "datasets", "images", "china.jpg"),
    "coffee": ("skimage", "data", "coffee.png"),
    "flower": ("sklearn", "datasets", "images", "flower.jpg"),
    "galaxies": ("skimage", "data", "hubble_deep_field.jpg"),
    "motorcycle": ("skimage", "data", "motorcycle_left.png"),
    "retina": ("skimage", "data", "retina.jpg"),
    "rocket": ("skimage", "data", "rocket.jpg"),
    "tissue": ("skimage", "data", "ihc.png"),
}

#: Side of a patch, in pixels.
PATCH = 32
#: Side of a tile; one tile in TEST_EVERY, along every row and column, is for test.
TILE = 64
TEST_EVERY = 4
#: Distance between neighbouring candidate patches of a tile.
STEP = 4
#: Patches per photograph.
TRAIN_PER_CLASS = 400
TEST_PER_CLASS = 100


#: Mean and standard deviation of each channel of the training patches.
MEAN, STD = (117.8, 91.5, 81.0), (82.3, 65.8, 66.6)

#: Weights of red, green and blue in a grey value (ITU-R BT.601).
_LUMA = (0.299, 0.587, 0.114)


def load_photo_patches(
    path: Path | None = None,
    *,
    height: int = PATCH,
    width: int = PATCH,
    channels: int = 3,
) -> Dataset:
    """5,000 colour patches 3x32x32 of ten photographs (embedded).

    Args:
        path: None.
        height: to which the patches of 32x32 pixels are resized, bilinear with
            antialiasing; a larger one has no more detail.
        width: likewise.
        channels: 3, or 1 for grey patches.

    Raises:
        ValueError: a path is given, or a number is out of its range.
    """
    needs_no_path("photo-patches", path)
    for name, size in (("height", height), ("width", width)):
        integer("photo-patches", name, size)
    one_of("photo-patches", "channels", channels, (1, 3))
    split: dict[bool, list[np.ndarray]] = {False: [], True: []}
    for package, *parts in PHOTOS.values():
        folder = installed_folder(package, needed_by="data set photo-patches")
        photo = read_rgb(folder.joinpath(*parts))
        for test, count in ((False, TRAIN_PER_CLASS), (True, TEST_PER_CLASS)):
            corners = tile_corners(*photo.shape[:2], test=test)
            chosen = np.linspace(0, len(corners) - 1, count).round().astype(int)
            split[test] += [
                photo[y : y + PATCH, x : x + PATCH] for y, x in corners[chosen]
            ]
    changed = (height, width, channels) != (PATCH, PATCH, 3)
    train, test = (_images(split[which]) for which in (False, True))
    mean, std = MEAN, STD
    if changed:
        train, test = (_changed(x, height, width, channels) for x in (train, test))
        values = train.float()
        mean = tuple(values.mean((0, 2, 3)).tolist())
        std = tuple(values.std((0, 2, 3)).tolist())
    return Dataset(
        name="photo-patches",
        train_images=train,
        train_labels=_labels(TRAIN_PER_CLASS),
        test_images=test,
        test_labels=_labels(TEST_PER_CLASS),
        class_names=tuple(PHOTOS),
        mean=mean,
        std=std,
        source="photographs in scikit-image and scikit-learn",
    )


def tile_corners(height: int, width: int, *, test: bool) -> np.ndarray:
    """Upper left corners of the candidate patches of one split, ``(n, 2)``.

    Tile (i, j) is for test iff ``(i + 2j) mod TEST_EVERY == 0``; incomplete tiles at
    the lower and right edges are not used.
    """
    offsets = range(0, TILE - PATCH + 1, STEP)
    return np.array(
        [
            (i * TILE + dy, j * TILE + dx)
            for i in range(height // TILE)
            for j in range(width // TILE)
            if ((i + 2 * j) % TEST_EVERY == 0) == test
            for dy in offsets
            for dx in offsets
        ]
    )


def read_rgb(file: Path) -> np.ndarray:
    """Pixels of an image file, ``(H, W, 3)`` uint8.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not an image, or cut short.
    """
    # Imported here to keep the module light; Pillow comes with scikit-image.
    from PIL import Image

    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{file}: not a readable image ({error})") from error


def _images(patches: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).contiguous()


def _changed(
    patches: torch.Tensor, height: int, width: int, channels: int
) -> torch.Tensor:
    """Patches ``(N, 3, 32, 32)`` in another size, and grey if ``channels`` is 1."""
    values = patches.float()
    if channels == 1:
        values = torch.einsum("nchw,c->nhw", values, torch.tensor(_LUMA))[:, None]
    values = F.interpolate(
        values, (height, width), mode="bilinear", antialias=True, align_corners=False
    )
    return values.round().clamp(0, 255).to(torch.uint8)


def _labels(per_class: int) -> torch.Tensor:
    return torch.arange(len(PHOTOS)).repeat_interleave(per_class)
