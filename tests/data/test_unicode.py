"""NFC with offsets: equal to Python's own NFC, and no character of the text is lost."""

import unicodedata

import pytest

from limelight.data.unicode import compose, fold

pytestmark = pytest.mark.backend_free


@pytest.mark.parametrize(
    ("text", "composed", "offsets"),
    [
        ("caf\u00e9", "caf\u00e9", None),
        ("e\u0301a", "\u00e9a", [(0, 2), (2, 3)]),
        ("xa\u0327\u0301", "x\u00e1\u0327", [(0, 1), (1, 2), (2, 4)]),
        ("\u1100\u1161\u11a8b", "\uac01b", [(0, 3), (3, 4)]),
        ("\u0958b", "\u0915\u093cb", [(0, 1), (0, 1), (1, 2)]),
        ("\u0301e\u0301", "\u0301\u00e9", [(0, 1), (1, 3)]),
    ],
)
def test_examples(text, composed, offsets):
    assert compose(text) == (composed, offsets)


def test_every_character_that_can_change_is_mapped_back_in_full():
    characters = [chr(code) for code in range(0x110000)]
    changing = [c for c in characters if unicodedata.combining(c) or unicodedata.decomposition(c)]
    assert len(changing) > 5000
    for character in changing:
        for text in (character, f"a{character}b", unicodedata.normalize("NFD", f"a{character}b")):
            composed, offsets = compose(text)
            assert composed == unicodedata.normalize("NFC", text)
            if offsets is not None:
                assert len(offsets) == len(composed)
                assert "".join(text[start:end] for start, end in dict.fromkeys(offsets)) == text


def test_lone_surrogates_are_folded_as_a_tokenizer_reads_them():
    assert fold("a\ud83db") == fold("a\ufffdb")
