"""Multi-head attention with a key/value cache and with a latent, against calls on the whole sequence."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import limelight as ll
from compiling import predict, run_together
from contracts.representative import full
from gradients import compiled
from limelight.layers import KVCache, MultiHeadAttention

B, T, D = 2, 9, 6


def numpy(tensor: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float32")))


def randomize(layer: MultiHeadAttention) -> MultiHeadAttention:
    layer.build((B, T, D), (B, T, D))
    random = np.random.default_rng(47)
    for variable in layer.trainable_variables:
        variable.assign(0.5 * random.normal(size=variable.shape))
    return layer


LAYERS = {
    "plain": (lambda: MultiHeadAttention(3, 4, mask="causal"), T),
    "multi-query with a gate": (lambda: MultiHeadAttention(3, 4, 5, num_kv_heads=1, use_gate=True, mask="causal"), T),
    "rolling window": (lambda: MultiHeadAttention(3, 4, mask=ll.masks.Causal() & ll.masks.SlidingWindow(2)), 4),
    "rotary rolling": (
        lambda: MultiHeadAttention(
            4,
            4,
            num_kv_heads=2,
            score=ll.positions.Rotary(ll.scores.Dot()),
            mask=ll.masks.Causal() & ll.masks.SlidingWindow(2),
        ),
        4,
    ),
    "latent": (
        lambda: MultiHeadAttention(3, 4, latent_dim=5, score=ll.scores.Dot() + ll.positions.ALiBi(), mask="causal"),
        T,
    ),
    "sink and bias": (
        lambda: MultiHeadAttention(
            3,
            4,
            score=ll.scores.QKNorm(ll.scores.Dot()) + ll.positions.RelativePositionBias(8, 6),
            normalizer=ll.normalizers.Sink(learned=True),
            mask="causal",
        ),
        T,
    ),
}


@pytest.mark.parametrize(
    "name", [name if name in ("plain", "rotary rolling", "latent") else full(name) for name in LAYERS]
)
def test_decoding_equals_a_call_on_the_whole_sequence(random: np.random.Generator, name: str) -> None:
    make, size = LAYERS[name]
    layer, x = randomize(make()), random.normal(size=(B, T, D)).astype("float32")
    ((expected, expected_weights),) = run_together([lambda: layer(x, x, return_attention_scores=True)])
    step = compiled(lambda x, cache: layer(x, x, cache=cache, return_attention_scores=True))
    cache, start = layer.empty_cache(B, size), 0
    for end in [2, *range(3, T + 1)]:
        output, weights, cache = step(ops.convert_to_tensor(x[:, start:end]), cache)
        np.testing.assert_allclose(numpy(output), numpy(expected)[:, start:end], atol=3e-5)
        slots = numpy(cache.positions).astype(int)
        for b in range(B):
            for slot, position in enumerate(slots[b]):
                wanted = numpy(expected_weights)[b, :, start:end, position] if position >= 0 else 0.0
                np.testing.assert_allclose(numpy(weights)[b, :, :, slot], wanted, atol=3e-5)
        start = end
    assert isinstance(cache, KVCache)


def test_batch_of_prompts_of_different_lengths(random: np.random.Generator) -> None:
    layer = randomize(MultiHeadAttention(3, 4, score=ll.positions.Rotary(ll.scores.Dot()), mask="causal"))
    x = random.normal(size=(B, T, D)).astype("float32")
    # The second example has two steps of padding before its prompt of two, and goes on from there.
    real = np.array([[True] * 4, [False] * 2 + [True] * 2])
    prompt = x[:, :4].copy()
    prompt[1, :2], prompt[1, 2:] = 7.0, x[1, :2]
    next_step = np.stack([x[0, 4], x[1, 2]])[:, None]

    def decode() -> tuple[Any, Any, Any]:
        output, cache = layer(prompt, prompt, query_mask=real, value_mask=real, cache=layer.empty_cache(B, T))
        following, cache = layer(next_step, next_step, cache=cache)
        return output, following, cache.length

    (output, following, length), expected = run_together([decode, lambda: layer(x, x)])
    expected = numpy(expected)
    np.testing.assert_allclose(numpy(output)[0], expected[0, :4], atol=3e-5)
    np.testing.assert_allclose(numpy(output)[1, 2:], expected[1, :2], atol=3e-5)
    np.testing.assert_allclose(numpy(following)[:, 0], [expected[0, 4], expected[1, 2]], atol=3e-5)
    assert numpy(length).tolist() == [5, 3]


@pytest.mark.full
def test_keys_and_values_are_projected_from_the_latent(random: np.random.Generator) -> None:
    layer, x = randomize(MultiHeadAttention(3, 4, latent_dim=5)), random.normal(size=(B, T, D)).astype("float32")
    latent = x @ numpy(layer._latent_dense.kernel)
    latent = latent / np.sqrt((latent**2).mean(-1, keepdims=True) + layer._latent_norm.epsilon)
    latent = latent * numpy(layer._latent_norm.scale)

    def heads(dense: Any, steps: np.ndarray) -> np.ndarray:
        return (np.einsum("btc,cnh->btnh", steps, numpy(dense.kernel)) + numpy(dense.bias)).transpose(0, 2, 1, 3)

    read = ll.attend(heads(layer.query_dense, x), heads(layer.key_dense, latent), heads(layer.value_dense, latent))
    out = np.einsum("bnth,nhd->btd", numpy(read), numpy(layer.output_dense.kernel)) + numpy(layer.output_dense.bias)
    np.testing.assert_allclose(numpy(layer(x, x)), out, atol=3e-5)
    cache = layer.empty_cache(B, T)
    assert tuple(cache.key.shape) == (B, 1, T, 5)
    assert tuple(cache.value.shape) == (B, 1, T, 0)


@pytest.mark.full
def test_latent_layer_can_be_saved_and_loaded(random: np.random.Generator, tmp_path: Path) -> None:
    steps, x = keras.Input((None, D)), random.normal(size=(B, T, D)).astype("float32")
    model = keras.Model(
        steps, MultiHeadAttention(3, 4, latent_dim=5, normalizer=ll.normalizers.Sink(learned=True))(steps, steps)
    )
    model.save(tmp_path / "model.keras")
    copy = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(predict(copy, x), predict(model, x), atol=1e-6)


@pytest.mark.full
@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_cache_has_the_dtype_of_the_layer(random: np.random.Generator, dtype: str) -> None:
    layer, x = MultiHeadAttention(3, 4, mask="causal", dtype=dtype), random.normal(size=(B, T, D)).astype("float32")
    output, cache = layer(x, x, cache=layer.empty_cache(B, T))
    assert keras.backend.standardize_dtype(cache.key.dtype) == dtype.removeprefix("mixed_")
    np.testing.assert_allclose(numpy(output), numpy(layer(x, x)), atol=0.03)


@pytest.mark.full
def test_symbolic_shapes_with_a_cache() -> None:
    layer, steps = MultiHeadAttention(4, 2, num_kv_heads=2), keras.Input((1, D), batch_size=B)
    cache = KVCache(*(keras.KerasTensor(part.shape, part.dtype) for part in layer.empty_cache(B, 7)))
    output, weights, after = layer(steps, steps, cache=cache, return_attention_scores=True)
    assert (output.shape, weights.shape, after.key.shape) == ((B, 1, D), (B, 4, 1, 7), (B, 2, 7, 2))


@pytest.mark.full
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda layer, x: layer(x, x, attention_mask=np.ones((B, T, T), bool), cache=layer.empty_cache(B, T)),
            "no `attention_mask`.*value_mask",
        ),
        (lambda layer, x: layer(x, x, cache=layer.empty_cache(B + 1, T)), r"cache's, \(3, 3, 9, 4\)"),
        (lambda layer, x: MultiHeadAttention(3, 4, latent_dim=2)(x, x, x + 1), "same tensor.*Leave `key` out"),
        (lambda layer, x: layer(x, cache=layer.empty_cache(B, T)), "first call.*must have a `value`"),
        (lambda layer, x: (layer(x, x), layer(x)), "needs a `cache`.*value=None"),
        (
            lambda layer, x: (layer(x, x), layer(x, value_mask=x[..., 0] > 0, cache=layer.remember(x))),
            "mask.*`layer.remember`",
        ),
        (lambda layer, x: layer.remember(x), "must be built"),
        (lambda layer, x: MultiHeadAttention(3, 4, latent_dim=0), "`latent_dim` must be a positive integer or None"),
    ],
)
def test_invalid_calls_raise(random: np.random.Generator, wrong: Any, message: str) -> None:
    layer, x = MultiHeadAttention(3, 4), random.normal(size=(B, T, D)).astype("float32")
    with pytest.raises(ValueError, match=f"(?s){message}"):
        wrong(layer, x)


@pytest.mark.parametrize("counts", [(3, 3, 3), (1, 8)])
@pytest.mark.parametrize("latent", [None, full(5)])
def test_window_rolls_within_a_call_of_several_steps(
    random: np.random.Generator, counts: tuple[int, ...], latent: int | None
) -> None:
    layer = randomize(MultiHeadAttention(3, 4, mask=ll.masks.Causal() & ll.masks.SlidingWindow(2), latent_dim=latent))
    x = random.normal(size=(B, T, D)).astype("float32")
    real = np.array([[True] * T, [True, False] * 4 + [True]])
    x[~real] = np.nan
    alone = [array[real[b]][None] for b, array in enumerate(x)]

    def decode() -> list[Any]:
        cache, start, outputs = layer.empty_cache(B, 3), 0, []
        for count in counts:
            now = slice(start, start + count)
            output, weights, cache = layer(
                x[:, now], x[:, now], value_mask=real[:, now], cache=cache, return_attention_scores=True
            )
            assert weights.shape[-1] == (3 if count == 1 else 3 + count)
            assert cache.key.shape[2] == 3
            outputs.append(output)
            start += count
        return outputs

    outputs, *expected = run_together([decode, *(lambda steps=steps: layer(steps, steps)[0] for steps in alone)])
    decoded = np.concatenate([numpy(output) for output in outputs], axis=1)
    for b in range(B):
        np.testing.assert_allclose(decoded[b][real[b]], numpy(expected[b]), atol=3e-5)


@pytest.mark.full
def test_cache_can_be_an_input_of_a_model(random: np.random.Generator) -> None:
    layer = randomize(MultiHeadAttention(3, 4, mask="causal"))
    step = keras.Input((1, D))
    empty = layer.empty_cache(B, T)
    cache = KVCache(
        *(keras.Input(tuple(part.shape[1:]), dtype=keras.backend.standardize_dtype(part.dtype)) for part in empty)
    )
    output, new = layer(step, step, cache=cache)
    model = keras.Model([step, *cache], [output, *new])
    x = random.normal(size=(B, 2, D)).astype("float32")
    expected, now, seen = layer(x, x), tuple(empty), []
    for index in range(2):
        output, *now = model([ops.convert_to_tensor(x[:, index : index + 1]), *now])
        seen.append(numpy(output))
    np.testing.assert_allclose(np.concatenate(seen, axis=1), numpy(expected), atol=3e-5)
    assert numpy(now[3]).tolist() == [2, 2]


@pytest.mark.full
def test_latent_layer_accepts_its_value_as_key(random: np.random.Generator) -> None:
    layer, x = randomize(MultiHeadAttention(3, 4, latent_dim=5)), random.normal(size=(B, T, D))
    np.testing.assert_array_equal(numpy(layer(x, x, x)), numpy(layer(x, x)))
    np.testing.assert_array_equal(numpy(layer(x, key=x, value=x)), numpy(layer(x, x)))
    with pytest.raises(ValueError, match="Received: a `key` that is not the `value`"):
        layer(x, x, x + 1)


@pytest.mark.full
def test_cache_of_whole_sequences_does_not_roll(random: np.random.Generator) -> None:
    layer = randomize(MultiHeadAttention(3, 4, mask=ll.masks.Causal() & ll.masks.SlidingWindow(20)))
    x = random.normal(size=(B, T, D)).astype("float32")
    cached = [lambda: layer(x, x, cache=layer.empty_cache(B, T), return_attention_scores=True), lambda: layer(x, x)]
    (output, weights, _), expected = run_together(cached)
    assert tuple(weights.shape) == (B, 3, T, T)
    np.testing.assert_allclose(numpy(output), numpy(expected), atol=3e-5)


@pytest.mark.parametrize(
    "parts",
    [
        full({}),
        full({"num_kv_heads": 1, "score": ll.scores.Dot() + ll.positions.ALiBi()}),
        {"latent_dim": 5, "sliding_window": 4},
    ],
    ids=["plain", "grouped with positions", "latent with window"],
)
def test_remembered_memory_equals_the_memory(random: np.random.Generator, parts: dict[str, Any]) -> None:
    layer = randomize(MultiHeadAttention(3, 4, **parts))
    steps, memory = (random.normal(size=(B, length, D)).astype("float32") for length in (2, T))
    real = np.array([[False] + [True] * (T - 1), [True] * 4 + [False] * (T - 4)])

    def attend(cache: KVCache) -> Any:
        return layer(steps, cache=cache, return_attention_scores=True)

    for mask in (None, real):
        expected = layer(steps, memory, value_mask=mask, return_attention_scores=True)
        padded = memory if mask is None else np.where(mask[..., None], memory, np.float32("nan"))
        cache = layer.remember(ops.convert_to_tensor(padded), mask)
        output, weights = attend(cache)
        np.testing.assert_allclose(numpy(output), numpy(expected[0]), atol=2e-5)
        np.testing.assert_allclose(numpy(weights), numpy(expected[1]), atol=2e-6)
    if layer.latent_dim is None:
        layer.key_dense.kernel.assign(0 * layer.key_dense.kernel)
        np.testing.assert_array_equal(numpy(attend(cache)[1]), numpy(weights))


@pytest.mark.full
def test_symbolic_shapes_of_a_remembered_memory() -> None:
    layer = MultiHeadAttention(3, 4)
    layer.build((B, 1, D), (B, T, D))
    cache = KVCache(*(keras.KerasTensor(part.shape, part.dtype) for part in layer.remember(ops.ones((B, T, D)))))
    output, weights = layer(keras.Input((2, D), batch_size=B), cache=cache, return_attention_scores=True)
    assert (output.shape, weights.shape) == ((B, 2, D), (B, 3, 2, T))
