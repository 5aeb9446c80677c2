"""The model families of keras-hub, built small, and the weights of their attention in float64.

    KERAS_BACKEND=jax python tests/inspection/families.py

prints a line of the table in docs/capture.md for each family.
"""

import inspect

import numpy as np

B, T, S, VOCABULARY = 2, 5, 7, 30
IDS = np.random.default_rng(7).integers(1, VOCABULARY, size=(B, S))
PADDING = np.array([[1] * S, [1] * 4 + [0] * (S - 4)], "int32")
TEXT = {"token_ids": IDS, "padding_mask": PADDING}
CAUSAL = np.tri(S, dtype=bool)[None, None] & (PADDING[:, None, None] == 1)
SIZES = {"vocabulary_size": VOCABULARY, "num_layers": 2}
HEADS = {"num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16}
GROUPS = {"num_query_heads": 4, "num_key_value_heads": 2, "hidden_dim": 16, "intermediate_dim": 16}


def softmax(scores, allowed=True):
    scores = np.where(allowed, scores, -np.inf)
    peak = scores.max(axis=-1, keepdims=True)
    raised = np.exp(scores - np.where(np.isfinite(peak), peak, 0))
    total = raised.sum(axis=-1, keepdims=True)
    return raised / np.where(total == 0, 1, total)


def values(layer):
    """A layer's weights in float64 by the last two parts of their path."""
    import keras

    return {"/".join(one.path.split("/")[-2:]): keras.ops.convert_to_numpy(one).astype(float) for one in layer.weights}


def heads(layer, name, x):
    """A projection into heads: (B, T, D) to (B, N, T, H)."""
    found = values(layer)
    bias, kernel = found.get(f"{name}/bias"), found[f"{name}/kernel"]
    # Gemma's kernels have their heads first.
    kernel = kernel if kernel.shape[0] == x.shape[-1] else kernel.swapaxes(0, 1)
    return np.einsum("btd,dnh->bnth", x, kernel) + (0 if bias is None else bias[:, None])


def rotated(x):
    """Rotary positions in float64, in halves: (B, N, T, H)."""
    size, places = x.shape[-1], np.arange(x.shape[-2])
    angles = places[:, None] * 10_000.0 ** (-np.arange(0, size, 2) / size)
    left, right = np.split(x, 2, axis=-1)
    return np.concatenate(
        [left * np.cos(angles) - right * np.sin(angles), right * np.cos(angles) + left * np.sin(angles)], axis=-1
    )


def product(query, key, scale):
    key = key.repeat(query.shape[1] // key.shape[1], axis=1)
    return np.einsum("bnth,bnsh->bnts", query, key) * scale


def plain(layer, given, allowed):
    """BERT, GPT-2, Whisper, ViT: scaled dot products of projections."""
    query = given["query"]
    key = next(given[name] for name in ("key", "value", "query") if given.get(name) is not None)
    query, key = heads(layer, "query", query), heads(layer, "key", key)
    return softmax(product(query, key, query.shape[-1] ** -0.5), allowed(layer, query, key))


def rotary(layer, given, allowed):
    """Llama, Mistral, Gemma: grouped heads and rotary positions. Gemma interleaves the halves of queries and keys alike."""
    x = given.get("hidden_states", given.get("x"))
    query, key = (rotated(heads(layer, name, x)) for name in ("query", "key"))
    scores = product(query, key, query.shape[-1] ** -0.5)
    cap = getattr(layer, "logit_soft_cap", None)
    scores = scores if cap is None else cap * np.tanh(scores / cap)
    return softmax(scores, allowed(layer, query, key))


def t5(layer, given, allowed):
    """T5: unscaled, with a bias for each bucket of distances; the bias of the first layer serves all."""
    found = values(layer)
    across = given["key_value_states"] is not None
    split = lambda x: x.reshape(B, -1, 2, 4).transpose(0, 2, 1, 3)  # noqa: E731
    query = split(given["hidden_states"] @ found["query_projector/kernel"])
    key = split((given["key_value_states"] if across else given["hidden_states"]) @ found["key_projector/kernel"])
    if layer.use_relative_attention_bias:
        import keras

        t5.table = keras.ops.convert_to_numpy(layer.relative_attention_bias).astype(float)
    rows, columns = query.shape[-2], key.shape[-2]
    bias = np.zeros((2, rows, columns))
    if not across:
        for i, j in np.ndindex(rows, columns):
            bias[:, i, j] = t5.table[bucket(j - i, decoder=rows == T)]
    return softmax(product(query, key, 1.0) + bias, allowed(layer, query, key))


def bucket(distance, decoder):
    """T5's bucket of a distance under 8 steps, where each distance has one of its own."""
    if decoder:
        return max(-distance, 0)
    return abs(distance) + (16 if distance > 0 else 0)


def everything(layer, query, key):
    return True


def padded(layer, query, key):
    return PADDING[:, None, None, : key.shape[-2]] == 1


def causal(layer, query, key):
    return CAUSAL


def window(layer, query, key):
    near = np.arange(S)[:, None] - np.arange(S)[None] < 3
    return CAUSAL & near


def t5_permitted(layer, query, key):
    rows, columns = query.shape[-2], key.shape[-2]
    return padded(layer, query, key) & (np.tri(T, dtype=bool) if rows == columns == T else True)


def whisper_permitted(layer, query, key):
    # The decoder's padding is left to its positions after it: they are never looked back at by real ones.
    return CAUSAL if query.shape[-2] == key.shape[-2] == S else True


FAMILIES = {
    "BERT": (
        "BertBackbone",
        {**SIZES, **HEADS, "max_sequence_length": 12},
        {**TEXT, "segment_ids": IDS * 0},
        plain,
        padded,
    ),
    "GPT-2": ("GPT2Backbone", {**SIZES, **HEADS, "max_sequence_length": 12}, TEXT, plain, causal),
    "Llama": ("LlamaBackbone", {**SIZES, **GROUPS}, TEXT, rotary, causal),
    "Mistral": ("MistralBackbone", {**SIZES, **GROUPS, "sliding_window": 3}, TEXT, rotary, window),
    "Gemma": ("GemmaBackbone", {**SIZES, **GROUPS, "head_dim": 4}, TEXT, rotary, causal),
    "Gemma 2": (
        "GemmaBackbone",
        {
            **SIZES,
            **GROUPS,
            "head_dim": 4,
            "attention_logit_soft_cap": 0.5,
            "use_sliding_window_attention": True,
            "sliding_window_size": 3,
        },
        TEXT,
        rotary,
        # Every second layer has the window.
        lambda layer, query, key: window(layer, query, key) if layer.use_sliding_window_attention else CAUSAL,
    ),
    "T5": (
        "T5Backbone",
        {**SIZES, **HEADS},
        {
            "encoder_token_ids": IDS,
            "encoder_padding_mask": PADDING,
            "decoder_token_ids": IDS[:, :T],
            "decoder_padding_mask": PADDING[:, :T],
        },
        t5,
        t5_permitted,
    ),
    "Whisper": (
        "WhisperBackbone",
        {**SIZES, **HEADS, "num_mels": 4, "max_encoder_sequence_length": 22, "max_decoder_sequence_length": 12},
        {
            "encoder_features": np.random.default_rng(8).normal(size=(B, 22, 4)).astype("float32"),
            "decoder_token_ids": IDS,
            "decoder_padding_mask": PADDING,
        },
        plain,
        whisper_permitted,
    ),
    "ViT": (
        "ViTBackbone",
        {"image_shape": (8, 8, 3), "patch_size": 4, "num_layers": 2, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 16},
        np.random.default_rng(9).normal(size=(B, 8, 8, 3)).astype("float32"),
        plain,
        everything,
    ),
}


def built(family):
    """A family's model with random weights, and its inputs."""
    import keras
    import keras_hub

    name, sizes, data, _, _ = FAMILIES[family]
    model = getattr(keras_hub.models, name)(**sizes)
    random = np.random.default_rng(3)
    for one in model.trainable_variables:
        one.assign(keras.ops.convert_to_numpy(one) + random.normal(size=one.shape, scale=0.3))
    return model, data


def attention_layers(model):
    """The model's attention layers."""
    return [layer for layer in model._flatten_layers() if "Attention" in type(layer).__name__]


def by_hand(family, model, data):
    """The weights of every attention call in float64, computed from what each layer was given."""
    import keras

    _, _, _, oracle, allowed = FAMILIES[family]
    calls = []
    layers = attention_layers(model)
    for layer in layers:
        layer.__dict__["call"] = spied(layer, calls)
    try:
        model(data)
    finally:
        for layer in layers:
            del layer.__dict__["call"]
    found = []
    for layer, given in calls:
        given = {
            name: keras.ops.convert_to_numpy(one).astype(float) if keras.ops.is_tensor(one) else one
            for name, one in given.items()
        }
        found.append(oracle(layer, given, allowed))
    return found


def spied(layer, calls):
    """The layer's call, which writes down what it was given."""
    own = layer.call
    signature = inspect.signature(own)

    def call(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        calls.append((layer, dict(bound.arguments)))
        return own(*args, **kwargs)

    return call


def measured(family):
    """How far the outputs move (relative to the largest), how far the weights lie from float64, and what was captured."""
    import keras

    import limelight as ll

    model, data = built(family)
    wanted = by_hand(family, model, data)
    plain_outputs = keras.tree.flatten(model.predict(data, verbose=0))
    outputs, maps = ll.AttentionExtractor(model).predict(data)
    eager = keras.tree.flatten(model(data))
    probed = keras.tree.flatten(ll.AttentionExtractor(model)(data)[0])
    same = all(
        (keras.ops.convert_to_numpy(a) == keras.ops.convert_to_numpy(b)).all()
        for a, b in zip(eager, probed, strict=True)
    )
    moved = max(
        np.abs(a - b).max() / np.abs(a).max() for a, b in zip(plain_outputs, keras.tree.flatten(outputs), strict=True)
    )
    if len(maps) != len(wanted):
        raise ValueError(f"{family}: {len(wanted)} calls, {len(maps)} maps: {list(maps)}")
    apart = 0.0
    for one, weights in zip(maps.values(), wanted, strict=True):
        found, rows = one.weights(), np.broadcast_to(weights.sum(-1, keepdims=True) > 0, weights.shape)
        apart = max(apart, float(np.abs(found - weights)[rows].max()))
    kinds = {type(one.source).__name__ for one in maps.values()}
    return same, float(moved), apart, kinds


def main():
    import keras

    for family in FAMILIES:
        same, moved, apart, kinds = measured(family)
        held = "question" if kinds == {"QKSource"} else "weights"
        print(
            f"| {family} | {keras.backend.backend()} | {'yes' if same else 'no'} | {moved:.1e} | {apart:.1e} | {held} |"
        )


if __name__ == "__main__":
    main()
