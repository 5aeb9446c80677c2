"""An RNN that attends to a memory at each step."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from limelight._keras_private import DropoutRNNCell
from limelight.core.component import register
from limelight.core.precision import upcast
from limelight.layers.attention_cell import AttentionCell, Memory
from limelight.layers.projections import zero_padded_inputs


class OutputAndWeightsCell(keras.Layer, DropoutRNNCell):
    """An attention cell whose output is concatenated with the weights, so that an RNN stacks both.

    The memory is no state: an RNN would copy it at each step where the sequences are masked.

    Args:
        cell: The `AttentionCell`.
    """

    def __init__(self, cell: AttentionCell, **kwargs: Any) -> None:
        # States keep their dtypes: the coverage is wider than the rest.
        super().__init__(autocast=False, **kwargs)
        self.cell = cell
        self.output_size = cell.units
        self.get_dropout_mask = cell.get_dropout_mask
        self.get_recurrent_dropout_mask = cell.get_recurrent_dropout_mask
        self.reset_dropout_mask = cell.reset_dropout_mask
        self.reset_recurrent_dropout_mask = cell.reset_recurrent_dropout_mask
        self._memory: Any = None

    @property
    def state_size(self) -> list[Any]:
        """Widths of the states: the last output with its weights, then the states of the cell that a step changes."""
        return [None, *self.cell.step_state_size]

    def build(self, input_shape: tuple) -> None:
        if not self.cell.built:
            self.cell.build(input_shape)
            self.cell.built = True

    def get_config(self) -> dict[str, Any]:
        return {**keras.Layer.get_config(self), "cell": keras.saving.serialize_keras_object(self.cell)}

    @contextlib.contextmanager
    def attending_to(self, memory: Memory) -> Iterator[None]:
        """Attend to a memory in the steps inside."""
        object.__setattr__(self, "_memory", memory)
        try:
            yield
        finally:
            object.__setattr__(self, "_memory", None)

    def call(self, inputs: Any, states: Any, training: bool | None = None) -> tuple[Any, list[Any]]:
        inputs = ops.cast(inputs, self.compute_dtype)
        output, states = self.cell.step(inputs, states[1:], self._memory, training)
        output_and_weights = ops.concatenate([output, states[-2]], axis=-1)
        return output_and_weights, [output_and_weights, *states]


@register
class AttentionRNN(keras.layers.RNN):
    """An RNN whose cell attends to a memory, and which returns the weights on request.

    Args:
        cell: An `AttentionCell`.
        return_sequences: Whether to return the outputs of all steps instead of the last one's.
        attention_regularizer: Callable from the weights (B, T, S), 0 at padded steps, to a scalar loss, added during training,
            such as `Coverage()`. It needs `return_sequences`. Dropout of the weights is the cell's.
        return_state: Whether to return the last states too, from which another call can go on.
        zero_output_for_mask, unroll: As in `keras.layers.RNN`.

    Call arguments:
        sequences: (B, T, D).
        memory: (B, S, M).
        initial_state: States of the inner cell, such as an encoder's last; zeros when not given. Or the states that a call with
            `return_state` returned.
        sequences_mask: Bool (B, T), True where a step is real; Keras's implicit mask when not given.
        memory_mask: Bool (B, S), likewise.
        training: Whether dropout is active.
        return_attention_scores: Whether to return the weights too.

    Returns:
        The output (B, T, U), or (B, U) without `return_sequences`. With `return_attention_scores`, also the weights (B, T, S) or
        (B, S). Weights of padded steps of the sequence are those of the step before, or 0 with `zero_output_for_mask`. With
        `return_state`, then the states: the last output, those of the inner cell, the position, the last weights and the sum of
        all weights; with `Monotonic`, the weights from which it moves on are before the last ones.

    Raises:
        TypeError: The cell is not an `AttentionCell`.
        ValueError: `stateful` or `go_backwards` is set, there is a regularizer without `return_sequences`, or the initial state
            has another number of states.

    Example:
        >>> import keras, limelight as ll
        >>> cell = ll.layers.AttentionCell(keras.layers.GRUCell(8), memory_size=6)
        >>> layer = ll.layers.AttentionRNN(cell, return_sequences=True)
        >>> steps, memory = keras.Input((None, 5)), keras.Input((None, 6))
        >>> output, weights = layer(steps, memory, return_attention_scores=True)
        >>> output.shape, weights.shape
        ((None, None, 8), (None, None, None))

        Weights that are dropped and regularized, and states from which to decode on:

        >>> cell = ll.layers.AttentionCell(keras.layers.GRUCell(8), memory_size=6, dropout=0.1)
        >>> layer = ll.layers.AttentionRNN(
        ...     cell, return_sequences=True, return_state=True, attention_regularizer=ll.layers.Coverage()
        ... )
        >>> sequences, memory = keras.ops.ones((1, 3, 5)), keras.ops.ones((1, 4, 6))
        >>> output, *states = layer(sequences, memory)
        >>> output, *states = layer(output[:, -1:, :5], memory, initial_state=states)
        >>> tuple(output.shape)
        (1, 1, 8)

    References:
        Bahdanau et al. 2015, arXiv:1409.0473.
    """

    def __init__(self, cell: AttentionCell, *, attention_regularizer: Any = None, **kwargs: Any) -> None:
        if not isinstance(cell, AttentionCell):
            raise TypeError(
                f"`cell` must be an AttentionCell. Received: {cell!r} of type {type(cell).__name__}. Wrap it: "
                "limelight.layers.AttentionCell(cell, memory_size)."
            )
        for name in ("stateful", "go_backwards"):
            if kwargs.get(name):
                raise ValueError(
                    f"An AttentionRNN does not support `{name}`. Received: {name}={kwargs[name]!r}. "
                    "Use keras.layers.RNN with the cell."
                )
        if attention_regularizer is not None and not kwargs.get("return_sequences"):
            raise ValueError(
                "`attention_regularizer` needs the weights of all steps. Received: return_sequences=False. "
                "Set return_sequences=True."
            )
        super().__init__(OutputAndWeightsCell(cell, dtype=cell.dtype_policy, name="output_and_weights"), **kwargs)
        self.attention_regularizer = keras.regularizers.get(attention_regularizer)

    def build(self, sequences_shape: tuple, memory_shape: tuple, **shapes: Any) -> None:
        super().build(tuple(sequences_shape))

    def call(
        self,
        sequences: Any,
        memory: Any,
        initial_state: Any = None,
        sequences_mask: Any = None,
        memory_mask: Any = None,
        training: bool | None = None,
        return_attention_scores: bool = False,
    ) -> Any:
        cell = self.cell.cell
        sequences, prepared = zero_padded_inputs(sequences, sequences_mask), cell.prepare_memory(memory, memory_mask)
        states = cell.initial_step_states(prepared, initial_state)
        output_and_weights = ops.concatenate([states[0], states[-2]], axis=-1)
        with self.cell.attending_to(prepared):
            result = super().call(
                sequences, [output_and_weights, *states], mask=sequences_mask, training=bool(training)
            )
        result, *states = result if self.return_state else [result]
        output, weights = result[..., : cell.units], result[..., cell.units :]
        if self.attention_regularizer is not None and training:
            # The RNN repeats the weights of the step before at padded steps.
            real = 1 if sequences_mask is None else ops.cast(ops.expand_dims(sequences_mask, -1), weights.dtype)
            self.add_loss(self.attention_regularizer(weights * real))
        results = [output, *([weights] if return_attention_scores else []), *states[1:]]
        return output if len(results) == 1 else tuple(results)

    def inner_loop(self, sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> Any:
        """Run the loop. Keras casts all states to the dtype of the cell, in which a sum of many weights would stop to grow."""
        *states, coverage = initial_state
        return super().inner_loop(sequences, [*states, upcast(coverage)], mask, training)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """Return the mask of the sequences if their steps are returned."""
        return [previous_mask if self.return_sequences else None, None]

    def compute_output_spec(
        self,
        sequences: Any,
        memory: Any,
        initial_state: Any = None,
        sequences_mask: Any = None,
        memory_mask: Any = None,
        training: bool | None = None,
        return_attention_scores: bool = False,
    ) -> Any:
        leading = sequences.shape[:2] if self.return_sequences else sequences.shape[:1]

        def make_tensor(*shape: int | None) -> keras.KerasTensor:
            return keras.KerasTensor(shape, dtype=self.compute_dtype)

        batch_size, length = memory.shape[:2]
        results = [make_tensor(*leading, self.cell.cell.units)]
        if return_attention_scores:
            results.append(make_tensor(*leading, length))
        if self.return_state:
            sizes = [length if size == [None] else size for size in self.cell.cell.step_state_size]
            results += keras.tree.map_structure(lambda size: make_tensor(batch_size, size), sizes)
        return results[0] if len(results) == 1 else tuple(results)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for name in ("stateful", "go_backwards"):
            config.pop(name)
        regularizer = self.attention_regularizer
        return {
            **config,
            "cell": keras.saving.serialize_keras_object(self.cell.cell),
            "attention_regularizer": None if regularizer is None else keras.regularizers.serialize(regularizer),
        }
