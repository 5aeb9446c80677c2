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
@example(["\u00a0 \u00a0 a b"], 2)
@example(["\u00a0 1"], 1)
@example(["aΣ b", "aΣ"], 1)
def test_ids_are_those_of_the_whole_text(texts, length):
    expected = [encoding.ids.tolist() for encoding in TOKENIZER.encode(texts, length)]
    sequences = TextInputs(TOKENIZER, length).encode(texts).sequences
    assert [np.asarray(ids).tolist() for ids in sequences] == expected


def test_what_is_not_read_is_not_tokenized():
    assert take_words("a bb  ccc dddd", 3) == "a bb  ccc "
    assert take_words(" a\nb", 1) == " a\n"
    assert take_words("a bb", 5) == "a bb"


def test_what_follows_is_not_given_to_the_tokenizer():
    received = []

    class Recorder(Tokenizer):
        def encode(self, texts, length=None):
            received.extend(texts)
            return super().encode(texts, length)

    sequences = TextInputs(Recorder(TOKENIZER.words), 2).encode(["a b " * 1000, "ab a", "\u00a0 a b"]).sequences
    # The third begins with white space of another kind, which is no token: it is read whole.
    assert received == ["a b ", "ab a", "\u00a0 a ", "\u00a0 a b"]
    assert [len(ids) for ids in sequences] == [2, 2, 2]
