"""Files of tensors: what is read is what was written, or it is refused by name."""

import json
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from elision.common.files import load_tensors, save_tensors

TENSORS = {
    "weight": torch.arange(6, dtype=torch.float32).view(2, 3),
    "scalar": torch.tensor(3.0, dtype=torch.float64),
    "mask": torch.tensor([True, False, True]),
    "small": torch.tensor([1.5, -2.0]).to(torch.float8_e4m3fn),
    "empty": torch.zeros(0, 4),
}
#: A key, quotes and backslashes that could be taken for the header's own.
FACTS = {
    "step": 3,
    "note": 'a "quoted" \\ text',
    "elision": '{"elision.header": "00000000"',
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "some.safetensors"
    save_tensors(path, TENSORS, FACTS)
    return path


def test_what_is_read_is_what_was_written(written: Path) -> None:
    tensors, facts = load_tensors(written, "checkpoint")
    assert facts == FACTS
    assert tensors.keys() == TENSORS.keys()
    for name, x in TENSORS.items():
        assert tensors[name].dtype == x.dtype
        assert tensors[name].shape == x.shape
        assert torch.equal(tensors[name].float(), x.float()), name


def test_equal_tensors_make_equal_files(written: Path, tmp_path: Path) -> None:
    save_tensors(tmp_path / "again", TENSORS, FACTS)
    assert (tmp_path / "again").read_bytes() == written.read_bytes()


def test_a_flipped_bit_of_any_byte_is_refused(written: Path, tmp_path: Path) -> None:
    """Each byte of the whole file, its length and its header included."""
    clean = written.read_bytes()
    path = tmp_path / "struck.safetensors"
    for at in range(len(clean)):
        struck = bytearray(clean)
        struck[at] ^= 1 << at * 5 % 8
        path.write_bytes(struck)
        with pytest.raises(ValueError, match=re.escape(str(path))) as refused:
            load_tensors(path, "checkpoint")
        assert "\n" not in str(refused.value)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_every_changed_byte_is_refused(
    written: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A space that becomes another white space reads the same as JSON."""
    clean = bytearray(written.read_bytes())
    at = data.draw(st.integers(0, len(clean) - 1))
    clean[at] = data.draw(st.integers(0, 255).filter(lambda value: value != clean[at]))
    path = tmp_path_factory.mktemp("changed") / "one.safetensors"
    path.write_bytes(clean)
    with pytest.raises(ValueError, match=r"one\.safetensors"):
        load_tensors(path, "checkpoint")


@pytest.mark.parametrize("name", [n for n, x in TENSORS.items() if x.numel()])
def test_a_refusal_names_the_tensor(written: Path, tmp_path: Path, name: str) -> None:
    struck = bytearray(written.read_bytes())
    length = int.from_bytes(struck[:8], "little")
    place = json.loads(bytes(struck[8 : 8 + length]))[name]["data_offsets"]
    struck[8 + length + place[0]] ^= 1
    path = tmp_path / "struck.safetensors"
    path.write_bytes(struck)
    with pytest.raises(ValueError, match=f"tensor '{name}' do not fit"):
        load_tensors(path, "checkpoint")


def test_a_file_of_before_checksums_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    save_file({"weight": TENSORS["weight"]}, path, {"elision": json.dumps({"step": 1})})
    tensors, facts = load_tensors(path, "checkpoint")
    assert facts == {"step": 1}
    assert torch.equal(tensors["weight"], TENSORS["weight"])
    save_file({"weight": TENSORS["weight"]}, path, {"other": "1"})
    with pytest.raises(ValueError, match="not a checkpoint of this library"):
        load_tensors(path, "checkpoint")
