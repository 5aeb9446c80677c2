"""Recurrent cells that read a memory at each step."""

import dataclasses
from typing import Any

import keras
from keras import ops

# Not public, but how Keras's RNN knows which cells have their dropout drawn before its loop begins.
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell

from limelight import functional, masks, normalizers, scores
from limelight.core.block import History
from limelight.core.component import deserialize, register
from limelight.engine.call import make_call
from limelight.layers.policies import policies_of, policy_of

# A step number is kept in two digits of this base, so that even bfloat16 holds it.
BASE = 128


@register
class AttentionCell(keras.Layer, DropoutRNNCell):
    r"""A recurrent cell that reads a memory by attention at each step.

    With `reads="before"` (Bahdanau) the state of the step before asks, and what it reads joins the input:

    $$c_t = \mathrm{read}(h_{t-1}), \qquad h_t = \mathrm{cell}([x_t; c_t], h_{t-1}), \qquad y_t = h_t$$

    With `reads="after"` (Luong, with input feeding) the cell's output asks:

    $$h_t = \mathrm{cell}([x_t; y_{t-1}], h_{t-1}), \qquad c_t = \mathrm{read}(h_t), \qquad y_t = \tanh(W [c_t; h_t])$$

    The memory travels in the states of the RNN, together with the weights of the step before (for `LocationSensitive` and `Monotonic`),
    the sum of all earlier ones (coverage), and the number of the step. `AttentionRNN` puts it there; with `keras.layers.RNN`
    it is given as `initial_state=cell.initial_state(memory)`.

    Args:
        cell: a cell of Keras's, such as `keras.layers.LSTMCell(64)`, or a `StackedRNNCells`.
        memory_size: the width M of a memory step.
        score: any score; `Additive` as wide as the cell when not given. It sees one query.
        normalizer: any; softmax when not given.
        mask: any, on the position of the step and those of the memory, such as `SlidingWindow(5, 5)` for Luong's local-m.
        reads: "before" or "after" the cell.

    Call arguments:
        inputs: (B, D).
        states: a list, as `initial_state` makes it.

    Returns:
        (B, U), U the width of the cell's output, and the new states.

    Raises:
        ValueError: a width that is no positive integer, an unknown `reads`, or no initial state.

    Example:
        >>> import keras, limelight as ll
        >>> cell = ll.layers.AttentionCell(keras.layers.LSTMCell(8), memory_size=6, score=ll.scores.Additive(4))
        >>> steps, memory = keras.Input((None, 5)), keras.Input((None, 6))
        >>> layer = keras.layers.RNN(cell, return_sequences=True)
        >>> layer(steps, initial_state=cell.initial_state(memory)).shape
        (None, None, 8)

    References:
        Bahdanau et al. 2015, arXiv:1409.0473; Luong et al. 2015, arXiv:1508.04025; Chorowski et al. 2015, arXiv:1506.07503.
    """

    def __init__(
        self,
        cell: Any,
        memory_size: int,
        *,
        score: Any = None,
        normalizer: Any = None,
        mask: Any = None,
        reads: str = "before",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(memory_size, int) or memory_size < 1:
            raise ValueError(f"`memory_size` must be a positive integer. Received: memory_size={memory_size!r}.")
        if reads not in ("before", "after"):
            raise ValueError(f'`reads` must be "before" or "after". Received: reads={reads!r}.')
        self.cell, self.memory_size, self.reads = deserialize(cell), memory_size, reads
        self.units = output_size(self.cell)
        self.score = scores.get(scores.Additive(self.units) if score is None else deserialize(score))
        self.normalizer = normalizers.get(deserialize(normalizer))
        within = normalizers.within(self.normalizer)
        self.normalizer_within = None if within is self.normalizer else within
        self.mask = masks.get(deserialize(mask))
        self.output_size = self.units
        self._drawn: Any = None

    @property
    def state_size(self) -> list[Any]:
        """The widths of the states; None for those of the length of the memory."""
        return [self.units, *listed(self.cell.state_size), 2, None, None, None, None]

    def build(self, input_shape: tuple) -> None:
        batch, width = input_shape[0], input_shape[-1]
        if not self.cell.built:
            self.cell.build((batch, width + (self.memory_size if self.reads == "before" else self.units)))
            self.cell.built = True
        query, memory = (batch, 1, self.units), (batch, None, self.memory_size)
        scores.build(self.score, query, memory)
        normalizers.build(self.normalizer, (batch, 1, None))
        if self.reads == "after":
            self.combine = keras.layers.Dense(
                self.units, "tanh", use_bias=False, name="combine", dtype=policy_of(self, "combine")
            )
            self.combine.build((batch, self.memory_size + self.units))

    def initial_state(self, memory: Any, mask: Any = None, states: Any = None) -> list[Any]:
        """The states before the first step.

        Args:
            memory: (B, S, M), what is read.
            mask: bool (B, S), True where a step of the memory is real; that of Keras when not given.
            states: those of the inner cell, such as an encoder's last; zeros when not given.
        """
        if memory.shape[-1] != self.memory_size:
            raise ValueError(
                f"The memory must have the width `memory_size`={self.memory_size}. Received: shape {tuple(memory.shape)}."
            )
        mask = getattr(memory, "_keras_mask", None) if mask is None else mask
        if mask is not None:
            # Once, and not at each step.
            mask = mask if isinstance(mask, keras.KerasTensor) else masks.boolean(mask, "`mask`")
            memory = ops.where(ops.expand_dims(mask, -1), memory, ops.zeros_like(memory))
        if isinstance(memory, keras.KerasTensor):
            # The batch may be known only when the model runs.
            flat = keras.layers.Flatten(dtype=self.compute_dtype)(memory)
        else:
            flat = ops.cast(ops.reshape(memory, (ops.shape(memory)[0], -1)), self.compute_dtype)
        none = ops.zeros_like(memory[..., 0], dtype=self.compute_dtype)  # (B, S)
        real = ops.ones_like(none) if mask is None else ops.cast(mask, self.compute_dtype)
        blank = none[:, :1]
        if states is None:
            states = keras.tree.map_structure(lambda size: ops.block(blank, (1, size)), listed(self.cell.state_size))
        return [ops.block(blank, (1, self.units)), *listed(states), ops.block(blank, (1, 2)), none, none, flat, real]

    def get_initial_state(self, batch_size: Any = None) -> Any:
        """There is none without a memory."""
        raise ValueError(
            "An AttentionCell needs a memory. Received: an RNN called without `initial_state`. Call it with "
            "initial_state=cell.initial_state(memory), or use limelight.layers.AttentionRNN, which takes the memory itself."
        )

    def call(self, inputs: Any, states: Any, training: bool | None = None) -> tuple[Any, list[Any]]:
        output, *inner, step, weights, coverage, flat, real = states
        memory = ops.reshape(flat, (ops.shape(flat)[0], -1, self.memory_size))
        if self.reads == "before":
            last = inner[-1][0] if isinstance(inner[-1], (list, tuple)) else inner[0]
            context, weights = self._read(last, memory, real, step, weights, coverage)
            output, inner = self._advance(ops.concatenate([inputs, context], axis=-1), inner, training)
        else:
            hidden, inner = self._advance(ops.concatenate([inputs, output], axis=-1), inner, training)
            context, weights = self._read(hidden, memory, real, step, weights, coverage)
            output = self.combine(ops.concatenate([context, hidden], axis=-1))
        return output, [output, *inner, counted(step), weights, coverage + weights, flat, real]

    def _advance(self, inputs: Any, states: list[Any], training: bool | None) -> tuple[Any, list[Any]]:
        """One step of the inner cell."""
        output, states = self.cell(inputs, states, training=training)
        return output, listed(states)

    def get_dropout_mask(self, step_input: Any) -> None:
        """Draw the noise of the normalizer, and have the inner cells draw the dropout of their inputs, before the loop: a seed
        that changed in a compiled loop could not be kept.
        """
        # Around the tracking of Keras and PyTorch, for which a part that is a layer would be one more layer.
        object.__setattr__(self, "_drawn", self.normalizer.sample_seed())
        width = step_input.shape[-1] + (self.memory_size if self.reads == "before" else self.units)
        for cell in inner_cells(self.cell):
            if isinstance(cell, DropoutRNNCell):
                cell.get_dropout_mask(ops.ones((ops.shape(step_input)[0], width), dtype=self.compute_dtype))
            width = output_size(cell)

    def get_recurrent_dropout_mask(self, step_input: Any) -> None:
        """Have the inner cells draw the dropout of their states."""
        for cell in inner_cells(self.cell):
            if isinstance(cell, DropoutRNNCell):
                shape = (ops.shape(step_input)[0], listed(cell.state_size)[0])
                cell.get_recurrent_dropout_mask(ops.ones(shape, dtype=self.compute_dtype))

    def reset_dropout_mask(self) -> None:
        """Forget the noise, and have the inner cells forget the dropout of their inputs."""
        object.__setattr__(self, "_drawn", None)
        for cell in inner_cells(self.cell):
            if isinstance(cell, DropoutRNNCell):
                cell.reset_dropout_mask()

    def reset_recurrent_dropout_mask(self) -> None:
        """Have the inner cells forget the dropout of their states."""
        for cell in inner_cells(self.cell):
            if isinstance(cell, DropoutRNNCell):
                cell.reset_recurrent_dropout_mask()

    def _read(self, query: Any, memory: Any, real: Any, step: Any, weights: Any, coverage: Any) -> tuple[Any, Any]:
        """What a query (B, U) reads, (B, M), and by which weights, (B, S)."""
        position = ops.cast(step[:, :1] + BASE * step[:, 1:], "int32")
        own = masks.Slots(keys=real > 0.5)
        attention_call = make_call(
            ops.expand_dims(query, 1),
            memory,
            score=self.score,
            mask=masks.both(self.mask, own),
            # Each step is a question of one row: its noise must depend on the step.
            normalizer=self.normalizer if self._drawn is None else self._drawn.at(position[0]),
            query_positions=position,
            owner=self,
        )
        history = History(*(ops.reshape(past, (-1, 1, 1, ops.shape(past)[-1])) for past in (weights, coverage)))
        attention_call = dataclasses.replace(
            attention_call, block=dataclasses.replace(attention_call.block, history=history)
        )
        functional.announce(attention_call)
        found = functional.weights(attention_call)[:, 0]  # (B, 1, S)
        context = ops.matmul(ops.cast(found, memory.dtype), memory)[:, 0]
        return context, ops.cast(found[:, 0], self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        parts = {name: getattr(self, name) for name in ("cell", "score", "normalizer", "mask")}
        stored = {name: keras.saving.serialize_keras_object(part) for name, part in parts.items()}
        dtype = keras.dtype_policies.serialize(policies_of(self))
        return {
            **super().get_config(),
            "dtype": dtype,
            "memory_size": self.memory_size,
            "reads": self.reads,
            **stored,
        }


class Showing(keras.Layer, DropoutRNNCell):
    """An attention cell whose output carries the weights beside it, so that an RNN stacks them too."""

    def __init__(self, cell: AttentionCell, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cell = cell
        self.output_size = cell.units
        self.get_dropout_mask = cell.get_dropout_mask
        self.get_recurrent_dropout_mask = cell.get_recurrent_dropout_mask
        self.reset_dropout_mask = cell.reset_dropout_mask
        self.reset_recurrent_dropout_mask = cell.reset_recurrent_dropout_mask

    @property
    def state_size(self) -> list[Any]:
        """Those of the cell, after what was shown last."""
        return [None, *self.cell.state_size]

    def build(self, input_shape: tuple) -> None:
        if not self.cell.built:
            self.cell.build(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**keras.Layer.get_config(self), "cell": keras.saving.serialize_keras_object(self.cell)}

    def call(self, inputs: Any, states: Any, training: bool | None = None) -> tuple[Any, list[Any]]:
        output, states = self.cell(inputs, states[1:], training=training)
        shown = ops.concatenate([output, states[-4]], axis=-1)
        return shown, [shown, *states]


@register
class AttentionRNN(keras.layers.RNN):
    """An RNN whose cell reads a memory, and which shows where it read.

    Args:
        cell: an `AttentionCell`.
        return_sequences: whether the outputs of all steps are returned, not only that of the last.
        zero_output_for_mask, unroll: as `keras.layers.RNN` takes them.

    Call arguments:
        sequences: (B, T, D).
        memory: (B, S, M).
        initial_state: the states of the inner cell, such as an encoder's last; zeros when not given.
        sequences_mask, memory_mask: bool (B, T) and (B, S), True where a step is real; Keras's implicit masks when not given.
        return_attention_scores: whether the weights come too: the alignment history.

    Returns:
        (B, T, U), or (B, U) without `return_sequences`. Asked for, the weights too: (B, T, S) or (B, S). Weights of padded steps
        of the sequence are those of the step before.

    Raises:
        TypeError: the cell is no `AttentionCell`.

    Example:
        >>> import keras, limelight as ll
        >>> cell = ll.layers.AttentionCell(keras.layers.GRUCell(8), memory_size=6)
        >>> layer = ll.layers.AttentionRNN(cell, return_sequences=True)
        >>> steps, memory = keras.Input((None, 5)), keras.Input((None, 6))
        >>> output, weights = layer(steps, memory, return_attention_scores=True)
        >>> output.shape, weights.shape
        ((None, None, 8), (None, None, None))

    References:
        Bahdanau et al. 2015, arXiv:1409.0473.
    """

    def __init__(self, cell: AttentionCell, **kwargs: Any) -> None:
        if not isinstance(cell, AttentionCell):
            raise TypeError(
                f"`cell` must be an AttentionCell. Received: {cell!r} of type {type(cell).__name__}. Wrap it: "
                "limelight.layers.AttentionCell(cell, memory_size)."
            )
        for name in ("stateful", "go_backwards", "return_state"):
            if kwargs.get(name):
                raise ValueError(f"An AttentionRNN cannot be `{name}`. Use keras.layers.RNN with the cell instead.")
        super().__init__(Showing(cell, dtype=cell.dtype_policy, name="showing"), **kwargs)

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
        states = cell.initial_state(memory, memory_mask, initial_state)
        shown = ops.concatenate([states[0], states[-4]], axis=-1)
        both = super().call(sequences, [shown, *states], mask=sequences_mask, training=bool(training))
        output = both[..., : cell.units]
        return (output, both[..., cell.units :]) if return_attention_scores else output

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """That of the sequences, where their steps are returned."""
        mask = getattr(inputs, "_keras_mask", None)
        return [mask if self.return_sequences else None, None]

    def compute_output_spec(
        self, sequences: Any, memory: Any, *args: Any, return_attention_scores: bool = False, **kwargs: Any
    ) -> Any:
        lead = sequences.shape[:2] if self.return_sequences else sequences.shape[:1]
        output = keras.KerasTensor((*lead, self.cell.cell.units), dtype=self.compute_dtype)
        weights = keras.KerasTensor((*lead, memory.shape[1]), dtype=self.compute_dtype)
        return (output, weights) if return_attention_scores else output

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for name in ("stateful", "go_backwards", "return_state"):
            config.pop(name)
        return {**config, "cell": keras.saving.serialize_keras_object(self.cell.cell)}


def listed(states: Any) -> list[Any]:
    """States or their sizes as a plain list, also where there is one, and so for cells within cells."""
    if not isinstance(states, (list, tuple)):
        return [states]
    return [listed(state) if isinstance(state, (list, tuple)) else state for state in states]


def inner_cells(cell: Any) -> list[Any]:
    """The cells of a stack, or the one cell."""
    return list(getattr(cell, "cells", [cell]))


def output_size(cell: Any) -> int:
    """The width of a cell's output."""
    size = getattr(cell, "output_size", None)
    return int(listed(cell.state_size)[0] if size is None else size)


def counted(step: Any) -> Any:
    """The next step number, in two digits (B, 2)."""
    low = step[:, :1] + 1
    over = ops.cast(low >= BASE, step.dtype)
    return ops.concatenate([low - BASE * over, step[:, 1:] + over], axis=-1)
