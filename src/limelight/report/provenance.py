"""The section on provenance: the command, data, repairs, settings and versions."""

from collections.abc import Mapping
from typing import Any

from limelight._formatting import format_count, format_title
from limelight.report.payload import to_plain
from limelight.report.results import as_list, as_mapping

_PARTS = ("train", "validation", "test")


def build(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables of the template `provenance.html`."""
    data = as_mapping(results.get("data"))
    counts, balance = as_mapping(data.get("counts")), as_mapping(data.get("balance"))
    parts = [part for part in _PARTS if any(part in as_mapping(row) for row in balance.values())]
    repairs = [as_mapping(entry) for entry in as_list(data.get("repairs"))]
    facts = [
        ("Name", data.get("name")),
        ("Source", data.get("source")),
        ("Examples", ", ".join(f"{format_count(counts[part])} {part}" for part in _PARTS if part in counts)),
    ]
    return {
        "command": results.get("command"),
        "data": [(name, value) for name, value in facts if value],
        "fingerprint": data.get("fingerprint"),
        "parts": [format_title(part) for part in parts],
        "balance": [
            [str(name), *(format_count(as_mapping(row).get(part)) for part in parts)] for name, row in balance.items()
        ]
        if parts
        else [],
        "repairs": [f"{entry.get('what', '')}: {format_count(entry.get('count'))}" for entry in repairs],
        "settings": _pairs(results.get("settings")),
        "versions": _pairs(results.get("environment")),
    }


def _pairs(values: Any) -> list[tuple[str, str]]:
    pairs = [(str(name).replace("_", " "), value) for name, value in as_mapping(values).items()]
    return [(name, _format_setting(value)) for name, value in pairs if value is not None]


def _format_setting(value: Any) -> str:
    value = to_plain(value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {_format_setting(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_format_setting, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
