"""Attention inside loops: one map with all steps, whatever the backend makes of the loop."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from keras.src import backend

import limelight as ll
from contracts.representative import full
from inspection.capturing import capture_both_ways, softmax

B, T, S, D = 3, 5, 4, 6


@pytest.fixture
def steps(random):
    return random.normal(size=(B, T, D)).astype("float32")


@keras.saving.register_keras_serializable("limelight_tests")
class Reader(keras.Layer):
    """A cell that attends to a learned memory at each step: in its own code, by a layer of Keras or by one of limelight."""

    def __init__(self, how, **kwargs):
        super().__init__(**kwargs)
        self.how = how
        self.state_size = self.output_size = D
        if how == "keras":
            self.inner = layers.Attention(name="inner")
        elif how == "limelight":
            self.inner = ll.layers.Attention(score=ll.scores.Dot(scale=1.0), name="inner")

    def build(self, shape):
        self.memory = self.add_weight(shape=(S, D), initializer="glorot_uniform", name="memory")

    def call(self, x, states):
        memory = ops.broadcast_to(self.memory, (ops.shape(x)[0], S, D))
        query = ops.expand_dims(x + states[0], 1)
        if self.how == "custom":
            weights = ops.softmax(ops.matmul(query, ops.transpose(memory, (0, 2, 1))))
            read = ops.matmul(weights, memory)
        elif self.how == "keras":
            read = self.inner([query, memory])
        else:
            read = self.inner(query, memory)
        state = ops.tanh(ops.squeeze(read, 1) + x)
        return state, [state]


def reader_weights(memory, x, mask=None):
    """Weights (B, 1, T, S) of a reader in float64, step by step; 0 at a masked step, which leaves the state as it is."""
    state, weights = np.zeros((len(x), D)), np.zeros((len(x), x.shape[1], S))
    for t in range(x.shape[1]):
        for b in range(len(x)):
            if mask is None or mask[b, t]:
                weights[b, t] = softmax(memory @ (x[b, t] + state[b]))
                state[b] = np.tanh(weights[b, t] @ memory + x[b, t])
    return weights[:, None]


@pytest.mark.parametrize("unroll", [False, full(True)])
@pytest.mark.parametrize("how", [full("custom"), full("keras"), "limelight"])
def test_a_cell_that_attends(how, unroll, steps):
    x = keras.Input((T, D))
    cell = Reader(how, name="reader")
    model = keras.Model(x, layers.RNN(cell, unroll=unroll, name="rnn")(x))
    maps = capture_both_ways(model, steps)
    assert list(maps) == ["rnn/reader" if how == "custom" else "rnn/reader/inner"]
    (attention_map,) = maps.values()
    expected = reader_weights(cell.get_weights()[-1].astype(float), steps.astype(float))
    np.testing.assert_allclose(attention_map.weights(), expected, atol=1e-5)


def test_both_directions_with_padding(random):
    ids = keras.Input((None,), dtype="int32")
    x = layers.Embedding(11, D, mask_zero=True, embeddings_initializer="normal")(ids)
    cell = Reader("custom", name="reader")
    model = keras.Model(ids, layers.Bidirectional(layers.RNN(cell, return_sequences=True, name="rnn"), name="both")(x))
    data = np.array([[1, 2, 3, 4, 5], [6, 7, 0, 0, 0], [8, 9, 10, 0, 0]])
    maps = capture_both_ways(model, data)
    assert list(maps) == ["both/forward_rnn/reader", "both/backward_rnn/reader"]
    embedded = model.layers[1].get_weights()[0][data].astype(float)
    bidirectional = model.get_layer("both")
    forward, backward = (
        rnn.cell.get_weights()[-1].astype(float) for rnn in (bidirectional.forward_layer, bidirectional.backward_layer)
    )
    expected = reader_weights(forward, embedded, data != 0)
    np.testing.assert_allclose(maps["both/forward_rnn/reader"].weights(), expected, atol=1e-5)
    expected = reader_weights(backward, embedded[:, ::-1], (data != 0)[:, ::-1])[:, :, ::-1]
    np.testing.assert_allclose(maps["both/backward_rnn/reader"].weights(), expected, atol=1e-5)


@pytest.mark.full
def test_predictions_of_a_cell_are_not_captured(steps):
    class Decoder(keras.Layer):
        state_size = output_size = T

        def call(self, x, states):
            word = ops.softmax(x[:, :T] + states[0])
            return word, [word]

    x = keras.Input((T, D))
    with pytest.warns(ll.inspection.CaptureWarning, match="No attention was seen in"):
        assert not ll.capture(keras.Model(x, layers.RNN(Decoder(), return_sequences=True)(x)), steps)


@pytest.mark.parametrize("kind", ["rnn", "scan"])
def test_a_step_may_return_its_weights(kind, steps):
    """As in pointer networks: what uses the weights comes after the loop."""

    class Energies(keras.Layer):
        def call(self, x):
            def score(query):
                return ops.softmax(ops.einsum("bd,bsd->bs", query, x))

            if kind == "rnn":
                rows = backend.rnn(lambda query, states: (score(query), states), x, [ops.zeros_like(x[:, 0])])[1]
            else:
                # On TensorFlow, Keras takes only results of the shape of the elements.
                scores = ops.einsum("btd,bsd->tbs", x, x)
                rows = ops.scan(lambda carry, row: (carry, ops.softmax(row)), scores[0], scores)[1]
                rows = ops.transpose(rows, (1, 0, 2))
            return ops.matmul(rows, x)

        def compute_output_spec(self, x):
            return keras.KerasTensor(x.shape)

    x = keras.Input((T, D))
    inputs = steps.astype(float)
    maps = ll.capture(keras.Model(x, Energies(name="energies")(x)), steps)
    expected = softmax(inputs @ inputs.swapaxes(1, 2))
    np.testing.assert_allclose(maps["energies"].weights()[:, 0], expected, atol=1e-5)


@pytest.mark.parametrize("length", [full(T), None])
def test_time_distributed_pooling(length, random):
    """The weights of each sentence over its words are a row of one map."""
    words = random.normal(size=(B, T, S, D)).astype("float32")
    x = keras.Input((length, S, D))
    alone = keras.Sequential([keras.Input((S, D)), ll.layers.AttentionPooling(name="pooling")], name="words")
    maps = capture_both_ways(keras.Model(x, layers.TimeDistributed(alone, name="sentences")(x)), words)
    assert list(maps) == ["sentences/words/pooling"]
    (attention_map,) = maps.values()
    assert attention_map.shape == (B, 1, T, S)
    for step in range(T):
        expected = ll.capture(alone, words[:, step])["pooling"].weights()
        np.testing.assert_allclose(attention_map.weights(rows=[step]), expected, atol=1e-6)


@pytest.mark.parametrize("length", [full(T), None])
def test_time_distributed_models_have_an_axis_of_steps(length, random):
    words = random.normal(size=(B, T, S, D)).astype("float32")
    y = keras.Input((S, D))
    inner = layers.MultiHeadAttention(2, 3, name="mixing")
    model = keras.Model(y, inner(y, inner(y, y)), name="inner")
    x = keras.Input((length, S, D))
    whole = keras.Model(x, layers.TimeDistributed(model, name="each")(x))
    maps, alone = capture_both_ways(whole, words), [ll.capture(model, words[:, step]) for step in range(T)]
    assert list(maps) == ["each/inner/mixing", "each/inner/mixing#1"]
    for key, inside in (("each/inner/mixing", "mixing"), ("each/inner/mixing#1", "mixing#1")):
        assert maps[key].shape == (B, T, 2, S, S)
        for step in range(T):
            np.testing.assert_allclose(maps[key].weights()[:, step], alone[step][inside].weights(), atol=1e-6)


@pytest.mark.parametrize("how", ["vectorized_map", "map"])
def test_mapped_functions(how, steps):
    """A function of a whole batch (B, D) for each of T steps."""

    class Mixing(keras.Layer):
        def call(self, x):
            def each(rows):
                weights = ops.softmax(ops.matmul(ops.expand_dims(rows, 1), ops.transpose(x, (0, 2, 1))))  # (B, 1, T)
                return ops.matmul(weights, x)[:, 0]

            return ops.transpose(getattr(ops, how)(each, ops.transpose(x, (1, 0, 2))), (1, 0, 2))

        def compute_output_spec(self, x):
            return keras.KerasTensor(x.shape)

    x = keras.Input((T, D))
    maps = capture_both_ways(keras.Model(x, Mixing(name="mixing")(x)), steps)
    inputs = steps.astype(float)
    expected = softmax(inputs @ inputs.swapaxes(1, 2))
    np.testing.assert_allclose(maps["mixing"].weights()[:, 0], expected, atol=1e-5)


def test_scanned_functions(steps):
    class Mixing(keras.Layer):
        def call(self, x):
            def each(carry, row):
                weights = ops.softmax(ops.matmul(row[:, None] + carry[:, None], ops.transpose(x, (0, 2, 1))))
                carry = ops.matmul(weights, x)[:, 0]
                return carry, carry

            transposed = ops.transpose(x, (1, 0, 2))
            return ops.transpose(ops.scan(each, transposed[0] * 0, transposed)[1], (1, 0, 2))

        def compute_output_spec(self, x):
            return keras.KerasTensor(x.shape)

    x = keras.Input((T, D))
    model = keras.Model(x, Mixing(name="mixing")(x))
    maps = ll.capture(model, steps)
    inputs, state = steps.astype(float), np.zeros((B, D))
    for t in range(T):
        weights = softmax(np.einsum("bd,bsd->bs", inputs[:, t] + state, inputs))
        np.testing.assert_allclose(maps["mixing"].weights()[:, 0, t], weights, atol=1e-5)
        state = np.einsum("bs,bsd->bd", weights, inputs)
    if keras.backend.backend() == "tensorflow":
        with pytest.warns(ll.inspection.CaptureWarning, match=r"'mixing' \(Mixing\): it runs inside a loop"):
            assert not ll.AttentionExtractor(model).predict(steps)[1]
        return
    assert list(capture_both_ways(model, steps)) == ["mixing"]


def test_rematerialized_layers_are_captured(steps):
    with keras.RematScope(mode="full"):
        layer = layers.MultiHeadAttention(2, 3, name="mixing")
    x = keras.Input((T, D))
    model = keras.Model(x, layer(x, x))
    # Keras itself cannot compile this on TensorFlow: its custom_gradient takes no keywords in a graph.
    capture = ll.capture if keras.backend.backend() == "tensorflow" else capture_both_ways
    assert list(capture(model, steps)) == ["mixing"]


class StepByStep(keras.Layer):
    """A loop in Python: one query at each step, by a layer of Keras or by a softmax of its own."""

    def __init__(self, how, **kwargs):
        super().__init__(**kwargs)
        self.how, self.attention = how, layers.Attention(name="attention")

    def build(self, shape):
        pass

    def call(self, x):
        outputs = []
        for step in range(T):
            query = x[:, step : step + 1]
            if self.how == "layer":
                outputs.append(self.attention([query, x]))
            else:
                outputs.append(ops.matmul(ops.softmax(ops.matmul(query, ops.transpose(x, (0, 2, 1)))), x))
        return ops.concatenate(outputs, axis=1)


@pytest.mark.parametrize("how", [full("layer"), "softmax"])
def test_steps_of_a_python_loop_are_one_map(how, steps):
    x = keras.Input((T, D))
    model = keras.Model(x, StepByStep(how, name="loop")(x))
    key = {"layer": "loop/attention", "softmax": "loop"}[how]
    maps = capture_both_ways(model, steps)
    assert list(maps) == [key]
    inputs = steps.astype(float)
    np.testing.assert_allclose(maps[key].weights()[:, 0], softmax(inputs @ inputs.swapaxes(1, 2)), atol=1e-5)
    statistics = ll.capture(model, steps, store="statistics")
    np.testing.assert_allclose(statistics[key].statistics().entropy, maps[key].statistics().entropy, atol=1e-5)


@pytest.mark.full
def test_calls_from_two_places_are_no_loop(steps):
    class Both(keras.Layer):
        def __init__(self):
            super().__init__(name="both")
            self.pooling = ll.layers.AttentionPooling(name="pooling")

        def call(self, x):
            return self.pooling(x) + self.pooling(-x)

    x = keras.Input((T, D))
    assert list(capture_both_ways(keras.Model(x, Both()(x)), steps)) == ["both/pooling", "both/pooling#1"]
    pooling = ll.layers.AttentionPooling(name="pooling")
    model = keras.Model(x, pooling(x) + pooling(-x))
    assert list(capture_both_ways(model, steps)) == ["pooling", "pooling#1"]
