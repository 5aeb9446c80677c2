"""Access to the results of a study, every part of which may be missing."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from limelight._formatting import format_count, format_title, to_finite
from limelight.report.figures import Interval, color_class


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Return `value` if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def as_list(value: Any) -> list[Any]:
    """Return `value` as a list; empty if it is missing or not a sequence."""
    if value is None or isinstance(value, str | bytes | Mapping):
        return []
    return list(value)


@dataclasses.dataclass(frozen=True)
class Model:
    """One model of the results; its index determines its color."""

    index: int
    name: str
    title: str
    entry: Mapping[str, Any]

    @classmethod
    def all(cls, results: Mapping[str, Any]) -> list["Model"]:
        """Return the models of the results in order."""
        models = []
        for index, entry in enumerate(map(as_mapping, as_list(results.get("models")))):
            name = str(entry.get("name", f"model {index + 1}"))
            models.append(cls(index, name, str(entry.get("title") or format_title(name)), entry))
        return models

    def estimate(self, metric: str) -> Mapping[str, Any]:
        """Return the estimate of a metric; empty if there is none."""
        estimate = as_mapping(self.entry.get("metrics")).get(metric)
        return estimate if isinstance(estimate, Mapping) else {"value": estimate}

    def interval(self, metric: str) -> Interval | None:
        """Return a metric with its intervals over examples and over seeds; None without a value."""
        estimate = self.estimate(metric)
        value = to_finite(estimate.get("value"))
        if value is None:
            return None
        per_seed = [to_finite(as_mapping(run.get("metrics")).get(metric)) for run in self.runs]
        over_seeds = as_mapping(as_mapping(self.entry.get("seeds")).get(metric))
        low, high = to_finite(over_seeds.get("low")), to_finite(over_seeds.get("high"))
        return Interval(
            self.title,
            value,
            to_finite(estimate.get("low")),
            to_finite(estimate.get("high")),
            self.index,
            [point for point in per_seed if point is not None] if len(per_seed) > 1 else [],
            (low, high) if low is not None and high is not None else None,
        )

    @property
    def runs(self) -> list[Mapping[str, Any]]:
        """One entry for each seed."""
        return [as_mapping(run) for run in as_list(self.entry.get("runs"))]

    @property
    def reliability(self) -> list[tuple[float, float, int]]:
        """Mean confidence, accuracy and number of examples of each bin that has examples."""
        bins = []
        for entry in map(as_mapping, as_list(self.entry.get("reliability"))):
            confidence, accuracy, count = (to_finite(entry.get(key)) for key in ("confidence", "accuracy", "count"))
            if confidence is not None and accuracy is not None and count:
                bins.append((confidence, accuracy, int(count)))
        return bins

    @property
    def label(self) -> Markup:
        """The title next to its color."""
        template = Markup('<span class="model"><i class="key {}"></i>{}</span>')
        return template.format(color_class(self.index), self.title)

    @property
    def heading(self) -> Markup:
        """The label above the number of parameters."""
        parameters = to_finite(self.entry.get("parameters"))
        if not parameters:
            return self.label
        unit = "parameter" if parameters == 1 else "parameters"
        return self.label + Markup("<small>{} {}</small>").format(format_count(parameters), unit)
