"""The display of maps in a notebook."""

import html
import importlib
from typing import Any


def display(maps: Any) -> str:
    """Return the page of one or several maps in a frame; without the packages of a report their text, and what to install."""
    try:
        # A report is made of maps, so maps load it only when a notebook asks for it.
        report = importlib.import_module("limelight.report")
    except ModuleNotFoundError as error:
        return f"<pre>{html.escape(repr(maps))}</pre><p>{html.escape(str(error))}</p>"
    return report.Report(maps)._repr_html_()
