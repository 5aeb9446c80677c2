"""Maps as tables of pandas and arrays of xarray."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from limelight.maps._attention_map import AttentionMap

_AXES = ("example", "head", "query", "key")


def axes(seen: "AttentionMap") -> tuple[str, ...]:
    """Names of a map's axes; those between example and head are steps."""
    extra = len(seen.shape) - 4
    steps = ["step"] if extra == 1 else [f"step_{index}" for index in range(extra)]
    return (_AXES[0], *steps, *_AXES[1:])


def frame(seen: "AttentionMap") -> Any:
    """One line for each weight."""
    pandas = needed("pandas")
    names = axes(seen)
    places = np.indices(seen.shape).reshape(len(names), -1)
    columns: dict[str, Any] = dict(zip(names, places, strict=True))
    for name, tokens in (("query", seen.query_tokens), ("key", seen.tokens)):
        if tokens is not None:
            padded = {index: dict(enumerate(one)) for index, one in enumerate(tokens)}
            pairs = zip(columns["example"], columns[name], strict=True)
            columns[f"{name}_token"] = [padded[example].get(place) for example, place in pairs]
    return pandas.DataFrame({**columns, "weight": seen.weights().reshape(-1)})


def data_array(seen: "AttentionMap") -> Any:
    """All weights with named axes."""
    return needed("xarray").DataArray(seen.weights(), dims=axes(seen), name=seen.key)


def needed(name: str) -> Any:
    """A library that is asked for only here.

    Raises:
        ImportError: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"This needs {name}, which is not installed. Run: pip install {name}") from error
