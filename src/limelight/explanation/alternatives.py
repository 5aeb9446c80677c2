"""Other attention for the same prediction: permuted weights, and the most different weights that move it little."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from limelight import evaluate
from limelight.evaluate.perturbation import output_distance
from limelight.explanation.checkpoint import Checkpoint
from limelight.explanation.instrumented import Batch, InstrumentedModel
from limelight.explanation.rankings import Attributions

# How far a prediction may move to count as the same: total variation distance (Jain and Wallace 2019).
TOLERANCE = 0.05
# Adam, on logits.
_LEARNING_RATE, _MOMENTUM, _DECAY = 0.5, 0.9, 0.999
_INITIAL_SPREAD = 3.0


@dataclasses.dataclass(frozen=True, eq=False)
class Adversarial:
    """The most different attention found for each example.

    Args:
        divergence: its Jensen-Shannon divergence from the model's own (n,), the mean over heads and queries; 0 if none was found.
        moved: how far the prediction is from the model's own (n,).
        weights: the attention (N, T, S) of each example.
    """

    divergence: np.ndarray
    moved: np.ndarray
    weights: list[np.ndarray]


def permute_attention(
    model: InstrumentedModel,
    attributions: Attributions,
    permutations: int,
    scale: float,
    seed: int,
    on_step: Callable[[int], None] = lambda count: None,
    checkpoint: Checkpoint | None = None,
) -> np.ndarray:
    """Return for each example the median over permutations of the distance to its prediction (n,), in units of `scale`."""
    subject = model.subject
    checkpoint = checkpoint or Checkpoint(None, subject)

    def predict_with_attention(index: int, weights: np.ndarray) -> np.ndarray:
        length = model.padded_length(index)

        def compute() -> dict[str, np.ndarray]:
            batch = model.make_batch(np.array([index]), length, rows=1)
            return {"outputs": model.predict(batch, _pad_weights(model, weights, length))}

        outputs = checkpoint.compute(f"permuted {index}", compute)["outputs"]
        on_step(len(weights))
        return outputs

    medians = evaluate.permutation_test(
        predict_with_attention,
        attributions.weights,
        permitted=attributions.permitted,
        permutations=permutations,
        output=subject.output,
        seed=seed,
    )
    return medians / scale


def find_adversarial(
    model: InstrumentedModel,
    attributions: Attributions,
    *,
    restarts: int,
    iterations: int,
    scale: float,
    seed: int,
    on_step: Callable[[int], None] = lambda count: None,
    checkpoint: Checkpoint | None = None,
) -> Adversarial:
    r"""Search the attention that diverges most from the model's own among those that hardly move the prediction.

    From random starts, Adam raises $\mathrm{JSD}(a, a') - 20 \max(0, \mathrm{TVD}(y, y') - 0.9\,\epsilon)$ in the logits of the
    weights. Of all weights on the way the best are kept that move the prediction by at most $\epsilon = 0.05$. What is found is a
    lower bound.

    Args:
        model, attributions: the model and its own attention.
        restarts: random starts of each example.
        iterations: steps from each start.
        scale: the unit of the distance: 1 for probabilities, and the spread of the predictions for values.
        seed: seed of the starts.
        on_step: called with the number of examples that were run.
        checkpoint: stores the divergence of each example, but not the weights, which stay those of the model then.
    """
    rng, count = np.random.default_rng(seed), len(attributions.weights)
    checkpoint = checkpoint or Checkpoint(None, model.subject)
    divergence, moved = np.zeros(count), np.zeros(count)
    found = [np.array(weights) for weights in attributions.weights]
    for number, batch in enumerate(model.batches()):
        own, permitted = _stack(model, batch, attributions)
        logits = rng.normal(scale=_INITIAL_SPREAD, size=(len(own) * restarts, *own.shape[1:]))
        # The first start is close to equal weights.
        logits[::restarts] *= 0.1

        def compute(
            batch: Batch = batch, own: np.ndarray = own, permitted: np.ndarray = permitted, logits: np.ndarray = logits
        ) -> dict[str, Any]:
            outputs = attributions.outputs[batch.filled]
            best, distance, weights = _search(
                model, batch, own, permitted, outputs, logits, iterations, TOLERANCE * scale
            )
            for row, index in enumerate(batch.indices):
                if best[row] > 0:
                    found[index] = _crop(weights[row], attributions.weights[index])
            return {"divergence": best[: len(batch.indices)], "moved": distance[: len(batch.indices)]}

        results = checkpoint.compute(f"adversarial {number}", compute)
        divergence[batch.indices], moved[batch.indices] = results["divergence"], results["moved"]
        on_step(iterations * restarts * len(batch.indices))
    return Adversarial(divergence, moved / scale, found)


def _search(
    model: InstrumentedModel,
    batch: Batch,
    own: np.ndarray,
    permitted: np.ndarray,
    outputs: np.ndarray,
    logits: np.ndarray,
    iterations: int,
    limit: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each row of a batch the largest divergence that was found, how far the prediction is, and the weights."""
    restarts = len(logits) // len(own)
    best, moved, found = np.zeros(len(own)), np.zeros(len(own)), np.array(own)
    own, permitted, outputs = (np.repeat(array, restarts, axis=0) for array in (own, permitted, outputs))
    first, second = np.zeros_like(logits), np.zeros_like(logits)
    for step in range(1, iterations + 1):
        gradient, weights, reached = model.adversarial_gradients(batch, logits, own, permitted, outputs, limit)
        distance = output_distance(reached, outputs, model.subject.output)
        divergence = evaluate.jensen_shannon(own, weights)
        # A row that may attend to nothing has no divergence.
        attends = permitted.any(-1)
        divergence = (divergence * attends).sum((1, 2)) / np.maximum(attends.sum((1, 2)), 1)
        for row in np.flatnonzero(distance <= limit):
            example = row // restarts
            if divergence[row] > best[example]:
                best[example], moved[example], found[example] = divergence[row], distance[row], weights[row]
        first = _MOMENTUM * first + (1 - _MOMENTUM) * gradient
        second = _DECAY * second + (1 - _DECAY) * gradient**2
        rate = _LEARNING_RATE * np.sqrt(1 - _DECAY**step) / (1 - _MOMENTUM**step)
        logits = logits - rate * first / (np.sqrt(second) + 1e-8)
    return best, moved, found


def _stack(model: InstrumentedModel, batch: Batch, attributions: Attributions) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights of a batch (B, N, T, S) and where they may be."""
    length = batch.mask.shape[1]
    weights = [_pad_weights(model, attributions.weights[index][None], length)[0] for index in batch.filled]
    permitted = [_pad_weights(model, attributions.permitted[index][None], length)[0] for index in batch.filled]
    return np.stack(weights), np.stack(permitted).astype(bool)


def _pad_weights(model: InstrumentedModel, weights: np.ndarray, length: int) -> np.ndarray:
    """Pad weights (m, N, T, S) to the length of a batch; of self-attention the queries too."""
    if model.levels is not None:
        return weights
    missing = length - weights.shape[-1]
    widths: Any = [(0, 0), (0, 0), (0, missing if model.key in model.self_attention else 0), (0, missing)]
    return np.pad(weights, widths)


def _crop(weights: np.ndarray, like: np.ndarray) -> np.ndarray:
    return np.array(weights[:, : like.shape[1], : like.shape[2]])
