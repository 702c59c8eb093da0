"""The file formats: what is written comes back, and what is damaged is named."""

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from elision.workloads import load_dataset
from elision.workloads.data.cifar import Latin1, read_binary, read_python
from elision.workloads.data.mnist import read_idx

# A test's folder is shared by its examples: each overwrites the file of the last.
examples = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
pixel_arrays = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5)
)


def idx_bytes(array: np.ndarray) -> bytes:
    """An independent writer of the format, from its description."""
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def cifar_batch(count: int, classes: int) -> tuple[np.ndarray, list[int]]:
    rng = np.random.default_rng(count)
    pixels = rng.integers(0, 256, (count, 3072), np.uint8)
    return pixels, [int(v) for v in np.arange(count) % classes]


@examples
@given(array=pixel_arrays, zipped=st.booleans())
def test_idx_round_trip(tmp_path, array, zipped):
    file = tmp_path / ("array.gz" if zipped else "array")
    raw = idx_bytes(array)
    file.write_bytes(gzip.compress(raw) if zipped else raw)
    np.testing.assert_array_equal(read_idx(file, array.ndim), array)


@examples
@given(array=pixel_arrays, data=st.data())
def test_idx_of_another_length_is_refused(tmp_path, array, data):
    raw = idx_bytes(array)
    keep = data.draw(st.integers(0, len(raw) + 3).filter(lambda n: n != len(raw)))
    file = tmp_path / "array"
    file.write_bytes((raw + b"abc")[:keep])
    with pytest.raises(
        ValueError, match=r"array: (not an IDX file|the header promises)"
    ):
        read_idx(file, array.ndim)


@examples
@given(junk=st.binary(max_size=40))
def test_foreign_bytes_are_no_idx_file(tmp_path, junk):
    file = tmp_path / "junk"
    file.write_bytes(b"x" + junk)
    with pytest.raises(ValueError, match="junk: not an IDX file"):
        read_idx(file, 3)


@pytest.mark.parametrize("keep", [0, 5, 20, -1])
def test_a_gzip_file_cut_short_is_refused(tmp_path, keep):
    file = tmp_path / "array.gz"
    file.write_bytes(gzip.compress(idx_bytes(np.arange(99, dtype=np.uint8)))[:keep])
    with pytest.raises(ValueError, match=r"array\.gz: not "):
        read_idx(file, 1)


@examples
@given(count=st.integers(1, 4), label_bytes=st.integers(1, 2))
def test_cifar_binary_round_trip(tmp_path, count, label_bytes):
    pixels, labels = cifar_batch(count, 10)
    coarse = np.full((count, label_bytes - 1), 7, np.uint8)
    fine = np.array(labels, np.uint8)[:, None]
    file = tmp_path / "batch.bin"
    file.write_bytes(np.concatenate([coarse, fine, pixels], 1).tobytes())
    images, read = read_binary(file, label_bytes)
    np.testing.assert_array_equal(images.reshape(count, -1), pixels)
    assert read.tolist() == labels


@pytest.mark.parametrize("size", [0, 1, 3072, 3074, 2 * 3073 - 1])
def test_cifar_binary_of_another_length_is_refused(tmp_path, size):
    file = tmp_path / "batch.bin"
    file.write_bytes(bytes(size))
    with pytest.raises(ValueError, match=rf"batch\.bin: {size} bytes"):
        read_binary(file, 1)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("key_type", [str, bytes])
def test_cifar_python_round_trip(tmp_path, protocol, key_type):
    pixels, labels = cifar_batch(5, 3)
    fields = {"data": pixels, "labels": labels, "batch_label": "testing"}
    if key_type is bytes:
        fields = {key.encode(): value for key, value in fields.items()}
    file = tmp_path / "batch"
    file.write_bytes(pickle.dumps(fields, protocol))
    images, read = read_python(file, "labels")
    np.testing.assert_array_equal(images.reshape(5, -1), pixels)
    assert read.tolist() == labels


def test_a_pickle_of_python_2_is_read(tmp_path):
    # The published files were written by Python 2, protocol 2: byte strings for keys,
    # dtype and pixels (opcode U/T), and numpy.core for the array.
    pixels, labels = cifar_batch(2, 2)

    def short(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    raw = pixels.tobytes()
    dtype = (
        b"cnumpy\ndtype\n(" + short(b"u1") + b"K\x00K\x01tR"
        b"(K\x03" + short(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85"
        + short(b"b")
        + b"tR(K\x01K\x02M\x00\x0c\x86"
        + dtype
        + b"\x89T"
        + struct.pack("<i", len(raw))
        + raw
        + b"tb"
    )
    file = tmp_path / "batch"
    file.write_bytes(
        b"\x80\x02}("
        + short(b"data")
        + array
        + short(b"labels")
        + b"](K\x00K\x01e"
        + b"u."
    )
    images, read = read_python(file, "labels")
    np.testing.assert_array_equal(images.reshape(2, -1), pixels)
    assert read.tolist() == labels


class Hostile:
    """Unpickling this by the plain unpickler would create the file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_a_pickle_cannot_run_code(tmp_path):
    mark = tmp_path / "ran"
    file = tmp_path / "batch"
    file.write_bytes(pickle.dumps({"data": Hostile(mark), "labels": []}))
    with pytest.raises(ValueError, match=r"batch: not a CIFAR batch .*refused"):
        read_python(file, "labels")
    assert not mark.exists()
    # The same bytes do run in the plain unpickler, so the test can fail.
    pickle.loads(file.read_bytes())
    assert mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"data": "pixels", "labels": [1]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [1]},
        {"data": np.zeros((1, 3072), np.float32), "labels": [1]},
        {"data": np.array([None] * 3072), "labels": [1]},
        {"data": np.zeros(3072, np.uint8), "labels": [1]},
        {"data": np.zeros((1, 3071), np.uint8), "labels": [1]},
        {"data": np.zeros((1, 3072), np.uint8), "labels": ["cat"]},
        {"data": np.zeros((1, 3072), np.uint8), "fine_labels": [1]},
    ],
)
def test_a_pickle_of_something_else_is_refused(tmp_path, content):
    file = tmp_path / "batch"
    file.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match="batch: not a CIFAR batch"):
        read_python(file, "labels")


def nested_tuples() -> bytes:
    """Steps of a pickle: 40 levels of a tuple of two, which are one: 2**40 in all."""
    nested: tuple[object, ...] = ()
    for _ in range(40):
        nested = nested, nested
    return pickle.dumps(nested, protocol=2)[2:-1]


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"}", b"Ns."), (b"cnumpy\ndtype\n", b"\x85R.")],
    ids=["hashed as a key", "quoted as a type"],
)
def test_a_small_pickle_stands_for_no_endless_structure(
    tmp_path, before, after
) -> None:
    file = tmp_path / "batch"
    file.write_bytes(b"\x80\x02" + before + nested_tuples() + after)
    with pytest.raises(ValueError, match="it uses a part twice"):
        read_python(file, "labels")


@pytest.mark.parametrize("label", [-1, 256, 10**40])
def test_a_label_of_a_pickle_is_a_byte(tmp_path, label) -> None:
    file = tmp_path / "batch"
    content = {"data": np.zeros((1, 3072), np.uint8), "labels": [label]}
    file.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ValueError, match="N integers from 0 to 255"):
        read_python(file, "labels")


def test_a_pickle_sets_no_attribute_of_what_it_names(tmp_path) -> None:
    file = tmp_path / "batch"
    state = b"N}X\x01\x00\x00\x00aK\x01s\x86"
    file.write_bytes(b"\x80\x02c_codecs\nencode\n" + state + b"b.")
    with pytest.raises(ValueError, match="not a CIFAR batch"):
        read_python(file, "labels")
    assert not hasattr(Latin1, "a")


@examples
@given(keep=st.integers(0, 6000), flip=st.integers(0, 6000))
def test_a_damaged_pickle_is_refused_or_harmless(tmp_path, keep, flip):
    pixels, labels = cifar_batch(2, 2)
    raw = bytearray(pickle.dumps({"data": pixels, "labels": labels}))
    raw[flip % 120] ^= 0x55
    file = tmp_path / "batch"
    file.write_bytes(raw[:keep])
    try:
        images, read = read_python(file, "labels")
    except ValueError as error:
        assert str(error).startswith(f"{file}: not a CIFAR batch")  # noqa: PT017
    else:
        assert len(images) == len(read)


def write_cifar10(folder: Path, *, binary: bool) -> None:
    for i, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        pixels, labels = cifar_batch(i + 1, 10)
        if binary:
            column = np.array(labels, np.uint8)[:, None]
            raw = np.concatenate([column, pixels], 1).tobytes()
            (folder / f"{name}.bin").write_bytes(raw)
        else:
            raw = pickle.dumps({"data": pixels, "labels": labels})
            (folder / name).write_bytes(raw)


@pytest.mark.parametrize("binary", [True, False])
def test_a_cifar10_folder_is_read_whole(tmp_path, binary):
    write_cifar10(tmp_path, binary=binary)
    dataset = load_dataset("cifar10", tmp_path)
    assert len(dataset.train_images) == 1 + 2 + 3 + 4 + 5
    assert len(dataset.test_images) == 6
    last, labels = cifar_batch(6, 10)
    np.testing.assert_array_equal(dataset.test_images.flatten(1).numpy(), last)
    assert dataset.test_labels.tolist() == labels
    assert dataset.classes == 10


def test_a_cifar100_folder_takes_the_fine_labels_and_names(tmp_path):
    for name in ("train", "test"):
        pixels, labels = cifar_batch(4, 100)
        fine = np.array(labels, np.uint8)[:, None]
        records = np.concatenate([np.full_like(fine, 19), fine, pixels], 1)
        (tmp_path / f"{name}.bin").write_bytes(records.tobytes())
    names = [f"thing{i}" for i in range(100)]
    (tmp_path / "fine_label_names.txt").write_text("\n".join(names))
    dataset = load_dataset("cifar100", tmp_path)
    assert dataset.train_labels.tolist() == [0, 1, 2, 3]
    assert dataset.class_names == tuple(names)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_a_folder_of_idx_files_is_read_whole(tmp_path, name, zipped):
    written = {}
    for prefix, count in (("train", 5), ("t10k", 3)):
        rng = np.random.default_rng(count)
        pixels = rng.integers(0, 256, (count, 28, 28), np.uint8)
        written[prefix] = pixels
        labels = np.arange(count, dtype=np.uint8)
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            raw = idx_bytes(array)
            file = tmp_path / f"{prefix}-{kind}-ubyte{'.gz' if zipped else ''}"
            file.write_bytes(gzip.compress(raw) if zipped else raw)
    dataset = load_dataset(name, str(tmp_path))
    np.testing.assert_array_equal(dataset.train_images[:, 0], written["train"])
    np.testing.assert_array_equal(dataset.test_images[:, 0], written["t10k"])
    assert dataset.test_labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100", "folder"])
def test_a_data_set_without_its_path_says_what_to_give(name):
    with pytest.raises(ValueError, match=f"data set '{name}' needs a path: .*folder"):
        load_dataset(name)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100"])
def test_an_empty_folder_is_told_what_it_lacks(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=f"'{name}': no (train|data_batch_1)"):
        load_dataset(name, tmp_path)


@pytest.mark.parametrize("name", ["digits", "photo-patches", "mnist-5k"])
def test_an_embedded_data_set_takes_no_path(tmp_path, name):
    with pytest.raises(ValueError, match="takes no path"):
        load_dataset(name, tmp_path)


def test_an_unknown_data_set_lists_the_known():
    with pytest.raises(ValueError, match=r"unknown data set 'cifar'.*digits, "):
        load_dataset("cifar")
