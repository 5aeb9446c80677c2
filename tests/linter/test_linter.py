"""Each kind of finding has a model that shows it; models without faults give none."""

import re

import keras
import numpy as np
import pytest
from keras import layers, ops

import limelight as ll

T, D, HEADS = 5, 4, 2
IDS = np.array([[3, 1, 4, 1, 5], [2, 6, 5, 0, 0], [3, 5, 8, 9, 0]])
REAL = IDS != 0


def embedded(mask_zero=True):
    words = keras.Input((T,), dtype="int32", name="words")
    return words, layers.Embedding(10, D, mask_zero=mask_zero, name="embedding")(words)


def spread(model):
    """The model with weights large enough for heads to have an opinion."""
    generator = np.random.default_rng(3)
    model.set_weights([generator.normal(size=weight.shape) for weight in model.weights])
    return model


def ours(steps, *args, name="reader", **kwargs):
    return ll.layers.MultiHeadAttention(HEADS, 3, name=name)(steps, *(args or (steps,)), **kwargs)


def theirs(steps, *args, name="reader", **kwargs):
    return layers.MultiHeadAttention(HEADS, 3, name=name)(steps, *(args or (steps,)), **kwargs)


def lost_by_an_operation():
    words, steps = embedded()
    return keras.Model(words, ours(steps + 1.0)), IDS


def lost_by_an_attention():
    """Keras's first layer takes the mask off the memory that the second reads."""
    words, steps = embedded()
    first = theirs(steps[:, :3] * 1.0, steps, name="first")
    return keras.Model(words, theirs(first, steps, name="second")), IDS


def no_mask():
    words, steps = embedded(mask_zero=False)
    return keras.Model(words, ll.layers.AttentionPooling(name="reader")(steps)), IDS


def no_mask_of_features():
    steps = keras.Input((T, D))
    x = np.random.default_rng(0).normal(size=(3, T, D)).astype("float32") * REAL[..., None]
    return keras.Model(steps, ours(steps)), x


class Careless(layers.Layer):
    """Attends, says that it supports masks, and does not look at them."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x, mask=None):
        scores = ops.matmul(x, ops.swapaxes(x, 1, 2))
        return ops.matmul(ops.softmax(scores), x)


def ignored():
    words, steps = embedded()
    return keras.Model(words, Careless(name="reader")(steps)), IDS


def inverted():
    words, steps = embedded()
    return keras.Model(words, theirs(steps, steps, value_mask=ops.equal(words, 0))), IDS[1:]


def inverted_causal():
    steps = keras.Input((T, D))
    x = np.random.default_rng(0).normal(size=(3, T, D)).astype("float32")
    return keras.Model(steps, ours(steps, steps, attention_mask=~np.tri(T, dtype=bool)[None])), x


def with_mask(values):
    steps, mask = keras.Input((T, D)), keras.Input((T, T))
    x = np.random.default_rng(0).normal(size=(3, T, D)).astype("float32")
    return keras.Model([steps, mask], theirs(steps, steps, attention_mask=mask)), [x, np.stack([values] * 3)]


def additive_mask():
    return with_mask(np.where(np.tri(T), 0.0, -1e9).astype("float32"))


def float_mask():
    return with_mask(np.tri(T, dtype="float32"))


def half(factor):
    steps = keras.Input((T, D))
    x = factor * np.random.default_rng(0).normal(size=(3, T, D)).astype("float32")
    return keras.Model(steps, layers.Attention(name="reader", dtype="float16")([steps, steps])), x


def of_heads(change, x=None):
    """Our multi-head attention with weights that somebody changed."""
    steps = keras.Input((T, D))
    model = spread(keras.Model(steps, ours(steps)))
    layer = model.get_layer("reader")
    named = {weight.path.split("reader/")[1]: weight for weight in layer.weights}
    for name, new in change.items():
        values = np.array(ops.convert_to_numpy(named[name]))
        values[new[0]] = new[1]
        named[name].assign(values)
    random = np.random.default_rng(0).normal(size=(3, T, D)).astype("float32")
    return model, random if x is None else x


FIRST, LAST = (slice(None), 0), (1,)


def uniform_head():
    return of_heads({"query/kernel": (FIRST, 0.0), "query/bias": (0, 0.0)})


def uniform_heads():
    return of_heads({"query/kernel": (..., 0.0), "query/bias": (..., 0.0)})


def unread_head():
    return of_heads({"attention_output/kernel": (LAST, 0.0)})


def constant_head():
    return of_heads({"query/kernel": (FIRST, 0.0), "query/bias": (0, 1.0)})


def stuck_head():
    x = np.random.default_rng(0).normal(size=(3, T, D)).astype("float32")
    x[:, 2] = 9.0
    return of_heads({"query/kernel": (FIRST, 0.0), "query/bias": (0, 9.0), "key/kernel": (FIRST, 1.0)}, x)


# A model, and what must be found: severity, kind, path, and what the message says. The order is that of the findings.
FOUND = {
    "lost by an operation": (
        lost_by_an_operation,
        [
            ("error", "weight on padding", "reader", r"\d\d\.\d% of the weight of 12 real queries"),
            ("error", "lost mask", "add", "Add gets a mask and passes none on, so that 'reader'"),
        ],
    ),
    "lost by an attention": (
        lost_by_an_attention,
        [
            ("error", "weight on padding", "second", "of the weight of"),
            ("error", "lost mask", "first", "MultiHeadAttention gets a mask.*'second'"),
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
            ("error", "ignored mask", "reader", "has a mask and lets padding in"),
        ],
    ),
    "inverted": (inverted, [("error", "inverted mask", "reader", "100.0% of the weight lies there")]),
    "inverted causal": (inverted_causal, [("error", "inverted mask", "reader", "later steps alone")]),
    "additive mask": (
        additive_mask,
        [
            ("error", "inverted mask", "reader", "later steps alone"),
            ("error", "additive mask", "reader", r"from -1e\+09 to 0.*every number but 0 for True"),
        ],
    ),
    "float mask": (float_mask, [("note", "float mask", "reader", "float32, with 0 and 1")]),
    "float16": (
        lambda: half(1.0),
        [("warning", "float16 scores", "reader", r"ends at 65504.*largest score here is \d\.")],
    ),
    "large float16": (lambda: half(90.0), [("error", "float16 scores", "reader", r"largest score here is \d{5}")]),
    "uniform head": (uniform_head, [("note", "dead head", "reader", "Head 0 is uniform: in each of 15 queries")]),
    "unread head": (unread_head, [("warning", "dead head", "reader", "Head 1 is without effect")]),
    "uniform heads": (uniform_heads, [("note", "dead head", "reader", "Heads 0, 1 are uniform")]),
    "constant head": (constant_head, [("note", "dead head", "reader", "Head 0 is constant")]),
    "stuck head": (
        stuck_head,
        [("note", "dead head", "reader", r"Head 0 is stuck: .*% of the weight lies on position 2")],
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_each_fault_is_found(name):
    make, wanted = FOUND[name]
    model, batch = make()
    if "head" not in name:
        spread(model)
    findings = ll.lint(model, batch)
    # An operation has a number behind its name where others of its kind came before.
    found = [(one.severity, one.kind, re.sub(r"_\d+$", "", one.path)) for one in findings]
    assert found == [one[:3] for one in wanted]
    for finding, (*_, message) in zip(findings, wanted, strict=True):
        assert re.search(message, finding.message), finding.message
        assert finding.advice.endswith(".")


def clean():
    """A classifier with masks from the words to the vector, and a part within it."""
    words, steps = embedded()
    inner = keras.Input((None, D))
    block = keras.Model(
        inner, layers.LayerNormalization()(layers.Add()([inner, ours(inner, name="inner")])), name="block"
    )
    steps = layers.Bidirectional(layers.GRU(D // 2, return_sequences=True))(block(steps))
    causal = ll.layers.SelfAttention(D, mask="causal", dtype="mixed_float16", name="causal")(steps)
    vector = ll.layers.AttentionPooling(name="reader")(causal)
    return keras.Model(words, layers.Dense(3, activation="softmax")(vector)), IDS


def clean_of_keras():
    words, steps = embedded()
    return keras.Model(words, theirs(steps)), IDS


def clean_with_an_explicit_mask():
    """The mask is lost on the way, and given to the attention all the same."""
    words, steps = embedded()
    return keras.Model(words, ours(steps + 1.0, steps + 1.0, value_mask=ops.not_equal(words, 0))), IDS


def clean_zeros_that_are_words():
    """Zeros among the words are words."""
    words, steps = embedded(mask_zero=False)
    return keras.Model(words, ours(steps)), np.array([[3, 0, 4, 1, 5], [2, 6, 5, 0, 0]])


# Keras says so of every model within a model, though the layers inside keep the mask.
@pytest.mark.filterwarnings("ignore:Layer 'block'")
@pytest.mark.parametrize("make", [clean, clean_of_keras, clean_with_an_explicit_mask, clean_zeros_that_are_words])
def test_a_model_without_faults_gives_no_finding(make):
    model, batch = make()
    findings = ll.lint(spread(model), batch)
    assert findings == ()
    assert repr(findings) == "Nothing found."


def test_findings_read_as_a_page_and_the_model_is_left_alone():
    model, batch = lost_by_an_operation()
    before = [ops.convert_to_numpy(weight) for weight in spread(model).weights]
    findings = ll.lint(model, batch)
    page = str(findings)
    assert page.startswith("2 findings: 2 errors\n\nerror: weight on padding at 'reader'\n  ")
    assert max(len(line) for line in page.splitlines()) <= 100
    assert all(one.advice.split()[0] in page for one in findings)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), value)


def test_upgrading_mends_what_a_layer_of_keras_lost():
    model, batch = lost_by_an_attention()
    assert ll.lint(spread(model), batch) != ()
    assert ll.lint(ll.upgrade(model), batch) == ()


class Block(layers.Layer):
    """Somebody's layer, which adds positions and attends in code of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = ll.layers.MultiHeadAttention(HEADS, 3, name="inner")
        self.supports_masking = True

    def build(self, shape):
        self.inner.build(shape, shape)

    def call(self, x, mask=None):
        moved = x + 1.0
        return self.inner(moved, moved)


def test_a_layer_within_somebodys_layer():
    words, steps = embedded()
    model = spread(keras.Model(words, Block(name="block")(steps)))
    kinds = [(one.kind, one.path) for one in ll.lint(model, IDS)]
    assert kinds == [("weight on padding", "block/inner"), ("missing mask", "block/inner")]


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match="must be a model or layer of Keras"):
        ll.lint("model.keras", IDS)
