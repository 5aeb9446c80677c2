"""How the results were made: data, split, versions, settings, repairs, and the command that makes them again."""

from collections.abc import Mapping
from typing import Any

from limelight.report import formatting, tables
from limelight.report.markup import Markup, element, plain
from limelight.report.tables import listing, mapping

_PARTS = ("train", "validation", "test")


def render(results: Mapping[str, Any]) -> Markup:
    """The section, or nothing where the results say nothing about it."""
    data = mapping(results.get("data"))
    command = results.get("command")
    blocks = [
        _block("Data", _data(data), _balance(data), _repairs(data)),
        _block("Settings", _pairs(mapping(results.get("settings")))),
        _block("Versions", _pairs(mapping(results.get("environment")))),
    ]
    return tables.section(
        "making",
        "How it was made",
        _command(str(command)) if command else None,
        element("div", blocks, class_="columns") if any(blocks) else None,
    )


def _block(title: str, *children: Markup | None) -> Markup | None:
    content = [child for child in children if child]
    return element("div", element("h3", title), content) if content else None


def _command(command: str) -> Markup:
    lead = element("p", "This command makes it again, on the same split and with the same seeds:", class_="lead")
    return element("div", lead, element("pre", element("code", command, id="command"), tabindex="0"), class_="command")


def _data(data: Mapping[str, Any]) -> Markup | None:
    counts = mapping(data.get("counts"))
    sizes = [f"{formatting.count(counts[part])} {part}" for part in _PARTS if part in counts]
    fingerprint = data.get("fingerprint")
    return tables.facts(
        [
            ("Name", data.get("name")),
            ("Source", data.get("source")),
            ("Examples", ", ".join(sizes)),
            ("Split fingerprint", element("code", fingerprint) if fingerprint else None),
        ]
    )


def _balance(data: Mapping[str, Any]) -> Markup | None:
    balance = mapping(data.get("balance"))
    parts = [part for part in _PARTS if any(part in mapping(row) for row in balance.values())]
    if not parts:
        return None
    rows = [[str(name), *(formatting.count(mapping(row).get(part)) for part in parts)] for name, row in balance.items()]
    return tables.table(
        ["Class", *map(formatting.title_of, parts)], rows, caption="Examples of each class", class_="compact"
    )


def _repairs(data: Mapping[str, Any]) -> Markup | None:
    repairs = [mapping(entry) for entry in listing(data.get("repairs"))]
    if not repairs:
        return None
    items = [element("li", f"{formatting.count(entry.get('count'))} {entry.get('what', '')}") for entry in repairs]
    return Markup(element("p", "Repairs made while reading:", class_="lead") + element("ul", items))


def _pairs(settings: Mapping[str, Any]) -> Markup | None:
    return tables.facts(
        (str(name).replace("_", " "), _value(value)) for name, value in settings.items() if value is not None
    )


def _value(value: Any) -> str:
    value = plain(value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
