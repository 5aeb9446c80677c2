"""Word ids, and the offsets of each token in the text."""

import collections
import json
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limelight.data import DataError, Tokenizer

pytestmark = pytest.mark.backend_free

ODD = [
    "Don't stop-me, now!!! It’s 3.5% [UNK] [PAD] [ padding ]",
    "İstanbul'da GROẞ ΣΊΣΥΦΟΣ ﬁn ½",
    "👩‍👩‍👧‍👦🇩🇪👍🏽 ok 1️⃣",
    "東京は日本の首都、ไทยภาษา",
    "مرحبا بالعالم \u202eabc\u202c",
    "हिन्दी में",
    "e\u0301a\u0301 cafe\u0301 \u0301\u0301",
    "a\u200bb\ufeffc\u200d می\u200cخواهم",
    "a\x00b\x1b[31m\x7f",
    "lone \ud800 surrogate \udfff\ud83d",
    "</script><img src=x onerror=alert(1)>",
    "",
    " \n\t\u3000",
]


def surface(text):
    """Return the vocabulary form of a token, in plain Python."""
    text = re.sub("[\ud800-\udfff]", "\ufffd", text)
    return "".join(c.lower() for c in unicodedata.normalize("NFC", text).replace("\u2019", "'"))


def check(text, encoding, words):
    """Check that offsets increase, cover everything but white space, and match the ids."""
    if not text.strip():
        assert (encoding.ids.tolist(), encoding.tokens, encoding.offsets) == ([1], ("",), ((0, 0),))
        return
    end = 0
    for id, token, (start, stop) in zip(encoding.ids, encoding.tokens, encoding.offsets, strict=True):
        assert end <= start < stop <= len(text)
        assert text[end:start].strip() == ""
        assert token == re.sub("[\ud800-\udfff]", "\ufffd", text[start:stop])
        assert id == words.get(surface(text[start:stop]), 1)
        end = stop
    assert text[end:].strip() == ""


@pytest.mark.parametrize("text", ODD)
def test_offsets_of_tokens_in_any_script(text):
    tokenizer = Tokenizer.train([*ODD, *ODD])
    words = {word: index for index, word in enumerate(tokenizer.words, start=2)}
    encoding = tokenizer.encode([text])[0]
    check(text, encoding, words)
    assert (1 in encoding.ids) == (not text.strip())
    assert 0 not in encoding.ids
    assert encoding.ids.dtype == np.int32


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters() | st.sampled_from("e\u0301\u0327\u0958\u1100\u1161\u11a8\u09c7\u09be'’ "), max_size=30))
def test_any_text_is_covered_by_its_tokens(text):
    encoding = Tokenizer(["a", "0", "é", "!"]).encode([text])[0]
    end = 0
    for start, stop in encoding.offsets:
        assert end <= start < stop or not text.strip()
        assert text[end:start].strip() == ""
        end = stop
    assert text[end:].strip() == ""
    assert len(encoding) == len(encoding.ids) == len(encoding.offsets) == len(encoding.tokens)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Don't stop-me, now!!", ["Don't", "stop", "-", "me", ",", "now", "!", "!"]),
        ("It’s the dogs' rock'n'roll", ["It’s", "the", "dogs", "'", "rock'n", "'", "roll"]),
        ("''quoted''", ["'", "'", "quoted", "'", "'"]),
        ("3.5% of snake_case", ["3", ".", "5", "%", "of", "snake_case"]),
        ("東京は", ["東", "京", "は"]),
        ("iPhone7手机很好", ["iPhone7", "手", "机", "很", "好"]),
        ("2023年3月", ["2023", "年", "3", "月"]),
        ("ABCコーヒー", ["ABC", "コ", "ー", "ヒ", "ー"]),
        ("ราคา500บาท", ["ร", "า", "ค", "า", "500", "บ", "า", "ท"]),
        ("a'東", ["a", "'", "東"]),
        ("👩‍👩‍👧‍👦👍🏽🇩🇪", ["👩‍👩‍👧‍👦", "👍🏽", "🇩🇪"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("می‌خواهم", ["می‌خواهم"]),
        ("cafe\u0301!", ["cafe\u0301", "!"]),
        ("a[UNK]b", ["a", "[", "UNK", "]", "b"]),
        ("x" * 70, ["x" * 64, "x" * 6]),
    ],
)
def test_texts_are_split_into_tokens(text, tokens):
    assert list(Tokenizer([]).encode([text])[0].tokens) == tokens


SPACELESS_SCRIPTS = ("CJK ", "HIRAGANA ", "KATAKANA", "THAI ", "LAO ", "KHMER ", "MYANMAR ", "IDEOGRAPHIC ITERATION")


def test_a_word_ends_where_a_script_without_spaces_begins():
    # The names in Python's Unicode database tell the scripts, independently of the tokenizer's blocks.
    letters = [
        character
        for character in map(chr, range(0x30000))
        if unicodedata.category(character) in ("Lo", "Lm", "Nd")
        and unicodedata.name(character, "").startswith(SPACELESS_SCRIPTS)
        and unicodedata.is_normalized("NFC", character)
    ]
    assert len(letters) > 80_000
    tokenizer = Tokenizer([])
    for before, after, step in (("7", "x7", 1), ("b", "", 13), ("é_", "9", 13), ("it's", "Ж", 13)):
        encodings = tokenizer.encode([f"{before}{letter}{after}" for letter in letters[::step]])
        for encoding, letter in zip(encodings, letters[::step], strict=True):
            assert encoding.tokens == (before, letter, *([after] if after else []))


def test_other_scripts_still_form_words():
    for word in ("3월에서", "Straße7", "Привет2", "हिन्दी", "مرحبا", "বাংলা"):
        assert Tokenizer([]).encode([f"({word})"])[0].tokens == ("(", word, ")")


def test_the_vocabulary_is_sorted_by_frequency_then_by_word(random):
    words = [f"w{i}" for i in range(40)]
    texts = [" ".join(random.choice(words, size=13)) for _ in range(29)]
    counts = collections.Counter(word for text in texts for word in text.split())
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    assert list(Tokenizer.train(texts).words) == [word for word in ranked if counts[word] >= 2]
    assert list(Tokenizer.train(texts, size=12).words) == ranked[:10]
    assert list(Tokenizer.train(texts, minimum=11).words) == [word for word in ranked if counts[word] >= 11]
    assert Tokenizer.train(texts, size=12).size == 12


def test_ids_upper_case_forms_and_unknown_words():
    tokenizer = Tokenizer(["good", "film", "it's", "caf\u00e9"])
    first, second = tokenizer.encode(["GOOD, film", "It’s Cafe\u0301"])
    assert first.ids.tolist() == [2, 1, 3]
    assert second.ids.tolist() == [4, 5]
    assert second.offsets == ((0, 4), (5, 10))
    assert tokenizer.size == 6


def test_truncation_is_counted():
    encodings = Tokenizer(["a"]).encode(["a a a a a a a", "a a", ""], length=5)
    assert [(len(each), each.truncated) for each in encodings] == [(5, 2), (2, 0), (1, 0)]
    assert encodings[0].offsets[-1] == (8, 9)
    assert encodings[0].ids.tolist() == [2] * 5


@pytest.mark.parametrize("length", [0, -1])
def test_a_length_that_is_not_positive(length):
    with pytest.raises(ValueError, match=rf"`length` must be positive, or None for all tokens. Received: {length}"):
        Tokenizer(["a"]).encode(["a"], length=length)


@pytest.mark.parametrize("blank", ["", " ", "\n\t\u3000\x1c"])
@pytest.mark.parametrize("length", [None, 3])
def test_a_blank_text_is_one_unknown_token(blank, length):
    encoding = Tokenizer(["a"]).encode([blank], length)[0]
    assert (encoding.ids.tolist(), encoding.tokens, encoding.offsets) == ([1], ("",), ((0, 0),))
    assert (encoding.ids.dtype, encoding.spans.dtype, encoding.text, encoding.truncated) == (
        np.int32,
        np.int32,
        blank,
        0,
    )


def test_more_texts_than_one_chunk_keep_their_order():
    encodings = Tokenizer(["a"]).encode(["a " * (number % 7) for number in range(2503)])
    assert [len(each) for each in encodings] == [max(1, number % 7) for number in range(2503)]


def test_special_names_in_a_text_are_ordinary_text():
    tokenizer = Tokenizer.train(["[ padding ] [ unknown ] [PAD] [UNK]"] * 3)
    ids = tokenizer.encode(["[ padding ] [PAD]"])[0].ids
    assert ids.min() >= 2


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        "word " * 200_000,
        "👩‍👩‍👧‍👦" * 90_000,
        "e" + "\u0301" * 1_000_000,
        "東" * 333_333,
        "\ud800" * 100_000,
    ],
    ids=["letters", "words", "emoji", "marks", "ideographs", "surrogates"],
)
def test_a_megabyte_of_anything(text):
    encoding = Tokenizer.train([text]).encode([text], length=1000)[0]
    assert len(encoding) == 1000
    assert encoding.truncated > 0
    assert max(map(len, encoding.tokens)) <= 81 or "\u0301" in text


def test_save_and_load(tmp_path):
    tokenizer = Tokenizer.train([*ODD, *ODD])
    tokenizer.save(tmp_path / "t.json")
    again = Tokenizer.load(tmp_path / "t.json")
    assert again.words == tokenizer.words
    for text in ODD:
        assert again.encode([text])[0].ids.tolist() == tokenizer.encode([text])[0].ids.tolist()
    document = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert (document["format"], document["version"]) == ("limelight.tokenizer", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["t.json"]


def good_file(**changes):
    return json.dumps({"format": "limelight.tokenizer", "version": 1, "words": ["a", "b"], **changes}).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not complete JSON"),
        (good_file()[:-3], "not complete JSON"),
        (b"\xff\xfe\x00", "not complete JSON"),
        (b"[" * 100_000, "not complete JSON"),
        (b"[]", "another JSON document"),
        (b'{"version": "1.0", "model": {}}', "another JSON document"),
        (good_file(version=2), "version 1. Received: version 2"),
        (good_file(words="ab"), "not a list of strings"),
        (good_file(words=["a", 1]), "not a list of strings"),
        (good_file(words=["a", "a"]), "must all differ. Received: 2 with 1 different"),
        (good_file(words=["a", ""]), "must be tokens, without white space or lone surrogates. Received: ''"),
        (good_file(words=["[ padding ]"]), "Received: '. padding .'"),
        (good_file(words=["\ud800"]), "Received: '.ud800'"),
        (b" " * (64 * 2**20 + 1), "larger than 64 MiB"),
    ],
)
def test_a_file_that_is_not_a_tokenizer(tmp_path, content, message):
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        Tokenizer.load(path)
    assert "t.json' must be a tokenizer file" in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"No such file"):
        Tokenizer.load(tmp_path / "none.json")
    with pytest.raises(DataError, match=r"must be a tokenizer file"):
        Tokenizer.load(tmp_path)


def test_a_single_string_is_refused():
    with pytest.raises(TypeError, match=r"`texts` must be a list of strings. Received: one string"):
        Tokenizer.train("a text")
    with pytest.raises(TypeError, match=r"Put it in a list"):
        Tokenizer(["a"]).encode("a text")


def test_an_empty_vocabulary():
    with pytest.raises(ValueError, match=r"`size` must be at least 3"):
        Tokenizer.train(["a"], size=2)
    tokenizer = Tokenizer.train(["each word once"])
    assert tokenizer.size == 2
    assert tokenizer.encode(["each word"])[0].ids.tolist() == [1, 1]
    assert Tokenizer.train([]).size == 2


def test_the_representation_is_short():
    assert repr(Tokenizer(["a"]).encode(["a b " * 99], length=50)[0]) == (
        "Encoding(50 tokens, 148 truncated: 'a b a b a b a b …')"
    )


@pytest.mark.parametrize("odd", ["\x1c", "\x1d", "\x1e", "\x1f", "\u06dd ", "\u0600 "])
def test_characters_that_only_python_takes_for_white_space(odd):
    tokenizer = Tokenizer.train([f"a{odd}b", f"a{odd}c", f"b {odd} c"])
    assert set(tokenizer.words) == {"a", "b", "c"}
    assert [int(id) for id in tokenizer.encode([f"a{odd}b"])[0].ids if id > 1] == [
        tokenizer.words.index("a") + 2,
        tokenizer.words.index("b") + 2,
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=4))
def test_any_text_can_be_trained_on(texts):
    words = Tokenizer.train(texts * 2).words
    assert all(word.split() == [word] for word in words)
