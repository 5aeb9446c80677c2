"""Measure the page of `limelight show` in Chromium: its size, the time to write it, to draw it, and to answer.

    python benchmarks/page.py                             12 layers x 12 heads of 512 and of 32,768 tokens
    python benchmarks/page.py --layers 1 --tokens 4096    12 layers of which take minutes to write

Prints for each length the bytes of the page, the seconds to write it, the milliseconds from the opening of the file until text
and until the matrix are on the screen, until the next head, the next token and the other views are, and the longest time between
two frames while the text is scrolled. Needs selenium, chromium and chromedriver.

Up to 4,096 tokens the maps hold queries and keys, as `limelight show` captures them; of longer inputs it captures statistics,
which are made up here: to write a page takes as long whatever they say.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import limelight as ll
from limelight._attention_statistics import block_edges
from limelight.maps.sources import QKSource, StatisticsSource

SIZE, BLOCKS, TOP_KEYS = 64, 512, 16
LONGEST_EXACT = 4096
WORDS = ("the", "film", "is", "a", "quietly", "moving", "portrait", "of", "people", "who", "never", "give", "up", ",")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900")

# Note when the matrix is first on the screen, and the longest time between two frames since it was last asked for.
WATCH = """
window.watched = {drawn: null, longest: 0, last: performance.now()};
(function frame() {
  const now = performance.now();
  window.watched.longest = Math.max(window.watched.longest, now - window.watched.last);
  window.watched.last = now;
  if (window.watched.drawn === null && document.querySelector(".matrix canvas")?.height > 150) window.watched.drawn = now;
  requestAnimationFrame(frame);
})();
"""
# The time from an action until the frame after it is on the screen.
ACT = """
const [action, done] = [new Function(arguments[0]), arguments[1]], start = performance.now();
action();
requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
"""
SCROLL = """
const [selector, done] = arguments, box = selector ? document.querySelector(selector) : document.scrollingElement;
window.watched.longest = 0;
window.watched.last = performance.now();
let step = 0;
(function scroll() {
  box.scrollTop = (step / 60) * (box.scrollHeight - box.clientHeight);
  if (step++ < 60) requestAnimationFrame(scroll);
  else done(window.watched.longest);
})();
"""
KEY = """
document.querySelector(".matrix, .figure, .tokens").dispatchEvent(new KeyboardEvent("keydown", {key: "%s", bubbles: true}))
"""
TAB = "document.querySelector('[data-view=\"%s\"]').click()"


def make_source(random: np.random.Generator, heads: int, tokens: int) -> QKSource:
    """Return queries and keys whose attention falls on near tokens and on a few strong ones."""
    places = np.arange(tokens)[:, None] / np.geomspace(2, tokens / 4, 8)
    waves = np.concatenate([np.cos(places), np.sin(places)], axis=-1)
    query, key = random.standard_normal((2, 1, heads, tokens, SIZE)).astype(np.float32)
    strength = np.linspace(0.5, 3, heads)[:, None, None]
    query[..., :16], key[..., :16] = waves * strength, waves * 4
    return QKSource(query, key, SIZE**-0.5)


def make_statistics(random: np.random.Generator, heads: int, tokens: int) -> StatisticsSource:
    """Return statistics of the shapes that a model computes."""
    rows = (1, heads, tokens)
    weights = np.sort(random.pareto(1.5, (*rows, TOP_KEYS)).astype(np.float32))[..., ::-1]
    weights = 0.8 * weights / (weights.sum(-1, keepdims=True) + 1)
    edges = block_edges(tokens, BLOCKS)
    blocks = np.arange(len(edges) - 1)
    means = random.gamma(0.5, size=(1, heads, len(blocks), len(blocks))) + 20 / (1 + np.abs(blocks[:, None] - blocks))
    means = (means / means.sum(-1, keepdims=True)).astype(np.float32) / np.diff(edges)
    per_row = np.ones(rows, np.float32)
    return StatisticsSource(
        entropy=4 * per_row,
        logsumexp=per_row,
        top_keys=random.integers(0, tokens, (*rows, TOP_KEYS), dtype=np.int32),
        top_weights=weights.astype(np.float32),
        distance=100 * per_row,
        received=per_row,
        block_sums=means * np.diff(edges)[:, None] * np.diff(edges),
        mass=per_row,
        row_edges=edges,
        column_edges=edges,
        block_max=np.minimum(1, means * random.uniform(2, 50, means.shape)).astype(np.float32),
    )


def make_maps(layers: int, heads: int, tokens: int) -> ll.AttentionMaps:
    """Return the maps of a model."""
    random = np.random.default_rng(0)
    words = [f"{WORDS[index % len(WORDS)]}" for index in range(tokens)]
    make = make_source if tokens <= LONGEST_EXACT else make_statistics
    sources = [make(random, heads, tokens) for _ in range(layers if tokens <= LONGEST_EXACT else 1)]
    return ll.AttentionMaps(
        ll.AttentionMap(f"encoder/block_{layer + 1}", sources[layer % len(sources)]).with_tokens(words, words)
        for layer in range(layers)
    )


@contextmanager
def open_browser(folder: Path) -> Iterator[Any]:
    """Yield a headless Chromium of desktop size."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        driver.set_script_timeout(300)
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
        yield driver
    finally:
        driver.quit()


def measure(driver: Any, path: Path, repeats: int) -> dict[str, float]:
    """Return the milliseconds of the page: the median of the openings and actions, the longest frame of scrolling."""
    times: dict[str, list[float]] = {"text": [], "matrix": []}
    for _ in range(repeats):
        driver.get("about:blank")
        driver.get(path.as_uri())
        while driver.execute_script("return window.watched.drawn") is None:
            time.sleep(0.05)
        times["matrix"].append(driver.execute_script("return window.watched.drawn"))
        script = 'return performance.getEntriesByName("first-contentful-paint")[0].startTime'
        times["text"].append(driver.execute_script(script))
    act = lambda script: driver.execute_async_script(ACT, script)  # noqa: E731
    times["head"] = [act(KEY % "]") for _ in range(8)]
    times["layer"] = [act(KEY % "}") for _ in range(8)]
    times["token"] = [act(KEY % "ArrowDown") for _ in range(8)]
    times["zoom"] = [act(KEY % "+") for _ in range(4)]
    slowest = {f"slowest {name}": max(values) for name, values in times.items() if name not in ("text", "matrix")}
    views = {view: [act(TAB % view)] for view in ("arcs", "text") if _is_offered(driver, view)}
    times |= views
    times["token in text"] = [act(KEY % "ArrowRight") for _ in range(8)]
    box = ".tokens.long" if driver.execute_script("return document.querySelector('.tokens.long') !== null") else ""
    times["longest frame of scrolling"] = [driver.execute_async_script(SCROLL, box)]
    return {name: float(np.median(values)) for name, values in times.items()} | slowest


def _is_offered(driver: Any, view: str) -> bool:
    return driver.execute_script(f"return !document.querySelector('[data-view=\"{view}\"]').hidden")


def main() -> None:
    """Parse the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--tokens", type=int, nargs="+", default=[512, 32_768])
    parser.add_argument("--repeats", type=int, default=5, help="openings of each page (default: 5)")
    arguments = parser.parse_args()
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        sys.exit("needs chromium and chromedriver on the PATH (Debian: chromium, chromium-driver)")
    with tempfile.TemporaryDirectory() as folder, open_browser(Path(folder)) as driver:
        for tokens in arguments.tokens:
            maps = make_maps(arguments.layers, arguments.heads, tokens)
            path, started = Path(folder, f"{tokens}.html"), time.perf_counter()
            ll.report.write(path, maps, title=f"{tokens} tokens")
            seconds = time.perf_counter() - started
            print(f"{arguments.layers} layers x {arguments.heads} heads x {tokens:,} tokens")
            print(f"  page {path.stat().st_size / 1e6:.1f} MB, written in {seconds:.1f} s")
            times = measure(driver, path, arguments.repeats)
            print("  ms: " + ", ".join(f"{name} {value:.0f}" for name, value in times.items()), flush=True)


if __name__ == "__main__":
    main()
