"""Checksums of packed tensors: every flip is found and named; a clean step is as before."""

import copy
import re
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_nets import gradients, images, resnet
from torch import Tensor, nn

from elision.memory import DamagedError, Policy, Rule, Slot, policy_for, saver
from elision.memory.codecs import Offload
from elision.memory.policies.forwarding import Forwarding
from elision.memory.saved.checksum import Checksum
from elision.memory.saved.codec import Packed
from elision.memory.saved.roles import Role

#: Those whose packed bytes are tensors, and the two that move or sample them.
POLICIES = (
    "exact", "int8", "bits(2)", "bits(2.5)", "derived", "blpa", "jpeg", "sfpr", "fp8",
    "offload", "rad",
)  # fmt: skip


class _Struck(Forwarding):
    """Flips one bit of the packed tensor of a number, after its checksum was taken."""

    def __init__(self, inner: Policy, number: int, flip: Callable[[Tensor], None]):
        super().__init__(inner)
        self._left, self._flip = number, flip
        self.seen = 0

    def packed(self, slot: Slot, packed: Packed) -> Packed:
        packed = super().packed(slot, packed)
        for part in packed.payload:
            if part.numel():
                self.seen += 1
                if self._left == 0:
                    self._flip(part)
                self._left -= 1
        return packed


def _flip_first(part: Tensor) -> None:
    part.reshape(-1).view(torch.uint8)[0] ^= 1


def _grad(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _backward(model: nn.Module, policy: Policy) -> None:
    batch, labels = images()
    with saver(model, policy, seed=0):
        loss = nn.functional.cross_entropy(model(batch), labels)
    loss.backward()


@pytest.mark.parametrize("policy", POLICIES)
def test_a_clean_step_computes_the_same_bits(policy: str) -> None:
    torch.manual_seed(0)
    model = resnet()
    other = copy.deepcopy(model)
    plain = gradients(model, images(), saver(model, policy, seed=0))
    checked = gradients(other, images(), saver(other, f"checked({policy})", seed=0))
    assert plain.keys() == checked.keys()
    for name in plain:
        assert torch.equal(plain[name], checked[name]), name


@pytest.mark.parametrize("policy", ["exact", "bits(2)", "jpeg", "sfpr"])
def test_a_flip_in_any_packed_tensor_is_found_or_read_by_nobody(policy: str) -> None:
    torch.manual_seed(0)
    model = resnet()
    clean = copy.deepcopy(model)
    count = _Struck(policy_for(f"checked({policy})", clean), -1, _flip_first)
    _backward(clean, count)
    said = []
    for number in range(count.seen):
        own = copy.deepcopy(model)
        struck = _Struck(policy_for(f"checked({policy})", own), number, _flip_first)
        try:
            _backward(own, struck)
        except DamagedError as error:
            said.append(str(error))
            continue
        for p, q in zip(clean.parameters(), own.parameters(), strict=True):
            assert torch.equal(_grad(p), _grad(q))
    assert len(said) > count.seen // 2
    assert all(re.search(r" of shape \(.*\) in module '", text) for text in said)


def test_without_checksums_the_same_flip_passes() -> None:
    torch.manual_seed(0)
    model = resnet()
    _backward(model, _Struck(policy_for("sfpr", model), 0, _flip_first))


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([torch.uint8, torch.int16, torch.float32, torch.float64]),
    st.integers(1, 300),
    st.data(),
)
def test_every_flip_and_burst_inside_a_word_is_found(
    dtype: torch.dtype, size: int, data: st.DataObject
) -> None:
    slot = Slot("F", "x", Role.LINEAR_INPUT)
    part = torch.randint(256, (size * dtype.itemsize,), dtype=torch.uint8).view(dtype)
    checksum = Checksum.of([part], slot, (size,))
    word = min(dtype.itemsize, 4)
    at = data.draw(st.integers(0, part.nbytes // word - 1)) * word
    burst = data.draw(st.integers(1, 2 ** (8 * word) - 1)).to_bytes(word, "little")
    raw = part.view(torch.uint8)
    for k, bits in enumerate(burst):
        raw[at + k] ^= bits
    with pytest.raises(DamagedError):
        checksum.verify([part])


def test_what_comes_back_from_a_file_is_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    model = resnet()
    from elision.memory.codecs.away import InFile

    bring = InFile.bring

    def struck(self: InFile) -> Tensor:
        values = bring(self)
        _flip_first(values)
        return values

    monkeypatch.setattr(InFile, "bring", struck)
    with pytest.raises(DamagedError, match="in module"):
        _backward(model, policy_for("checked(offload)", model))


def test_rules_choose_as_without() -> None:
    rule = Policy([Rule((Offload(),))])
    from elision.memory.policies.checked import Checked

    assert Checked(rule).offloads
    assert str(policy_for("checked(budget(1))", resnet())).startswith("checked(budget")
    with pytest.raises(ValueError, match="unknown memory policy 'bit'"):
        policy_for("checked(bit(4))", resnet())
