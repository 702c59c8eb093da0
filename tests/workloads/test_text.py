"""Parallel text, vocabularies and BLEU, on forty sentences written for these tests."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.workloads.text import (
    BytePairs,
    ParallelText,
    Translations,
    bleu,
    read_pairs,
    read_verses,
    split,
)
from elision.workloads.text.verses import FOLDER, plain_text
from elision.workloads.tokens import BOS, EOS, PAD, SPECIAL, UNK

PAIRS = Path(__file__).parent / "pairs.tsv"


def forty() -> ParallelText:
    return read_pairs(PAIRS, languages=("en", "es"))


# The corpus.


def test_the_forty_pairs_are_read():
    text = forty()
    assert repr(text) == "ParallelText('pairs', en-es, 36 + 4 pairs)"
    assert text.test[0] == ("Where is the new school?", "¿Dónde está la escuela nueva?")
    assert text.limited(9, 2).train == text.train[::4]
    assert text.limited(9, 2).test == text.test[::2]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("ABCDEF"))),
    st.integers(2, 5),
)
def test_no_text_of_the_test_is_in_training(pairs, every):
    train, test = split(pairs, every)
    assert not {a for a, _ in train} & {a for a, _ in test}
    assert not {b for _, b in train} & {b for _, b in test}
    assert len(set(train)) == len(train)
    assert len(test) == len(set(pairs)) // every
    assert set(train) | set(test) <= set(pairs)


def test_a_leak_is_refused():
    pair, other = ("a", "A"), ("b", "A")
    with pytest.raises(
        ValueError, match=r"a test sentence in es is in training, .* 'A'"
    ):
        ParallelText("leak", ("en", "es"), (pair,), (other,), "made")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one\tuno\ntwo dos\n", r"pairs.tsv, line 2: must be .* got 'two dos'"),
        ("one\tuno\tun\n", r"line 1: must be a sentence, a tab and its translation"),
        ("one\t \n", "line 1"),
        ("one\tuno\n", "'pairs': there is no pair to test on"),
        ("", "there is no pair to train on"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, text, message):
    file = tmp_path / "pairs.tsv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_pairs(file)


def test_a_file_of_another_encoding_is_refused(tmp_path):
    file = tmp_path / "pairs.tsv"
    file.write_bytes("two\tdós\n".encode("latin-1"))
    with pytest.raises(ValueError, match="is no UTF-8 text"):
        read_pairs(file)


# Verses: texts in the format of the SWORD project, made here.

_CONF = """[{name}]
DataPath=./modules/{name}/
ModDrv=zText
SourceType=OSIS
Encoding=UTF-8
CompressType=ZIP
BlockType=BOOK
Versification=KJV
"""


def write_sword(folder: Path, name: str, verses: dict[int, str]) -> None:
    """A module with these verses of Genesis 1; every file of its layout."""
    (folder / "mods.d").mkdir(exist_ok=True)
    (folder / "mods.d" / f"{name}.conf").write_text(_CONF.format(name=name))
    place = folder / "modules" / name
    place.mkdir(parents=True)
    block, records = b"", []
    # Before the first verse stand headings: of the module, testament, book and chapter.
    for index in range(4 + max(verses)):
        text = verses.get(index - 3, "").encode()
        records.append(struct.pack("<IIH", 0, len(block), len(text)))
        block += text
    packed = zlib.compress(block)
    (place / "ot.bzv").write_bytes(b"".join(records))
    (place / "ot.bzs").write_bytes(struct.pack("<III", 0, len(packed), len(block)))
    (place / "ot.bzz").write_bytes(packed)


def verse(text: str) -> str:
    return "".join(f'<w lemma="x">{word}</w> ' for word in text.split())


def test_verses_are_aligned_by_their_numbers(tmp_path):
    english = {n: verse(f"This is the verse {n} of it.") for n in range(1, 9)}
    spanish = {n: verse(f"Este es el verso {n} de ello.") for n in range(1, 9)}
    del spanish[2]
    english[4] = "<note>of one word</note>Short."
    write_sword(tmp_path, "engWEB2015eb", english)
    write_sword(tmp_path, "spaRV1909eb", spanish)
    text = read_verses(tmp_path, every=3)
    assert repr(text) == "ParallelText('verses', en-es, 4 + 2 pairs)"
    numbers = [1, 3, 5, 6, 7, 8]
    wanted = [
        (f"This is the verse {n} of it.", f"Este es el verso {n} de ello.")
        for n in numbers
    ]
    assert [*text.train, *text.test] == [wanted[i] for i in (0, 1, 3, 4, 2, 5)]


def test_verses_that_do_not_belong_together_are_left_out(tmp_path):
    english = {n: f"Verse number {n} is in here." for n in range(1, 31)}
    spanish = {n: f"Verso número {n} está aquí." for n in range(1, 31)}
    spanish[7] = "Un verso que es mucho más largo que su original " * 3
    spanish[9] = "palabra " * 41
    write_sword(tmp_path, "engWEB2015eb", english)
    write_sword(tmp_path, "spaRV1909eb", spanish)
    text = read_verses(tmp_path, every=5)
    assert len(text.train) + len(text.test) == 28
    assert not any(
        "más largo" in b or "palabra" in b for _, b in text.train + text.test
    )


def test_verses_without_a_sentence_of_the_right_length_are_refused(tmp_path):
    for module in ("engWEB2015eb", "spaRV1909eb"):
        write_sword(tmp_path, module, {1: "one two three four"})
    with pytest.raises(ValueError, match="there is no pair to train on"):
        read_verses(tmp_path, max_words=3)


@pytest.mark.parametrize(
    ("marked", "text"),
    [
        ("<w>God</w><note>Elohim <w>x</w></note><w>created</w>", "God created"),
        ('<title type="section">Book 1</title>Blessed', "Blessed"),
        ('<title canonical="true">A Psalm.</title> <l sID="1"/>Many', "A Psalm. Many"),
        ("<q>“Peace</q><l/> <l/>be,</q> <note>a</note> ”", "“Peace be,”"),
        ("<w>the</w> <w>LORD</w>’<w>s</w> ! ", "the LORD’s!"),
        ("he said<lb/>to", "he said to"),
        ("the endThe start", "the end The start"),
    ],
)
def test_marks_are_no_text(marked, text):
    assert plain_text(marked) == text


def test_a_text_that_is_not_installed_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="apt-get install sword-text-web, or"):
        read_verses(tmp_path)
    write_sword(tmp_path, "engWEB2015eb", {1: "One verse of it."})
    with pytest.raises(FileNotFoundError, match="apt-get install sword-text-sparv"):
        read_verses(tmp_path)


@pytest.mark.skipif(not FOLDER.is_dir(), reason="sword-text-web is not installed")
def test_the_installed_verses():
    text = read_verses()
    assert len(text.train) + len(text.test) > 27_000
    assert text.test[0][0].startswith("The heavens, the earth, and all")


# The vocabulary.


def learned(size: int = 160) -> Translations:
    return Translations.of(forty(), size)


def test_special_tokens_have_their_numbers():
    pieces = learned().vocabulary
    assert [pieces.decode([n]) for n in range(4)] == [""] * 4
    assert (PAD, UNK, BOS, EOS) == (0, 1, 2, 3)
    known = pieces._tokenizer
    assert [known.token_to_id(name) for name in SPECIAL] == [0, 1, 2, 3]


@given(
    st.lists(st.sampled_from(" ".join(a + " " + b for a, b in forty().train).split()))
)
@settings(max_examples=60, deadline=None)
def test_sentences_of_known_characters_come_back(words):
    sentence = " ".join(words)
    tokens = VOCABULARY.encode(sentence)
    assert VOCABULARY.decode(tokens) == sentence
    assert all(EOS < token < len(VOCABULARY) for token in tokens)


VOCABULARY = learned().vocabulary


def test_the_test_text_teaches_nothing():
    text = forty()
    other = ParallelText(
        "other", text.languages, text.train, (("ŁŁŁ ŁŁŁ", "ßßß"),) * 9, "made"
    )
    assert Translations.of(other, 160).vocabulary.to_text() == VOCABULARY.to_text()
    assert UNK in VOCABULARY.encode("Ł")


def test_the_vocabulary_is_the_same_in_another_process():
    code = (
        "from pathlib import Path; from elision.workloads.text import *; import sys;"
        "text = read_pairs(Path(sys.argv[1]), languages=('en', 'es'));"
        "print(Translations.of(text, 160).vocabulary.to_text())"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, PAIRS], check=True, capture_output=True, text=True
    )
    assert found.stdout.strip() == VOCABULARY.to_text().strip()
    assert BytePairs(found.stdout).encode("The cat.") == VOCABULARY.encode("The cat.")


def test_a_larger_vocabulary_needs_fewer_tokens():
    sizes = (80, 120, 160)
    lengths = [
        sum(len(a) + len(b) for a, b in learned(size).train_tokens) for size in sizes
    ]
    assert [len(learned(size).vocabulary) for size in sizes] == list(sizes)
    assert lengths[0] > lengths[1] > lengths[2]


def test_tokens_are_those_of_their_sentences():
    data = learned()
    assert len(data.test_tokens) == 4
    assert tuple(map(data.vocabulary.decode, data.test_tokens[0])) == data.text.test[0]
    few = data.limited(6, 2)
    assert few.vocabulary is data.vocabulary
    assert repr(few) == "Translations('pairs', en-es, 6 + 2 pairs, 160 tokens)"
    assert few.train_tokens == data.train_tokens[::6]


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (4, r"size=4\): must be an integer > 4"),
        (20, "the text has 54 characters and there"),
    ],
)
def test_a_vocabulary_that_is_too_small_is_refused(size, message):
    with pytest.raises(ValueError, match=message):
        learned(size)


# BLEU.


def test_bleu_by_hand():
    found = bleu(["the cat sat on the mat"], ["the cat sat on a mat"])
    assert found.score == pytest.approx(
        100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25, abs=1e-9
    )
    assert found.score == pytest.approx(53.7285, abs=5e-5)
    assert found.precisions == pytest.approx([500 / 6, 60, 50, 100 / 3])
    assert found.brevity == 1
    assert found.signature.startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp")


def test_a_short_translation_is_penalised():
    found = bleu(["the cat"], ["the cat sat on the mat"])
    assert found.brevity == pytest.approx(0.1353, abs=5e-5)  # e^(1 - 6/2)


def test_case_counts_unless_told_otherwise():
    upper, lower = ["The Cat Sat On It"], ["the cat sat on it"]
    assert bleu(upper, lower).score < 10
    found = bleu(upper, lower, lower=True)
    assert found.score == pytest.approx(100)
    assert "case:lc" in found.signature


def test_translations_without_references_are_refused():
    with pytest.raises(ValueError, match="2 translations need as many references"):
        bleu(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="at least one, got 0"):
        bleu([], [])


# Without the extra.


@pytest.mark.parametrize(
    ("package", "use"),
    [
        ("tokenizers", learned),
        ("sacrebleu", lambda: bleu(["a"], ["a"])),
        ("pysword", read_verses),
    ],
)
def test_a_missing_package_is_one_line(monkeypatch, package, use):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError) as found:
        use()
    message = str(found.value)
    assert f"needs {package}, which is not installed" in message
    assert message.endswith("pip install 'elision[translation]'")
    assert "\n" not in message
