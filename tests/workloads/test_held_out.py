"""Training examples apart for choosing: none of the test, none in both parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.workloads import Examples, find_workload
from elision.workloads.examples import held_out_places
from elision.workloads.text.corpus import ParallelText
from elision.workloads.text.sentences import Sentences
from elision.workloads.text.translations import Translations


@given(st.integers(1, 3000), st.floats(0.01, 0.99))
def test_every_example_is_in_one_part(count: int, share: float) -> None:
    try:
        kept, held = held_out_places(count, share)
    except ValueError:
        # Runs are single examples then, and fewer than the share of one is held out.
        assert min(share, 1 - share) * count < 1 + 1e-6
        return
    assert sorted(kept + held) == list(range(count))
    assert abs(len(held) - share * count) <= 8
    assert (kept, held) == held_out_places(count, share)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"held_out\(share=.*number in \(0, 1\)"):
        held_out_places(100, share)


def test_images_held_out_are_training_images_and_no_longer_trained_on() -> None:
    whole = find_workload("digits-cnn").load_dataset()
    apart = whole.held_out(0.25)
    assert len(apart.train_images) + len(apart.test_images) == len(whole.train_images)
    known = {image.numpy().tobytes() for image in whole.train_images}
    trained = {image.numpy().tobytes() for image in apart.train_images}
    tested = {image.numpy().tobytes() for image in apart.test_images}
    assert trained | tested == known
    assert len(tested & trained) <= len(whole.train_images) - len(known)  # twins in it
    assert set(apart.test_labels.tolist()) == set(range(10))
    with pytest.raises(ValueError, match=r"of 1 examples one part would be empty"):
        whole.limited(1).held_out()


def test_text_held_out_is_nowhere_in_training() -> None:
    pairs = tuple((f"a{i % 7} b{i % 5}", f"c{i}") for i in range(34))
    text = ParallelText("small", ("x", "y"), pairs, (("d", "d"),), "made")
    apart = Translations.of(text, size=30).held_out(0.3).text  # itself refuses overlap
    assert set(apart.test) <= set(pairs)
    assert ("d", "d") not in apart.test
    lines = tuple(f"{'abcdefg'[i % 7]} {i}" for i in range(30))
    one = Sentences.of("lines", lines, every=3, size=40)
    two = one.held_out(0.3)
    assert set(two.test) <= set(one.train)
    assert set(two.train) | set(two.test) == set(one.train)


def test_data_of_a_kind_that_cannot_be_divided_says_so() -> None:
    class Waves(Examples):
        name, source = "waves", "made"

        def limited(self, train: int | None = None, test: int | None = None) -> "Waves":
            return self

        def content(self) -> list[bytes]:
            return []

    with pytest.raises(ValueError, match=r"a Waves cannot be divided.*held_out"):
        Waves().held_out()
