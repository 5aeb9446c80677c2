"""The model families of keras-hub, built small, and the weights of their attention in float64.

    KERAS_BACKEND=jax PYTHONPATH=tests python -m inspection.families

prints a row of the table in docs/capture.md for each family.
"""

import inspect

import numpy as np

from inspection.capturing import softmax

B, T, S, VOCABULARY = 2, 5, 7, 30
IDS = np.random.default_rng(7).integers(1, VOCABULARY, size=(B, S))
PADDING = np.array([[1] * S, [1] * 4 + [0] * (S - 4)], "int32")
TEXT = {"token_ids": IDS, "padding_mask": PADDING}
CAUSAL = np.tri(S, dtype=bool)[None, None] & (PADDING[:, None, None] == 1)
SIZES = {"vocabulary_size": VOCABULARY, "num_layers": 2}
HEADS = {"num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16}
GROUPS = {"num_query_heads": 4, "num_key_value_heads": 2, "hidden_dim": 16, "intermediate_dim": 16}


def get_variables(layer):
    """The variables of a layer in float64, by the last two parts of their path."""
    import keras

    return {
        "/".join(variable.path.split("/")[-2:]): keras.ops.convert_to_numpy(variable).astype(float)
        for variable in layer.weights
    }


def project(layer, name, x):
    """A projection into heads: (B, T, D) to (B, N, T, H)."""
    variables = get_variables(layer)
    bias, kernel = variables.get(f"{name}/bias"), variables[f"{name}/kernel"]
    # Gemma's kernels have their heads first.
    kernel = kernel if kernel.shape[0] == x.shape[-1] else kernel.swapaxes(0, 1)
    return np.einsum("btd,dnh->bnth", x, kernel) + (0 if bias is None else bias[:, None])


def rotate(x):
    """Apply rotary positions to (B, N, T, H) in float64, by halves."""
    size, positions = x.shape[-1], np.arange(x.shape[-2])
    angles = positions[:, None] * 10_000.0 ** (-np.arange(0, size, 2) / size)
    left, right = np.split(x, 2, axis=-1)
    return np.concatenate(
        [left * np.cos(angles) - right * np.sin(angles), right * np.cos(angles) + left * np.sin(angles)], axis=-1
    )


def dot_products(query, key, scale):
    key = key.repeat(query.shape[1] // key.shape[1], axis=1)
    return np.einsum("bnth,bnsh->bnts", query, key) * scale


def scaled_dot(layer, arguments, get_mask):
    """BERT, GPT-2, Whisper, ViT: scaled dot products of projections."""
    query = arguments["query"]
    key = next(arguments[name] for name in ("key", "value", "query") if arguments.get(name) is not None)
    query, key = project(layer, "query", query), project(layer, "key", key)
    return softmax(dot_products(query, key, query.shape[-1] ** -0.5), get_mask(layer, query, key))


def rotary(layer, arguments, get_mask):
    """Llama, Mistral, Gemma: grouped heads and rotary positions. Gemma interleaves the halves of queries and keys alike."""
    x = arguments.get("hidden_states", arguments.get("x"))
    query, key = (rotate(project(layer, name, x)) for name in ("query", "key"))
    scores = dot_products(query, key, query.shape[-1] ** -0.5)
    cap = getattr(layer, "logit_soft_cap", None)
    scores = scores if cap is None else cap * np.tanh(scores / cap)
    return softmax(scores, get_mask(layer, query, key))


def t5(layer, arguments, get_mask):
    """T5: unscaled, with a bias for each bucket of distances, which all layers take from the first."""
    variables = get_variables(layer)
    is_cross_attention = arguments["key_value_states"] is not None
    source = arguments["key_value_states" if is_cross_attention else "hidden_states"]
    split = lambda x: x.reshape(B, -1, 2, 4).transpose(0, 2, 1, 3)  # noqa: E731
    query = split(arguments["hidden_states"] @ variables["query_projector/kernel"])
    key = split(source @ variables["key_projector/kernel"])
    if layer.use_relative_attention_bias:
        import keras

        t5.table = keras.ops.convert_to_numpy(layer.relative_attention_bias).astype(float)
    rows, columns = query.shape[-2], key.shape[-2]
    bias = np.zeros((2, rows, columns))
    if not is_cross_attention:
        for i, j in np.ndindex(rows, columns):
            bias[:, i, j] = t5.table[get_bucket(j - i, decoder=rows == T)]
    return softmax(dot_products(query, key, 1.0) + bias, get_mask(layer, query, key))


def get_bucket(distance, decoder):
    """T5's bucket of a distance under 8 steps: each has its own."""
    if decoder:
        return max(-distance, 0)
    return abs(distance) + (16 if distance > 0 else 0)


def no_mask(layer, query, key):
    return True


def padding(layer, query, key):
    return PADDING[:, None, None, : key.shape[-2]] == 1


def causal(layer, query, key):
    return CAUSAL


def window(layer, query, key):
    return CAUSAL & (np.arange(S)[:, None] - np.arange(S)[None] < 3)


def t5_mask(layer, query, key):
    rows, columns = query.shape[-2], key.shape[-2]
    return padding(layer, query, key) & (np.tri(T, dtype=bool) if rows == columns == T else True)


def whisper_mask(layer, query, key):
    # No mask covers the decoder's padding: it comes after the real positions, which never attend to it.
    return CAUSAL if query.shape[-2] == key.shape[-2] == S else True


FAMILIES = {
    "BERT": (
        "BertBackbone",
        {**SIZES, **HEADS, "max_sequence_length": 12},
        {**TEXT, "segment_ids": IDS * 0},
        scaled_dot,
        padding,
    ),
    "GPT-2": ("GPT2Backbone", {**SIZES, **HEADS, "max_sequence_length": 12}, TEXT, scaled_dot, causal),
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
        t5_mask,
    ),
    "Whisper": (
        "WhisperBackbone",
        {**SIZES, **HEADS, "num_mels": 4, "max_encoder_sequence_length": 22, "max_decoder_sequence_length": 12},
        {
            "encoder_features": np.random.default_rng(8).normal(size=(B, 22, 4)).astype("float32"),
            "decoder_token_ids": IDS,
            "decoder_padding_mask": PADDING,
        },
        scaled_dot,
        whisper_mask,
    ),
    "ViT": (
        "ViTBackbone",
        {"image_shape": (8, 8, 3), "patch_size": 4, "num_layers": 2, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 16},
        np.random.default_rng(9).normal(size=(B, 8, 8, 3)).astype("float32"),
        scaled_dot,
        no_mask,
    ),
}


def build(family):
    """A family's model with random weights, and its inputs."""
    import keras
    import keras_hub

    name, sizes, data, _, _ = FAMILIES[family]
    model = getattr(keras_hub.models, name)(**sizes)
    random = np.random.default_rng(3)
    for variable in model.trainable_variables:
        noise = random.normal(size=variable.shape, scale=0.3)
        variable.assign(keras.ops.convert_to_numpy(variable) + noise)
    return model, data


def compute_weights(family, model, data):
    """The weights of every attention call in float64, from the arguments of the call."""
    import keras

    _, _, _, oracle, get_mask = FAMILIES[family]
    calls = []
    layers = [layer for layer in model._flatten_layers() if "Attention" in type(layer).__name__]
    for layer in layers:
        layer.__dict__["call"] = spy(layer, calls)
    try:
        model(data)
    finally:
        for layer in layers:
            del layer.__dict__["call"]
    weights = []
    for layer, arguments in calls:
        arguments = {
            name: keras.ops.convert_to_numpy(value).astype(float) if keras.ops.is_tensor(value) else value
            for name, value in arguments.items()
        }
        weights.append(oracle(layer, arguments, get_mask))
    return weights


def spy(layer, calls):
    """The layer's `call`, which appends its arguments to `calls`."""
    original = layer.call
    signature = inspect.signature(original)

    def call(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        calls.append((layer, dict(bound.arguments)))
        return original(*args, **kwargs)

    return call


def measure(family):
    """Return True if eager outputs are unchanged, two largest errors, and the classes of the maps' sources.

    The errors are those of compiled outputs, relative to the largest output, and of the weights against float64.
    """
    import keras

    import limelight as ll

    model, data = build(family)
    expected = compute_weights(family, model, data)
    alone = keras.tree.flatten(model.predict(data, verbose=0))
    outputs, maps = ll.AttentionExtractor(model).predict(data)
    eager = keras.tree.flatten(model(data))
    extracted = keras.tree.flatten(ll.AttentionExtractor(model)(data)[0])
    is_unchanged = all(
        (keras.ops.convert_to_numpy(a) == keras.ops.convert_to_numpy(b)).all()
        for a, b in zip(eager, extracted, strict=True)
    )
    output_error = max(
        np.abs(a - b).max() / np.abs(a).max() for a, b in zip(alone, keras.tree.flatten(outputs), strict=True)
    )
    if len(maps) != len(expected):
        raise ValueError(f"{family}: {len(expected)} calls, {len(maps)} maps: {list(maps)}")
    weight_error = 0.0
    for attention_map, weights in zip(maps.values(), expected, strict=True):
        rows = np.broadcast_to(weights.sum(-1, keepdims=True) > 0, weights.shape)
        weight_error = max(weight_error, float(np.abs(attention_map.weights() - weights)[rows].max()))
    sources = {type(attention_map.source).__name__ for attention_map in maps.values()}
    return is_unchanged, float(output_error), weight_error, sources


def main():
    import keras

    for family in FAMILIES:
        is_unchanged, output_error, weight_error, sources = measure(family)
        stored = "queries and keys" if sources == {"QKSource"} else "weights"
        columns = (family, keras.backend.backend(), "yes" if is_unchanged else "no")
        print(f"| {' | '.join(columns)} | {output_error:.1e} | {weight_error:.1e} | {stored} |")


if __name__ == "__main__":
    main()
