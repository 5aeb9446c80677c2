"""A recurrent cell that attends to a memory at each step."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from limelight import functional, masks, normalizers, scores
from limelight._keras_private import DropoutRNNCell, get_keras_mask
from limelight.core.block import Block, History
from limelight.core.component import deserialize, register
from limelight.core.precision import upcast
from limelight.core.random import dropout_mask, sample_seed
from limelight.core.validation import check_positive_int
from limelight.engine.call import flatten_leading, make_call
from limelight.layers.projections import get_sublayer_policy, serialize_dtype_policies
from limelight.scores.score import project_keys, score_projected_keys

# A step's position is stored in two digits of this base, so that even bfloat16 holds it.
BASE = 128


@register
class AttentionCell(keras.Layer, DropoutRNNCell):
    r"""A recurrent cell that attends to a memory at each step.

    With `attend="before"` (Bahdanau) the previous state is the query, and the context is concatenated to the cell's input:

    $$c_t = \mathrm{attend}(h_{t-1}), \qquad h_t = \mathrm{cell}([x_t; c_t], h_{t-1}), \qquad y_t = h_t$$

    With `attend="after"` (Luong, with input feeding) the cell's output is the query:

    $$h_t = \mathrm{cell}([x_t; y_{t-1}], h_{t-1}), \qquad c_t = \mathrm{attend}(h_t), \qquad y_t = \tanh(W [c_t; h_t])$$

    Among the states are the previous step's weights (for `LocationSensitive`), the sum of all earlier weights (coverage), and the
    position of the step; with `Monotonic` also the weights from which it moves on. `AttentionRNN` takes the memory itself and
    projects it once for each sequence. To decode step by step, or for `keras.layers.RNN`, pass
    `initial_state=cell.initial_state(memory)`: then the memory is among the states too, and its projection with it, if the cell
    is built and `memory` is not symbolic.

    Args:
        cell: A recurrent cell of Keras's, such as `keras.layers.LSTMCell(64)`, or a `StackedRNNCells`.
        memory_size: M, the width of the memory.
        score: A `limelight.scores.Score`; `Additive` as wide as the cell when not given. It is called with one query.
        normalizer: A `limelight.normalizers.Normalizer` or its name; softmax when not given.
        mask: A `limelight.masks.Mask` on the positions of the step and of the memory, such as `SlidingWindow(5, 5)` for Luong's
            local-m.
        attend: "before" or "after" the cell.
        dropout: Fraction of the weights that is dropped during training, in [0, 1), anew at each step. States hold the weights
            before dropout.
        seed: Seed of the dropout.

    Call arguments:
        inputs: (B, D).
        states: A list, as `initial_state` returns it.
        training: Whether dropout is active.

    Returns:
        The output (B, U), U the width of the cell's output, and the new states.

    Raises:
        ValueError: A width is not a positive integer, `attend` is unknown, `dropout` is outside [0, 1), or there is no initial
            state.

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
        attend: str = "before",
        dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_positive_int("memory_size", memory_size)
        if attend not in ("before", "after"):
            raise ValueError(f'`attend` must be "before" or "after". Received: attend={attend!r}.')
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout` must be in [0, 1). Received: dropout={dropout}.")
        self.cell, self.memory_size, self.attend = deserialize(cell), memory_size, attend
        self.units = self.output_size = _get_output_size(self.cell)
        self.score = scores.get(scores.Additive(self.units) if score is None else deserialize(score))
        self.normalizer = normalizers.get(deserialize(normalizer))
        inner = normalizers.find_layer(self.normalizer)
        self.inner_normalizer = None if inner is self.normalizer else inner
        self.mask = masks.get(deserialize(mask))
        self.dropout, self.seed = dropout, seed
        if dropout > 0:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self._seeded_normalizer: Any = None
        self._dropout_seed: Any = None

    @property
    def state_size(self) -> list[Any]:
        """Widths of the states; [None] for those as wide as the memory is long."""
        return [*self.step_state_size, [None], [None]]

    @property
    def step_state_size(self) -> list[Any]:
        """Widths of the states that a step changes: output, states of the inner cell, position, weights and coverage.

        A normalizer that needs all rows has one more before the weights: those of the last step that was permitted any key.
        """
        # `keras.layers.RNN` leaves out of its symbolic outputs a state whose width is None, but not one in a list.
        weights = [[None]] * (3 if self.normalizer.needs_all_rows else 2)
        return [self.units, *_to_list(self.cell.state_size), 2, *weights]

    @property
    def _context_size(self) -> int:
        """Width of what is concatenated to the input of the inner cell."""
        return self.memory_size if self.attend == "before" else self.units

    def build(self, input_shape: tuple) -> None:
        batch_size, width = input_shape[0], input_shape[-1]
        if not self.cell.built:
            self.cell.build((batch_size, width + self._context_size))
            self.cell.built = True
        scores.build(self.score, (batch_size, 1, self.units), (batch_size, None, self.memory_size))
        normalizers.build(self.normalizer, (batch_size, 1, None))
        if self.attend == "after":
            policy = get_sublayer_policy(self, "combine")
            self.combine = keras.layers.Dense(self.units, "tanh", use_bias=False, name="combine", dtype=policy)
            self.combine.build((batch_size, self.memory_size + self.units))

    def initial_state(self, memory: Any, mask: Any = None, states: Any = None) -> list[Any]:
        """Return the states before the first step.

        Args:
            memory: (B, S, M), what the cell attends to.
            mask: Bool (B, S), True where a step of the memory is real; Keras's implicit mask when not given.
            states: States of the inner cell, such as an encoder's last; zeros when not given.
        """
        prepared = self.prepare_memory(memory, mask)
        is_symbolic = isinstance(memory, keras.KerasTensor)
        # A symbolic projection would belong to no layer of the model.
        has_keys = self.built and not is_symbolic and prepared.key is not prepared.value
        sequences = [prepared.key, prepared.value] if has_keys else [prepared.value]
        if is_symbolic:
            # A symbolic reshape would need the batch size.
            flat = [keras.layers.Flatten(dtype=self.compute_dtype)(sequence) for sequence in sequences]
        else:
            flat = [ops.reshape(sequence, (ops.shape(sequence)[0], -1)) for sequence in sequences]
        return [*self.initial_step_states(prepared, states), *flat, prepared.mask]

    def prepare_memory(self, memory: Any, mask: Any = None) -> "Memory":
        """Zero the padding of a memory and project it for the score, once for all steps."""
        if memory.shape[-1] != self.memory_size:
            raise ValueError(
                f"The memory must have the width `memory_size`={self.memory_size}. Received: shape {tuple(memory.shape)}."
            )
        mask = get_keras_mask(memory) if mask is None else mask
        if mask is not None:
            mask = mask if isinstance(mask, keras.KerasTensor) else masks.as_bool(mask, "`mask`")
            memory = ops.where(ops.expand_dims(mask, -1), memory, ops.zeros_like(memory))
        memory = ops.cast(memory, self.compute_dtype)
        mask = ops.ones_like(memory[..., 0]) if mask is None else ops.cast(mask, self.compute_dtype)
        key = project_keys(self.score, memory) if self.built and not isinstance(memory, keras.KerasTensor) else memory
        return Memory(memory, key, mask)

    def initial_step_states(self, memory: "Memory", states: Any = None) -> list[Any]:
        """Return the states before the first step that a step changes: all but the memory.

        Args:
            memory: The memory.
            states: States of the inner cell; zeros when not given. Or all of these states, from which to go on.
        """
        no_weights = ops.zeros_like(memory.mask)  # (B, S)

        def zeros(width: int) -> Any:
            return ops.tile(no_weights[:, :1], (1, width))

        cell_sizes, sizes = _to_list(self.cell.state_size), self.step_state_size
        states = keras.tree.map_structure(zeros, cell_sizes) if states is None else _to_list(states)
        if len(states) == len(sizes):
            return states
        if len(states) != len(cell_sizes):
            raise ValueError(
                f"An initial state must have the {len(cell_sizes)} states of the inner cell, or the {len(sizes)} that an "
                f"AttentionRNN with `return_state` returns. Received: {len(states)} states."
            )
        on_first_key = ops.concatenate([no_weights[:, :1] + 1, no_weights[:, 1:]], axis=-1)
        reached = [on_first_key] if self.normalizer.needs_all_rows else []
        return [zeros(self.units), *states, zeros(2), *reached, no_weights, upcast(no_weights)]

    def get_initial_state(self, batch_size: Any = None) -> Any:
        """Raise: there is no initial state without a memory."""
        raise ValueError(
            "An AttentionCell needs a memory. Received: an RNN called without `initial_state`. Call it with "
            "initial_state=cell.initial_state(memory), or use limelight.layers.AttentionRNN, which takes the memory itself."
        )

    def call(self, inputs: Any, states: Any, training: bool | None = None) -> tuple[Any, list[Any]]:
        num_states = len(self.step_state_size)
        step_states, [*flat, mask] = states[:num_states], states[num_states:]
        value = ops.reshape(flat[-1], (*ops.shape(mask), self.memory_size))
        has_keys = len(flat) > 1
        key = upcast(ops.reshape(flat[0], (*ops.shape(mask), -1))) if has_keys else project_keys(self.score, value)
        output, step_states = self.step(inputs, step_states, Memory(value, key, mask), training)
        return output, [*step_states, *flat, mask]

    def step(
        self, inputs: Any, states: list[Any], memory: "Memory", training: bool | None = None
    ) -> tuple[Any, list[Any]]:
        """Compute one step.

        Args:
            inputs: (B, D).
            states: A list, as `initial_step_states` returns it.
            memory: What `prepare_memory` returns.
            training: Whether dropout is active.

        Returns:
            The output (B, U), and the new states.
        """
        output, *cell_states, weights, coverage = states
        reached = [cell_states.pop()] if self.normalizer.needs_all_rows else []
        position = cell_states.pop()
        history = History(*(ops.expand_dims(ops.expand_dims(past, 1), 1) for past in (weights, coverage, *reached)))
        if self.attend == "before":
            query = _get_output_state(self.cell, cell_states)
            context, weights, reached = self._attend(query, memory, position, history, training)
            output, cell_states = self._run_cell(inputs, context, cell_states, training)
        else:
            hidden, cell_states = self._run_cell(inputs, output, cell_states, training)
            context, weights, reached = self._attend(hidden, memory, position, history, training)
            output = self.combine(ops.concatenate([context, hidden], axis=-1))
        return output, [
            output,
            *cell_states,
            _increment(position),
            *reached,
            weights,
            coverage + ops.cast(weights, coverage.dtype),
        ]

    def _run_cell(self, inputs: Any, context: Any, states: list[Any], training: bool | None) -> tuple[Any, list[Any]]:
        """Run one step of the inner cell."""
        output, states = self.cell(ops.concatenate([inputs, context], axis=-1), states, training=training)
        return output, _to_list(states)

    def _attend(
        self, query: Any, memory: "Memory", position: Any, history: History, training: bool | None
    ) -> tuple[Any, Any, list[Any]]:
        """Return the context (B, M) of a query (B, U), the weights (B, S), and the new `History.reached` if there is one."""
        digits = ops.cast(position, "int32")
        position = digits[:, :1] + BASE * digits[:, 1:]
        # Each step is a call with one row: its noise must depend on the position.
        step = ops.reshape(position, (-1, 1, 1, 1))
        mask: masks.Mask = masks.CacheSlots(keys=memory.mask > 0.5)
        mask = mask if self.mask is None else self.mask & mask
        # In a loop of TensorFlow the size of a state is not known without `reshape`.
        call = make_call(
            ops.reshape(query, (-1, 1, self.units)),
            memory.key,
            score=ScoreOfProjectedKeys(self.score),
            mask=mask,
            normalizer=self.normalizer if self._seeded_normalizer is None else self._seeded_normalizer.at_step(step),
            query_positions=position,
            layer=self,
        )
        call = dataclasses.replace(call, block=dataclasses.replace(call.block, history=history))
        announced = functional.announce_call(
            lambda: dataclasses.replace(call, key=flatten_leading(memory.value), score=self.score)
        )
        weights = functional.compute_weights(call)  # (B, 1, 1, S)
        kept = ops.cast(self._drop(weights, call.block, step, training), memory.value.dtype)
        context = ops.matmul(kept[:, 0], memory.value)
        if announced is not None:
            value = ops.expand_dims(memory.value, 1)
            context = functional.transform_output(announced, ops.expand_dims(context, 1), value)[:, 0]
        weights = ops.cast(weights[:, 0, 0], self.compute_dtype)
        if history.reached is None:
            return context[:, 0], weights, []
        is_permitted_any = ops.any(mask(call.block), axis=-1)[:, 0]  # (B, 1)
        return context[:, 0], weights, [ops.where(is_permitted_any, weights, history.reached[:, 0, 0])]

    def _drop(self, weights: Any, block: Block, step: Any, training: bool | None) -> Any:
        """Return the weights after dropout."""
        if not self.dropout or not training:
            return weights
        seed = sample_seed(self.seed_generator) if self._dropout_seed is None else self._dropout_seed
        return weights * dropout_mask(seed + step, self.dropout, block, weights.dtype)

    # `keras.layers.RNN` calls the methods below before and after its loop: random numbers that a compiled loop drew could not be
    # the same at every step.

    def get_dropout_mask(self, step_input: Any) -> None:
        """Draw the noise of the normalizer, the seed of the dropout, and the dropout masks of the inner cells' inputs."""
        # Bypasses the attribute tracking of Keras and PyTorch, which would find one more sublayer.
        object.__setattr__(self, "_seeded_normalizer", self.normalizer.with_noise())
        object.__setattr__(self, "_dropout_seed", sample_seed(self.seed_generator) if self.dropout else None)
        width = step_input.shape[-1] + self._context_size
        for cell in _get_cells(self.cell):
            if isinstance(cell, DropoutRNNCell):
                cell.get_dropout_mask(ops.ones((ops.shape(step_input)[0], width), dtype=self.compute_dtype))
            width = _get_output_size(cell)

    def get_recurrent_dropout_mask(self, step_input: Any) -> None:
        """Draw the dropout masks of the inner cells' states."""
        for cell in self._get_dropout_cells():
            shape = (ops.shape(step_input)[0], _to_list(cell.state_size)[0])
            cell.get_recurrent_dropout_mask(ops.ones(shape, dtype=self.compute_dtype))

    def reset_dropout_mask(self) -> None:
        """Discard the noise, the seed of the dropout, and the dropout masks of the inner cells' inputs."""
        object.__setattr__(self, "_seeded_normalizer", None)
        object.__setattr__(self, "_dropout_seed", None)
        for cell in self._get_dropout_cells():
            cell.reset_dropout_mask()

    def reset_recurrent_dropout_mask(self) -> None:
        """Discard the dropout masks of the inner cells' states."""
        for cell in self._get_dropout_cells():
            cell.reset_recurrent_dropout_mask()

    def _get_dropout_cells(self) -> Iterator[Any]:
        return (cell for cell in _get_cells(self.cell) if isinstance(cell, DropoutRNNCell))

    def get_config(self) -> dict[str, Any]:
        names = ("cell", "score", "normalizer", "mask")
        return {
            **super().get_config(),
            "dtype": serialize_dtype_policies(self),
            "memory_size": self.memory_size,
            "attend": self.attend,
            "dropout": self.dropout,
            "seed": self.seed,
            **{name: keras.saving.serialize_keras_object(getattr(self, name)) for name in names},
        }


@dataclasses.dataclass(frozen=True, eq=False)
class Memory:
    """The memory of one batch of sequences, ready for every step.

    Args:
        value: (B, S, M), 0 at padded steps.
        key: (B, S, P), what the score needs of the memory.
        mask: (B, S) in the compute dtype, 1 where a step is real.
    """

    value: Any
    key: Any
    mask: Any


@dataclasses.dataclass(frozen=True, eq=False)
class ScoreOfProjectedKeys(scores.Score):
    """A score that is called with keys that its `project_keys` returned."""

    score: scores.Score

    def __call__(self, query: Any, key: Any, *, block: Block) -> Any:
        return score_projected_keys(self.score, query, key, block=block)


def _to_list(states: Any) -> list[Any]:
    """Return states or their sizes as a list, also if there is only one, and likewise those of cells within cells."""
    if not isinstance(states, (list, tuple)):
        return [states]
    return [_to_list(state) if isinstance(state, (list, tuple)) else state for state in states]


def _get_cells(cell: Any) -> list[Any]:
    """Return the cells of a stack, or the one cell."""
    return list(getattr(cell, "cells", [cell]))


def _get_output_size(cell: Any) -> int:
    size = getattr(cell, "output_size", None)
    return int(_to_list(cell.state_size)[0] if size is None else size)


def _get_output_state(cell: Any, states: Any) -> Any:
    """Return the state that the last output was: the first one, of the top cell of a stack."""
    if hasattr(cell, "cells"):
        return _get_output_state(cell.cells[-1], states[-1])
    return _to_list(states)[0]


def _increment(position: Any) -> Any:
    """Return the next position, in two digits (B, 2)."""
    low = position[:, :1] + 1
    carry = ops.cast(low >= BASE, position.dtype)
    return ops.concatenate([low - BASE * carry, position[:, 1:] + carry], axis=-1)
