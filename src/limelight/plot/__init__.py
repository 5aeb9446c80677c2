"""Static figures with matplotlib: attention as matrices and as highlighted words, and the results of models.

Each function takes `ax=None` and returns the axes that it drew on; without axes it makes a figure that pyplot does not know.
Nothing is displayed and no global setting is changed. Data is text, never markup: `$x^2$` is shown literally.
"""

try:
    import matplotlib  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("`limelight.plot` needs matplotlib. Run: pip install 'limelight[study]'") from error

from limelight.plot.canvas import save
from limelight.plot.matrices import alignment, heads, heatmap
from limelight.plot.results import confusion, curves, difference, reliability
from limelight.plot.words import text

__all__ = ["alignment", "confusion", "curves", "difference", "heads", "heatmap", "reliability", "save", "text"]
