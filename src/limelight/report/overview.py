"""All examples at a glance: a heatmap with a row for each example and a column for each token's place."""

from collections.abc import Mapping, Sequence
from typing import Any

from limelight.report import formatting
from limelight.report.markup import Markup, element
from limelight.report.texts import shade

CELL, ROW, LEFT = 16, 18, 92
# Beyond so many places and rows the drawing would be too large to read; what is cut off is said.
MOST, LONGEST = 60, 40


def heatmap(examples: Sequence[Mapping[str, Any]]) -> Markup | None:
    """The examples' weights as one drawing, in the shades of the highlighted texts; None without any.

    Args:
        examples: as `texts.read` gives them.
    """
    weighed = [example for example in examples if example["weights"]]
    rows = weighed[:MOST]
    if not rows:
        return None
    longest = max(len(example["weights"]) for example in rows)
    width = min(longest, MOST)
    parts = [_number(place) for place in (1, *range(5, width + 1, 5))]
    kind = None
    for index, example in enumerate(rows):
        top = 18 + index * ROW
        if example["kind"] != kind:
            kind = example["kind"]
            parts.append(element("text", _short(kind), x=0, y=top + 13, class_="tick"))
        parts += [_cell(example, column, top) for column in range(min(len(example["weights"]), width))]
    size = {"width": LEFT + width * CELL, "height": 22 + len(rows) * ROW}
    label = f"Heatmap of the attention of {len(rows)} examples over their tokens' places"
    drawing = element(
        "svg",
        parts,
        viewBox=f"0 0 {size['width']} {size['height']}",
        role="img",
        aria_label=label,
        class_="overview",
        **size,
    )
    fewer = (
        f" Only the first {MOST} of {formatting.count(len(weighed))} examples are drawn." if len(weighed) > MOST else ""
    )
    cut = f" Only the first {MOST} of up to {formatting.count(longest)} tokens are drawn." if longest > MOST else ""
    told = f"Each row is an example, each column a token's place; the shades are those of the texts above.{fewer}{cut}"
    return element("div", element("p", told, class_="note"), element("div", drawing, class_="scroll"))


def _cell(example: Mapping[str, Any], column: int, top: int) -> Markup:
    weight, count = example["weights"][column], len(example["weights"])
    piece = example["pieces"][column]
    told = f"{piece if len(piece) <= LONGEST else piece[:LONGEST] + '…'}: {formatting.amount(weight, 'accuracy')}"
    place = {"x": LEFT + column * CELL, "y": top, "width": CELL - 1, "height": ROW - 2}
    return element("rect", element("title", told), class_=f"weight-{shade(weight, count)}", **place)


def _number(place: int) -> Markup:
    return element("text", place, x=LEFT + (place - 0.5) * CELL, y=11, class_="tick", text_anchor="middle")


def _short(kind: str) -> str:
    """A kind's name, short enough to stand beside its rows."""
    return {"confident and right": "right", "confident and wrong": "wrong"}.get(kind, kind)[:14].capitalize()
