"""A small data set that can be learned, and settings that train on it in a moment."""

from pathlib import Path

import numpy as np

# As settings, and as a command line.
SMALL = {"epochs": 2, "units": 2, "width": 3, "batch_size": 16, "learning_rate": 0.01, "examples": 2}
HOSTILE = "good </script><img src=x onerror=alert(1)> [bold]film[/bold]"

_TELLING = {"good": ["good", "great", "lovely", "superb"], "bad": ["bad", "poor", "awful", "dull"]}
_OTHERS = ["the", "film", "plot", "actor", "scene", "music", "was", "and"]


def flags() -> list[str]:
    """`SMALL` as a command line."""
    return [word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def rows(count: int, seed: int = 7) -> list[tuple[str, str]]:
    """Different sentences of at most 12 words, each with one word that tells its class."""
    random = np.random.default_rng(seed)
    made: dict[str, str] = {}
    while len(made) < count:
        label = ("bad", "good")[len(made) % 2]
        words = list(random.choice(_OTHERS, size=random.integers(3, 12)))
        words.insert(random.integers(len(words)), random.choice(_TELLING[label]))
        made[" ".join(words)] = label
    return list(made.items())


def write(path: Path, count: int = 60) -> Path:
    """Write reviews to a .csv file, one of them hostile."""
    lines = ["review,sentiment", f'"{HOSTILE}",good', *(f"{text},{label}" for text, label in rows(count - 1))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
