"""What a ledger shows of a use of the saver that does not pay."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from elision.memory import Ledger, saver
from elision.memory.modules import outermost
from elision.memory.saved.findings import findings
from elision.memory.saved.ledger import StorageRecord
from elision.memory.saved.roles import Role, Slot


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up = nn.LayerNorm(width), nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


class Blocks(nn.Module):
    """Blocks under checkpointing or not, and a head."""

    def __init__(self, reentrant: bool | None, head: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.reentrant = reentrant
        self.blocks = nn.ModuleList(Block(64) for _ in range(3))
        self.head = nn.Linear(64, head)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            if self.reentrant is None:
                x = block(x)
            else:
                x = checkpoint(block, x, use_reentrant=self.reentrant)
        return self.head(x)


def kinds(saved: saver) -> list[str]:
    return [finding.kind for finding in findings(saved.ledger)]


def quietly(
    model: nn.Module, x: Tensor, policy: str, inside: bool = False
) -> tuple[saver, list[str]]:
    """A step, and what it warns of."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with saver(model, policy) as saved:
            loss = model(x).square().mean()
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
    return saved, [str(warning.message) for warning in said]


def data(reentrant: bool | None = None) -> Tensor:
    return torch.randn(64, 64, requires_grad=bool(reentrant))


def test_a_model_for_which_the_saver_pays_shows_nothing() -> None:
    saved, said = quietly(Blocks(None), data(), "bits(4)")
    assert kinds(saved) == []
    assert said == []
    assert "does not pay" not in saved.report()


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_what_runs_under_checkpointing_is_named_once(
    reentrant: bool, inside: bool
) -> None:
    model, x = Blocks(reentrant), data(reentrant)
    saved, said = quietly(model, x, "exact", inside)
    assert saved.ledger.checkpointed == ("blocks",)
    packed_again = reentrant and inside
    assert ("packed again" in kinds(saved)) is packed_again
    expected = ["checkpointed: the tensors of blocks", "packed again: "]
    assert len(said) == 1 + packed_again
    for told, start in zip(said, expected, strict=False):
        assert told.startswith(f"elision.memory.saver: {start}")
        assert told.removeprefix("elision.memory.saver: ") in saved.report()
    assert "makes the saver useless there" in said[0]
    again, repeated = quietly(model, x, "exact", inside)
    assert again.ledger.checkpointed == ("blocks",)
    assert repeated == []  # once for a model
    _, other = quietly(Blocks(reentrant), x, "exact", inside)
    assert len(other) == len(said)


def test_nobody_is_warned_where_both_help() -> None:
    model = Blocks(False, head=8)
    model.head = nn.Sequential(*(nn.Linear(64, 64) for _ in range(8)))
    saved, said = quietly(model, data(), "bits(4)")
    assert saved.ledger.checkpointed == ("blocks",)
    assert said == []
    assert "checkpointed: the tensors of blocks" in saved.report()
    assert "useless" not in saved.report()


def test_what_runs_without_gradients_is_not_under_checkpointing() -> None:
    model = Blocks(None)
    with saver(model, "exact") as saved:
        with torch.no_grad():
            x = model.blocks[0](data())
        model.head(x).sum()
    assert saved.ledger.checkpointed == ()


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["blocks.1"], ("blocks.1",)),
        (["blocks.0.norm", "blocks.0.up", "blocks.0.down"], ("blocks.0",)),
        (["blocks.0.norm", "blocks.0.up"], ("blocks.0.norm", "blocks.0.up")),
        (["blocks.0", "blocks.1", "blocks.2", "blocks.1.up"], ("blocks",)),
        (["blocks.0", "blocks.1", "blocks.2", "head"], ("",)),
        (["nowhere"], ()),
        ([], ()),
    ],
)
def test_the_fewest_modules_stand_for_all(
    paths: list[str], expected: tuple[str, ...]
) -> None:
    assert outermost(paths, dict(Blocks(None).named_modules())) == expected


class _Recurrent(nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(32, 64, layers), nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][-1])


@pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="no LSTM of oneDNN"
)
def test_the_workspace_of_an_lstm_is_named_with_what_would_help() -> None:
    saved, _ = quietly(_Recurrent(1), torch.randn(32, 8, 32), "exact")
    assert saved.ledger.ratio > 2  # by the ledger it pays
    assert saved.ledger.peak_ratio_at_most < 1.1
    assert kinds(saved) == ["workspace"]
    assert "lstm, recurrent layers of oneDNN" in saved.report()
    assert "torch.backends.mkldnn.flags(enabled=False)" in saved.report()
    two, _ = quietly(_Recurrent(2), torch.randn(32, 8, 32), "exact")
    assert 1.5 < two.ledger.peak_ratio_at_most < 2.1


def test_one_function_that_brings_all_back_is_named() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU())
    with saver(model, "bits(4)", pack_batch=True) as saved:
        loss = model(torch.randn(8192, 8)).sum()
    assert kinds(saved) == []
    one = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten())
    with saver(one, "bits(4)", pack_batch=True) as saved:
        loss = one(torch.randn(16, 3, 64, 64)).sum()
    assert kinds(saved) == ["one function"]
    assert "Convolution in 0 brings back" in saved.report()
    loss.backward()


def _ledger(slot: Slot, nbytes: int = 2**20, elsewhere: bool = False) -> Ledger:
    ledger = Ledger()
    storage = StorageRecord(nbytes, held=not elsewhere, elsewhere=elsewhere)
    ledger.enter(storage)
    row = ledger.add(slot, (nbytes // 4,), nbytes, storage)
    if elsewhere:
        row.codec, row.stored_bytes = "group 4-bit", nbytes // 8
    return ledger


@pytest.mark.parametrize(
    ("ledger", "said"),
    [
        (_ledger(Slot("ConvolutionBackward0", "input", Role.BATCH)), "pack_batch=True"),
        (_ledger(Slot("many", "small", Role.OTHER)), "quicker to keep than to pack"),
        (
            _ledger(Slot("XBackward", "y", Role.OTHER)),
            "kept as they are by role (other)",
        ),
        (
            _ledger(Slot("AddmmBackward0", "mat1", Role.LINEAR_INPUT), elsewhere=True),
            "drop the references",
        ),
    ],
)
def test_why_it_does_not_pay(ledger: Ledger, said: str) -> None:
    (found,) = findings(ledger)
    assert found.kind == "does not pay"
    assert said in found.text
    assert not found.useless


def _unrolled(x: Tensor, cell: Callable[[Tensor, Any], Any]) -> Tensor:
    state = None
    for row in x:
        state = cell(row, state)
    assert state is not None
    return state[0]


def test_an_unrolled_cell_is_told_that_its_tensors_are_small() -> None:
    cell = nn.LSTMCell(8, 8)
    with saver(cell, "bits(4)") as saved:
        loss = _unrolled(torch.randn(128, 4, 8), cell).sum()
    assert "does not pay" in kinds(saved)
    assert "small tensors that are quicker to keep" in saved.report()
    loss.backward()


def test_who_asks_for_nothing_is_told_nothing() -> None:
    saved, said = quietly(Blocks(False), data(), "none")
    assert said == []
    assert "does not pay" not in saved.report()
