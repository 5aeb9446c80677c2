"""Static figures with matplotlib: attention as matrices and as highlighted words, learning curves, quality, differences.

Each function takes `ax=None` and returns the axes that it drew on; without one it makes a figure of its own, which pyplot
knows nothing of. Nothing is shown and no global setting is touched. Data is text, never markup: `$x^2$` is shown as it is.
"""

try:
    import matplotlib  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("`limelight.plot` needs matplotlib. Run: pip install 'limelight[study]'") from error

from limelight.plot.canvas import save
from limelight.plot.matrices import alignment, heads, heatmap
from limelight.plot.quality import confusion, reliability
from limelight.plot.results import curves, difference
from limelight.plot.words import text

__all__ = ["alignment", "confusion", "curves", "difference", "heads", "heatmap", "reliability", "save", "text"]
