"""Each recipe equals its paper's formula, written here as loops over one query and one key."""

import math

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
import oracles
from gradients import gradients

pytestmark = pytest.mark.full

array = ops.convert_to_numpy

B, T, S, D, N, K, H = 2, 5, 7, 3, 2, 1, 4
SENTENCES, WORDS, UNITS = 2, 3, 2


def dot(q, k, i, j, head, learned):
    return q @ k / math.sqrt(H)


def unscaled(q, k, i, j, head, learned):
    return q @ k


def shaw(q, k, i, j, head, learned):
    return q @ (k + learned["table"][np.clip(j - i, -2, 2) + 2]) / math.sqrt(H)


def bucket(offset, buckets, furthest, both):
    """T5's buckets, as its code has them, for one offset j - i."""
    found = 0
    if both:
        buckets //= 2
        found = buckets if offset > 0 else 0
        distance = abs(offset)
    else:
        distance = max(-offset, 0)
    exact = buckets // 2
    if distance < exact:
        return found + distance
    grown = exact + int(math.log(distance / exact) / math.log(furthest / exact) * (buckets - exact))
    return found + min(grown, buckets - 1)


def t5(q, k, i, j, head, learned):
    return q @ k + learned["table"][bucket(j - i, 8, 7, True), head]


def t5_decoder(q, k, i, j, head, learned):
    return q @ k + learned["table"][bucket(j - i, 4, 7, False), head]


def transformer_xl(q, k, i, j, head, learned):
    angles = [(i - j) * 10000 ** (-f / (H / 2)) for f in range(H // 2)]
    sinusoid = np.array([math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles])
    distance_key = sinusoid @ learned["position_kernel"][head]
    content = (q + learned["content_bias"][head]) @ k
    return (content + (q + learned["position_bias"][head]) @ distance_key) / math.sqrt(H)


def alibi(q, k, i, j, head, learned):
    return q @ k / math.sqrt(H) - 2 ** (-8 * (head + 1) / N) * abs(i - j)


def rotate(x, position, base, interleaved):
    x, y = np.array(x), np.zeros(H)
    for f in range(H // 2):
        first, second = (2 * f, 2 * f + 1) if interleaved == "neighbours" else (f, f + H // 2)
        angle = position * base ** (-2 * f / H)
        y[first] = x[first] * math.cos(angle) - x[second] * math.sin(angle)
        y[second] = x[first] * math.sin(angle) + x[second] * math.cos(angle)
    return y


def rotary(base, interleaved="halves", divisor=2.0):
    def score(q, k, i, j, head, learned):
        return rotate(q, i, base, interleaved) @ rotate(k, j, base, interleaved) / divisor

    return score


def gemma(q, k, i, j, head, learned):
    return 0.3 * math.tanh(rotary(10000, divisor=math.sqrt(6))(q, k, i, j, head, learned) / 0.3)


def everything(i, j):
    return True


def causal(i, j):
    return j <= i


def last_three(i, j):
    return i - 3 < j <= i


def blocks(i, j):
    """BigBird of one: the first is global, the others see themselves and one that is drawn."""
    place = oracles.Place(0, 0, N, range(S), range(S), {})
    return 0 in (i, j) or i == j or DRAWN(i, j, place)


DRAWN = oracles.block_pattern(1, 1, 0, 1, 4)


# A name, the recipe, the paper's score of one pair, who may attend to whom.
HEADS = {
    "vaswani": (lambda **k: ll.recipes.vaswani(N, H, **k), dot, everything),
    "vaswani_decoder": (lambda **k: ll.recipes.vaswani(N, H, causal=True, **k), dot, causal),
    "shaw": (lambda **k: ll.recipes.shaw(N, H, max_distance=2, **k), shaw, everything),
    "t5": (lambda **k: ll.recipes.t5(N, H, num_buckets=8, max_distance=7, **k), t5, everything),
    "t5_decoder": (
        lambda **k: ll.recipes.t5(N, H, num_buckets=4, max_distance=7, causal=True, **k),
        t5_decoder,
        causal,
    ),
    "transformer_xl": (lambda **k: ll.recipes.transformer_xl(N, H, **k), transformer_xl, causal),
    "alibi": (lambda **k: ll.recipes.alibi(N, H, **k), alibi, causal),
    "roformer": (lambda **k: ll.recipes.roformer(N, H, **k), rotary(10000, "neighbours"), everything),
    "mistral": (lambda **k: ll.recipes.mistral(N, H, K, window=3, **k), rotary(10000), last_three),
    "gemma": (
        lambda **k: ll.recipes.gemma(N, H, K, window=3, cap=0.3, query_pre_attn_scalar=6, **k),
        gemma,
        last_three,
    ),
    "gpt_oss": (lambda **k: ll.recipes.gpt_oss(N, H, K, window=None, **k), rotary(150000), causal),
    "bigbird": (
        lambda **k: ll.recipes.bigbird(N, H, block_size=1, num_global=1, window=0, num_random=1, seed=4, **k),
        dot,
        blocks,
    ),
}


def bahdanau(q, k, learned):
    return learned["readout"][:, 0] @ np.tanh(q @ learned["query_kernel"] + k @ learned["key_kernel"] + learned["bias"])


def concat(q, k, learned):
    both = np.concatenate([learned["query_kernel"], learned["key_kernel"]])
    return learned["readout"][:, 0] @ np.tanh(np.concatenate([q, k]) @ both + learned["bias"])


def general(q, k, learned):
    return q @ learned["kernel"] @ k


UNPROJECTED = {
    "bahdanau": (lambda **k: ll.recipes.bahdanau(UNITS, **k), bahdanau),
    "luong_dot": (lambda **k: ll.recipes.luong(**k), lambda q, k, learned: q @ k),
    "luong_general": (lambda **k: ll.recipes.luong("general", **k), general),
    "luong_concat": (lambda **k: ll.recipes.luong("concat", units=UNITS, **k), concat),
    "luong_local": (lambda **k: ll.recipes.luong("local", width=3.0, **k), general),
}


def softmax(scores, sink=None):
    """Weights by exponentials one after the other; a forbidden score is None."""
    powers = [0.0 if score is None else math.exp(score) for score in scores]
    total = sum(powers) + (0.0 if sink is None else math.exp(sink))
    return [power / total for power in powers]


def heads_by_loops(name, query, memory, learned):
    """The output (T, D) of one example and its weights (N, T, S)."""
    _, score, permitted = HEADS[name]
    output = np.zeros((T, D)) + learned.get("attention_output/bias", 0.0)
    weights = np.zeros((N, T, S))
    num_kv_heads = learned["key/kernel"].shape[1]

    def projected(x, what, head):
        return x @ learned[f"{what}/kernel"][:, head] + learned.get(f"{what}/bias", np.zeros((N, H)))[head]

    for head in range(N):
        kv_head = head * num_kv_heads // N
        sink = learned["sink"][head] if "sink" in learned else None
        keys = [projected(step, "key", kv_head) for step in memory]
        values = [projected(step, "value", kv_head) for step in memory]
        for t in range(T):
            i, q = t + S - T, projected(query[t], "query", head)
            scores = [score(q, keys[j], i, j, head, learned) if permitted(i, j) else None for j in range(S)]
            weights[head, t] = softmax(scores, sink)
            read = sum(weights[head, t, j] * values[j] for j in range(S))
            output[t] += read @ learned["attention_output/kernel"][head]
    return output, weights


def unprojected_by_loops(name, query, memory, learned):
    """What (T, D) a reader reads for one example, and its weights (T, S)."""
    weights = np.zeros((T, S))
    for t in range(T):
        weights[t] = softmax([UNPROJECTED[name][1](query[t], memory[j], learned) for j in range(S)])
        if name == "luong_local":
            hidden = np.tanh(query[t] @ learned["gaussian/query_kernel"]) @ learned["gaussian/readout"][:, 0]
            middle = S / (1 + math.exp(-hidden))
            near = [math.exp(-((j - middle) ** 2) / (2 * 1.5**2)) for j in range(S)]
            weights[t] = weights[t] * near / (weights[t] @ near)
    return weights @ memory, weights


def gru(steps, learned, way):
    """Keras's GRU (reset after), whose gates lie side by side as update, reset, candidate."""
    found, state = [], np.zeros(UNITS)
    for x in steps if way == "forward" else steps[::-1]:
        given = x @ learned[f"{way}/kernel"] + learned[f"{way}/bias"][0]
        past = state @ learned[f"{way}/recurrent_kernel"] + learned[f"{way}/bias"][1]
        update, reset = (1 / (1 + np.exp(-(given[part] + past[part]))) for part in (slice(0, 2), slice(2, 4)))
        candidate = np.tanh(given[4:] + reset * past[4:])
        state = update * state + (1 - update) * candidate
        found.append(state)
    return np.array(found if way == "forward" else found[::-1])


def level(steps, learned, encoder, pooling):
    """One level of a hierarchical attention network: what it reads, and by which weights."""
    own = {name.split("/", 1)[1]: value for name, value in learned.items() if name.startswith(f"{encoder}/")}
    hidden = np.concatenate([gru(steps, own, "forward"), gru(steps, own, "backward")], axis=1)
    asked = [
        np.tanh(h @ learned[f"{pooling}/kernel"] + learned[f"{pooling}/bias"]) @ learned[f"{pooling}/query"][0]
        for h in hidden
    ]
    weights = np.array(softmax(asked))
    return weights @ hidden, weights


def han_by_loops(document, learned):
    sentences = [level(words, learned, "word_encoder", "word_pooling") for words in document]
    vector, weights = level(
        np.array([vector for vector, _ in sentences]), learned, "sentence_encoder", "sentence_pooling"
    )
    return vector, np.array([weights for _, weights in sentences]), weights


def named_weights(layer):
    """What a layer has learned, by short names that the loops above use."""
    found = {}
    for weight in layer.weights:
        words = weight.path.split("/")
        name = words[-1]
        if words[-2] in ("query", "key", "value", "attention_output"):
            name = f"{words[-2]}/{name}"
        elif isinstance(layer, ll.layers.HierarchicalPooling):
            places = [
                word
                for word in words
                if word in ("word_encoder", "sentence_encoder", "word_pooling", "sentence_pooling")
            ]
            way = next((f"{way}/" for way in ("forward", "backward") if any(way in word for word in words)), "")
            name = f"{places[0]}/{way}{name}"
        elif "gaussian" in weight.path:
            name = f"gaussian/{name}"
        found[name] = np.array(array(weight), "float64")
    return found


@pytest.fixture(scope="module")
def model():
    """All recipes in one model: compiling one is dear, many would be dearer."""
    keras.utils.set_random_seed(7)
    query, memory = keras.Input((T, D), name="query"), keras.Input((S, D), name="memory")
    document = keras.Input((SENTENCES, WORDS, D), name="document")
    outputs = {}
    for name, (make, *_) in {**HEADS, **UNPROJECTED}.items():
        outputs[name] = make(name=name)(query, memory, return_attention_scores=True)
    outputs["han"] = ll.recipes.han(UNITS, name="han")(document, return_attention_scores=True)
    model = keras.Model({"query": query, "memory": memory, "document": document}, outputs)
    generator = np.random.default_rng(3)
    model.set_weights([generator.normal(size=weight.shape, scale=0.7).astype("float32") for weight in model.weights])
    return model


@pytest.fixture(scope="module")
def inputs():
    generator = np.random.default_rng(5)
    shapes = {"query": (B, T, D), "memory": (B, S, D), "document": (B, SENTENCES, WORDS, D)}
    return {name: generator.normal(size=shape).astype("float32") for name, shape in shapes.items()}


def by_loops(model, inputs):
    """What every recipe must give for a batch: its output and weights, (B, ...)."""
    given = {name: np.asarray(value, "float64") for name, value in inputs.items()}
    found = {}
    for name in [*HEADS, *UNPROJECTED, "han"]:
        learned = named_weights(model.get_layer(name))
        if name == "han":
            each = [han_by_loops(document, learned) for document in given["document"]]
        else:
            loops = heads_by_loops if name in HEADS else unprojected_by_loops
            each = [loops(name, *pair, learned) for pair in zip(given["query"], given["memory"], strict=True)]
        found[name] = [np.array(one) for one in zip(*each, strict=True)]
    return found


@pytest.fixture(scope="module")
def expected(model, inputs):
    return by_loops(model, inputs)


@pytest.fixture(scope="module")
def outputs(model, inputs, tmp_path_factory):
    """What the model gives as it is, and what it predicts once it is saved and loaded."""
    path = tmp_path_factory.mktemp("recipes") / "model.keras"
    model.save(path)
    found = [keras.models.load_model(path).predict(inputs, verbose=0)]
    if keras.backend.backend() != "jax":
        # JAX compiles every operation on its own there, which takes long and shows what the compiled model shows.
        found.append(model(inputs))
    return found


@pytest.mark.parametrize("name", [*HEADS, *UNPROJECTED, "han"])
def test_equals_the_formula_of_the_paper(name, expected, outputs):
    for output in outputs:
        for found, expected_derivative in zip(output[name], expected[name], strict=True):
            np.testing.assert_allclose(array(found), expected_derivative, atol=2e-5, rtol=1e-5)


def test_gradients_equal_differences_of_the_formulas(model, inputs):
    names = ["query", "memory"]
    generator = np.random.default_rng(11)
    directions = {name: generator.normal(size=inputs[name].shape) for name in names}
    # A weight of its own for each recipe, so that no two errors cancel.
    share = {name: 1.0 + place / 7 for place, name in enumerate([*HEADS, *UNPROJECTED])}

    def total(*tensors):
        outputs = model(
            {**dict(zip(names, tensors, strict=True)), "document": ops.convert_to_tensor(inputs["document"])}
        )
        return sum(factor * ops.sum(ops.square(outputs[name][0])) for name, factor in share.items())

    def total_by_loops(step):
        moved = {name: inputs[name].astype("float64") + step * directions[name] for name in names}
        outputs = by_loops(model, {**inputs, **moved})
        return sum(factor * np.sum(outputs[name][0] ** 2) for name, factor in share.items())

    found = gradients(total, [inputs[name] for name in names])
    derivative = sum(float(np.sum(gradient * directions[name])) for name, gradient in zip(names, found, strict=True))
    expected_derivative = (total_by_loops(1e-6) - total_by_loops(-1e-6)) / 2e-6
    assert derivative == pytest.approx(expected_derivative, rel=2e-4)


def test_unknown_kind_raises():
    with pytest.raises(ValueError, match=r"general.*kind='dots'"):
        ll.recipes.luong("dots")


@pytest.mark.parametrize(
    ("recipe", "size"),
    [(ll.recipes.vaswani, {}), (ll.recipes.mistral, {"num_kv_heads": 1, "window": 3}), (ll.recipes.bigbird, {})],
)
def test_a_mask_holds_beside_that_of_the_recipe(recipe, size):
    x = np.random.default_rng(3).normal(size=(1, 6, 8)).astype("float32")
    layer, masked = recipe(2, 4, **size), recipe(2, 4, **size, mask=ll.masks.SlidingWindow(1, 1))
    weights = [array(each(x, x, return_attention_scores=True)[1]) for each in (layer, masked)]
    distances = np.abs(np.subtract.outer(np.arange(6), np.arange(6)))
    np.testing.assert_array_equal(weights[1] > 0, (weights[0] > 0) & (distances <= 1))
