"""The models that results tell of."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from limelight.report import figures, formatting
from limelight.report.markup import Markup, element
from limelight.report.tables import listing, mapping


@dataclasses.dataclass(frozen=True)
class Model:
    """One model of the results with its place among them, which is its colour."""

    kind: int
    name: str
    title: str
    entry: Mapping[str, Any]

    def metric(self, name: str) -> Mapping[str, Any]:
        """The estimate of a metric; empty where there is none."""
        found = mapping(self.entry.get("metrics")).get(name)
        return found if isinstance(found, Mapping) else {"value": found}

    @property
    def runs(self) -> list[Mapping[str, Any]]:
        """One entry for each seed."""
        return [mapping(run) for run in listing(self.entry.get("runs"))]

    def label(self) -> Markup:
        """The title beside its colour."""
        return element("span", element("i", class_=f"key kind-{self.kind % figures.KINDS}"), self.title, class_="model")


def models_of(results: Mapping[str, Any]) -> list[Model]:
    """The models of the results in their order."""
    models = []
    for kind, entry in enumerate(map(mapping, listing(results.get("models")))):
        name = str(entry.get("name", f"model {kind + 1}"))
        models.append(Model(kind, name, str(entry.get("title") or formatting.title_of(name)), entry))
    return models
