"""Raw inputs of estimators: check them, learn a vocabulary from them, and encode them as examples of a Keras model."""

import itertools
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, Self

import numpy as np

from limelight.data import Tokenizer
from limelight.data.stored import Stored, StoredList, store_ids, store_texts
from limelight.exceptions import DataError
from limelight.models.examples import Documents, Examples, Sequences
from limelight.models.pretrained import PretrainedTokenizer

# Texts that are encoded at a time.
_CHUNK = 10_000
# A word, and the white space after it: some signs are one grapheme with it.
_WORD = re.compile(r"[^ \t\r\n]+[ \t\r\n]?")
_SENTENCE_ENDS = frozenset(".!?…。！？")


class CutWarning(UserWarning):
    """Inputs are longer than a model reads."""


def warn_of_cut(limit: str, cut: int, total: int, stacklevel: int) -> None:
    """Warn if a model does not read some inputs to their end.

    Args:
        limit: How much is read of an input, such as "512 words".
        cut: The number of inputs that are longer.
        total: The number of all inputs.
        stacklevel: As in `warnings.warn`, counted from the caller.
    """
    if cut:
        warnings.warn(
            f"Inputs must have at most {limit} to be read whole. Received: {cut:,} longer of {total:,}. Their ends are left out.",
            CutWarning,
            stacklevel=stacklevel + 1,
        )


class Inputs(Protocol):
    """The encoding of one kind of raw inputs, learned from training inputs.

    Attributes:
        limit: How much is read of an input, such as "512 words".
    """

    limit: str

    def encode(self, X: Any, targets: Any = None, weights: Any = None) -> Examples:
        """Return inputs as examples."""
        ...

    def count_cut(self, X: Any) -> int:
        """Count the inputs that are longer than what is read of one."""
        ...

    def tokens(self, X: Any) -> Any:
        """Return the tokens of each input, nested for documents; None for numbers."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` needs, ready for JSON."""
        ...

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Self:
        """Return the inputs that `to_dict` described."""
        ...


class TextInputs:
    """Texts as ids of words.

    Args:
        tokenizer: A tokenizer trained on the training texts, or that of a pretrained encoder.
        max_length: Number of words that are read of a text.
    """

    def __init__(self, tokenizer: Tokenizer | PretrainedTokenizer, max_length: int) -> None:
        self.tokenizer, self.max_length = tokenizer, max_length
        self.limit = f"{max_length:,} {'tokens' if isinstance(tokenizer, PretrainedTokenizer) else 'words'}"

    def encode(self, X: Any, targets: Any = None, weights: Any = None) -> Sequences:
        """Return the texts as sequences of ids. Those of texts in a file are in a file too."""
        texts = as_texts(X)
        sequences: Any = store_ids() if isinstance(texts, Stored) else []
        for start in range(0, len(texts), _CHUNK):
            sequences.extend(self._encode(texts[start : start + _CHUNK]))
        return Sequences(sequences, targets, weights)

    def _encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the ids of the first `max_length` tokens of each text; what follows them is not tokenized."""
        if isinstance(self.tokenizer, PretrainedTokenizer):
            return [np.asarray(each.ids, np.int32) for each in self.tokenizer.encode(texts, self.max_length)]
        starts = [take_words(text, self.max_length) for text in texts]
        encodings = self.tokenizer.encode(starts, self.max_length)
        # White space of another kind, or a sign that the tokenizer leaves out, is no token; without any, there is an unknown one
        # that spans nothing.
        short = [
            index
            for index, (each, start, text) in enumerate(zip(encodings, starts, texts, strict=True))
            if len(start) < len(text) and (len(each.ids) < self.max_length or not each.spans.any())
        ]
        for index, encoding in zip(
            short, self.tokenizer.encode([texts[index] for index in short], self.max_length), strict=True
        ):
            encodings[index] = encoding
        return [each.ids for each in encodings]

    def count_cut(self, X: Any) -> int:
        """Count the texts that are longer than the words that are read of a text."""
        # A word has a letter at least, and a pretrained tokenizer adds two special tokens.
        texts = [text for text in as_texts(X) if len(text) > self.max_length - 2]
        encodings: Any = self.tokenizer.encode(texts, self.max_length)
        if isinstance(self.tokenizer, PretrainedTokenizer):
            return sum(bool(encoding.overflowing) for encoding in encodings)
        return sum(encoding.truncated > 0 for encoding in encodings)

    def tokens(self, X: Any) -> list[list[str]]:
        """Return the words of each text, as written."""
        return [list(encoding.tokens) for encoding in self.tokenizer.encode(as_texts(X), self.max_length)]

    def to_dict(self) -> dict[str, Any]:
        """Return the vocabulary and the maximum length."""
        tokenizer = self.tokenizer
        is_pretrained = isinstance(tokenizer, PretrainedTokenizer)
        words = {"tokenizer": tokenizer.document} if is_pretrained else {"words": list(tokenizer.words)}
        return {**words, "max_length": self.max_length}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Self:
        """Return the inputs that `to_dict` described."""
        is_pretrained = "tokenizer" in document
        tokenizer = PretrainedTokenizer(document["tokenizer"]) if is_pretrained else Tokenizer(document["words"])
        return cls(tokenizer, int(document["max_length"]))


class DocumentInputs:
    """Texts as sentences of ids of words.

    A sentence ends after ".", "!", "?" or "…" and at a line break. One of more than `max_words` words is continued as the next
    sentence, so that nothing is lost.

    Args:
        tokenizer: A tokenizer trained on the training texts.
        max_sentences: Number of sentences that are read of a document.
        max_words: Number of words of a sentence.
    """

    def __init__(self, tokenizer: Tokenizer, max_sentences: int, max_words: int) -> None:
        self.tokenizer, self.max_sentences, self.max_words = tokenizer, max_sentences, max_words
        self.limit = f"{max_sentences:,} sentences of {max_words:,} words"

    @classmethod
    def fit(cls, texts: Sequence[str], vocabulary: int, max_sentences: int, max_words: int) -> Self:
        """Learn a vocabulary of at most `vocabulary` ids."""
        return cls(Tokenizer.train(texts, size=max(3, vocabulary)), max_sentences, max_words)

    def encode(self, X: Any, targets: Any = None, weights: Any = None) -> Documents:
        """Return the texts as documents of sentences of ids."""
        documents = [[ids for ids, _ in sentences] for sentences in self._split(X)]
        return Documents(documents, targets, weights, self.max_words)

    def count_cut(self, X: Any) -> int:
        """Count the texts that have more sentences than are read of a text."""
        encodings = self.tokenizer.encode(as_texts(X), self.max_sentences * self.max_words)
        return sum(
            encoding.truncated > 0
            or len(split_sentences(encoding.text, encoding.spans, self.max_words)) > self.max_sentences
            for encoding in encodings
        )

    def tokens(self, X: Any) -> list[list[list[str]]]:
        """Return the words of each sentence of each text, as written."""
        return [[words for _, words in sentences] for sentences in self._split(X)]

    def _split(self, X: Any) -> Iterator[list[tuple[np.ndarray, list[str]]]]:
        """Yield the sentences of each text: ids and words."""
        for encoding in self.tokenizer.encode(as_texts(X), self.max_sentences * self.max_words):
            sentences = []
            for start, end in split_sentences(encoding.text, encoding.spans, self.max_words):
                sentences.append((encoding.ids[start:end], list(encoding.tokens[start:end])))
            yield sentences[: self.max_sentences]

    def to_dict(self) -> dict[str, Any]:
        """Return the vocabulary and the limits."""
        return {
            "words": list(self.tokenizer.words),
            "max_sentences": self.max_sentences,
            "max_words": self.max_words,
        }

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Self:
        """Return the inputs that `to_dict` described."""
        return cls(Tokenizer(document["words"]), int(document["max_sentences"]), int(document["max_words"]))


class SeriesInputs:
    """Time series of one number of channels. The model scales them itself.

    Args:
        num_channels: Number of channels C.
        max_length: Number of steps that are read of a series.
    """

    def __init__(self, num_channels: int, max_length: int) -> None:
        self.num_channels, self.max_length = num_channels, max_length
        self.limit = f"{max_length:,} steps"

    def encode(self, X: Any, targets: Any = None, weights: Any = None) -> Sequences:
        """Return the series, cut to the maximum length."""
        series = as_series(X)
        channels = {steps.shape[1] for steps in series} - {self.num_channels}
        if channels:
            raise ValueError(
                f"A series must have the {self.num_channels} channels of the training. Received: {min(channels)} channels."
            )
        return Sequences([steps[: self.max_length] for steps in series], targets, weights)

    def count_cut(self, X: Any) -> int:
        """Count the series that are longer than the steps that are read of a series."""
        return sum(len(steps) > self.max_length for steps in as_series(X))

    def tokens(self, X: Any) -> None:
        """Return None: the steps of a series have no words."""
        return

    def to_dict(self) -> dict[str, Any]:
        """Return the number of channels and the maximum length."""
        return {"num_channels": self.num_channels, "max_length": self.max_length}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Self:
        """Return the inputs that `to_dict` described."""
        return cls(int(document["num_channels"]), int(document["max_length"]))


def split_sentences(text: str, spans: np.ndarray, max_words: int) -> list[tuple[int, int]]:
    """Return the sentences of a text as ranges of its tokens.

    Args:
        text: The text.
        spans: The start and end of each token in the text (n, 2).
        max_words: Largest number of tokens of a sentence; a longer one is divided.

    Example:
        >>> import re
        >>> text = "It rains. Really?! Yes"
        >>> spans = np.array([match.span() for match in re.finditer(r"\\w+|[.?!]", text)])
        >>> [text[spans[start, 0] : spans[end - 1, 1]] for start, end in split_sentences(text, spans, 32)]
        ['It rains.', 'Really?!', 'Yes']
    """
    sentences, start, ended = [], 0, False
    for index, (begin, end) in enumerate(spans.tolist()):
        is_end = text[begin:end] in _SENTENCE_ENDS
        breaks = index > start and "\n" in text[spans[index - 1, 1] : begin]
        if index > start and (breaks or (ended and not is_end) or index - start >= max_words):
            sentences.append((start, index))
            start = index
        ended = is_end
    return [*sentences, (start, len(spans))]


def as_texts(X: Any) -> Any:
    """Return texts as a list of strings; texts that are stored in a file stay there.

    Args:
        X: A list, array or column (of pandas or polars) of strings, a data frame of one column, or an iterable of strings.

    Raises:
        TypeError: `X` is one string, or holds something else than strings.
        DataError: A text is missing, or there are none.
    """
    if isinstance(X, str | bytes):
        raise TypeError("`X` must be a list of texts. Received: one string. Put it in a list.")
    if isinstance(X, Stored):
        return X
    values = _to_list(X)
    if not values:
        raise DataError("`X` must hold at least one text. Received: none.")
    texts = [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values]
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            if text is None or (isinstance(text, float) and np.isnan(text)):
                raise DataError(
                    f"Every text must be a string. Text {row} is missing. Drop it, or write an empty string."
                )
            raise TypeError(f"`X` must hold strings. Received: {type(text).__name__} at position {row}.")
    return texts


def as_series(X: Any) -> list[np.ndarray]:
    """Return time series as a list of float32 arrays (length, channels).

    Args:
        X: An array (n, T) or (n, T, C), a data frame with a row for each series, or a list of arrays (T,) or (T, C) of lengths
            that may differ.

    Raises:
        ValueError: The axes are wrong, the channels differ, a series is empty, or a value is not finite.
    """
    X = X.to_numpy() if hasattr(X, "to_numpy") else X
    if isinstance(X, list | tuple) or (getattr(getattr(X, "dtype", None), "kind", "") == "O" and np.ndim(X) == 1):
        series = [_to_steps(steps, row) for row, steps in enumerate(X)]
    else:
        from sklearn.utils import check_array

        array = check_array(X, allow_nd=True, dtype=np.float32, ensure_all_finite=False)
        series = list(array if array.ndim > 2 else array[..., None])
    if not series:
        raise ValueError("`X` must hold at least one series. Received: none.")
    for row, steps in enumerate(series):
        if steps.ndim != 2 or steps.shape[1] != series[0].shape[1] or not steps.size:
            raise ValueError(
                f"Every series must be (length, channels), not empty, with the channels of the first. Received: shape "
                f"{steps.shape} at position {row}, {series[0].shape} at position 0."
            )
        if not np.isfinite(steps).all():
            raise ValueError(
                f"Every value of a series must be finite. Series {row} has NaN or infinity. Fill or drop it."
            )
    return series


def _to_steps(steps: Any, row: int) -> np.ndarray:
    try:
        array = np.asarray(steps, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"A series must be an array of numbers. Received: {type(steps).__name__} at position {row}."
        ) from error
    return array[:, None] if array.ndim == 1 else array


def collect_pairs(dataset: Any) -> tuple[Any, list[Any]]:
    """Return the inputs and targets of an iterable of pairs: a generator, or a dataset of tf.data, grain or torch.

    Texts are stored in a temporary file: an iterable may hold more than fits in memory.

    Raises:
        TypeError: Its elements are no pairs.
    """
    if hasattr(dataset, "as_numpy_iterator"):
        elements: Iterable[Any] = dataset.as_numpy_iterator()
    elif hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__") and not isinstance(dataset, list | tuple):
        elements = (dataset[index] for index in range(len(dataset)))
    else:
        elements = dataset
    inputs: Any = None
    targets: list[Any] = []
    # Equal labels of millions of examples are one object.
    names: dict[Any, Any] = {}
    for element in elements:
        if not isinstance(element, tuple | list) or len(element) != 2:
            raise TypeError(
                f"Without `y`, `X` must yield pairs of an input and its target, not batched. Received: {type(element).__name__}."
            )
        value, target = element[0], np.asarray(element[1])[()]
        value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if inputs is None:
            inputs = store_texts() if isinstance(value, str) else []
        if isinstance(inputs, StoredList) and not isinstance(value, str):
            raise TypeError(f"`X` must hold strings. Received: {type(value).__name__} at position {len(inputs)}.")
        inputs.append(value)
        target = target.decode("utf-8") if isinstance(target, bytes) else target
        targets.append(names.setdefault(target, target) if isinstance(target, str) else target)
    return [] if inputs is None else inputs, targets


def take(X: Any, indices: np.ndarray) -> Any:
    """Return some of the inputs; those that are stored in a file stay there."""
    return X.take(indices) if isinstance(X, Stored) else [X[index] for index in indices]


def _to_list(X: Any) -> list[Any]:
    """Return the elements of a list, an array, a column or a data frame of one column."""
    if hasattr(X, "columns") and hasattr(X, "to_numpy"):
        if len(X.columns) != 1:
            raise ValueError(
                f"`X` must be one column of texts. Received: a data frame of {len(X.columns)} columns. Choose one."
            )
        X = X.to_numpy()[:, 0]
    if isinstance(X, np.ndarray):
        X = X[:, 0] if X.ndim == 2 and X.shape[1] == 1 else X
        if X.ndim != 1:
            raise ValueError(f"`X` must be a list of texts. Received: an array of shape {X.shape}.")
        return X.tolist()
    return list(X)


def take_words(text: str, count: int) -> str:
    """Return the beginning of a text up to the end of its word number `count`, or all of it.

    Example:
        >>> take_words("one  two three", 2)
        'one  two '
    """
    if len(text) <= count:
        return text
    word = next(itertools.islice(_WORD.finditer(text), count - 1, None), None)
    return text if word is None else text[: word.end()]
