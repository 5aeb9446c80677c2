"""Record what the entmax package computes, so that the tests compare every backend with it and need no torch.

    python tests/parity/record_entmax.py

writes entmax.json beside this file. It needs torch and entmax 1.3. A test on torch sees to it that the file is what this gives.
"""

import json
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("entmax.json")
ROWS, COLUMNS = 3, 11
ALPHAS = (1.05, 1.25, 1.5, 2.0, 2.5, 4.0)


def inputs() -> tuple[np.ndarray, np.ndarray]:
    """Scores, float32 (kinds, rows, columns), and what the sum of their weights is weighted by."""
    random = np.random.default_rng(41)
    shape = (ROWS, COLUMNS)
    kinds = [
        random.normal(size=shape),
        5 * random.normal(size=shape),
        # Ties, at the peak and at the threshold.
        random.integers(-1, 2, shape),
        np.repeat(random.normal(size=(ROWS, 1)), COLUMNS, axis=1),
        # Large: one peak each, and two near each other that lie far above the others.
        1e5 * random.normal(size=shape),
        np.where(np.arange(COLUMNS) < 2, 1e4 + random.uniform(size=shape), -1e4 * random.uniform(size=shape)),
    ]
    return np.stack(kinds).astype("float32"), random.normal(size=(len(kinds), *shape)).astype("float32")


def measured() -> dict[str, list]:
    """The inputs, and the weights and gradients of each function, computed in float64."""
    import entmax
    import torch

    functions = {"sparsemax": entmax.sparsemax, "entmax15": entmax.entmax15}
    functions |= {
        f"entmax {alpha}": lambda x, alpha=alpha: entmax.entmax_bisect(x, alpha, n_iter=80) for alpha in ALPHAS
    }
    scores, target = inputs()
    results = {"scores": listed(scores), "target": listed(target)}
    for name, function in functions.items():
        point = torch.tensor(scores, dtype=torch.float64, requires_grad=True)
        weights = function(point)
        (weights * torch.tensor(target, dtype=torch.float64)).sum().backward()
        results[f"{name}: weights"] = listed(weights.detach().numpy())
        results[f"{name}: gradient"] = listed(point.grad.numpy())
    return results


def listed(array: np.ndarray) -> list:
    """An array as lists of numbers of nine digits, which hold a float32 exactly."""
    return [listed(part) if isinstance(part, np.ndarray) else float(f"{part:.9g}") for part in array]


if __name__ == "__main__":
    FILE.write_text(json.dumps(measured(), separators=(",", ":")).replace("]]],", "]]],\n") + "\n")
