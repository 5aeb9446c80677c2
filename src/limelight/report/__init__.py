"""The self-contained report: one HTML file that says what was found, how sure it is, and what the model reads."""

import dataclasses
import functools
import warnings
from collections.abc import Mapping, Sized
from os import PathLike
from pathlib import Path
from typing import Any

from limelight import _files
from limelight.report import page, payload, texts
from limelight.report.markup import element

__all__ = ["Report", "render", "write"]

_SCHEMA = 1
_LARGE = 20_000_000


@dataclasses.dataclass(frozen=True)
class Report:
    """A report that is not written yet, and that shows itself in a notebook.

    Args:
        maps: a mapping from layer paths to attention maps, as `limelight.capture` returns; or one map. Each has
            weights of shape (B, N, T, S). Up to 512 queries and keys every weight is in the report; longer maps are there
            as blocks of means and maxima, with the 16 strongest keys of each query and the mass that those leave out.
            Queries and keys of padding are left out.
        results: what a study found (`results.json`): a mapping with `schema_version` 1. Every other part may be missing.
        examples: highlighted texts, in the place of `results["examples"]`: mappings with `tokens` and `weights` of one
            length, and as known `text`, `offsets`, `truth`, `prediction`, `probability`, `kind`, `id`.
        title: the heading; else that of the results, else the name of their data.

    Raises:
        ValueError: nothing to report, results of another schema, weights that do not fit their tokens.
        TypeError: maps without weights, results that are no mapping.

    Example:
        >>> report = Report(examples=[{"tokens": ["a", "dull", "film"], "weights": [0.1, 0.7, 0.2]}], title="One review")
        >>> report.html.startswith("<!doctype html>")
        True
    """

    maps: Any = None
    results: Mapping[str, Any] | None = None
    examples: Any = None
    title: str | None = None

    def __post_init__(self) -> None:
        if self.results is not None and not isinstance(self.results, Mapping):
            raise TypeError(
                f"`results` must be a mapping. Received: {type(self.results).__name__}. Read results.json with json.load."
            )
        version = (self.results or {}).get("schema_version", _SCHEMA)
        if version != _SCHEMA:
            raise ValueError(
                f"`results` must have schema_version {_SCHEMA}. Received: {version!r}. Use the version of limelight that "
                "wrote them."
            )
        if all(
            part is None or (isinstance(part, Sized) and not len(part))
            for part in (self.maps, self.results, self.examples)
        ):
            raise ValueError("A report needs something to show. Received: neither maps, nor results, nor examples.")

    @functools.cached_property
    def html(self) -> str:
        """The whole page as text."""
        results = self.results or {}
        data = results.get("data")
        name = data.get("name") if isinstance(data, Mapping) else None
        title = self.title or results.get("title") or name or "What the model reads"
        chosen = results.get("examples") if self.examples is None else self.examples
        return page.build(results, texts.read(chosen), payload.read(self.maps), str(title))

    def write(self, path: str | PathLike[str]) -> Path:
        """Write the page to `path`, whole or not at all, and return the path; warn where it is over 20 MB."""
        content = self.html.encode("utf-8")
        if len(content) > _LARGE:
            warnings.warn(
                f"The report has {len(content) / 1e6:.0f} MB and may open slowly. Give it fewer examples, heads or layers.",
                stacklevel=3,
            )
        _files.write_bytes(path, content)
        return Path(path)

    def _repr_html_(self) -> str:
        # A frame of its own, without the notebook's origin: neither can touch the other's style or script.
        frame = {"sandbox": "allow-scripts allow-downloads", "width": "100%", "height": "720", "frameborder": "0"}
        return str(element("iframe", srcdoc=self.html, title="limelight report", **frame))


def render(
    maps: Any = None, *, results: Mapping[str, Any] | None = None, examples: Any = None, title: str | None = None
) -> str:
    """The report as HTML; the arguments are those of `Report`."""
    return Report(maps, results, examples, title).html


def write(
    path: str | PathLike[str],
    maps: Any = None,
    *,
    results: Mapping[str, Any] | None = None,
    examples: Any = None,
    title: str | None = None,
) -> Path:
    """Write the report to `path` as one HTML file that loads nothing, and return the path.

    The file is whole or not there: an interrupted write leaves what was before. Over 20 MB it comes with a warning.

    Args:
        path: where to; its folder is made where it is missing.
        maps, results, examples, title: as for `Report`.

    Raises:
        ValueError, TypeError: as for `Report`.
        OSError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> example = {"tokens": ["a", "dull", "film"], "weights": [0.1, 0.7, 0.2], "truth": "negative"}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write(f"{folder}/report.html", examples=[example]).name
        'report.html'
    """
    return Report(maps, results, examples, title).write(path)
