"""The memory of whole networks: published and derived figures, to the byte."""

import pytest
import torch
from torch import Tensor, nn

from elision.export.planning.arena import Arena, arena
from elision.workloads import make_model


def three_convolutions() -> nn.Module:
    """The test network of 33,834 parameters: three strided convolutions, one linear."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 10))


def test_mobilenet_v2_needs_the_published_arena() -> None:
    """112·112·96 + 56·56·96, which ExecuTorch publishes for its int8 network."""
    plan = arena(make_model("mobilenet-v2", classes=1000), torch.zeros(1, 3, 224, 224))
    assert plan.peak_bytes == plan.arena_bytes == plan.least_peak_bytes == 1_505_280
    assert plan.macs == 300_774_272
    assert plan.optimal


@pytest.mark.parametrize(
    ("padding", "bits", "peak"),
    [
        ("inside", 8, 7_168),
        ("copied", 8, 9_280),  # head of TFLite Micro's arena, int8
        ("copied", 32, 37_120),  # and float
    ],
)
def test_padding_copied_or_inside(padding: str, bits: int, peak: int) -> None:
    plan = arena(three_convolutions(), torch.zeros(1, 3, 32, 32), bits, padding=padding)
    assert plan.peak_bytes == plan.arena_bytes == peak


@pytest.mark.parametrize(
    ("name", "bits", "head"), [("resnet8", 8, 51_264), ("resnet8", 32, 205_056)]
)
def test_arena_of_tflite_micro(name: str, bits: int, head: int) -> None:
    """Heads of the arena that its interpreter printed for the exported networks."""
    model = make_model(name, classes=10)
    example = torch.zeros(1, 3, 32, 32)
    plan = arena(model, example, bits, planner="tflite-micro")
    assert plan.arena_bytes == head
    assert arena(model, example, bits).arena_bytes < head


def test_padding_that_tflite_knows_is_not_copied() -> None:
    """Stride 1 and an odd kernel pad the same sides under the SAME rule."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))
    example = torch.zeros(1, 3, 8, 8)
    assert arena(model, example, padding="copied") == arena(model, example)


def test_flash_of_the_test_network() -> None:
    plan = arena(three_convolutions(), torch.zeros(1, 3, 32, 32))
    assert plan.parameters == 33_834
    channels = 16 + 32 + 64 + 10
    assert plan.flash_bytes == 33_834 - channels + (4 + 4 + 1) * channels
    in_float = arena(three_convolutions(), torch.zeros(1, 3, 32, 32), 32)
    assert in_float.flash_bytes == 4 * 33_834


def test_batch_norms_are_folded_and_rectifiers_fused() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1))
    dressed = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Conv2d(8, 4, 1),
        nn.Dropout(),
    )
    example = torch.zeros(1, 3, 9, 9)
    first, second = arena(plain, example), arena(dressed, example)
    assert first.flash_bytes == second.flash_bytes
    assert first.arena_bytes == second.arena_bytes
    assert first.parameters == second.parameters


class Unfused(nn.Module):
    """A convolution whose output is read before and after its rectifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Both values, added."""
        y = self.conv(x)
        return torch.relu(y) * y


def test_rectifier_of_a_tensor_with_two_readers_is_not_fused() -> None:
    plan = arena(Unfused(), torch.zeros(1, 1, 4, 4))
    assert plan.order == ("conv", "relu", "mul")
    assert plan.peak_bytes == 3 * 16


class Residual(nn.Module):
    """One addition around one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 1)
        self.second = nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        x = self.first(x)
        return self.second(x) + x


def test_in_place_addition_takes_the_bytes_of_an_operand() -> None:
    example = torch.zeros(1, 1, 4, 4)
    assert arena(Residual(), example).peak_bytes == 3 * 32
    plan = arena(Residual(), example, in_place=True)
    assert plan.peak_bytes == plan.arena_bytes == 2 * 32
    where = {t.name: t.offset for t in plan.tensors}
    assert where["add"] in (where["conv2d"], where["conv2d_1"])


def test_widths_of_values_and_of_weights() -> None:
    example = torch.zeros(1, 3, 32, 32)
    at_8, at_4 = (arena(three_convolutions(), example, bits) for bits in (8, 4))
    assert 2 * at_4.peak_bytes == at_8.peak_bytes
    mixed = arena(three_convolutions(), example, 8, weight_bits=4)
    assert mixed.peak_bytes == at_8.peak_bytes
    assert mixed.flash_bytes == at_4.flash_bytes


def test_alignment_of_offsets() -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3), nn.Linear(3, 9))
    plan = arena(model, torch.zeros(1, 5), alignment=16)
    assert all(t.offset % 16 == 0 for t in plan.tensors)
    assert plan.arena_bytes >= plan.peak_bytes
    assert arena(model, torch.zeros(1, 5)).arena_bytes == 12


def test_shared_weights_are_stored_once() -> None:
    layer = nn.Linear(4, 4)
    once = arena(nn.Sequential(layer), torch.zeros(1, 4))
    twice = arena(nn.Sequential(layer, nn.Tanh(), layer), torch.zeros(1, 4))
    assert once.flash_bytes == twice.flash_bytes
    assert twice.macs == 2 * once.macs


def test_mode_of_the_model_is_kept() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train()
    arena(model, torch.zeros(1, 2))
    assert model.training


def _refused(match: str, **options: object) -> None:
    with pytest.raises(ValueError, match=match):
        arena(nn.Linear(2, 2), torch.zeros(1, 2), **options)  # pyright: ignore[reportArgumentType]


def test_what_is_refused() -> None:
    _refused(r"arena\(bits=7\): must be 4 or 8 or 16 or 32", bits=7)
    _refused(r"arena\(weight_bits=1\): must be", weight_bits=1)
    _refused(r"arena\(padding='same'\): must be 'inside' or 'copied'", padding="same")
    _refused(r"arena\(planner='x'\): must be 'least' or", planner="x")
    _refused(r"arena\(alignment=0\): must be an integer >= 1", alignment=0)
    with pytest.raises(ValueError, match=r"torch\.export cannot read Linear"):
        arena(nn.Linear(2, 2), torch.zeros(1, 3))


def test_rows_name_every_tensor() -> None:
    plan: Arena = arena(three_convolutions(), torch.zeros(1, 3, 32, 32))
    rows = plan.rows()
    assert [row["bytes"] for row in rows] == [3072, 4096, 2048, 1024, 10]
    assert [row["first"] for row in rows] == [0, 0, 1, 2, 3]
