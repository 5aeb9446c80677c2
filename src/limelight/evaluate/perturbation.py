"""Change an input or its attention and measure how far the prediction moves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from limelight._distributions import total_variation

# Takes m examples (T, ...) of any lengths, returns probabilities (m, K). A trained model in inference mode: no dropout.
Predict = Callable[[list[np.ndarray]], Any]

# Takes the index of an example and weights (m, ..., T) that replace its attention, returns probabilities (m, K) or values.
PredictWithAttention = Callable[[int, np.ndarray], Any]

BATCH_SIZE = 1024


@dataclass(frozen=True)
class Delete:
    """Delete tokens from an example: the tokens after them move up, so their positions change.

    Args:
        blank: The token that remains if all are deleted, such as the id of the unknown token.
        name: Description for reports.

    Example:
        >>> Delete()(np.array([7, 8, 9]), np.array([True, False, True]))
        array([7, 9])
    """

    blank: Any = 0
    name: str = "deleted"

    def __call__(self, example: np.ndarray, keep: np.ndarray) -> np.ndarray:
        """Return an example (T, ...) without the tokens at which `keep` (T,) is False."""
        if not keep.any():
            return np.full_like(example[:1], self.blank)
        return example[keep]


@dataclass(frozen=True)
class Replace:
    """Replace tokens by a value: positions stay, but the model may not have seen that value there in training.

    Args:
        value: The id of the padding or the unknown token; for a series, a value or a mean frame.
        name: Description for reports, such as "replaced by padding".

    Example:
        >>> Replace(1, "replaced by the unknown token")(np.array([7, 8, 9]), np.array([True, False, True]))
        array([7, 1, 9])
    """

    value: Any
    name: str = "replaced"

    def __call__(self, example: np.ndarray, keep: np.ndarray) -> np.ndarray:
        """Return an example (T, ...) with the value at every position where `keep` (T,) is False."""
        perturbed = np.array(example)
        perturbed[~keep] = self.value
        return perturbed


def check_output(output: str) -> None:
    """Check that the outputs of a model are of a kind that is known.

    Raises:
        ValueError: `output` is neither "probabilities" nor "values".
    """
    if output not in ("probabilities", "values"):
        raise ValueError(
            f'`output` must be "probabilities" (a classifier) or "values" (a regressor). Received: {output!r}.'
        )


def predict_values(predict: Predict, examples: Sequence[np.ndarray]) -> np.ndarray:
    """Return the values (m, D) that a regressor predicts for examples, in batches of 1024.

    Raises:
        ValueError: The predictions are not one finite value, or one row of them, for each example.
    """
    batches = []
    for start in range(0, len(examples), BATCH_SIZE):
        batch = list(examples[start : start + BATCH_SIZE])
        values = np.asarray(predict(batch), dtype=np.float64)
        if values.ndim < 1 or len(values) != len(batch) or not np.isfinite(values).all():
            raise ValueError(
                f"`predict` must return finite values (m,) or (m, ...), one row for each of m = {len(batch)} examples. "
                f"Received: shape {values.shape}, {int((~np.isfinite(values)).sum())} values not finite."
            )
        batches.append(values.reshape(len(batch), -1))
    return np.concatenate(batches)


def predict_in_batches(predict: Predict, examples: Sequence[np.ndarray]) -> np.ndarray:
    """Return probabilities (m, K) of examples, predicted in batches of 1024.

    Raises:
        ValueError: The predictions are not one row for each example, or not probabilities.
    """
    batches = []
    for start in range(0, len(examples), BATCH_SIZE):
        batch = list(examples[start : start + BATCH_SIZE])
        probabilities = np.asarray(predict(batch), dtype=np.float64)
        if probabilities.ndim != 2 or len(probabilities) != len(batch) or probabilities.shape[1] < 2:
            raise ValueError(
                f"`predict` must return probabilities (m, K), one row for each of m = {len(batch)} examples, K > 1. "
                f"Received: shape {probabilities.shape}. For one sigmoid p return [1 - p, p]; "
                'for a regressor, pass output="values".'
            )
        sums = probabilities.sum(1)
        if not np.isfinite(probabilities).all() or probabilities.min() < 0 or np.abs(sums - 1).max() > 1e-3:
            raise ValueError(
                "`predict` must return probabilities, rows summing to 1. "
                f"Received: values from {probabilities.min():.4g} to {probabilities.max():.4g}, sums from "
                f"{sums.min():.4g} to {sums.max():.4g}."
            )
        batches.append(probabilities)
    return np.concatenate(batches)


def leave_one_out(
    predict: Predict,
    examples: Sequence[Any],
    *,
    perturbation: Delete | Replace | None = None,
    output: str = "probabilities",
    width: int = 1,
    signed: bool = False,
    labels: Sequence[int] | np.ndarray | None = None,
) -> list[np.ndarray]:
    """Return for each token how far the prediction moves if that token is removed.

    Args:
        predict: Takes a list of examples (T, ...), returns probabilities (m, K), or values (m,) or (m, ...).
        examples: The examples, arrays (T, ...).
        perturbation: How a token is removed; `Delete()` by default.
        output: "probabilities" for a classifier, "values" for a regressor.
        width: Number of neighbouring tokens that are removed together (occlusion); a token then has the mean over all windows
            that hold it.
        signed: Return the fall of the probability of the predicted class, below 0 if the token speaks against it; not a distance.
        labels: The class of each example whose probability is meant with `signed`; the predicted one by default.

    Returns:
        For each example an array (T,): the total variation distance of its prediction with and without the token; for a
        regressor the absolute difference, mean over its outputs.

    Raises:
        ValueError: `width` is below 1, `output` is unknown, or `signed` is asked of a regressor, which has no predicted class.

    Example:
        >>> def predict(batch):
        ...     positive = np.array([np.mean(example == 7) for example in batch])
        ...     return np.stack([1 - positive, positive], axis=1)
        >>> leave_one_out(predict, [np.array([7, 1])])[0]
        array([0.5, 0.5])
    """
    check_output(output)
    if width < 1 or (signed and output != "probabilities"):
        raise ValueError(
            '`width` must be at least 1, and `signed` needs output="probabilities". '
            f"Received: width={width}, signed={signed}, output={output!r}."
        )
    perturbation = perturbation or Delete()
    arrays = [np.asarray(example) for example in examples]
    windows = [_slide_window(len(array), width) for array in arrays]
    predict_all = predict_in_batches if output == "probabilities" else predict_values
    original = predict_all(predict, arrays)
    perturbed = [perturbation(array, ~removed) for array, rows in zip(arrays, windows, strict=True) for removed in rows]
    predictions = predict_all(predict, perturbed) if perturbed else np.zeros((0, original.shape[1]))
    counts = [len(rows) for rows in windows]
    originals = original[np.repeat(np.arange(len(arrays)), counts)]
    if signed:
        chosen = original.argmax(1) if labels is None else np.asarray(labels)
        chosen = np.repeat(chosen, counts)[:, None]
        changes = (np.take_along_axis(originals, chosen, 1) - np.take_along_axis(predictions, chosen, 1))[:, 0]
    else:
        changes = output_distance(predictions, originals, output)
    parts = np.split(changes, np.cumsum(counts)[:-1])
    return [part @ rows / rows.sum(0) for part, rows in zip(parts, windows, strict=True)]


def _slide_window(length: int, width: int) -> np.ndarray:
    """Return each place of a window over tokens, bool (windows, length); those at the ends are cut off."""
    starts = np.arange(1 - width, length)[:, None]
    tokens = np.arange(length)
    return (tokens >= starts) & (tokens < starts + width)


def permutation_test(
    predict_with_attention: PredictWithAttention,
    attention: Sequence[Any],
    *,
    permitted: Sequence[Any] | None = None,
    permutations: int = 100,
    output: str = "probabilities",
    seed: int = 0,
) -> np.ndarray:
    """Return for each example how far its prediction moves if its attention weights are permuted.

    A small value means that the prediction does not depend on which token has which weight.

    Args:
        predict_with_attention: Takes the index of an example and weights (m, ..., T) that replace its attention, returns
            probabilities (m, K), or values (m,) or (m, ...).
        attention: For each example its attention weights (T,), or (..., T) for several heads and queries, each of which is
            permuted on its own.
        permitted: For each example bool of the shape of its weights, True where a weight may be; all by default.
        permutations: Number of permutations of each example.
        output: "probabilities" for a classifier, "values" for a regressor.
        seed: Seed of the permutations.

    Returns:
        For each example the median over permutations of the total variation distance to its own prediction (N,); for a regressor
        of the absolute difference, mean over its outputs.

    Raises:
        ValueError: `predict_with_attention` does not return one row for each row of weights.

    Example:
        >>> values = np.array([0.0, 1.0])
        >>> def predict_with_attention(example, weights):
        ...     positive = weights @ values
        ...     return np.stack([1 - positive, positive], axis=1)
        >>> permutation_test(predict_with_attention, [[0.5, 0.5]])
        array([0.])

    Jain and Wallace (arXiv:1902.10186), section 4.2.1.
    """
    check_output(output)
    rng, medians = np.random.default_rng(seed), []
    for index, row in enumerate(attention):
        weights = np.asarray(row, dtype=np.float64)
        allowed = np.ones(weights.shape, bool) if permitted is None else np.asarray(permitted[index], bool)
        permuted = np.concatenate([weights[None], _permute(weights, allowed, permutations, rng)])
        outputs = np.asarray(predict_with_attention(index, permuted), dtype=np.float64)
        outputs = outputs.reshape(len(outputs), -1) if output == "values" and outputs.ndim else outputs
        if outputs.ndim != 2 or len(outputs) != len(permuted):
            raise ValueError(
                f"`predict_with_attention` must return probabilities (m, K) for weights (m, T), m = {len(permuted)}. "
                f"Received: shape {outputs.shape}."
            )
        medians.append(np.median(output_distance(outputs[1:], outputs[0], output)))
    return np.array(medians)


def _permute(weights: np.ndarray, permitted: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return permutations (count, ..., T) of weights (..., T), each row on its own, among the places where they may be."""
    places = np.broadcast_to(permitted, (count, *weights.shape))
    # The permitted places first, once in order and once shuffled.
    ordered = np.argsort(~places, axis=-1, kind="stable")
    shuffled = np.argsort(np.where(places, rng.random(places.shape), 2.0), axis=-1, kind="stable")
    permuted = np.empty(places.shape)
    values = np.take_along_axis(np.broadcast_to(weights, places.shape), shuffled, axis=-1)
    np.put_along_axis(permuted, ordered, values, axis=-1)
    return permuted


def output_distance(first: np.ndarray, second: np.ndarray, output: str) -> np.ndarray:
    """Return the total variation distance of probabilities (..., K), or the mean absolute difference of values (..., D)."""
    return total_variation(first, second) if output == "probabilities" else np.abs(first - second).mean(-1)
