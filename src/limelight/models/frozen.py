"""Train a model on the states of its frozen encoder, which are computed once instead of in every step."""

from collections.abc import Callable, Sequence

import keras
import numpy as np

from limelight.data import pad
from limelight.data.batching import plan_batches
from limelight.data.stored import StoredList
from limelight.models.examples import Sequences
from limelight.models.training import fill_batch

# States of more bytes than this are computed in every step, like those of an encoder that is trained.
MAX_BYTES = 4 * 2**30
_BATCH_SIZE = 32


class EncodedTexts:
    """Texts as the states of an encoder, which lie in a temporary file, with one target each.

    Args:
        texts: The ids of the tokens, the targets and the weights.
        states: For each text its states (length, E).
    """

    def __init__(self, texts: Sequences, states: Sequence[np.ndarray]) -> None:
        self.texts, self.states = texts, states
        self.lengths, self.weights = texts.lengths, texts.weights

    def __len__(self) -> int:
        return len(self.texts)

    def batch(self, indices: np.ndarray, length: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Return a list of ids (B, T) and states (B, T, E), the targets, and the weights (B,)."""
        words, targets, weights = self.texts.batch(indices, length)
        states, _ = pad([self.states[index] for index in indices], length)
        return [words, states], targets, weights


def count_bytes(model: keras.Model, *examples: Sequences) -> int:
    """Return the bytes that the states of examples take, padding included."""
    width = model.get_layer("encoder").output.shape[-1]
    return 4 * width * sum(int(each.lengths.sum()) for each in examples)


def count_steps(*examples: Sequences) -> int:
    """Return the number of steps of `encode`."""
    return sum(len(plan_batches(each.lengths, _BATCH_SIZE)) for each in examples)


def encode(model: keras.Model, texts: Sequences, on_step: Callable[[], None] = lambda: None) -> EncodedTexts:
    """Compute the states of the layer "encoder" of a model for each text."""
    states_of = keras.Model(model.input, model.get_layer("encoder").output)
    width = states_of.output_shape[-1]
    stored = StoredList(
        lambda states: states.astype(np.float32).tobytes(),
        lambda content: np.frombuffer(content, np.float32).reshape(-1, width),
    )
    order: list[np.ndarray] = []
    for planned in plan_batches(texts.lengths, _BATCH_SIZE):
        on_step()
        words, _, _ = fill_batch(texts, planned.indices, planned.padded_length, _BATCH_SIZE)
        states = np.asarray(keras.ops.convert_to_numpy(states_of.predict_on_batch(words)))
        stored.extend(states[row, : len(texts.sequences[index])] for row, index in enumerate(planned.indices))
        order.append(planned.indices)
    positions = np.empty(len(texts), np.int64)
    positions[np.concatenate(order)] = np.arange(len(texts))
    return EncodedTexts(texts, stored.take(positions))


def cut_head(model: keras.Model) -> keras.Model:
    """Return the part of a model after its layer "encoder", whose layers it shares, from ids and states."""
    return keras.Model([model.input, model.get_layer("encoder").output], model.output, name=model.name)
