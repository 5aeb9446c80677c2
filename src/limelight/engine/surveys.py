"""The survey of a question, by the backend's loop over blocks of whole rows."""

import dataclasses
from typing import Any

import keras
from keras import ops

from limelight.engine import limits, paths
from limelight.engine.statistics import Plan
from limelight.question import Question
from limelight.surveying import Survey, check
from limelight.tile import Span


def taken(question: Question, value: Any, *, top_k: int, cells: int, align: str | None = None) -> Survey:
    """The survey of a question, and with values (B, K, S, V) its output; each with leading axes (B, N).

    Args:
        question: what is asked.
        value: the values, or None.
        top_k: how many keys of each query.
        cells: how many coarse blocks there are at most along an axis.
        align: "start" or "end", where queries and keys are counted from there for their distance, whatever their positions.
    """
    check(top_k, cells)
    if paths.broadcast(question):
        question, value = matched(question, value)
    asked = {"size": limits.current(question.query).survey, "top_k": top_k, "cells": cells, "align": align}
    rows, (received, sums, peaks) = BACKENDS[keras.backend.backend()](question, value, asked)
    row_edges, column_edges = Plan.of(question, top_k, cells, align).edges
    found = {**rows, "received": received, "cells": sums, "peaks": peaks}
    found = {name: ops.stop_gradient(one) for name, one in found.items()}
    return Survey(**found, row_edges=row_edges, column_edges=column_edges)


def matched(question: Question, value: Any) -> tuple[Question, Any]:
    """A question whose queries, or keys, serve all examples, and its values, with as many of each as there are examples."""
    count = max(question.query.shape[0], question.key.shape[0])
    query, key, value = (
        None if one is None else ops.broadcast_to(one, (count, *tuple(ops.shape(one))[1:]))
        for one in (question.query, question.key, value)
    )
    tile = question.tile.replace(batch=Span(count))
    return dataclasses.replace(question, query=query, key=key, tile=tile), value


def _jax(question: Question, value: Any, asked: dict[str, Any]) -> Any:
    from limelight.engine import jax_compiled, jax_survey

    return jax_compiled.run(jax_survey.taken, question, value, **asked)


def _torch(question: Question, value: Any, asked: dict[str, Any]) -> Any:
    from limelight.engine import torch_survey

    return torch_survey.taken(question, value, **asked)


def _tensorflow(question: Question, value: Any, asked: dict[str, Any]) -> Any:
    from limelight.engine import tensorflow_survey

    return tensorflow_survey.taken(question, value, **asked)


BACKENDS = {"jax": _jax, "torch": _torch, "tensorflow": _tensorflow}
