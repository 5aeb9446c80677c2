"""Forecast many series with one model, beside naive forecasts, and draw one forecast with its band and its attention.

The series are those of the tourism competition, whose published test values are read once.

    python examples/10_forecasting.py
"""

import limelight as ll
import numpy as np
from matplotlib.figure import Figure
from pathlib import Path


def draw(model: ll.models.Forecaster, panel: ll.data.Panel, index: int, picture: Path) -> None:
    """Draw the past, the forecast with its band, the published values, and the weights of the past steps."""
    past, horizon = model.inputs_.past, model.inputs_.horizon
    values, steps = panel.values[index][-past:], np.arange(horizon)
    low, middle, high = model.predict(panel)[index].T
    weights = model.attention(panel)["attention"].weights()[index, 0, 0]
    figure = Figure(figsize=(8, 5), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    upper.plot(np.arange(len(values)) - len(values), values, label="past")
    upper.fill_between(steps, low, high, alpha=0.3, label="forecast, 80 %")
    upper.plot(steps, middle, label="median")
    upper.plot(steps, panel.test[index][:horizon], linestyle="--", label="published")
    upper.legend()
    lower.bar(np.arange(len(values)) - len(values), weights[: len(values)])
    lower.set(xlabel="step", ylabel="weight")
    ll.plot.save(picture, figure)


def main(name: str = "tourism-quarterly", epochs: int = 15, windows: int = 20_000, picture: Path | None = None) -> dict:
    """Train on the series of a competition, and print the errors on the published test values and those of naive forecasts."""
    panel = ll.data.load_panel(name)
    model = ll.models.Forecaster(
        quantiles=[0.1, 0.5, 0.9], epochs=epochs, windows=windows, random_state=0, verbose=picture is not None
    )
    model.fit(panel)
    results = {"model": model.evaluate(panel)}
    actual = np.stack(panel.test)
    for label, season in {"last value": 1, "last season": panel.season}.items():
        # The last season again, as often as the horizon needs.
        naive = np.stack([np.resize(values[-season:], panel.horizon) for values in panel.values])
        results[label] = ll.evaluate.regression(actual, naive)
    for label, result in results.items():
        print(f"{label:12} MAPE {result['mape']}  sMAPE {result['smape']}")
    if picture is not None:
        draw(model, panel, 0, picture)
    return results


if __name__ == "__main__":
    main(picture=Path("forecast.png"))
