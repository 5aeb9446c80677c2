"""Selected weights equal those of all, and only the selected ones are computed."""

from typing import Any

import keras
import numpy as np
import pytest

import limelight as ll
from contracts.cases import CASES, B, N, S, T
from contracts.computing import inputs, numpy, randomize
from contracts.representative import full
from limelight.engine import thresholds

BACKEND = keras.backend.backend()
NAMES = (
    "defaults",
    full("normed rotary plus alibi"),
    "learned sink",
    full("allowed"),
    "segments",
    "sparsemax",
    full("monotonic"),
    "shaw",
    full("bias"),
)


@pytest.mark.parametrize("kv_heads", [N, full(1)])
@pytest.mark.parametrize("name", NAMES)
def test_selected_weights_equal_those_of_all(name: str, kv_heads: int) -> None:
    case = next(case for case in CASES if case.name == name)
    query, key, _ = inputs(case.size, kv_heads)
    parts = case.parts()
    randomize(parts, query, key)
    weights = numpy(ll.attention_weights(query, key, **parts))
    selected = numpy(ll.attention_weights(query, key, **parts, heads=[2, 0], rows=slice(1, 4)))
    np.testing.assert_allclose(selected, weights[:, [2, 0], 1:4], atol=1e-6)
    # Blocks of two rows of five: the last one repeats a row of the block before.
    with thresholds.using(scores_per_block=2 * B * N * S * 11):
        by_column = numpy(ll.attention_weights(query, key, **parts, columns=[-1, 3]))
        by_all = numpy(ll.attention_weights(query, key, **parts, rows=[4, 0, 1], columns=2, heads=-1))
    np.testing.assert_allclose(by_column, weights[..., [6, 3]], atol=1e-6)
    np.testing.assert_allclose(by_all, weights[:, 2:, [4, 0, 1], 2:3], atol=1e-6)


@pytest.mark.full
def test_leading_axes_are_restored() -> None:
    query, key, _ = (array[0] for array in inputs(11))
    assert ll.attention_weights(query[0], key[0], rows=2).shape == (1, S)
    assert ll.attention_weights(query, key, columns=slice(0, 2)).shape == (N, T, 2)
    many_axes = [np.broadcast_to(array, (2, 3, *array.shape)) for array in (query, key)]
    assert ll.attention_weights(*many_axes, heads=[True, False, True], rows=0).shape == (2, 3, 2, 1, S)


@pytest.mark.parametrize(
    ("selection", "error", "message"),
    [
        ({"rows": 5}, IndexError, r"`rows` must lie in 0 \.\. 4\. Received: 5"),
        ({"columns": [0.5]}, TypeError, "`columns` must be an int, a slice, a list of ints or 7 bools"),
    ],
)
def test_invalid_selections_raise(selection: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ll.attention_weights(*inputs(11)[:2], **selection)


def test_heads_need_an_axis() -> None:
    query, key, _ = (array[0, 0] for array in inputs(11))
    with pytest.raises(ValueError, match=r"axis for heads\. Received: heads=0"):
        ll.attention_weights(query, key, heads=0)


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX shows all shapes before it computes")
@pytest.mark.parametrize("selection", [{"rows": [7, 99], "heads": 1}, {"columns": [5]}])
def test_no_array_of_all_pairs_is_made(selection: dict[str, Any]) -> None:
    import jax
    from jax.extend.core import jaxprs_in_params

    rows, columns = 499, 503
    arrays = [jax.ShapeDtypeStruct((1, 2, length, 4), "float32") for length in (rows, columns)]
    with thresholds.using(scores_per_block=1 << 14):
        traced = jax.make_jaxpr(lambda query, key: ll.attention_weights(query, key, mask="causal", **selection))(
            *arrays
        )

    def sizes(jaxpr: Any) -> Any:
        for equation in jaxpr.eqns:
            yield from (int(np.prod(variable.aval.shape)) for variable in equation.outvars)
            for inner in jaxprs_in_params(equation.params):
                yield from sizes(inner)

    assert max(sizes(traced.jaxpr)) <= 1 << 14
