"""Each kind of finding has a model that causes it; models without faults cause none."""

import re

import keras
import numpy as np
import pytest
from keras import layers, ops

import limelight as ll
from limelight.linter._lint import _run_and_track

pytestmark = pytest.mark.full

T, D, HEADS = 5, 4, 2
IDS = np.array([[3, 1, 4, 1, 5], [2, 6, 5, 0, 0], [3, 5, 8, 9, 0]])
REAL = IDS != 0


def embedded(mask_zero=True):
    words = keras.Input((T,), dtype="int32", name="words")
    return words, layers.Embedding(10, D, mask_zero=mask_zero, name="embedding")(words)


def randomize(model):
    """The model with random weights, so large that heads prefer some keys."""
    generator = np.random.default_rng(3)
    model.set_weights([generator.normal(size=weight.shape) for weight in model.weights])
    return model


def limelight_attention(steps, *args, name="reader", **kwargs):
    return ll.layers.MultiHeadAttention(HEADS, 3, name=name)(steps, *(args or (steps,)), **kwargs)


def keras_attention(steps, *args, name="reader", **kwargs):
    return layers.MultiHeadAttention(HEADS, 3, name=name)(steps, *(args or (steps,)), **kwargs)


def lost_by_an_operation():
    words, steps = embedded()
    return keras.Model(words, limelight_attention(steps + 1.0)), IDS


def lost_by_an_attention():
    """The first layer removes the mask from the memory that the second attends to."""
    words, steps = embedded()
    first = keras_attention(steps[:, :3] * 1.0, steps, name="first")
    return keras.Model(words, keras_attention(first, steps, name="second")), IDS


def no_mask():
    words, steps = embedded(mask_zero=False)
    return keras.Model(words, ll.layers.AttentionPooling(name="reader")(steps)), IDS


def no_mask_of_features():
    steps = keras.Input((T, D))
    x = np.random.default_rng(0).normal(size=(3, T, D)).astype("float32") * REAL[..., None]
    return keras.Model(steps, limelight_attention(steps)), x


class MaskIgnoringAttention(layers.Layer):
    """A layer that supports masks and does not use them."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x, mask=None):
        scores = ops.matmul(x, ops.swapaxes(x, 1, 2))
        return ops.matmul(ops.softmax(scores), x)


def ignored():
    words, steps = embedded()
    return keras.Model(words, MaskIgnoringAttention(name="reader")(steps)), IDS


def inverted():
    words, steps = embedded()
    return keras.Model(words, keras_attention(steps, steps, value_mask=ops.equal(words, 0))), IDS[1:]


def inverted_causal():
    steps = keras.Input((T, D))
    x = np.random.default_rng(0).normal(size=(3, T, D)).astype("float32")
    return keras.Model(steps, limelight_attention(steps, steps, attention_mask=~np.tri(T, dtype=bool)[None])), x


def with_mask(values):
    steps, mask = keras.Input((T, D)), keras.Input((T, T))
    x = np.random.default_rng(0).normal(size=(3, T, D)).astype("float32")
    return keras.Model([steps, mask], keras_attention(steps, steps, attention_mask=mask)), [x, np.stack([values] * 3)]


def additive_mask():
    return with_mask(np.where(np.tri(T), 0.0, -1e9).astype("float32"))


def float_mask():
    return with_mask(np.tri(T, dtype="float32"))


def float16(factor):
    steps = keras.Input((T, D))
    x = factor * np.random.default_rng(0).normal(size=(3, T, D)).astype("float32")
    return keras.Model(steps, layers.Attention(name="reader", dtype="float16")([steps, steps])), x


class AttentionOfMask(layers.Layer):
    """A layer that adds its mask to the scores, or reads each number but 0 as True."""

    def __init__(self, is_added, **kwargs):
        super().__init__(**kwargs)
        self.is_added = is_added

    def call(self, x, mask=None):
        scores = ops.matmul(x, ops.swapaxes(x, 1, 2))
        scores = scores + mask if self.is_added else ops.where(ops.not_equal(mask, 0), scores, -1e9)
        return ops.matmul(ops.softmax(scores), x)


def own_layer_with_mask(is_added, values):
    steps, mask = keras.Input((T, D)), keras.Input((T, T))
    x = np.random.default_rng(0).normal(size=(3, T, D)).astype("float32")
    output = AttentionOfMask(is_added, name="reader")(steps, mask=mask)
    return keras.Model([steps, mask], output), [x, np.stack([values.astype("float32")] * 3)]


class Float32Scores(layers.Layer):
    """A layer that computes its scores in float32, whatever its dtype."""

    def __init__(self, score_dtype="float32", **kwargs):
        super().__init__(**kwargs)
        self.score_dtype = score_dtype

    def call(self, x):
        x = ops.cast(x, self.score_dtype)
        return ops.matmul(ops.softmax(ops.matmul(x, ops.swapaxes(x, 1, 2))), x)


def own_layer_in_float16(score_dtype):
    steps = keras.Input((T, D))
    x = np.random.default_rng(0).normal(size=(3, T, D)).astype("float32")
    return keras.Model(steps, Float32Scores(score_dtype, dtype="float16", name="reader")(steps)), x


def one_key():
    """The scores of steps (B, T, 1), with the softmax over the wrong axis."""
    steps = keras.Input((T, D))
    weights = layers.Dense(1, activation="softmax", name="reader")(steps)
    x = np.random.default_rng(0).normal(size=(3, T, D)).astype("float32")
    return keras.Model(steps, ops.sum(weights * steps, axis=1)), x


def one_step():
    steps = keras.Input((None, D))
    x = np.random.default_rng(0).normal(size=(3, 1, D)).astype("float32")
    return keras.Model(steps, limelight_attention(steps)), x


# One example is so short that pooling two steps leaves it a step of padding.
SHORT_IDS = np.array([[3, 1, 4, 1, 5], [2, 6, 0, 0, 0], [3, 5, 8, 9, 0]])
# Keras warns that these drop the mask, while the model is made.
OWN_LAYERS_WITH_MASKS = pytest.mark.filterwarnings("ignore:Layer 'reader'")
CHANGES_WITH_MASKS = pytest.mark.filterwarnings("ignore:Layer '(crop|convolution|pooling)'")
# Operations that change the length of (B, T, D), and their names.
CHANGES_OF_LENGTH = {
    "slice": (lambda x: x[:, 1:], "get_item"),
    "crop": (layers.Cropping1D((1, 0), name="crop"), "crop"),
    "convolution": (layers.Conv1D(D, 2, name="convolution"), "convolution"),
    "mean pooling": (layers.AveragePooling1D(2, name="pooling"), "pooling"),
    "max pooling": (layers.MaxPooling1D(2, name="pooling"), "pooling"),
}


def with_changed_weights(changes, x=None):
    """A multi-head attention in which some weights are set to a value."""
    steps = keras.Input((T, D))
    model = randomize(keras.Model(steps, limelight_attention(steps)))
    layer = model.get_layer("reader")
    weights = {weight.path.split("reader/")[1]: weight for weight in layer.weights}
    for name, (indices, value) in changes.items():
        values = np.array(ops.convert_to_numpy(weights[name]))
        values[indices] = value
        weights[name].assign(values)
    random = np.random.default_rng(0).normal(size=(3, T, D)).astype("float32")
    return model, random if x is None else x


FIRST, LAST = (slice(None), 0), (1,)


def uniform_head():
    return with_changed_weights({"query/kernel": (FIRST, 0.0), "query/bias": (0, 0.0)})


def uniform_heads():
    return with_changed_weights({"query/kernel": (..., 0.0), "query/bias": (..., 0.0)})


def head_without_effect():
    return with_changed_weights({"attention_output/kernel": (LAST, 0.0)})


def constant_head():
    return with_changed_weights({"query/kernel": (FIRST, 0.0), "query/bias": (0, 1.0)})


def stuck_head():
    x = np.random.default_rng(0).normal(size=(3, T, D)).astype("float32")
    x[:, 2] = 9.0
    return with_changed_weights({"query/kernel": (FIRST, 0.0), "query/bias": (0, 9.0), "key/kernel": (FIRST, 1.0)}, x)


# A model, and its findings in order: severity, kind, path, and a pattern of the message.
EXPECTED = {
    "lost by an operation": (
        lost_by_an_operation,
        [
            ("error", "weight on padding", "reader", r"\d\d\.\d% of the weight of 12 real queries"),
            ("error", "lost mask", "add", "Add receives a mask and does not pass it on, so that 'reader'"),
        ],
    ),
    "lost by an attention": (
        lost_by_an_attention,
        [
            ("error", "weight on padding", "second", "of the weight of"),
            ("error", "lost mask", "first", "MultiHeadAttention receives a mask.*'second'"),
        ],
    ),
    "no mask": (
        no_mask,
        [
            ("warning", "weight on padding", "reader", "of 3 real queries"),
            ("warning", "missing mask", "reader", "looks padded"),
        ],
    ),
    "no mask of features": (
        no_mask_of_features,
        [
            ("warning", "weight on padding", "reader", "of 12 real queries"),
            ("warning", "missing mask", "reader", "looks padded"),
        ],
    ),
    "ignored": (
        ignored,
        [
            ("error", "weight on padding", "reader", "of 12 real queries"),
            ("error", "ignored mask", "reader", "receives a mask and attends to padding"),
        ],
    ),
    "inverted": (inverted, [("error", "inverted mask", "reader", "100.0% of the weight lies there")]),
    "inverted causal": (inverted_causal, [("error", "inverted mask", "reader", "later positions only")]),
    "additive mask": (
        additive_mask,
        [
            ("error", "inverted mask", "reader", "later positions only"),
            ("error", "additive mask", "reader", r"from -1e\+09 to 0.*every number except 0 for True"),
        ],
    ),
    "float mask": (float_mask, [("note", "float mask", "reader", "float32, with 0 and 1")]),
    "float16": (
        lambda: float16(1.0),
        [("warning", "float16 scores", "reader", r"largest number is 65504.*largest score here is \d\.")],
    ),
    "own layer reads bool": (
        lambda: own_layer_with_mask(False, np.where(np.tri(T), 0.0, -1e9)),
        [
            ("error", "additive mask", "reader", "AttentionOfMask takes every number except 0 for True"),
        ],
    ),
    "own layer in float16": (
        lambda: own_layer_in_float16("float16"),
        [
            (
                "warning",
                "float16 scores",
                "reader",
                r"Float32Scores computes scores in float16, whose largest number is 65504\.$",
            )
        ],
    ),
    "one key": (one_key, [("warning", "single key", "reader", "softmax over one number")]),
    "one step": (one_step, [("warning", "single key", "reader", "softmax over one number")]),
    "large float16": (lambda: float16(90.0), [("error", "float16 scores", "reader", r"largest score here is \d{5}")]),
    "uniform head": (uniform_head, [("note", "dead head", "reader", "Head 0 is uniform: in each of 15 queries")]),
    "head without effect": (head_without_effect, [("warning", "dead head", "reader", "Head 1 is without effect")]),
    "uniform heads": (uniform_heads, [("note", "dead head", "reader", "Heads 0, 1 are uniform")]),
    "constant head": (constant_head, [("note", "dead head", "reader", "Head 0 is constant")]),
    "stuck head": (
        stuck_head,
        [("note", "dead head", "reader", r"Head 0 is stuck: .*% of the weight lies on position 2")],
    ),
}


@OWN_LAYERS_WITH_MASKS
@pytest.mark.parametrize("name", EXPECTED)
def test_each_fault_is_found(name):
    make, expected = EXPECTED[name]
    model, batch = make()
    if "head" not in name:
        randomize(model)
    findings = ll.lint(model, batch)
    # Keras appends a number to the name of an operation if there were others of its kind.
    found = [(finding.severity, finding.kind, re.sub(r"_\d+$", "", finding.path)) for finding in findings]
    assert found == [entry[:3] for entry in expected]
    for finding, (*_, message) in zip(findings, expected, strict=True):
        assert re.search(message, finding.message), finding.message
        assert finding.advice.endswith(".")


def clean():
    """A classifier with masks from the words to the vector, and a model inside."""
    words, steps = embedded()
    inner = keras.Input((None, D))
    block = keras.Model(
        inner,
        layers.LayerNormalization()(layers.Add()([inner, limelight_attention(inner, name="inner")])),
        name="block",
    )
    steps = layers.Bidirectional(layers.GRU(D // 2, return_sequences=True))(block(steps))
    causal = ll.layers.SelfAttention(D, mask="causal", dtype="mixed_float16", name="causal")(steps)
    vector = ll.layers.AttentionPooling(name="reader")(causal)
    return keras.Model(words, layers.Dense(3, activation="softmax")(vector)), IDS


def clean_of_keras():
    words, steps = embedded()
    return keras.Model(words, keras_attention(steps)), IDS


def clean_with_an_explicit_mask():
    """The mask is lost on the way, and passed to the attention as an argument."""
    words, steps = embedded()
    return keras.Model(words, limelight_attention(steps + 1.0, steps + 1.0, value_mask=ops.not_equal(words, 0))), IDS


def clean_added_mask():
    return own_layer_with_mask(True, np.where(np.tri(T), 0.0, -1e9))


def clean_mask_of_ones():
    return own_layer_with_mask(False, np.tri(T))


def clean_added_bias():
    return own_layer_with_mask(True, np.minimum(np.arange(T) - np.arange(T)[:, None], 0))


def clean_float32_scores():
    return own_layer_in_float16("float32")


def clean_crop_of_padding():
    """Nothing is left of the padding."""
    words, steps = embedded()
    return keras.Model(words, limelight_attention(steps[:, :2])), IDS


def clean_zeros_that_are_words():
    """Zeros that are not at the end are words."""
    words, steps = embedded(mask_zero=False)
    return keras.Model(words, limelight_attention(steps)), np.array([[3, 0, 4, 1, 5], [2, 6, 5, 0, 0]])


def image():
    """An input of the length of the words, in which nothing is padding."""
    return keras.Input((T, D), name="image"), np.random.default_rng(0).normal(size=(3, T, D)).astype("float32")


def clean_padded_queries(attention=limelight_attention):
    words, steps = embedded()
    other, x = image()
    return keras.Model([words, other], attention(steps, other)), [IDS, x]


def clean_padded_queries_of_keras():
    return clean_padded_queries(keras_attention)


def clean_other_input():
    """Two inputs, of which each attends to itself."""
    words, steps = embedded()
    other, x = image()
    read = [limelight_attention(steps, name="first"), ll.layers.SelfAttention(D, name="second")(other)]
    return keras.Model([words, other], read), [IDS, x]


def clean_after_cross_attention():
    """What has attended to padded words has no padding itself."""
    words, steps = embedded()
    other, x = image()
    read = limelight_attention(other, steps, name="first")
    read = ll.layers.SelfAttention(D, name="second")(layers.LayerNormalization()(read + other))
    return keras.Model([words, other], layers.Attention(name="third")([read, read])), [IDS, x.astype("float64")]


class CrossAttention(layers.Layer):
    """A custom layer whose arguments have names of its own."""

    def call(self, steps, memory):
        return ops.matmul(ops.softmax(ops.matmul(steps, ops.swapaxes(memory, 1, 2))), memory)


def clean_padded_queries_of_a_custom_layer():
    words, steps = embedded()
    other, x = image()
    return keras.Model([words, other], CrossAttention(name="reader")(steps, other)), [IDS, x]


class CrossBlock(layers.Layer):
    """A custom layer that attends inside to one of its arguments."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = ll.layers.MultiHeadAttention(HEADS, 3, name="inner")

    def build(self, steps_shape, memory_shape):
        self.inner.build(steps_shape, memory_shape)

    def call(self, steps, memory):
        return self.inner(steps, memory)


def clean_padded_queries_inside_a_custom_layer():
    words, steps = embedded()
    other, x = image()
    return keras.Model([words, other], CrossBlock(name="reader")(steps, other)), [IDS, x]


# Keras warns of every model inside a model, although the layers inside keep the mask.
@OWN_LAYERS_WITH_MASKS
@pytest.mark.filterwarnings("ignore:Layer 'block'")
@pytest.mark.parametrize(
    "make",
    [
        *(clean, clean_of_keras, clean_with_an_explicit_mask, clean_zeros_that_are_words),
        *(clean_added_mask, clean_mask_of_ones, clean_added_bias, clean_float32_scores, clean_crop_of_padding),
        *(clean_padded_queries, clean_padded_queries_of_keras, clean_padded_queries_of_a_custom_layer),
        *(clean_padded_queries_inside_a_custom_layer, clean_other_input, clean_after_cross_attention),
    ],
)
def test_a_model_without_faults_gives_no_finding(make):
    model, batch = make()
    findings = ll.lint(randomize(model), batch)
    assert findings == ()
    assert repr(findings) == "No findings."


@CHANGES_WITH_MASKS
@pytest.mark.parametrize("name", CHANGES_OF_LENGTH)
def test_mask_lost_by_a_change_of_length(name):
    change, path = CHANGES_OF_LENGTH[name]
    words, steps = embedded()
    model = randomize(keras.Model(words, limelight_attention(change(steps))))
    findings = ll.lint(model, SHORT_IDS)
    found = [(finding.severity, finding.kind, re.sub(r"_\d+$", "", finding.path)) for finding in findings]
    assert found == [("error", "weight on padding", "reader"), ("error", "lost mask", path)]


@CHANGES_WITH_MASKS
def test_padding_after_a_change_of_length_is_where_keras_would_have_it():
    """A position is padding if it depends on padding and on nothing else."""
    is_real = SHORT_IDS != 0
    expected = (is_real[:, 1:], is_real[:, 1:], is_real[:, :-1], is_real[:, :4:2], is_real[:, :4:2])
    for (change, _), is_real_after in zip(CHANGES_OF_LENGTH.values(), expected, strict=True):
        words, steps = embedded()
        model = randomize(keras.Model(words, limelight_attention(change(steps))))
        tracker = _run_and_track(model, ops.convert_to_tensor(SHORT_IDS))
        (call,) = tracker.calls["reader"]
        np.testing.assert_array_equal(call.arguments[0].padding.is_real, is_real_after)


def test_padded_keys_are_found_beside_queries_without_padding():
    words, steps = embedded()
    other, x = image()
    model = randomize(keras.Model([words, other], limelight_attention(other, steps + 1.0)))
    findings = ll.lint(model, [IDS, x])
    assert [(finding.kind, finding.path.split("_")[0]) for finding in findings] == [
        ("weight on padding", "reader"),
        ("lost mask", "add"),
    ]
    # No query is padding, though it has the length of the keys.
    assert " of 15 real queries" in findings[0].message


def test_each_call_of_a_shared_layer_is_named():
    words, steps = embedded()
    layer = ll.layers.MultiHeadAttention(HEADS, 3, name="reader")
    again = layer(steps, steps) + 1.0
    model = randomize(keras.Model(words, layer(again, again)))
    values = model.get_layer("reader").output_dense.kernel
    values.assign(ops.convert_to_numpy(values) * np.array([1.0, 0.0])[:, None, None])
    findings = ll.lint(model, IDS)
    assert [(finding.kind, finding.path) for finding in findings if "mask" not in finding.kind] == [
        ("weight on padding", "reader#1"),
        ("dead head", "reader"),
    ]
    assert {finding.message.split("'")[1] for finding in findings if finding.kind == "lost mask"} == {"reader#1"}


@pytest.mark.parametrize("make", [no_mask, ignored, lost_by_an_operation])
def test_findings_do_not_depend_on_the_dtype_of_ids(make):
    model, batch = make()
    randomize(model)
    kinds = [
        [(finding.kind, finding.severity) for finding in ll.lint(model, batch.astype(dtype))]
        for dtype in ("int32", "int64")
    ]
    assert kinds[0] == kinds[1] != []


def test_findings_print_as_a_report_and_the_model_does_not_change():
    model, batch = lost_by_an_operation()
    before = [ops.convert_to_numpy(weight) for weight in randomize(model).weights]
    findings = ll.lint(model, batch)
    report = str(findings)
    assert report.startswith("2 findings: 2 errors\n\nerror: weight on padding at 'reader'\n  ")
    assert max(len(line) for line in report.splitlines()) <= 100
    assert all(finding.advice.split()[0] in report for finding in findings)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), value)


def test_upgrade_repairs_a_mask_that_a_layer_of_keras_lost():
    model, batch = lost_by_an_attention()
    assert ll.lint(randomize(model), batch) != ()
    assert ll.lint(ll.upgrade(model), batch) == ()


class Block(layers.Layer):
    """A custom layer that adds positions and attends inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = ll.layers.MultiHeadAttention(HEADS, 3, name="inner")
        self.supports_masking = True

    def build(self, shape):
        self.inner.build(shape, shape)

    def call(self, x, mask=None):
        moved = x + 1.0
        return self.inner(moved, moved)


def test_a_layer_inside_a_custom_layer():
    words, steps = embedded()
    model = randomize(keras.Model(words, Block(name="block")(steps)))
    kinds = [(finding.kind, finding.path) for finding in ll.lint(model, IDS)]
    assert kinds == [("weight on padding", "block/inner"), ("missing mask", "block/inner")]


def test_only_models_are_accepted():
    with pytest.raises(TypeError, match="must be a model or layer of Keras"):
        ll.lint("model.keras", IDS)
