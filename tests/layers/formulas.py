"""The layers' formulas as loops in numpy."""

import numpy as np


def softmax(scores: np.ndarray, permitted: np.ndarray | None = None) -> np.ndarray:
    """The softmax of one row of scores over what is permitted; zeros where nothing is."""
    permitted = np.ones(len(scores), bool) if permitted is None else np.asarray(permitted, bool)
    weights = np.zeros(len(scores))
    if permitted.any():
        raised = np.exp(scores[permitted] - scores[permitted].max())
        weights[permitted] = raised / raised.sum()
    return weights


def attention(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    *,
    permitted: np.ndarray | None = None,
    scale: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Output (T, V) and weights (T, S) of one head."""
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    weights = np.zeros((len(query), len(key)))
    for i in range(len(query)):
        scores = np.array([factor * sum(a * b for a, b in zip(query[i], key[j], strict=True)) for j in range(len(key))])
        weights[i] = softmax(scores, None if permitted is None else permitted[i])
    return weights @ value, weights


def project(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """(T, D) through a kernel (D, N, H) and bias (N, H): (T, N, H)."""
    heads, size = bias.shape
    projected = np.zeros((len(x), heads, size))
    for t, n, h in np.ndindex(*projected.shape):
        projected[t, n, h] = sum(x[t] * kernel[:, n, h]) + bias[n, h]
    return projected


def multi_head(query: np.ndarray, value: np.ndarray, weights: list, permitted: np.ndarray | None = None) -> tuple:
    """Output (T, D) and weights (N, T, S) of one example, from the layer's weights in their order."""
    query_kernel, query_bias, key_kernel, key_bias, value_kernel, value_bias, out_kernel, out_bias = weights
    q, k = project(query, query_kernel, query_bias), project(value, key_kernel, key_bias)
    v = project(value, value_kernel, value_bias)
    heads, groups = q.shape[1], q.shape[1] // k.shape[1]
    output, seen = np.zeros((len(query), out_kernel.shape[-1])) + out_bias, []
    for n in range(heads):
        read, given = attention(q[:, n], k[:, n // groups], v[:, n // groups], permitted=permitted)
        output += read @ out_kernel[n]
        seen.append(given)
    return output, np.array(seen)
