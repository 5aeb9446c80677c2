"""Examples with a weight for each token: cut into pieces for the script, and as a table for those without one."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from limelight.report import formatting, tables
from limelight.report.markup import Markup, element
from limelight.report.tables import listing

# Shades of a highlighted word: 2 is an equal share of the attention, two more for each doubling, 8 is eight times it.
SHADES = 8


def shade(weight: float, count: int) -> int:
    """The shade of a token: how many times its equal share 1 / count it receives, on a scale of doublings.

    Length does not change what a shade means, and weights that are all equal come out pale, not strong.

    Example:
        >>> [shade(weight, 10) for weight in (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)]
        [0, 0, 2, 4, 6, 8]
    """
    times = weight * count
    if times <= 0:
        return 0
    return max(0, min(SHADES, round(2 * (math.log2(times) + 1))))


def read(examples: Any) -> list[dict[str, Any]]:
    """The examples as the script wants them.

    Each has the text cut into `pieces`, one a token, with `gaps` before, between and after them; `ghosts` are the tokens
    that have no characters of their own in the text, such as a start mark. Without a text, tokens that are but numbers
    are the steps of a `series`, which is shown as bars.

    Raises:
        TypeError: something else than a list of mappings.
        ValueError: an example whose weights or offsets are not one a token.
    """
    if isinstance(examples, Mapping | str) or not all(isinstance(example, Mapping) for example in examples or ()):
        raise TypeError(
            "`examples` must be a list of mappings with `tokens` and `weights`. Received: "
            f"{type(examples).__name__}. Put a single example into a list."
        )
    return [_read_one(number, example) for number, example in enumerate(examples or ())]


def _read_one(number: int, example: Mapping[str, Any]) -> dict[str, Any]:
    weights = [formatting.finite(weight) or 0.0 for weight in listing(example.get("weights"))]
    tokens = [str(token) for token in listing(example.get("tokens"))]
    text, offsets = example.get("text"), listing(example.get("offsets"))
    if not tokens:
        tokens = [str(index + 1) for index in range(len(weights))]
    name = example.get("id", number + 1)
    for what, values in (("weights", weights), ("offsets", offsets)):
        if values and len(values) != len(tokens):
            raise ValueError(
                f"An example must have as many {what} as tokens. Received: example {name} with {len(tokens)} tokens and "
                f"{len(values)} {what}. Leave out those of padding."
            )
    if text is not None and offsets:
        pieces, gaps, ghosts = cut(str(text), tokens, offsets)
    else:
        pieces, gaps, ghosts = tokens, ["", *[" "] * (len(tokens) - 1), ""], []
    return {
        "id": str(name),
        "kind": str(example.get("kind", "")),
        "truth": example.get("truth"),
        "prediction": example.get("prediction"),
        "probability": formatting.finite(example.get("probability")),
        "pieces": pieces,
        "gaps": gaps,
        "ghosts": ghosts,
        "series": text is None and all(token.isdecimal() for token in tokens),
        "weights": [float(f"{weight:.5g}") for weight in weights],
    }


def cut(text: str, tokens: Sequence[str], offsets: Sequence[Sequence[int]]) -> tuple[list[str], list[str], list[int]]:
    """The text as one piece for each token, the gaps around them, and which tokens have no piece of the text.

    Example:
        >>> cut("A dull film.", ["<s>", "a", "dull"], [(0, 0), (0, 1), (2, 6)])
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


def static_table(examples: Sequence[Mapping[str, Any]]) -> Markup | None:
    """The examples as a table that needs no script."""
    if not examples:
        return None
    rows = [
        [
            example["kind"] or example["id"],
            element("td", _highlighted(example), class_="reading"),
            element("td", _known(example["truth"]), class_="words"),
            element("td", _known(example["prediction"]), class_="words"),
            formatting.amount(example["probability"], "accuracy"),
        ]
        for example in examples
    ]
    return tables.table(["Kind", "Text", "Truth", "Prediction", "Probability"], rows, caption="Examples")


def _known(value: Any) -> Any:
    return formatting.MISSING if value is None else value


def _highlighted(example: Mapping[str, Any]) -> list[Any]:
    parts = []
    count = len(example["pieces"])
    weights = example["weights"] or [0.0] * count
    for gap, piece, weight in zip(example["gaps"], example["pieces"], weights, strict=False):
        level = shade(weight, count)
        parts += [gap, element("mark", piece, class_=f"weight-{level}") if level else piece]
    return [*parts, example["gaps"][-1]]
