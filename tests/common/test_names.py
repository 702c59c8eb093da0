"""Unknown names are answered with the nearest and all valid ones."""

import pytest

from elision.common.names import lookup

TABLE = {"dense": 1, "swat": 2, "meprop": 3}


def test_a_known_name_gives_its_entry() -> None:
    assert lookup("recipe", "swat", TABLE) == 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "swatt",
            "unknown recipe 'swatt' (did you mean 'swat'?); known: dense, swat, meprop",
        ),
        ("zzz", "unknown recipe 'zzz'; known: dense, swat, meprop"),
    ],
)
def test_an_unknown_one_lists_them(name: str, said: str) -> None:
    with pytest.raises(ValueError, match="unknown recipe") as error:
        lookup("recipe", name, TABLE)
    assert str(error.value) == said
