"""Texts as ids: only their beginnings are tokenized, to the same ids."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from limelight.data import Tokenizer
from limelight.models.inputs import TextInputs, take_words

SIGNS = "aBσΣ1.'- \t\n\u00a0\u0301\u0600\u200d\u2028\x00\x1c\ud800🙂"
TOKENIZER = Tokenizer.train(["a b . aa ab σ ς ' - 1 🙂 aΣ\u0301 é"] * 2)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.text(SIGNS, max_size=40), min_size=1, max_size=4), st.integers(1, 8))
@example(["a \u0301 b a"], 1)
@example(["\u0600 a b"], 1)
@example(["\x00 \x00 a b"], 2)
@example(["aΣ b", "aΣ"], 1)
def test_ids_are_those_of_the_whole_text(texts, length):
    expected = [encoding.ids.tolist() for encoding in TOKENIZER.encode(texts, length)]
    sequences = TextInputs(TOKENIZER, length).encode(texts).sequences
    assert [np.asarray(ids).tolist() for ids in sequences] == expected


def test_what_is_not_read_is_not_tokenized():
    assert take_words("a bb  ccc dddd", 3) == "a bb  ccc "
    assert take_words(" a\nb", 1) == " a\n"
    assert take_words("a bb", 5) == "a bb"
    # 10 million words.
    text = "a " * 10_000_000
    assert [len(ids) for ids in TextInputs(TOKENIZER, 4).encode([text]).sequences] == [4]
