"""Examples with a weight for each token, cut into the pieces that are highlighted."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from limelight._formatting import format_count, to_finite
from limelight.report.figures import shade
from limelight.report.results import as_list


def read_examples(examples: Any) -> list[dict[str, Any]]:
    """Return the examples in the form that the page uses.

    The text is cut into `pieces`, one for each token, with `gaps` before, between and after them; `ghosts` are the tokens
    without characters in the text, such as a start token. Without a text, tokens that are all numbers are the steps of a
    `series`, which is shown as bars.

    Raises:
        TypeError: `examples` is not a list of mappings.
        ValueError: The number of weights or offsets of an example differs from its number of tokens.
    """
    if isinstance(examples, Mapping | str) or not all(isinstance(example, Mapping) for example in examples or ()):
        raise TypeError(
            "`examples` must be a list of mappings with `tokens` and `weights`. Received: "
            f"{type(examples).__name__}. Put a single example in a list."
        )
    return [_read_example(index, example) for index, example in enumerate(examples or ())]


def _read_example(index: int, example: Mapping[str, Any]) -> dict[str, Any]:
    weights = [to_finite(weight) or 0.0 for weight in as_list(example.get("weights"))]
    tokens = [str(token) for token in as_list(example.get("tokens"))]
    text, offsets = example.get("text"), as_list(example.get("offsets"))
    if not tokens:
        tokens = [str(step + 1) for step in range(len(weights))]
    name = example.get("id", index + 1)
    for argument, values in (("weights", weights), ("offsets", offsets)):
        if values and len(values) != len(tokens):
            raise ValueError(
                f"An example must have as many {argument} as tokens. Received: example {name} with {len(tokens)} tokens and "
                f"{len(values)} {argument}. Leave out the padding."
            )
    if text is not None and offsets:
        pieces, gaps, ghosts = cut_text(str(text), tokens, offsets)
    else:
        pieces, gaps, ghosts = tokens, ["", *[" "] * (len(tokens) - 1), ""], []
    return {
        "id": str(name),
        "kind": str(example.get("kind", "")),
        "truth": example.get("truth"),
        "prediction": example.get("prediction"),
        "probability": to_finite(example.get("probability")),
        "pieces": pieces,
        "gaps": gaps,
        "ghosts": ghosts,
        "series": text is None and all(token.isdecimal() for token in tokens),
        "weights": [float(f"{weight:.5g}") for weight in weights],
    }


def cut_text(
    text: str, tokens: Sequence[str], offsets: Sequence[Sequence[int]]
) -> tuple[list[str], list[str], list[int]]:
    """Return one piece of the text for each token, the gaps around the pieces, and the indices of tokens without a piece.

    Example:
        >>> cut_text("A dull film.", ["<s>", "a", "dull"], [(0, 0), (0, 1), (2, 6)])
        (['<s>', 'A', 'dull'], ['', '', ' ', ' film.'], [0])
    """
    pieces, gaps, ghosts, cursor = [], [], [], 0
    for index, (token, (start, end)) in enumerate(zip(tokens, offsets, strict=True)):
        if start < cursor or end <= start or start >= len(text):
            pieces.append(token)
            gaps.append("")
            ghosts.append(index)
            continue
        gaps.append(text[cursor:start])
        pieces.append(text[start:end])
        cursor = min(end, len(text))
    return pieces, [*gaps, text[cursor:]], ghosts


def describe_spread(examples: Sequence[Mapping[str, Any]]) -> str:
    """Return a sentence that says over how many tokens the attention is spread in effect; empty without weights.

    The effective number of tokens of an example is the exponential of the entropy of its weights: T if they are equal, 1 if one
    token has all.
    """
    spreads = []
    for example in examples:
        total = sum(example["weights"])
        if total > 0:
            shares = [weight / total for weight in example["weights"] if weight > 0]
            spreads.append((math.exp(-sum(share * math.log(share) for share in shares)), len(example["weights"])))
    if not spreads:
        return ""
    effective, tokens = (sum(values) / len(spreads) for values in zip(*spreads, strict=True))
    meaning = "equal weights would use all" if effective < 0.8 * tokens else "nearly equal weights, as of a plain mean"
    return (
        f"In effect the attention is spread over {effective:.1f} of {tokens:.1f} tokens "
        f"({meaning}; means over {format_count(len(spreads))} examples)."
    )


def highlight(example: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    """Return the gap before each piece of an example, the piece and its shade."""
    count = len(example["pieces"])
    weights = example["weights"] or [0.0] * count
    return [
        (gap, piece, shade(weight, count))
        for gap, piece, weight in zip(example["gaps"], example["pieces"], weights, strict=False)
    ]
