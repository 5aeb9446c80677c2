"""A study of movie reviews as its runner writes it down, and maps of an encoder on some of them; always the same."""

from typing import Any

import numpy as np

from limelight.maps import AttentionMap, AttentionMaps

ATTACK = "</script><img src=x onerror=alert(1)>"
HOSTILE = "<img src=x onerror=alert(1)>"
FORECAST = {
    "id": HOSTILE,
    "kind": "smallest error",
    "error": 0.5,
    "past_times": ["2020-01", "2020-02", "2020-03"],
    "past": [1.0, 3.0, 2.0],
    "weights": [0.2, 0.3, 0.5],
    "times": ["2020-04", "2020-05"],
    "actual": [2.0, 4.0],
    "forecast": [2.5, 3.0],
    "low": [2.0, 2.0],
    "high": [3.0, 5.0],
    "naive": [2.0, 2.0],
}
TRANSLATION = {
    "kind": "most confident, wrong",
    "source": f"der {HOSTILE}",
    "source_units": ["der", HOSTILE],
    "references": ["the hound"],
    "hypotheses": [
        {
            "text": "the dog",
            "units": ["the", "dog", "</s>"],
            "probability": 0.5,
            "weights": [[0.9, 0.1], [0.25, 0.75], [0, 1]],
        },
        {"text": "a dog", "units": ["a", "dog"], "probability": 0.1, "weights": []},
    ],
}
METRICS = ("accuracy", "precision", "recall", "f1", "roc_auc", "log_loss")
REVIEWS = (
    ("positive", "a quietly moving film , carried by two performances of rare warmth ."),
    ("positive", "funny , tender and wise , it earns every one of its tears ."),
    ("negative", "the jokes are stale , the pacing is leaden and the ending is an insult ."),
    ("negative", "a dull , lifeless exercise that mistakes noise for excitement ."),
    (
        "positive",
        "what could have been a dull lecture becomes a gripping and beautiful portrait of a city and its people .",
    ),
    ("negative", "for all its good intentions , the picture never finds a reason to exist ."),
    ("negative", "it is not without charm , but the charm wears off long before the credits roll ."),
    ("positive", "flawed , overlong , and still the most exciting debut of the year ."),
    ("negative", f"a film so loud that it prints {ATTACK} on the screen and calls it wit ."),
    ("positive", "einfach großartig : eine kluge , warme komödie über das älterwerden ."),
    ("positive", "فيلم جميل ومؤثر عن الصداقة والأمل ."),
    ("negative", "この映画 は 退屈 で 長すぎる 。"),
)
STRONG = {
    "moving",
    "warmth",
    "funny",
    "tender",
    "wise",
    "stale",
    "leaden",
    "insult",
    "dull",
    "lifeless",
    "gripping",
    "beautiful",
    "never",
}
STRONG |= {"charm", "wears", "flawed", "exciting", "loud", "großartig", "kluge", "جميل", "退屈", "長すぎる", "reason"}
KINDS = ("most confident, right", "most confident, wrong", "least certain")


def make_examples() -> list[dict[str, Any]]:
    """Highlighted reviews, tokens cut at the spaces."""
    random = np.random.default_rng(11)
    examples = []
    for number, (truth, text) in enumerate(REVIEWS):
        tokens, offsets, start = text.split(" "), [], 0
        for token in tokens:
            offsets.append([start, start + len(token)])
            start += len(token) + 1
        scores = random.normal(0, 0.6, len(tokens)) + np.array([2.4 if token in STRONG else 0.0 for token in tokens])
        weights = np.exp(scores) / np.exp(scores).sum()
        kind = KINDS[(0, 0, 0, 0, 0, 2, 2, 1, 0, 1, 2, 1)[number]]
        other = {"positive": "negative", "negative": "positive"}[truth]
        examples.append(
            {
                "id": f"{number + 1}",
                "text": text,
                "tokens": tokens,
                "offsets": offsets,
                "truth": truth,
                "prediction": truth if kind == "most confident, right" or number % 2 else other,
                "probability": round(
                    float(random.uniform(0.5, 0.6) if kind == "least certain" else random.uniform(0.9, 0.99)), 4
                ),
                "weights": weights.tolist(),
                "kind": kind,
            }
        )
    return examples


def make_model(name: str, title: str, parameters: int, accuracy: float, *, seeds: int, neural: bool) -> dict[str, Any]:
    """One model with its runs, estimates, errors and reliability."""
    random = np.random.default_rng(len(name))
    level = {"accuracy": accuracy, "precision": accuracy + 0.004, "recall": accuracy - 0.003, "f1": accuracy}
    level |= {"roc_auc": accuracy + 0.078, "log_loss": 1.27 - accuracy}
    runs = []
    for seed in range(seeds):
        history = {}
        if neural:
            epochs = 5 + seed % 3
            steps = np.arange(epochs)
            history["loss"] = (0.68 * np.exp(-0.42 * steps) + random.normal(0, 0.012, epochs)).tolist()
            history["val_loss"] = (
                0.5 + 0.16 * np.exp(-1.1 * steps) + 0.022 * steps + random.normal(0, 0.012, epochs)
            ).tolist()
            history["accuracy"] = (0.97 - 0.38 * np.exp(-0.45 * steps) + random.normal(0, 0.004, epochs)).tolist()
            history["val_accuracy"] = (
                accuracy - 0.12 * np.exp(-1.2 * steps) + random.normal(0, 0.004, epochs)
            ).tolist()
        metrics = {key: float(value + random.normal(0, 0.006)) for key, value in level.items()}
        runs.append(
            {
                "seed": seed,
                "seconds": 14.2 + 3 * seed,
                "epochs": len(history.get("loss", [])) or None,
                "history": history,
                "metrics": metrics,
            }
        )
    right = round(530 * accuracy)
    return {
        "name": name,
        "title": title,
        "parameters": parameters,
        "runs": runs,
        "metrics": {
            key: {
                "value": value,
                "low": value - 0.026,
                "high": value + 0.025,
                "method": "Wilson" if key == "accuracy" else "BCa bootstrap",
                "n": 1060,
            }
            for key, value in level.items()
        },
        "seeds": {key: {"value": value, "low": value - 0.011, "high": value + 0.011} for key, value in level.items()}
        if seeds > 1
        else {},
        "per_class": [
            {
                "class": "negative",
                "precision": accuracy + 0.01,
                "recall": accuracy - 0.014,
                "f1": accuracy,
                "support": 530,
            },
            {
                "class": "positive",
                "precision": accuracy - 0.008,
                "recall": accuracy + 0.008,
                "f1": accuracy,
                "support": 530,
            },
        ],
        "confusion": [[right - 7, 537 - right], [526 - right, right + 4]],
        "reliability": [
            {
                "confidence": 0.52 + 0.05 * step,
                "accuracy": 0.5 + (0.036 if neural else 0.049) * step,
                "count": int(60 + 18 * step),
            }
            for step in range(10)
        ],
    }


def make_results() -> dict[str, Any]:
    """A whole study of movie reviews."""
    models = [
        make_model("attention", "LSTM + attention", 1_366_273, 0.764, seeds=5, neural=True),
        make_model("mean", "LSTM + mean pooling", 1_349_633, 0.749, seeds=5, neural=True),
        make_model("linear", "TF-IDF linear", 41_207, 0.771, seeds=1, neural=False),
    ]
    return {
        "schema_version": 1,
        "command": "limelight study movie-reviews --seeds 5 --out runs/movie-reviews",
        "title": "Movie reviews, with and without attention",
        "verdict": [
            "Attention raised accuracy from 74.9 to 76.4 % (difference +1.5 points, 95 % CI 0.3 to 2.7, p = .02, 5 seeds).",
            "The linear baseline without any network reaches 77.1 %; the difference to the attention model is within what "
            "chance explains (95 % CI −2.9 to 1.5).",
        ],
        "data": {
            "name": "movie-reviews",
            "source": "vaderSentiment 3.3.2, snippets of Pang and Lee (2005)",
            "kind": "text",
            "counts": {"train": 8268, "validation": 1032, "test": 1060},
            "classes": ["negative", "positive"],
            "balance": {
                "negative": {"train": 4130, "validation": 512, "test": 530},
                "positive": {"train": 4138, "validation": 520, "test": 530},
            },
            "fingerprint": "sha256:9b1f4c27d0e2a6",
            "repairs": [{"what": "duplicates removed", "count": 24}, {"what": "mixed reviews left out", "count": 293}],
        },
        "environment": {
            "limelight": "0.1.0",
            "keras": "3.15.1",
            "backend": "jax 0.10.2",
            "numpy": "2.4.1",
            "python": "3.11.2",
        },
        "settings": {
            "units": 64,
            "embedding": 64,
            "vocabulary": 20000,
            "batch_size": 64,
            "learning_rate": 0.001,
            "dropout": 0.5,
            "seeds": [0, 1, 2, 3, 4],
        },
        "models": models,
        "comparisons": [
            {
                "first": "attention",
                "second": "mean",
                "metric": "accuracy",
                "difference": 0.015,
                "low": 0.003,
                "high": 0.027,
                "p_value": 0.0204,
                "method": "paired bootstrap, exact McNemar test",
                "sentence": "Attention is more accurate than mean pooling.",
            },
            {
                "first": "attention",
                "second": "linear",
                "metric": "accuracy",
                "difference": -0.007,
                "low": -0.029,
                "high": 0.015,
                "p_value": 0.53,
                "method": "paired bootstrap, exact McNemar test",
                "sentence": "No difference to the linear model can be told.",
            },
        ],
        "examples": make_examples(),
    }


def make_maps(*, layers: int = 3, heads: int = 4, seed: int = 3) -> AttentionMaps:
    """Self-attention of an encoder on three reviews, padded to one length, and its pooling on top."""
    random = np.random.default_rng(seed)
    texts = [REVIEWS[index][1].split(" ") for index in (0, 4, 8)]
    length = max(map(len, texts)) + 2
    maps = []
    for layer in range(layers):
        weights = np.zeros((len(texts), heads, length, length), np.float32)
        for index, tokens in enumerate(texts):
            count = len(tokens)
            apart = np.abs(np.arange(count)[:, None] - np.arange(count)[None])
            for head in range(heads):
                scores = random.normal(0, 0.7, (count, count)) - apart * (0.9 / (1 + 1.5 * head + layer))
                scores += np.array([1.8 if token in STRONG else 0.0 for token in tokens]) * (layer / 2)
                held = np.exp(scores)
                weights[index, head, :, :count] = np.float32(1 / count)
                weights[index, head, :count, :count] = held / held.sum(axis=1, keepdims=True)
        maps.append(AttentionMap.from_weights(weights, path=f"encoder/block_{layer + 1}", tokens=texts))
    pooled = np.zeros((len(texts), 1, 1, length), np.float32)
    for index, tokens in enumerate(texts):
        scores = np.array([2.0 if token in STRONG else 0.0 for token in tokens]) + random.normal(0, 0.5, len(tokens))
        pooled[index, 0, 0, : len(tokens)] = np.exp(scores) / np.exp(scores).sum()
    maps.append(AttentionMap.from_weights(pooled, path="pooling", tokens=texts))
    return AttentionMaps(maps)
