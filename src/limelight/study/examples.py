"""Test examples worth looking at, and what the model looks at in them."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from limelight import inspection
from limelight.data import pad, padded_length
from limelight.maps import AttentionMaps
from limelight.study.pipelines import Material

RIGHT, WRONG, UNCERTAIN = "confident and right", "confident and wrong", "uncertain"


def choose(probabilities: np.ndarray, truth: np.ndarray, count: int) -> dict[str, list[int]]:
    """Choose up to `count` examples of each kind, none twice.

    The confident ones are those of the largest probability, taken from each predicted class in turn; the uncertain ones
    those whose two largest probabilities lie closest.

    Args:
        probabilities: (examples, classes).
        truth: Classes (examples,).
        count: Examples of each kind.

    Example:
        >>> probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.45, 0.55]])
        >>> choose(probabilities, np.array([0, 1, 1, 0]), 1)
        {'confident and right': [0], 'confident and wrong': [2], 'uncertain': [3]}
    """
    predicted, ordered = probabilities.argmax(1), np.sort(probabilities, axis=1)
    surest = np.argsort(-ordered[:, -1], kind="stable")
    closest = np.argsort(ordered[:, -1] - ordered[:, -2], kind="stable")
    right = predicted == truth
    chosen = {
        RIGHT: _in_turn([index for index in surest.tolist() if right[index]], predicted)[:count],
        WRONG: _in_turn([index for index in surest.tolist() if not right[index]], predicted)[:count],
    }
    taken = {index for indices in chosen.values() for index in indices}
    chosen[UNCERTAIN] = [index for index in closest.tolist() if index not in taken][:count]
    return chosen


def look(
    model: keras.Model,
    material: Material,
    chosen: dict[str, list[int]],
    *,
    identities: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
) -> tuple[list[dict[str, Any]], AttentionMaps | None]:
    """Capture the attention of a model on chosen test examples.

    Args:
        model: A classifier whose layer `attention` pools.
        material: The data.
        chosen: What `choose` returned.
        identities: For each test example its place in the data set.
        probabilities: For each test example those of the classes.
        classes: Their names.

    Returns:
        The examples for the report, and the maps, one example after the other in the same order; None where there is none.
    """
    indices = [index for group in chosen.values() for index in group]
    if not indices:
        return [], None
    part = material.parts["test"]
    sequences = [part.sequences[index] for index in indices]
    values, mask = pad(sequences, padded_length(max(len(sequence) for sequence in sequences)))
    described = [material.describe(index) for index in indices]
    batch = values if values.ndim == 2 else {"steps": values, "mask": mask}
    maps = inspection.capture(model, batch, tokens=[each["tokens"] for each in described])
    weights = maps["attention"].weights()[:, 0, 0]  # (examples, steps)
    kinds = [kind for kind, group in chosen.items() for _ in group]
    examples = []
    for place, (index, kind) in enumerate(zip(indices, kinds, strict=True)):
        prediction = int(probabilities[index].argmax())
        examples.append(
            {
                "id": str(int(identities[index])),
                **described[place],
                "truth": classes[int(part.labels[index])],
                "prediction": classes[prediction],
                "probability": float(probabilities[index, prediction]),
                "weights": weights[place, : len(sequences[place])].astype(float).tolist(),
                "kind": kind,
            }
        )
    return examples, maps


def _in_turn(indices: list[int], predicted: np.ndarray) -> list[int]:
    """Reorder so that the predicted classes take turns, each keeping its own order."""
    seen: dict[int, int] = {}
    rank = {}
    for place, index in enumerate(indices):
        kind = int(predicted[index])
        rank[index] = (seen.get(kind, 0), place)
        seen[kind] = seen.get(kind, 0) + 1
    return sorted(indices, key=rank.__getitem__)
