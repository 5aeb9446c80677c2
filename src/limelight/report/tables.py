"""Tables and lists of the page, and what they share: a box that scrolls on its own, so that the page never does."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from limelight.report import formatting
from limelight.report.markup import Markup, element

SHADES = 10


def mapping(value: Any) -> Mapping[str, Any]:
    """`value`, or an empty mapping where a part of the results is missing."""
    return value if isinstance(value, Mapping) else {}


def listing(value: Any) -> list[Any]:
    """`value` as a list, empty where a part of the results is missing."""
    if value is None or isinstance(value, str | bytes | Mapping):
        return []
    return list(value)


def section(identifier: str, title: str, *children: Any) -> Markup:
    """A part of the page with its heading, or nothing where it has no content."""
    content = [child for child in children if child]
    if not content:
        return Markup("")
    heading = element("h2", title, id=f"{identifier}-title")
    return element("section", heading, content, id=identifier, aria_labelledby=f"{identifier}-title")


def table(
    head: Sequence[Any], rows: Iterable[Sequence[Any]], *, caption: str, of: str = "", class_: str = ""
) -> Markup:
    """A table whose first column names its rows; its other cells are right-aligned numbers.

    Args:
        head: what stands above the columns; `Markup` that is a `<th>` already is taken as it is.
        rows: the cells; `Markup` that is a `<td>` already is taken as it is.
        caption: what the table shows.
        of: what it is about, where the place on the page says so but a screen reader may not see it.
        class_: further classes of the table.
    """
    above = [_cell(cell, "th", scope="col") for cell in head]
    body = [element("tr", element("th", row[0], scope="row"), [_cell(cell, "td") for cell in row[1:]]) for row in rows]
    inner = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", above)),
        element("tbody", body),
        class_=class_ or None,
    )
    return scroller(inner, f"{caption}, {of}" if of else caption)


def scroller(content: Markup, label: str) -> Markup:
    """A box that scrolls sideways, reachable by keyboard."""
    return element("div", content, class_="scroll", tabindex="0", role="region", aria_label=label)


def _cell(cell: Any, name: str, **attributes: Any) -> Markup:
    is_cell = isinstance(cell, Markup) and cell.startswith(f"<{name}")
    return cell if is_cell else element(name, cell, **attributes)


def unbroken(sentence: str) -> list[Any]:
    """A sentence whose numbers stay with their signs at the end of a line: "74.9 %", "p = .02"."""
    parts = re.split(r"(\(?[\d.,]+[\s\u202f]%\S*(?: CI)?|p [=<] [\d.]+|[−+][\d.]+ points)", sentence)
    return [element("span", part, class_="whole") if index % 2 else part for index, part in enumerate(parts)]


def facts(pairs: Iterable[tuple[Any, Any]], *, class_: str = "facts") -> Markup | None:
    """A list of names with their values; None where there are none."""
    items = [
        element("div", element("dt", name), element("dd", value)) for name, value in pairs if value not in (None, "")
    ]
    return element("dl", items, class_=class_) if items else None


def panel(title: str, drawing: Markup, note: str | None = None, *, class_: str = "panel") -> Markup:
    """A figure with its title and a line that says how to read it."""
    caption = element("figcaption", element("b", title), element("span", note) if note else None)
    return element("figure", caption, drawing, class_=class_)


def confusion(counts: Sequence[Sequence[Any]], classes: Sequence[str], *, of: str, runs: int = 1) -> Markup:
    """The confusion matrix: truth down, prediction across, each cell shaded by its share of its row.

    Args:
        counts: (classes, classes), summed over the runs.
        classes: their names.
        of: what it is about, for a screen reader.
        runs: how many runs it sums.
    """
    head = [element("th", element("span", name), scope="col", title=name) for name in classes]
    body = []
    for name, row in zip(classes, counts, strict=False):
        numbers = [formatting.finite(value) or 0 for value in row]
        total = sum(numbers) or 1
        cells = [_share_cell(number, number / total) for number in numbers]
        body.append(element("tr", element("th", element("span", name), scope="row", title=name), cells))
    corner = element("th", "truth \\ predicted", scope="col", class_="corner")
    inner = element(
        "table",
        element("caption", f"Confusion matrix{f', {runs} runs together' if runs > 1 else ''}"),
        element("thead", element("tr", corner, head)),
        element("tbody", body),
        class_="confusion",
    )
    return scroller(inner, f"Confusion matrix, {of}")


def _share_cell(number: float, share: float) -> Markup:
    if not number:
        return element("td", "0", class_="shade-0 none")
    small = element("small", f"{100 * share:.0f}\u202f%")
    return element("td", formatting.count(number), small, class_=f"shade-{round(SHADES * share)}")
