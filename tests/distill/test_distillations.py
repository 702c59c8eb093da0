"""Every distillation against numbers worked out by hand, and slow loops."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from elision.distill import (
    DISTILLATIONS,
    AttentionTransfer,
    Average,
    BornAgain,
    Distillation,
    Hinton,
    Hints,
    Outputs,
    Relational,
    make_distillations,
)
from elision.distill.average import follow
from elision.distill.relational import angles, distances

#: One of each, that reads scores or the layer "a".
MEMBERS: dict[str, Distillation] = {
    "hinton": Hinton(),
    "hints": Hints("a"),
    "attention": AttentionTransfer("a"),
    "relational": Relational("a"),
    "born-again": BornAgain(),
    "average": Average(),
}


def term_of(part: Distillation, student: Outputs, teacher: Outputs) -> Tensor:
    lesson = part.lesson(teacher)
    assert len(lesson) == part.lesson_size
    return part.term(student, lesson, part.modules())


def outputs(scores: Tensor, layer: Tensor | None = None) -> Outputs:
    return Outputs(scores, len(scores), {} if layer is None else {"a": layer})


def test_the_table_of_members_is_whole() -> None:
    assert list(MEMBERS) == list(DISTILLATIONS)
    for name, part in MEMBERS.items():
        spec = f"{name}:student=a" if part.student_layers else name
        assert make_distillations(spec) == (part,)


def test_hinton_by_hand() -> None:
    student = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    taught = F.softmax(teacher / 2, 1)
    assert taught[0, 0].item() == pytest.approx(0.731059, abs=5e-7)
    term = term_of(Hinton(2.0, 1.0), outputs(student), outputs(teacher))
    assert term.item() == pytest.approx(0.443776, abs=5e-7)
    assert term.item() / 4 == pytest.approx(0.110944, abs=5e-7)
    term.backward()
    assert student.grad is not None
    assert student.grad.tolist()[0] == pytest.approx([-0.462117, 0.462117], abs=5e-7)


@given(seed=st.integers(0, 99), heat=st.sampled_from([0.5, 1.0, 4.0, 1000.0]))
@settings(max_examples=10, deadline=None)
def test_hinton_is_its_formula_and_so_is_its_gradient(seed: int, heat: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    student, teacher = (
        torch.randn(5, 7, generator=draw, dtype=torch.float64) for _ in range(2)
    )
    student.requires_grad_()
    term = term_of(Hinton(heat, 0.7), outputs(student), outputs(teacher))
    slow = 0.0
    for z_s, z_t in zip(student.tolist(), teacher.tolist(), strict=True):
        p, q = (
            [math.exp(z / heat) / sum(math.exp(v / heat) for v in zs) for z in zs]
            for zs in (z_t, z_s)
        )
        slow += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert term.item() == pytest.approx(0.7 * heat**2 * slow / 5, abs=1e-9, rel=1e-6)
    term.backward()
    apart = F.softmax(student / heat, 1) - F.softmax(teacher / heat, 1)
    assert student.grad is not None
    torch.testing.assert_close(student.grad, 0.7 * heat * apart / 5, atol=1e-12, rtol=0)


def test_a_hot_hinton_matches_scores_without_their_means() -> None:
    draw = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(3, 10, generator=draw, dtype=torch.float64) for _ in range(2)
    )
    student.requires_grad_()
    term_of(Hinton(1000.0, 1.0), outputs(student), outputs(teacher)).backward()
    centred = [x - x.mean(1, keepdim=True) for x in (student.detach(), teacher)]
    limit = (centred[0] - centred[1]) / 10 / 3
    assert student.grad is not None
    assert (student.grad - limit).norm() / limit.norm() < 4e-3


@pytest.mark.parametrize("name", [name for name in MEMBERS if name != "hints"])
def test_a_student_equal_to_its_teacher_has_nothing_to_learn(name: str) -> None:
    draw = torch.Generator().manual_seed(1)
    scores, maps = (
        torch.randn(4, 6, generator=draw),
        torch.randn(4, 3, 5, 5, generator=draw),
    )
    said = outputs(scores.requires_grad_(), maps.requires_grad_())
    term = term_of(MEMBERS[name], said, outputs(scores.detach(), maps.detach()))
    term.backward()
    assert abs(term.item()) < 1e-6
    for given_to in (scores, maps):
        if given_to.grad is not None:
            assert given_to.grad.abs().max() < 1e-6


def test_the_mean_is_over_examples_and_not_over_classes() -> None:
    student, teacher = torch.randn(6, 10), torch.randn(6, 10)
    p, q = (F.softmax(x / 4, 1) for x in (teacher, student))
    wrong = (p * (p.log() - q.log())).mean()  # what reduction="mean" would be
    term = term_of(Hinton(4.0, 1.0), outputs(student), outputs(teacher))
    assert term.item() == pytest.approx(16 * 10 * wrong.item(), rel=1e-4)


def test_hints_by_hand() -> None:
    hints = Hints("a", weight=2.0)
    own, its = torch.randn(3, 4, 5, 5), torch.randn(3, 6, 5, 5)
    regressors = hints.modules()
    term = hints.term(outputs(own, own), (its,), regressors)
    (regressor,) = regressors
    assert {tuple(p.shape) for p in regressor.parameters()} == {(6, 4, 1, 1), (6,)}
    slow = sum(
        0.5 * ((regressor(own[i : i + 1])[0] - its[i]) ** 2).sum().item()
        for i in range(3)
    )
    assert term.item() == pytest.approx(2.0 * slow / 3, rel=1e-5)
    tokens = hints.term(
        outputs(own, torch.randn(3, 7, 4)), (torch.randn(3, 7, 6),), hints.modules()
    )
    assert tokens.isfinite()


def test_attention_is_that_of_loops_and_knows_no_scale() -> None:
    own, its = torch.randn(2, 3, 4, 5), torch.randn(2, 8, 4, 5)
    part = AttentionTransfer("a", weight=3.0)
    term = term_of(part, outputs(own, own), outputs(its, its))
    slow = 0.0
    for mine, theirs in zip(own, its, strict=True):
        q, p = ((x**2).sum(0).flatten() for x in (mine, theirs))
        slow += float((q / q.norm() - p / p.norm()).norm()) / 2
    assert term.item() == pytest.approx(3 * slow, rel=1e-5)
    scaled = term_of(part, outputs(own, 100 * own), outputs(its, 0.01 * its))
    assert scaled.item() == pytest.approx(term.item(), rel=1e-4)


def test_relations_are_those_of_loops() -> None:
    draw = torch.Generator().manual_seed(3)
    own, its = (torch.randn(5, n, generator=draw, dtype=torch.float64) for n in (4, 7))

    def huber(a: float, b: float) -> float:
        d = abs(a - b)
        return 0.5 * d * d if d <= 1 else d - 0.5

    places = range(5)
    pairs = list(itertools.permutations(places, 2))
    triples = list(itertools.permutations(places, 3))
    apart, bent = [], []
    for x in (own, its):
        raw = {(i, j): float((x[i] - x[j]).norm()) for i, j in pairs}
        mean = sum(raw.values()) / len(pairs)
        apart.append({key: value / mean for key, value in raw.items()})
        bent.append(
            {
                (i, j, k): float(F.cosine_similarity(x[i] - x[j], x[k] - x[j], 0))
                for i, j, k in triples
            }
        )
    slow = sum(huber(apart[0][p], apart[1][p]) for p in pairs) / len(pairs)
    slow_bent = sum(huber(bent[0][t], bent[1][t]) for t in triples) / len(triples)
    part = Relational(weight=2.0, distance=3.0, angle=5.0)
    term = term_of(part, outputs(own), outputs(its))
    assert term.item() == pytest.approx(2 * (3 * slow + 5 * slow_bent), rel=1e-9)


def test_relations_know_neither_scale_nor_turn_and_bear_equal_points() -> None:
    points = torch.randn(6, 3, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    for relation in (distances, angles):
        torch.testing.assert_close(relation(points), relation(7 * points @ turn + 1))
    same = torch.ones(4, 3, requires_grad=True)
    term_of(Relational(), outputs(same), outputs(torch.randn(4, 3))).backward()
    assert same.grad is not None
    assert same.grad.isfinite().all()
    alone = torch.randn(1, 3)
    assert term_of(Relational(), outputs(alone), outputs(alone)).item() == 0


def test_an_average_follows_as_its_formula_says() -> None:
    student = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = [p.clone() for p in average.parameters()]
    student(torch.randn(8, 3))
    follow(average, student, 0.9)
    for old, new, its in zip(
        before, average.parameters(), student.parameters(), strict=True
    ):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * its)
    for own, its in zip(average.buffers(), student.buffers(), strict=True):
        assert torch.equal(own, its)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("hinton:temperature=0", r"Hinton\(temperature=0.0\): must be a number > 0"),
        ("hinton:weight=1.5", r"must be a number in \[0, 1\]"),
        ("hinton+born-again", "sum of label shares=1.4"),
        ("hints", "missing 1 required positional argument: 'student'"),
        ("hints:student=a,weight=-1", "must be a number >= 0"),
        ("hints(a, (b, c))", "must name as many layers"),
        ("relational(teacher=a)", "needs a layer of the student"),
        ("hintn", "did you mean 'hinton'"),
        ("average(decay=1)", r"must be a number in \[0, 1\)"),
    ],
)
def test_what_cannot_be_learnt_is_said(spec: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make_distillations(spec)


@pytest.mark.parametrize(
    ("part", "own", "its", "said"),
    [
        (Hinton(), (2, 10), (2, 8), "scores of 8 classes, the student with 10"),
        (Hints("a"), (2, 3, 8, 8), (2, 3, 4, 4), "two of one height and width"),
        (
            AttentionTransfer("a"),
            (2, 3, 8, 8),
            (2, 3, 4, 4),
            "maps of 64 and 16 places",
        ),
        (AttentionTransfer("a"), (2, 3), (2, 3), "answers with maps"),
        (Relational(), (6, 10), (6, 10), "6 rows of class scores for 2 examples"),
    ],
)
def test_outputs_that_do_not_fit_are_named(
    part: Distillation, own: tuple[int, ...], its: tuple[int, ...], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        term_of(
            part,
            Outputs(torch.ones(own), 2, {"a": torch.ones(own)}),
            Outputs(torch.ones(its), 2, {"a": torch.ones(its)}),
        )
