"""Equations and examples of docstrings, for `make docs`: a hook of mkdocs and an extension of griffe.

Equations become MathML while the site is built, so that a page loads no script for them.
"""

import re
from typing import Any

from griffe import Extension as GriffeExtension
from latex2mathml.converter import convert
from markdown import Extension, Markdown
from markdown.inlinepatterns import InlineProcessor
from mkdocs.plugins import event_priority

# A dollar sign that is followed or preceded by a space is no delimiter.
EQUATION = r"(?<![\\$])(?:\$\$(?P<display>.+?)\$\$|\$(?P<inline>[^\s$](?:[^$]*[^\s$])?)\$)(?![\d$])"


class EquationProcessor(InlineProcessor):
    """Convert `$...$` and `$$...$$` to MathML."""

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[str, int, int]:
        display = m["display"]
        html = convert((display or m["inline"]).strip(), display="block" if display else "inline")
        return self.md.htmlStash.store(html), m.start(), m.end()


class EquationExtension(Extension):
    """Look for equations after code, which may hold dollar signs, and before escapes, which equations are full of."""

    def extendMarkdown(self, md: Markdown) -> None:
        md.inlinePatterns.register(EquationProcessor(EQUATION, md), "equation", 185)


@event_priority(100)
def on_config(config: Any) -> Any:
    """Add the extension before mkdocstrings copies the list."""
    config.markdown_extensions.append(EquationExtension())
    return config


# Headings of docstrings, and the words by which griffe recognizes such a section.
SECTIONS = {"Example:": "Examples:", "Call arguments:": "Other Args: Call arguments:"}


class SectionsExtension(GriffeExtension):
    """Recognize doctests below "Example:", and the arguments of a layer's call."""

    def on_object(self, *, obj: Any, **kwargs: Any) -> None:
        if obj.docstring is not None:
            for heading, known in SECTIONS.items():
                obj.docstring.value = re.sub(rf"^( *){heading}$", rf"\1{known}", obj.docstring.value, flags=re.M)
