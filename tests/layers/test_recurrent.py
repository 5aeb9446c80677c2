"""Recurrent cells that attend to a memory at each step, against loops in numpy."""

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
import oracles
from contracts.representative import full
from limelight.layers import AttentionCell, AttentionRNN

B, T, S, D, M, U = 2, 5, 7, 3, 11, 13
REAL = np.array([[True] * S, [True] * 4 + [False] * 3])


def numpy(tensor: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(tensor))


def inputs(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return random.normal(size=(B, T, D)).astype("float32"), random.normal(size=(B, S, M)).astype("float32")


def make_layer(attend: str = "before", **parts: Any) -> AttentionRNN:
    """Return an RNN with a simple recurrent cell and random weights."""
    cell = AttentionCell(keras.layers.SimpleRNNCell(U), M, attend=attend, **parts)
    layer = AttentionRNN(cell, return_sequences=True)
    layer(np.zeros((B, T, D), "float32"), np.zeros((B, S, M), "float32"))
    random = np.random.default_rng(41)
    for variable in layer.trainable_variables:
        variable.assign(0.4 * random.normal(size=variable.shape))
    return layer


def run_loops(
    layer: AttentionRNN, steps: np.ndarray, memory: np.ndarray, score: Any, real: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Compute outputs (B, T, U) and weights (B, T, S) by loops; `score(query, key, place, previous, coverage)` returns a row."""
    scored = layer.cell.cell.score
    learned = {variable.name: numpy(variable) for variable in scored.variables}
    inner = layer.cell.cell.cell
    kernel, recurrent, bias = (numpy(weight) for weight in (inner.kernel, inner.recurrent_kernel, inner.bias))
    after = layer.cell.cell.attend == "after"
    combine = numpy(layer.cell.cell.combine.kernel) if after else None
    outputs, shown = np.zeros((B, T, U)), np.zeros((B, T, S))

    def read(b: int, t: int, query: np.ndarray, *past: np.ndarray) -> np.ndarray:
        place = oracles.Place(b, 0, 1, [t], range(S), learned)
        row = score(query[None], memory[b].astype("float64"), place, *past)
        return oracles.softmax()(row, [[True] * S if real is None else list(real[b])], place)[0]

    for b in range(B):
        hidden, output, previous, coverage = np.zeros(U), np.zeros(U), np.zeros(S), np.zeros(S)
        for t in range(T):
            if after:
                hidden = np.tanh(np.concatenate([steps[b, t], output]) @ kernel + hidden @ recurrent + bias)
                weights = read(b, t, hidden, previous, coverage)
                output = np.tanh(np.concatenate([weights @ memory[b], hidden]) @ combine)
            else:
                weights = read(b, t, hidden, previous, coverage)
                hidden = np.tanh(
                    np.concatenate([steps[b, t], weights @ memory[b]]) @ kernel + hidden @ recurrent + bias
                )
                output = hidden
            outputs[b, t], shown[b, t] = output, weights
            previous, coverage = weights, coverage + weights
    return outputs, shown


def plain(score: Any) -> Any:
    return lambda query, key, place, previous, coverage: score(query, key, place)


def location(over: str) -> Any:
    """Chorowski's score by loops: it convolves earlier weights."""

    def scores(
        query: np.ndarray, key: np.ndarray, place: Any, previous: np.ndarray, coverage: np.ndarray
    ) -> np.ndarray:
        learned, past = place.parameters, previous if over == "previous" else coverage
        kernel = learned["filter_kernel"]  # (width, 1, filters)
        row = np.zeros((1, S))
        for j in range(S):
            features = np.zeros(kernel.shape[2])
            for offset in range(kernel.shape[0]):
                at = j + offset - (kernel.shape[0] - 1) // 2
                if 0 <= at < S:
                    features += past[at] * kernel[offset, 0]
            hidden = query[0] @ learned["query_kernel"] + key[j] @ learned["key_kernel"] + learned["bias"]
            row[0, j] = np.tanh(hidden + features @ learned["location_kernel"]) @ learned["readout"][:, 0]
        return row

    return scores


@pytest.mark.parametrize("attend", ["before", "after"])
@pytest.mark.parametrize(
    ("make", "oracle"),
    [
        (lambda: ll.scores.Additive(4), plain(oracles.additive)),
        full(ll.scores.Bilinear, plain(oracles.bilinear)),
        full(lambda: ll.scores.LocationSensitive(4, filters=2, kernel_size=3), location("previous")),
        (lambda: ll.scores.LocationSensitive(4, filters=2, kernel_size=3, cumulative=True), location("coverage")),
    ],
    ids=["additive", "bilinear", "location", "coverage"],
)
def test_equals_the_loop(random: np.random.Generator, attend: str, make: Any, oracle: Any) -> None:
    layer, (steps, memory) = make_layer(attend, score=make()), inputs(random)
    output, weights = layer(steps, memory, memory_mask=REAL, return_attention_scores=True)
    expected, shown = run_loops(layer, steps, memory, oracle, REAL)
    np.testing.assert_allclose(numpy(weights), shown, atol=2e-5)
    np.testing.assert_allclose(numpy(output), expected, atol=2e-5)
    assert not numpy(weights)[1, :, 4:].any()


def test_keras_rnn_runs_the_cell(random: np.random.Generator) -> None:
    layer, (steps, memory) = make_layer(score=ll.scores.Additive(4)), inputs(random)
    cell = layer.cell.cell
    rnn = keras.layers.RNN(cell, return_sequences=True, return_state=True)
    output, *states = rnn(steps, initial_state=cell.initial_state(ops.convert_to_tensor(memory), REAL))
    expected, weights = layer(steps, memory, memory_mask=REAL, return_attention_scores=True)
    np.testing.assert_allclose(numpy(output), numpy(expected), atol=1e-6)
    np.testing.assert_allclose(numpy(states[3]), numpy(weights)[:, -1], atol=1e-6)
    np.testing.assert_allclose(numpy(states[4]), numpy(weights).sum(1), atol=1e-5)
    assert numpy(states[2]).tolist() == [[T, 0]] * B


@pytest.mark.full
def test_window_moves_with_the_steps(random: np.random.Generator) -> None:
    layer, (steps, memory) = make_layer(mask=ll.masks.SlidingWindow(1, 1)), inputs(random)
    _, weights = layer(steps, memory, return_attention_scores=True)
    near = np.abs(np.arange(T)[:, None] - np.arange(S)) <= 1
    np.testing.assert_array_equal(numpy(weights) > 0, np.broadcast_to(near, (B, T, S)))


@pytest.mark.full
def test_position_carries_to_the_second_digit() -> None:
    from limelight.layers.attention_cell import _increment

    step = ops.zeros((1, 2), dtype="bfloat16")
    for _ in range(300):
        step = _increment(step)
    assert numpy(ops.cast(step, "float32")).tolist() == [[300 % 128, 300 // 128]]


@pytest.mark.parametrize(("dtype", "position"), [("bfloat16", 257), ("bfloat16", 301), full("float16", 2049)])
def test_positions_of_late_steps_are_exact_in_half_precision(dtype: str, position: int) -> None:
    size = position + 7
    inner = keras.layers.SimpleRNNCell(U, dtype=f"mixed_{dtype}")
    cell = AttentionCell(inner, M, mask=ll.masks.SlidingWindow(0, 0), dtype=f"mixed_{dtype}")
    cell.build((1, D))
    memory = cell.prepare_memory(ops.ones((1, size, M)))
    output, hidden, _, weights, coverage = cell.initial_step_states(memory)
    late = ops.convert_to_tensor(np.array([divmod(position, 128)[::-1]]), dtype)
    _, states = cell.step(ops.ones((1, D), dtype), [output, hidden, late, weights, coverage], memory)
    np.testing.assert_array_equal(numpy(ops.cast(states[-2], "float32")), np.eye(size)[[position]])


@pytest.mark.full
@pytest.mark.parametrize("cells", ["simple simple", "gru lstm", "lstm gru", "lstm lstm", "lstm (gru simple)"])
def test_query_is_the_state_of_the_top_cell(random: np.random.Generator, cells: str) -> None:
    kinds = {"simple": keras.layers.SimpleRNNCell, "gru": keras.layers.GRUCell, "lstm": keras.layers.LSTMCell}
    widths = iter((2 * U, U, U))
    names, _, nested = cells.partition("(")
    stack = [kinds[name](next(widths)) for name in names.split()]
    if nested:
        stack.append(keras.layers.StackedRNNCells([kinds[name](next(widths)) for name in nested[:-1].split()]))
    cell = AttentionCell(keras.layers.StackedRNNCells(stack), M, score=ll.scores.Bilinear())
    layer = AttentionRNN(cell, return_sequences=True)
    steps, memory = inputs(random)
    output, weights = (numpy(x) for x in layer(steps, memory, return_attention_scores=True))
    # With `attend="before"` the output is the state from which the next step's query comes.
    queries = np.concatenate([np.zeros((B, 1, U)), output[:, :-1]], axis=1)
    scores = np.einsum("btu,um,bsm->bts", queries, numpy(cell.score.kernel), memory)
    expected = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(weights, expected, atol=1e-5)


def test_monotonic_attention_equals_the_loop(random: np.random.Generator) -> None:
    layer, (steps, memory) = (
        make_layer("after", score=ll.scores.Bilinear(), normalizer=ll.normalizers.Monotonic(-1.0)),
        inputs(random),
    )
    output, weights = layer(steps, memory, return_attention_scores=True)
    cell = layer.cell.cell
    shown = numpy(weights)
    assert (shown.sum(-1) <= 1 + 1e-5).all()
    shift, kernel = float(numpy(cell.normalizer.shift)), numpy(cell.score.kernel)
    inner = cell.cell
    for b in range(B):
        hidden, previous, fed = np.zeros(U), None, np.zeros(U)
        for t in range(T):
            hidden = np.tanh(
                np.concatenate([steps[b, t], fed]) @ numpy(inner.kernel)
                + hidden @ numpy(inner.recurrent_kernel)
                + numpy(inner.bias)
            )
            row = hidden @ kernel @ memory[b].T
            stop = 1 / (1 + np.exp(-row - shift))
            before = np.eye(S)[0] if previous is None else previous
            expected = [sum(before[k] * math.prod(1 - stop[k:j]) * stop[j] for k in range(j + 1)) for j in range(S)]
            np.testing.assert_allclose(shown[b, t], expected, atol=2e-5)
            previous, fed = shown[b, t], numpy(output)[b, t]


def test_monotonic_attention_goes_on_after_steps_without_keys(random: np.random.Generator) -> None:
    mask = ll.masks.MaskFunction(lambda query, key: (query % 2 == 1) & (key != 1))
    layer = make_layer(score=ll.scores.Bilinear(), normalizer=ll.normalizers.Monotonic(-1.0), mask=mask)
    cell, (steps, memory) = layer.cell.cell, inputs(random)
    resumable = AttentionRNN(cell, return_sequences=True, return_state=True)
    output, weights, *states = resumable(steps[:, :3], memory, return_attention_scores=True)
    more = resumable(steps[:, 3:], memory, initial_state=states, return_attention_scores=True)[:2]
    pairs = zip((output, weights), more, strict=True)
    output, weights = (np.concatenate([numpy(part) for part in pair], axis=1) for pair in pairs)
    np.testing.assert_array_equal(weights.any(-1), [[False, True, False, True, False]] * B)
    # With `attend="before"` the output is the state from which the next step's query comes.
    queries = np.concatenate([np.zeros((B, 1, U)), output[:, :-1]], axis=1)
    scores = np.einsum("btu,um,bsm->bts", queries, numpy(cell.score.kernel), memory)
    permitted = [[row % 2 == 1 and column != 1 for column in range(S)] for row in range(T)]
    for example in range(B):
        place = oracles.Place(example, 0, 1, range(T), range(S), {"shift": numpy(cell.normalizer.shift)})
        expected = oracles.monotonic(scores[example], permitted, place)
        np.testing.assert_allclose(weights[example], expected, atol=2e-5)


@pytest.mark.parametrize(
    ("inner", "attend"),
    [
        (lambda: keras.layers.LSTMCell(U), "before"),
        pytest.param(
            lambda: keras.layers.GRUCell(U, dropout=0.2, recurrent_dropout=0.1), "after", marks=pytest.mark.full
        ),
        pytest.param(
            lambda: keras.layers.StackedRNNCells([keras.layers.LSTMCell(4), keras.layers.LSTMCell(U)]),
            "before",
            marks=pytest.mark.full,
        ),
    ],
    ids=["lstm", "gru with dropout", "stacked"],
)
def test_model_trains_saves_and_loads(random: np.random.Generator, tmp_path: Path, inner: Any, attend: str) -> None:
    cell = AttentionCell(inner(), M, score=ll.scores.LocationSensitive(4, 3, 5), attend=attend)
    steps, ids = keras.Input((None, D)), keras.Input((None,), dtype="int32")
    memory = keras.layers.Embedding(9, M, mask_zero=True)(ids)
    output, weights = AttentionRNN(cell, return_sequences=True)(steps, memory, return_attention_scores=True)
    model = keras.Model([steps, ids], {"output": keras.layers.Dense(2)(output), "weights": weights})
    losses = {"output": "mse", "weights": ll.layers.GuidedAlignment()}
    model.compile(keras.optimizers.Adam(0.03), losses, jit_compile=keras.backend.backend() == "jax")
    tokens = np.array([[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 0, 0, 0]])
    given = inputs(random)[0]
    target = {"output": random.normal(size=(B, T, 2)), "weights": np.eye(T, S)[None].repeat(B, 0)}
    history = model.fit([given, tokens], target, epochs=5, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert history[-1] < history[0]
    expected = model.predict([given, tokens], verbose=0)
    assert not expected["weights"][1, :, 4:].any()
    model.save(tmp_path / "model.keras")
    found = keras.models.load_model(tmp_path / "model.keras").predict([given, tokens], verbose=0)
    np.testing.assert_allclose(found["output"], expected["output"], atol=1e-5)
    np.testing.assert_allclose(found["weights"], expected["weights"], atol=1e-5)


@pytest.mark.full
def test_padded_steps_of_the_sequence_have_no_effect(random: np.random.Generator) -> None:
    layer, (steps, memory) = make_layer(), inputs(random)
    mask = np.array([[True] * T, [True] * 3 + [False] * 2])
    output, weights = layer(steps, memory, sequences_mask=mask, return_attention_scores=True)
    alone, own = layer(steps[1:, :3], memory[1:], return_attention_scores=True)
    np.testing.assert_allclose(numpy(output)[1, :3], numpy(alone)[0], atol=1e-6)
    np.testing.assert_allclose(numpy(weights)[1, 3:], np.repeat(numpy(own)[0, -1:], 2, 0), atol=1e-6)
    last = AttentionRNN(layer.cell.cell)(steps, memory, sequences_mask=mask)
    np.testing.assert_allclose(numpy(last)[1], numpy(alone)[0, -1], atol=1e-6)


@pytest.mark.full
def test_symbolic_shapes_equal_eager_shapes() -> None:
    layer = AttentionRNN(AttentionCell(keras.layers.GRUCell(U), M), return_sequences=False)
    output, weights = layer(keras.Input((None, D)), keras.Input((S, M)), return_attention_scores=True)
    assert (output.shape, weights.shape) == ((None, U), (None, S))
    found = layer(np.zeros((B, T, D)), np.zeros((B, S, M)), return_attention_scores=True)
    assert [tuple(tensor.shape) for tensor in found] == [(B, U), (B, S)]


@pytest.mark.full
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda: AttentionCell(keras.layers.GRUCell(3), 0), ValueError, "positive integer.*memory_size=0"),
        (lambda: AttentionCell(keras.layers.GRUCell(3), 2, attend="during"), ValueError, '"before" or "after".*during'),
        (lambda: AttentionCell(keras.layers.GRUCell(3), 2, dropout=1.0), ValueError, r"in \[0, 1\).*dropout=1.0"),
        (
            lambda: AttentionRNN(AttentionCell(keras.layers.LSTMCell(3), 2))(
                np.zeros((1, 2, 3)), np.zeros((1, 4, 2)), initial_state=[np.zeros((1, 3))] * 3
            ),
            ValueError,
            "2 states of the inner cell, or the 6.*Received: 3",
        ),
        (lambda: AttentionRNN(keras.layers.GRUCell(3)), TypeError, "AttentionCell.*Wrap it"),
        (
            lambda: AttentionRNN(AttentionCell(keras.layers.GRUCell(3), 2), stateful=True),
            ValueError,
            "does not support `stateful`",
        ),
        (
            lambda: AttentionRNN(AttentionCell(keras.layers.GRUCell(3), 2), attention_regularizer=ll.layers.Coverage()),
            ValueError,
            "weights of all steps.*return_sequences=True",
        ),
        (
            lambda: keras.layers.RNN(AttentionCell(keras.layers.GRUCell(3), 2))(np.zeros((1, 2, 3))),
            ValueError,
            "needs a memory.*initial_state",
        ),
        (
            lambda: AttentionCell(keras.layers.GRUCell(3), 2).initial_state(np.zeros((1, 2, 5))),
            ValueError,
            r"`memory_size`=2.*\(1, 2, 5\)",
        ),
        (
            lambda: ll.attention_weights(np.ones((2, 3)), np.ones((2, 3)), score=ll.scores.LocationSensitive(2)),
            ValueError,
            "weights of earlier steps",
        ),
        (lambda: ll.scores.LocationSensitive(2, kernel_size=0), ValueError, "positive integer.*kernel_size=0"),
        (lambda: ll.scores.LocationSensitive(2, filters=0), ValueError, "positive integer.*filters=0"),
    ],
)
def test_invalid_arguments_raise(wrong: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"(?s){message}"):
        wrong()


@pytest.mark.full
@pytest.mark.parametrize(
    "normalizer",
    [lambda: ll.normalizers.GumbelSoftmax(0.5), lambda: ll.normalizers.TopK(4, ll.normalizers.GumbelSoftmax(0.5))],
)
def test_noise_differs_between_steps_and_calls_in_training(random: np.random.Generator, normalizer: Any) -> None:
    layer, (steps, memory) = make_layer(normalizer=normalizer()), inputs(random)
    # The same query at each step: what differs is the noise.
    for variable in layer.trainable_variables:
        variable.assign(0 * variable)
    shown = [
        numpy(layer(steps, memory, return_attention_scores=True, training=training)[1])
        for training in (True, True, False)
    ]
    assert np.ptp(shown[2], axis=1).max() == 0
    assert np.ptp(shown[0], axis=1).max(axis=-1).min() > 1e-2
    assert np.abs(shown[0] - shown[1]).max() > 1e-2


def test_noise_is_drawn_in_compiled_training(random: np.random.Generator) -> None:
    steps, memory = keras.Input((T, D)), keras.Input((S, M))
    cell = AttentionCell(keras.layers.SimpleRNNCell(U), M, normalizer=ll.normalizers.GumbelSoftmax(seed=3))
    model = keras.Model([steps, memory], AttentionRNN(cell)(steps, memory))
    model.compile("sgd", "mse", jit_compile=keras.backend.backend() == "jax")
    seed = cell.normalizer.noise_seed.generator.state
    before = numpy(seed).copy()
    model.fit([*inputs(random)], np.zeros((B, U)), epochs=2, verbose=0)
    assert not np.array_equal(numpy(seed), before)
    assert all(np.isfinite(numpy(weight)).all() for weight in model.weights)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method:UserWarning")
def test_int8_model_can_be_saved_and_loaded(random: np.random.Generator, tmp_path: Path) -> None:
    steps, memory = keras.Input((T, D)), keras.Input((S, M))
    cell = AttentionCell(keras.layers.SimpleRNNCell(U), M, attend="after")
    model = keras.Model([steps, memory], AttentionRNN(cell, return_sequences=True)(steps, memory))
    model.quantize("int8")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    data = inputs(random)
    np.testing.assert_allclose(numpy(loaded([*data])), numpy(model([*data])), atol=1e-6)


@pytest.mark.full
def test_padded_memory_in_a_model_has_no_effect(random: np.random.Generator) -> None:
    steps, words = keras.Input((T, D)), keras.Input((S,), dtype="int32")
    cell = AttentionCell(keras.layers.SimpleRNNCell(U), M)
    embedding = keras.layers.Embedding(5, M, mask_zero=True)
    outputs = keras.layers.RNN(cell)(steps, initial_state=cell.initial_state(embedding(words)))
    model = keras.Model([steps, words], outputs)
    data, ids = inputs(random)[0], np.where(REAL, 3, 0)
    before = numpy(model([data, ids]))
    table = numpy(embedding.embeddings).copy()
    table[0] = np.nan
    embedding.embeddings.assign(table)
    np.testing.assert_array_equal(numpy(model([data, ids])), before)


@pytest.mark.full
def test_regularizer_adds_its_penalty_of_real_steps_in_training(random: np.random.Generator) -> None:
    (steps, memory), mask = inputs(random), np.array([[True] * T, [True] * 3 + [False] * 2])
    cell = AttentionCell(keras.layers.SimpleRNNCell(U), M)
    layer = AttentionRNN(cell, return_sequences=True, attention_regularizer=ll.layers.Coverage(0.7))
    layer = AttentionRNN.from_config(layer.get_config())
    _, weights = layer(steps, memory, sequences_mask=mask, return_attention_scores=True, training=False)
    assert layer.losses == []
    layer(steps, memory, sequences_mask=mask, training=True)
    rows = []
    for example, length in zip(numpy(weights), mask.sum(1), strict=True):
        rows += [np.minimum(example[t], example[:t].sum(0)).sum() for t in range(length)]
    np.testing.assert_allclose([numpy(loss) for loss in layer.losses], [0.7 * np.mean(rows)], rtol=1e-5)


@pytest.mark.parametrize("attend", [full("before"), "after"])
@pytest.mark.parametrize("is_masked", [full(False), True])
def test_states_go_on_where_they_ended(random: np.random.Generator, attend: str, is_masked: bool) -> None:
    layer, (steps, memory) = (
        make_layer(attend, score=ll.scores.LocationSensitive(4, 2, 3, cumulative=True)),
        inputs(random),
    )
    mask = np.array([[True] * T, [True] * 4 + [False]]) if is_masked else np.ones((B, T), bool)
    expected = layer(steps, memory, sequences_mask=mask, memory_mask=REAL, return_attention_scores=True)
    resumable = AttentionRNN(layer.cell.cell, return_sequences=True, return_state=True)
    parts, states = [], None
    for part in (slice(0, 3), slice(3, T)):
        *results, state, hidden, position, last, coverage = resumable(
            steps[:, part],
            memory,
            initial_state=states,
            sequences_mask=mask[:, part],
            memory_mask=REAL,
            return_attention_scores=True,
        )
        states = [state, hidden, position, last, coverage]
        parts.append([numpy(result) for result in results])
    for pair, whole in zip(zip(*parts, strict=True), expected, strict=True):
        np.testing.assert_allclose(np.concatenate(pair, axis=1), numpy(whole), atol=2e-6)
    output, weights = (numpy(tensor) for tensor in expected)
    np.testing.assert_allclose(numpy(states[0]), output[:, -1], atol=2e-6)
    np.testing.assert_allclose(numpy(states[4]), (weights * mask[..., None]).sum(1), atol=1e-5)
    assert numpy(states[2])[:, 0].tolist() == mask.sum(1).tolist()


@pytest.mark.full
@pytest.mark.parametrize("normalizer", [ll.normalizers.Softmax, ll.normalizers.Monotonic])
def test_symbolic_states_equal_eager_states(normalizer: Any) -> None:
    stack = keras.layers.StackedRNNCells([keras.layers.LSTMCell(4), keras.layers.LSTMCell(U)])
    layer = AttentionRNN(AttentionCell(stack, M, normalizer=normalizer()), return_state=True)
    symbolic = layer(keras.Input((T, D), batch_size=B), keras.Input((S, M), batch_size=B), return_attention_scores=True)
    eager = layer(np.zeros((B, T, D)), np.zeros((B, S, M)), return_attention_scores=True)
    shapes = [[tuple(tensor.shape) for tensor in keras.tree.flatten(results)] for results in (symbolic, eager)]
    assert shapes[0] == shapes[1]


@pytest.mark.full
def test_keras_rnn_returns_all_states_of_a_symbolic_call(random: np.random.Generator) -> None:
    data = inputs(random)
    cell = AttentionCell(keras.layers.SimpleRNNCell(U), M)
    rnn = keras.layers.RNN(cell, return_state=True)
    steps, memory = keras.Input((T, D)), keras.Input((S, M))
    outputs = keras.tree.flatten(rnn(steps, initial_state=cell.initial_state(memory)))
    expected = cell.initial_state(ops.convert_to_tensor(data[1]))[-2:]
    *_, weights, coverage, flat_memory, mask = keras.Model([steps, memory], outputs)([*data])
    assert [tuple(state.shape) for state in (weights, coverage)] == [(B, S)] * 2
    for state, memory_state in zip((flat_memory, mask), expected, strict=True):
        np.testing.assert_allclose(numpy(state), numpy(memory_state), rtol=1e-6)


@pytest.mark.full
def test_memory_is_projected_once(random: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, (steps, memory) = make_layer(score=ll.scores.Additive(4)), inputs(random)
    cell, num_calls, project_keys = layer.cell.cell, [], ll.scores.Additive.project_keys
    monkeypatch.setattr(
        ll.scores.Additive, "project_keys", lambda self, key: (num_calls.append(key.shape), project_keys(self, key))[1]
    )
    expected = AttentionRNN(cell, return_sequences=True, unroll=True)(steps, memory, memory_mask=REAL)
    assert num_calls == [(B, S, M)]
    states, outputs = cell.initial_state(ops.convert_to_tensor(memory), REAL), []
    for t in range(T):
        output, states = cell(ops.convert_to_tensor(steps[:, t]), states)
        outputs.append(numpy(output))
    assert len(num_calls) == 2
    np.testing.assert_allclose(np.stack(outputs, axis=1), numpy(expected), atol=1e-6)


@pytest.mark.full
def test_steps_in_mixed_precision_equal_the_sequence(random: np.random.Generator) -> None:
    steps, memory = inputs(random)
    cell = AttentionCell(keras.layers.SimpleRNNCell(U, dtype="mixed_bfloat16"), M, dtype="mixed_bfloat16")
    expected = AttentionRNN(cell, return_sequences=True, dtype="mixed_bfloat16")(steps[:, :2], memory)
    states = cell.initial_state(ops.convert_to_tensor(memory))
    for t in range(2):
        output, states = cell(ops.convert_to_tensor(steps[:, t]), states)
        np.testing.assert_allclose(*(numpy(ops.cast(x, "float32")) for x in (output, expected[:, t])), atol=0.02)


def test_coverage_of_many_steps_in_half_precision(random: np.random.Generator) -> None:
    steps, memory = (random.normal(size=shape).astype("float32") for shape in ((1, 400, D), (1, 3, M)))
    cell = AttentionCell(keras.layers.SimpleRNNCell(U, dtype="mixed_bfloat16"), M, dtype="mixed_bfloat16")
    layer = AttentionRNN(cell, return_sequences=True, return_state=True, dtype="mixed_bfloat16")
    _, weights, *_, coverage = layer(steps, memory, return_attention_scores=True)
    weights, coverage = (numpy(ops.cast(tensor, "float32")) for tensor in (weights, coverage))
    np.testing.assert_allclose(coverage, weights.sum(1), rtol=0.01)


@pytest.mark.full
@pytest.mark.parametrize("is_kept_in_states", [False, True])
def test_dropout_drops_weights_anew_at_each_step(is_kept_in_states: bool) -> None:
    # The memory is the identity and the weights are uniform: the output is tanh of the weights after dropout.
    length, num_keys, rate = 20, 50, 0.3
    cell = AttentionCell(keras.layers.SimpleRNNCell(num_keys), num_keys, attend="after", dropout=rate, seed=3)
    cell = AttentionCell.from_config(cell.get_config())
    cell.build((B, 1))
    for variable in cell.trainable_variables:
        variable.assign(0 * variable)
    cell.combine.kernel.assign(np.eye(2 * num_keys, num_keys))
    memory = ops.convert_to_tensor(np.eye(num_keys, dtype="float32")[None].repeat(B, 0))
    steps, mask = ops.zeros((B, length, 1)), np.array([[True] * 2 + [False] * (length - 2), [True] * length])

    def run(training: bool) -> np.ndarray:
        if is_kept_in_states:
            rnn = keras.layers.RNN(cell, return_sequences=True)
            output = rnn(steps, initial_state=cell.initial_state(memory), mask=mask, training=training)
        else:
            rnn = AttentionRNN(cell, return_sequences=True)
            output, weights = rnn(steps, memory, sequences_mask=mask, training=training, return_attention_scores=True)
            np.testing.assert_allclose(numpy(weights), 1 / num_keys, rtol=1e-5)
        return np.arctanh(numpy(output)[1]) * num_keys

    np.testing.assert_allclose(run(training=False), 1.0, rtol=1e-4)
    dropped, again = run(training=True), run(training=True)
    is_dropped = dropped < 0.5
    np.testing.assert_allclose(dropped, np.where(is_dropped, 0, 1 / (1 - rate)), rtol=1e-4, atol=1e-6)
    assert is_dropped.mean() == pytest.approx(rate, abs=0.05)
    assert len({row.tobytes() for row in is_dropped}) == length
    assert (is_dropped != (again < 0.5)).any()


@pytest.mark.full
def test_regularizer_dropout_and_states_are_saved(random: np.random.Generator, tmp_path: Path) -> None:
    steps, memory = keras.Input((None, D)), keras.Input((S, M))
    cell = AttentionCell(keras.layers.LSTMCell(U), M, dropout=0.2, seed=3)
    layer = AttentionRNN(
        cell, return_sequences=True, return_state=True, attention_regularizer=ll.layers.Coverage(0.7), name="decoder"
    )
    model = keras.Model([steps, memory], list(layer(steps, memory)))
    model.compile("sgd", ["mse", *[None] * 6], jit_compile=keras.backend.backend() == "jax")
    data = [*inputs(random)]
    history = model.fit(data, [np.zeros((B, T, U)), *model.predict(data, verbose=0)[1:]], epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    decoder = loaded.get_layer("decoder")
    assert decoder.attention_regularizer.factor == 0.7
    assert (decoder.cell.cell.dropout, decoder.cell.cell.seed) == (0.2, 3)
    for result, expected in zip(loaded.predict(data, verbose=0), model.predict(data, verbose=0), strict=True):
        np.testing.assert_allclose(result, expected, atol=1e-6)
