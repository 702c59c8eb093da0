"""The smoothed loss against its formula, term by term, and against torch's."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.workloads.tasks.smoothing import label_smoothed_loss


def by_the_formula(scores, targets, smoothing, pad):
    total = 0.0
    for row, y in zip(scores.double(), targets.tolist(), strict=True):
        if y == pad:
            continue
        log_p = row - row.exp().sum().log()
        classes = [v for v in range(len(row)) if v != pad]
        mean = sum(float(-log_p[v]) for v in classes) / len(classes)
        total += (1 - smoothing) * float(-log_p[y]) + smoothing * mean
    return total


@pytest.mark.parametrize(
    ("smoothing", "pad", "loss"),
    # log(e² + 3) = 2.340753; the mean of z over all classes is 1/2, over three 2/3.
    [(0.0, None, 0.340753), (0.1, None, 0.490753), (0.1, 3, 0.474086)],
)
def test_the_loss_of_one_token_by_hand(smoothing, pad, loss):
    z = torch.tensor([[2.0, 0, 0, 0]])
    found = label_smoothed_loss(z, torch.tensor([0]), smoothing, pad=pad)
    assert float(found) == pytest.approx(loss, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 999),
    st.integers(2, 7),
    st.integers(1, 6),
    st.floats(0, 0.9),
    st.sampled_from([None, 0, 1]),
)
def test_the_loss_is_that_of_the_formula(seed, classes, tokens, smoothing, pad):
    draw = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(tokens, classes, generator=draw)
    targets = torch.randint(classes, (tokens,), generator=draw)
    found = float(label_smoothed_loss(scores, targets, smoothing, pad=pad))
    assert found == pytest.approx(
        by_the_formula(scores, targets, smoothing, pad), rel=1e-5, abs=1e-5
    )


def test_without_padding_it_is_torchs_loss():
    torch.manual_seed(0)
    scores, targets = torch.randn(2, 3, 5), torch.randint(5, (2, 3))
    wanted = F.cross_entropy(
        scores.flatten(0, 1), targets.flatten(), label_smoothing=0.1, reduction="sum"
    )
    torch.testing.assert_close(label_smoothed_loss(scores, targets), wanted)


def test_padded_targets_have_no_gradient_and_nothing_else_is_smoothed_to_padding():
    scores = torch.zeros(2, 4, requires_grad=True)
    label_smoothed_loss(scores, torch.tensor([2, 0]), 0.3, pad=0).backward()
    gradient = scores.grad
    assert not gradient[1].any()
    # p - (smoothed label): the padding's label is 0, the others' 0.3/3, and 0.7 more.
    wanted = torch.full((4,), 0.25) - torch.tensor([0, 0.1, 0.8, 0.1])
    torch.testing.assert_close(gradient[0], wanted)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"smoothing": 1.0}, r"smoothing=1.0\): must be a number in \[0, 1\)"),
        ({"pad": 4}, r"pad=4\): must be an integer in \[0, 4\)"),
        (
            {"targets": torch.zeros(3, dtype=torch.int64)},
            r"need targets of shape \(2,\)",
        ),
    ],
)
def test_bad_arguments_are_refused(how, message):
    given = {"targets": torch.zeros(2, dtype=torch.int64), **how}
    with pytest.raises(ValueError, match=message):
        label_smoothed_loss(torch.zeros(2, 4), **given)
