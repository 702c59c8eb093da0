"""The loss of a student with a teacher, in a loop of one's own."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import elision
from elision.distill import (
    AttentionTransfer,
    Average,
    Distilled,
    Hinton,
    Hints,
    Relational,
)
from elision.workloads import make_model

IMAGES, LABELS = torch.randn(6, 3, 8, 8), torch.arange(6) % 10


def student(width: int = 4, classes: int = 10) -> nn.Module:
    torch.manual_seed(width)
    return make_model(
        "resnet8", in_channels=3, classes=classes, image_size=(8, 8), width=width
    )


def test_it_is_the_formula_written_out() -> None:
    own, its = student(), student(8)
    value = Distilled(own, its, temperature=3.0, weight=0.6)(IMAGES, LABELS)
    with torch.no_grad():
        z_t = its.eval()(IMAGES)
        z_s = own(IMAGES)
        kd = F.kl_div(
            F.log_softmax(z_s / 3, 1), F.softmax(z_t / 3, 1), reduction="batchmean"
        )
        slow = 0.4 * F.cross_entropy(z_s, LABELS) + 0.6 * 9 * kd
    torch.testing.assert_close(value, slow, rtol=1e-5, atol=1e-6)


def test_the_teacher_answers_in_evaluation_without_gradient_to_the_same_images() -> (
    None
):
    own, its = student(), nn.Sequential(nn.Dropout(0.5), student(8))
    seen: list[tuple[Tensor, bool, bool]] = []
    its.register_forward_pre_hook(
        lambda module, x: seen.append((x[0], module.training, torch.is_grad_enabled()))
    )
    before = copy.deepcopy(its.state_dict())
    loss = Distilled(own, its)
    loss(IMAGES, LABELS).backward()
    ((images, training, grad),) = seen
    assert images is IMAGES
    assert (training, grad) == (False, False)
    assert its.training
    assert all(p.grad is None for p in its.parameters())
    assert all(p.grad is not None for p in own.parameters())
    for name, value in its.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_neither_network_is_in_a_state_dict_or_among_the_parameters() -> None:
    own = student()
    keys = list(own.state_dict())
    loss = Distilled(own, student(8), hints={"layer2": "layer2", "layer3": "layer3"})
    loss(IMAGES, LABELS)
    assert list(own.state_dict()) == keys
    assert len(list(loss.parameters())) == 4
    assert all(key.startswith("beside.") for key in loss.state_dict())
    assert not any(module in (own, loss.teacher) for module in loss.modules())


def test_weight_zero_is_plain_training_bit_for_bit() -> None:
    def never(*args: object) -> None:
        raise AssertionError("the teacher was asked")

    own, its = student(), student(8)
    its.register_forward_pre_hook(never)
    plain = copy.deepcopy(own)
    state = torch.get_rng_state()
    value = Distilled(own, its, weight=0.0)(IMAGES, LABELS)
    value.backward()
    expected = F.cross_entropy(plain(IMAGES), LABELS)
    expected.backward()
    assert torch.equal(value, expected)
    assert torch.equal(torch.get_rng_state(), state)
    for one, other in zip(own.parameters(), plain.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad, other.grad)


def test_an_optimiser_made_before_the_first_batch_trains_the_regressors() -> None:
    own = student()
    loss = Distilled(own, student(8), weight=0.0, hints={"layer3": "layer3"})
    optimizer = torch.optim.SGD([*own.parameters(), *loss.parameters()], lr=1e-2)
    state = torch.get_rng_state()
    values = []
    for _ in range(8):
        optimizer.zero_grad()
        value = loss(IMAGES, LABELS)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert torch.equal(torch.get_rng_state(), state)  # regressors draw from it, apart
    assert all(p.grad is not None and p.grad.any() for p in loss.parameters())
    assert values[-1] < values[0]


@pytest.mark.parametrize("engine", ["torch", "native"])
@pytest.mark.parametrize("method", ["swat:sparsity=0.8", "rigl:sparsity=0.8", "fp8"])
def test_an_elided_student_learns_what_all_terms_teach(
    engine: str, method: str
) -> None:
    own, its = student(8), student(16)
    elision.elide(own, elision.methods.make_recipe(method), engine=engine)
    parts = [
        Hinton(),
        Hints("layer3"),
        AttentionTransfer(("layer1", "layer2", "layer3")),
        Relational("layer3"),
    ]
    loss = Distilled(own, its, by=parts)
    optimizer = torch.optim.SGD([*own.parameters(), *loss.parameters()], lr=1e-2)
    elision.topology.attach(own, optimizer, steps=8)
    values = []
    for _ in range(8):
        optimizer.zero_grad()
        value = loss(IMAGES, LABELS)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert min(values[4:]) < values[0]


def test_both_engines_give_one_loss() -> None:
    values = []
    for engine in ("torch", "native"):
        own = elision.elide(student(8), elision.methods.RigL(0.8), engine=engine)
        loss = Distilled(own, student(16), by=[AttentionTransfer("layer2"), Hinton()])
        values.append(loss(IMAGES, LABELS))
    torch.testing.assert_close(*values, rtol=1e-4, atol=1e-4)


def test_an_average_teaches_and_moves() -> None:
    own = student()
    loss = Distilled(own, None, by=[Average(decay=0.5)])
    loss(IMAGES, LABELS).backward()
    average = loss.average
    assert average is not None
    before = [p.clone() for p in average.parameters()]
    with torch.no_grad():
        for p in own.parameters():
            p.add_(1)
    loss.step_done()
    for old, new in zip(before, average.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.5)
    again = Distilled(student(), None, by=[Average(decay=0.5)])
    again.load_state_dict(loss.state_dict())
    assert again.average is not None
    for one, other in zip(
        average.state_dict().values(), again.average.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)


def test_what_does_not_fit_is_said() -> None:
    own = student()
    with pytest.raises(ValueError, match="unknown layer of the student 'layer4'"):
        Distilled(own, student(8), hints={"layer4": "layer3"})
    with pytest.raises(ValueError, match=r"layer of the teacher 'blocks\.4'.*layer3"):
        Distilled(own, student(8), hints={"layer3": "blocks.4"})
    with pytest.raises(ValueError, match="8 classes, the student with 10"):
        Distilled(own, student(8, classes=8))(IMAGES, LABELS)
    with pytest.raises(ValueError, match="needs a teacher"):
        Distilled(own, None)
    with pytest.raises(ValueError, match="same object"):
        Distilled(own, own)
    with pytest.raises(ValueError, match="averages of two decays"):
        Distilled(own, None, by=[Average(decay=0.5), Average(decay=0.6)])
    with pytest.raises(ValueError, match=r"scores \(N, classes\)"):
        Distilled(nn.Flatten(0), nn.Flatten(0))(IMAGES, LABELS)
