"""A small data set that a classifier can learn, and settings that train on it in a moment."""

from pathlib import Path

import numpy as np

SMALL = {
    "epochs": 2,
    "epoch_steps": 1,
    "units": 2,
    "width": 3,
    "batch_size": 16,
    "learning_rate": 0.01,
    "examples": 2,
    "explain": 0,
}
# `SMALL` as a command line.
COMMAND = [
    *("study", "reviews.csv", "--seeds", "1"),
    *(word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", str(value))),
]
HOSTILE = "good </script><img src=x onerror=alert(1)> [bold]film[/bold]"

_SENTIMENT_WORDS = {"good": ["good", "great", "lovely", "superb"], "bad": ["bad", "poor", "awful", "dull"]}
_NEUTRAL_WORDS = ["the", "film", "plot", "actor", "scene", "music", "was", "and"]


def rows(count: int, seed: int = 7) -> list[tuple[str, str]]:
    """Return distinct sentences of at most 12 words, each with one word that reveals its class."""
    random = np.random.default_rng(seed)
    labels: dict[str, str] = {}
    while len(labels) < count:
        label = ("bad", "good")[len(labels) % 2]
        words = list(random.choice(_NEUTRAL_WORDS, size=random.integers(3, 12)))
        words.insert(random.integers(len(words)), random.choice(_SENTIMENT_WORDS[label]))
        labels[" ".join(words)] = label
    return list(labels.items())


def write(path: Path, count: int = 60) -> Path:
    """Write reviews to a .csv file, one of them with HTML and markup."""
    lines = ["review,sentiment", f'"{HOSTILE}",good', *(f"{text},{label}" for text, label in rows(count - 1))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
