"""Pretrained encoders of texts from a local folder of BERT's kind: configuration, weights and tokenizer."""

import json
import math
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from limelight._optional import import_optional
from limelight.core.component import register
from limelight.core.validation import check_positive_int
from limelight.exceptions import DataError
from limelight.layers import MultiHeadAttention

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}
_MAX_HEADER = 100 * 2**20
_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}


@register
class BertEncoder(keras.Layer):
    r"""The encoder of BERT: token and position embeddings, then blocks of attention and dense layers, with a norm after each.

    $$h_0 = \mathrm{norm}(E_x + P), \qquad a_l = \mathrm{norm}(h_{l-1} + \mathrm{attend}(h_{l-1})), \qquad
    h_l = \mathrm{norm}(a_l + W_2\,g(W_1 a_l))$$

    `load_encoder` makes one with pretrained weights. The position embeddings include that of the first segment.

    Args:
        vocabulary_size: Number of token ids, including padding, which is 0.
        num_layers: Number of blocks.
        num_heads: Number of heads.
        units: Width E of the states.
        hidden_units: Width of the dense layer of a block.
        max_length: Number of positions; later ones share the last.
        activation: g: "gelu", "gelu_tanh" or "relu".
        dropout: Fraction of the features and of the weights that is dropped during training, in [0, 1).
        epsilon: Added to the variance by the norms.

    Call arguments:
        tokens: Ids (B, T).
        mask: Bool (B, T), True where a token is real; by the ids when not given.
        training: Whether dropout is active.

    Returns:
        The states (B, T, E).

    Raises:
        ValueError: A size is not positive.

    Example:
        >>> import numpy as np
        >>> layer = BertEncoder(30, num_layers=1, num_heads=2, units=8, hidden_units=16, max_length=10)
        >>> tuple(layer(np.array([[5, 6, 7, 0]])).shape)
        (1, 4, 8)

    References:
        Devlin et al. 2019, arXiv:1810.04805.
    """

    def __init__(
        self,
        vocabulary_size: int,
        *,
        num_layers: int,
        num_heads: int,
        units: int,
        hidden_units: int,
        max_length: int,
        activation: str = "gelu",
        dropout: float = 0.0,
        epsilon: float = 1e-12,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.sizes = {
            "vocabulary_size": vocabulary_size,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "units": units,
            "hidden_units": hidden_units,
            "max_length": max_length,
        }
        for name, size in self.sizes.items():
            check_positive_int(name, size)
        if units % num_heads:
            raise ValueError(f"`num_heads` must divide `units`. Received: num_heads={num_heads}, units={units}.")
        self.activation, self.dropout, self.epsilon = activation, dropout, epsilon
        self.units, self.max_length = units, max_length
        activate = {"gelu_tanh": _gelu_tanh}.get(activation, activation)

        def norm(name: str) -> keras.Layer:
            return keras.layers.LayerNormalization(epsilon=epsilon, name=name)

        self.token_embedding = keras.layers.Embedding(vocabulary_size, units, name="token_embedding")
        self.position_embedding = keras.layers.Embedding(max_length, units, name="position_embedding")
        self.norm = norm("norm")
        self.drop = keras.layers.Dropout(dropout, name="dropout")
        numbers = range(1, num_layers + 1)
        self.attentions = [
            MultiHeadAttention(num_heads, units // num_heads, dropout=dropout, name=f"attention_{number}")
            for number in numbers
        ]
        self.attention_norms = [norm(f"attention_norm_{number}") for number in numbers]
        self.hidden = [
            keras.layers.Dense(hidden_units, activation=activate, name=f"feedforward_hidden_{number}")
            for number in numbers
        ]
        self.outputs = [keras.layers.Dense(units, name=f"feedforward_{number}") for number in numbers]
        self.output_norms = [norm(f"feedforward_norm_{number}") for number in numbers]

    def build(self, tokens_shape: tuple) -> None:
        shape, hidden_shape = (*tokens_shape, self.units), (*tokens_shape, self.sizes["hidden_units"])
        shapes = [
            *((layer, (tokens_shape,)) for layer in (self.token_embedding, self.position_embedding)),
            *((layer, (shape, shape)) for layer in self.attentions),
            *((layer, (shape,)) for layer in (self.norm, *self.attention_norms, *self.hidden, *self.output_norms)),
            *((layer, (hidden_shape,)) for layer in self.outputs),
        ]
        for layer, arguments in shapes:
            layer.build(*arguments)
            # Keras freezes the layers and variables that exist when `trainable` is set.
            layer.trainable = self.trainable

    def call(self, tokens: Any, mask: Any = None, training: bool | None = None) -> Any:
        mask = ops.not_equal(tokens, 0) if mask is None else mask
        positions = ops.minimum(ops.arange(ops.shape(tokens)[1], dtype="int32"), self.max_length - 1)
        states = self.norm(self.token_embedding(tokens) + self.position_embedding(positions))
        states = self.drop(states, training=training)
        blocks = (self.attentions, self.attention_norms, self.hidden, self.outputs, self.output_norms)
        for attention, attention_norm, hidden, output, output_norm in zip(*blocks, strict=True):
            attended = attention(states, states, value_mask=mask, training=training)
            states = attention_norm(states + self.drop(attended, training=training))
            states = output_norm(states + self.drop(output(hidden(states)), training=training))
        return states

    def compute_output_shape(self, tokens_shape: Any) -> tuple:
        """Return the shape of the states."""
        return (*tokens_shape, self.units)

    def get_config(self) -> dict[str, Any]:
        further = {"activation": self.activation, "dropout": self.dropout, "epsilon": self.epsilon}
        return {**super().get_config(), **self.sizes, **further}


class PretrainedTokenizer:
    """The tokenizer of a pretrained encoder.

    Args:
        document: The tokenizer of `tokenizers` as JSON.

    Raises:
        DataError: Padding has another id than 0.
    """

    def __init__(self, document: str) -> None:
        self.document = document
        self._tokenizer = import_optional("tokenizers").Tokenizer.from_str(document)
        self._tokenizer.no_padding()
        self.size = self._tokenizer.get_vocab_size()
        padding = self._tokenizer.id_to_token(0)
        if padding != "[PAD]":
            raise DataError(
                f"The id 0 of the tokenizer must be [PAD]. Received: {padding!r}. Use an encoder of BERT's kind."
            )

    @property
    def unknown(self) -> int | None:
        """The id of the unknown token; None if there is none."""
        return self._tokenizer.token_to_id("[UNK]")

    @property
    def special_ids(self) -> list[int]:
        """The ids of the tokens around a text, which are no part of it."""
        ids = [self._tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]")]
        return [each for each in ids if each is not None]

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str]) -> Self:
        """Return the tokenizer of a folder with tokenizer.json, or vocab.txt and tokenizer_config.json."""
        library, folder = import_optional("tokenizers"), Path(folder)
        try:
            if (folder / "tokenizer.json").is_file():
                return cls((folder / "tokenizer.json").read_text(encoding="utf-8"))
            lowercase = True
            if (folder / "tokenizer_config.json").is_file():
                lowercase = _read_json(folder / "tokenizer_config.json").get("do_lower_case", True)
            if not (folder / "vocab.txt").is_file():
                raise DataError(f"{str(folder)!r} must hold tokenizer.json or vocab.txt. It holds neither.")
            return cls(library.BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=lowercase).to_str())
        except DataError:
            raise
        except Exception as error:  # tokenizers raises plain exceptions
            raise DataError(f"The tokenizer of {str(folder)!r} cannot be read: {error}") from error

    def encode(self, texts: Sequence[str], max_length: int) -> list[Any]:
        """Return the encodings of `tokenizers`: with [CLS] and [SEP], at most `max_length` tokens."""
        self._tokenizer.enable_truncation(max_length)
        return self._tokenizer.encode_batch(list(texts))


def load_encoder(folder: str | os.PathLike[str], *, trainable: bool = False) -> BertEncoder:
    """Load a pretrained encoder from a local folder, as sentence encoders and BERT models are published.

    Args:
        folder: A folder with config.json (`model_type` "bert") and model.safetensors.
        trainable: Whether to train it further, with the dropout of its configuration; frozen when not.

    Returns:
        A layer from token ids (B, T) to states (B, T, E).

    Raises:
        DataError: A file is missing or damaged, or the model is of another kind.

    References:
        Devlin et al. 2019, arXiv:1810.04805; Reimers and Gurevych 2019, arXiv:1908.10084 (sentence encoders).
    """
    folder = Path(folder)
    config = read_encoder_config(folder)
    tensors = read_safetensors(folder / "model.safetensors")
    heads, width = config["num_attention_heads"], config["hidden_size"]
    layer = BertEncoder(
        config["vocab_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=heads,
        units=width,
        hidden_units=config["intermediate_size"],
        max_length=config["max_position_embeddings"],
        activation=_ACTIVATIONS[config.get("hidden_act", "gelu")],
        dropout=config.get("hidden_dropout_prob", 0.1) if trainable else 0.0,
        epsilon=config.get("layer_norm_eps", 1e-12),
        trainable=trainable,
        name="encoder",
    )
    layer.build((None, None))
    prefix = "bert." if "bert.embeddings.word_embeddings.weight" in tensors else ""

    def get(name: str) -> np.ndarray:
        if prefix + name not in tensors:
            raise DataError(f"{str(folder / 'model.safetensors')!r} must hold {name!r}, as BERT has. It does not.")
        return tensors[prefix + name]

    def set_weights(layer: keras.Layer, name: str, *arrays: np.ndarray) -> None:
        shapes = [tuple(weight.shape) for weight in layer.weights]
        if sum(map(math.prod, shapes)) != sum(array.size for array in arrays):
            raise DataError(
                f"{name!r} must have the sizes that config.json says. Received: {[array.shape for array in arrays]}."
            )
        layer.set_weights([array.reshape(shape) for array, shape in zip(arrays, shapes, strict=True)])

    def set_dense(layer: keras.Layer, name: str) -> None:
        set_weights(layer, name, get(f"{name}.weight").T, get(f"{name}.bias"))

    def set_norm(layer: keras.Layer, name: str) -> None:
        set_weights(layer, name, get(f"{name}.weight"), get(f"{name}.bias"))

    set_weights(layer.token_embedding, "word_embeddings", get("embeddings.word_embeddings.weight"))
    positions = get("embeddings.position_embeddings.weight") + get("embeddings.token_type_embeddings.weight")[:1]
    set_weights(layer.position_embedding, "position_embeddings", positions)
    set_norm(layer.norm, "embeddings.LayerNorm")
    for number, attention in enumerate(layer.attentions):
        block = f"encoder.layer.{number}"
        for part in ("query", "key", "value"):
            set_dense(getattr(attention, f"{part}_dense"), f"{block}.attention.self.{part}")
        set_dense(attention.output_dense, f"{block}.attention.output.dense")
        set_norm(layer.attention_norms[number], f"{block}.attention.output.LayerNorm")
        set_dense(layer.hidden[number], f"{block}.intermediate.dense")
        set_dense(layer.outputs[number], f"{block}.output.dense")
        set_norm(layer.output_norms[number], f"{block}.output.LayerNorm")
    return layer


def read_encoder_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the configuration of a pretrained encoder.

    Raises:
        DataError: It is missing or damaged, or is of a model of another kind.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise DataError(
            f"{str(folder)!r} must be the folder of a pretrained encoder, with config.json, model.safetensors and "
            "tokenizer.json or vocab.txt. It has no config.json. Check the path."
        )
    config = _read_json(path)
    expected = {
        "model_type": ("bert",),
        "position_embedding_type": ("absolute", None),
        "hidden_act": (*_ACTIVATIONS, None),
        "pad_token_id": (0, None),
    }
    for name, values in expected.items():
        if config.get(name) not in values:
            names = " or ".join(repr(value) for value in values if value is not None)
            raise DataError(
                f"`{name}` in {str(path)!r} must be {names}. Received: {config.get(name)!r}. Use a BERT model."
            )
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    for name in (*names, "max_position_embeddings"):
        if not isinstance(config.get(name), int) or config[name] < 1:
            raise DataError(f"`{name}` in {str(path)!r} must be a positive integer. Received: {config.get(name)!r}.")
    return config


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Return the arrays of a file of safetensors, which are read from the file when they are used; bfloat16 as float32.

    Raises:
        DataError: The file is missing or damaged.
    """
    path, requirement = Path(path), f"{str(path)!r} must be a file of safetensors"
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(_MAX_HEADER, size - 8):
                raise DataError(f"{requirement}. Its header is longer than the file.")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        arrays = {}
        for name, entry in header.items():
            start, end = entry["data_offsets"]
            dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"])
            if not 0 <= start <= end <= size - 8 - length or end - start != dtype.itemsize * math.prod(shape):
                raise DataError(f"{requirement}. The numbers of {name!r} do not fit its shape or the file.")
            # An empty file cannot be mapped.
            array = np.memmap(path, dtype, "r", 8 + length + start, shape) if start < end else np.zeros(shape, dtype)
            is_brain = entry["dtype"] == "BF16"
            arrays[name] = (array.astype(np.uint32) << 16).view(np.float32) if is_brain else array
    except OSError as error:
        raise DataError(f"{requirement}. {error.strerror or error}. Check the path.") from error
    except (KeyError, TypeError, ValueError, struct.error, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{requirement}. It is damaged: {error}.") from error
    return arrays


def _gelu_tanh(inputs: Any) -> Any:
    return ops.gelu(inputs, approximate=True)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{str(path)!r} must be a JSON file. It cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise DataError(f"{str(path)!r} must hold a JSON object. Received: {type(document).__name__}.")
    return document
