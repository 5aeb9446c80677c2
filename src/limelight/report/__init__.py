"""A self-contained HTML report of the results of a study, with their intervals, and of the attention of a model."""

try:
    import jinja2  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("`limelight.report` needs Jinja2. Run: pip install 'limelight[study]'") from error

import dataclasses
import functools
import warnings
from collections.abc import Mapping, Sequence, Sized
from os import PathLike
from pathlib import Path
from typing import Any

from markupsafe import Markup

from limelight import _files
from limelight.report import page
from limelight.report.examples import read_examples
from limelight.report.views import View

__all__ = ["Report", "View", "render", "write"]

_SCHEMA_VERSION = 1
_LARGE_FILE = 20_000_000  # bytes
_LARGE_FRAME = 5_000_000


@dataclasses.dataclass(frozen=True)
class Report:
    """A report that can be written to a file, and that is displayed in a notebook, up to 5 MB.

    Args:
        maps: A mapping from layer paths to attention maps, as `limelight.capture` returns; or one map; or a `View` of maps,
            which says more, such as another ranking of the tokens. The page contains every weight up to 512 queries and keys;
            longer maps are stored as means and maxima of blocks at several zooms, with the 16 strongest keys of each query and
            the mass of the other keys. Padded queries and keys are left out.
        results: The results of a study (`results.json`): a mapping with `schema_version` 1. Every other part may be missing.
        examples: Highlighted texts, instead of `results["examples"]`: mappings with `tokens` and `weights` of the same
            length, and optionally `text`, `offsets`, `truth`, `prediction`, `probability`, `kind`, `id`.
        title: The heading; by default that of the results, or the name of their data.
        facts: Names with values, which are shown below the heading, instead of those of the results.
        notes: Sentences below the facts: what is missing, and why.

    Raises:
        ValueError: There is nothing to report, the schema of the results is another one, or the weights of an example do
            not match its tokens.
        TypeError: `maps` has no attention maps, or `results` is not a mapping.

    Example:
        >>> report = Report(examples=[{"tokens": ["a", "dull", "film"], "weights": [0.1, 0.7, 0.2]}], title="One review")
        >>> report.html.startswith("<!doctype html>")
        True
    """

    maps: Any = None
    results: Mapping[str, Any] | None = None
    examples: Any = None
    title: str | None = None
    facts: Mapping[str, Any] | None = None
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.results is not None and not isinstance(self.results, Mapping):
            raise TypeError(
                f"`results` must be a mapping. Received: {type(self.results).__name__}. Read results.json with json.load."
            )
        version = (self.results or {}).get("schema_version", _SCHEMA_VERSION)
        if version != _SCHEMA_VERSION:
            raise ValueError(
                f"`results` must have schema_version {_SCHEMA_VERSION}. Received: {version!r}. Use the version of limelight that "
                "wrote them."
            )
        if all(
            part is None or (isinstance(part, Sized) and not len(part))
            for part in (self.maps, self.results, self.examples)
        ):
            raise ValueError("A report needs something to show. Received: no maps, results or examples.")

    @functools.cached_property
    def html(self) -> str:
        """The page."""
        results = self.results or {}
        data = results.get("data")
        name = data.get("name") if isinstance(data, Mapping) else None
        title = self.title or results.get("title") or name or "What the model reads"
        examples = results.get("examples") if self.examples is None else self.examples
        view = self._view
        return page.build(
            results,
            read_examples(examples),
            {"attention": view.to_document()} if view else {},
            str(title),
            facts=self.facts,
            notes=self.notes,
        )

    @property
    def _view(self) -> View:
        return self.maps if isinstance(self.maps, View) else View(self.maps)

    def write(self, path: str | PathLike[str]) -> Path:
        """Write the page to `path` atomically and return the path; warn if it is larger than 20 MB."""
        content = self.html.encode("utf-8")
        if len(content) > _LARGE_FILE:
            warnings.warn(
                f"The report has {len(content) / 1e6:.0f} MB and may open slowly. Pass fewer examples, heads or layers.",
                stacklevel=3,
            )
        _files.write_bytes(path, content)
        return Path(path)

    def _repr_html_(self) -> str:
        # To render a page that is far too large would take minutes.
        size = self._view.estimate_bytes()
        if size <= _LARGE_FRAME:
            size = len(self.html.encode("utf-8"))
        if size > _LARGE_FRAME:
            return (
                f"<p>This report has about {size / 1e6:.0f} MB, too much for a notebook, which saves what it shows. Write it to "
                'a file and open that: <code>limelight.report.write("report.html", maps)</code>. Or show fewer maps, such as '
                '<code>maps.select("encoder/*")</code>, or a shorter text.</p>'
            )
        # A sandboxed frame without the origin of the notebook: neither can change the style or script of the other.
        frame = Markup(
            '<iframe srcdoc="{}" title="limelight report" sandbox="allow-scripts allow-downloads" width="100%" height="720" '
            'frameborder="0"></iframe>'
        )
        # A cell has little room: what names the page goes, a title that was given stays.
        untitled = " untitled" if self.title is None and self.results is None else ""
        return str(frame.format(self.html.replace("<html ", f'<html class="framed{untitled}" ', 1)))


def render(
    maps: Any = None,
    *,
    results: Mapping[str, Any] | None = None,
    examples: Any = None,
    title: str | None = None,
    facts: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Return the report as HTML.

    Args:
        maps, results, examples, title, facts, notes: As for `Report`.

    Raises:
        ValueError, TypeError: As for `Report`.
    """
    return Report(maps, results, examples, title, facts, notes).html


def write(
    path: str | PathLike[str],
    maps: Any = None,
    *,
    results: Mapping[str, Any] | None = None,
    examples: Any = None,
    title: str | None = None,
    facts: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write the report to `path` as one HTML file that loads nothing, and return the path.

    The write is atomic: if it is interrupted, an old file stays as it was. A file over 20 MB causes a warning.

    Args:
        path: The file; its folder is created if missing.
        maps, results, examples, title, facts, notes: As for `Report`.

    Raises:
        ValueError, TypeError: As for `Report`.
        OSError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> example = {"tokens": ["a", "dull", "film"], "weights": [0.1, 0.7, 0.2], "truth": "negative"}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write(f"{folder}/report.html", examples=[example]).name
        'report.html'
    """
    return Report(maps, results, examples, title, facts, notes).write(path)
