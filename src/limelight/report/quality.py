"""The section on quality: values with intervals, differences, errors, reliability, learning curves and runs."""

from collections.abc import Mapping
from typing import Any

from limelight.report import errors, estimates, tables, training
from limelight.report.markup import Markup
from limelight.report.models import models_of
from limelight.report.tables import listing, mapping


def render(results: Mapping[str, Any]) -> Markup:
    """The section, or nothing where the results hold no model."""
    models = models_of(results)
    metrics = list(dict.fromkeys(name for model in models for name in mapping(model.entry.get("metrics"))))
    comparisons = [mapping(entry) for entry in listing(results.get("comparisons"))]
    classes = [str(name) for name in listing(mapping(results.get("data")).get("classes"))]
    return tables.section(
        "quality",
        "Quality",
        estimates.lead(models, metrics, comparisons),
        estimates.every_metric(models, metrics),
        estimates.comparisons(models, comparisons),
        errors.by_class(models, classes),
        errors.reliability(models),
        training.curves(models),
        training.runs(models, metrics),
    )
