"""Every view and key of the attention viewer in a real browser, against the weights behind the page."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from browsing import DOWN, ENTER, LEFT, RIGHT, UP
from limelight import report
from limelight.maps import AttentionMap, AttentionMaps
from limelight.maps.sources import QKSource
from limelight.maps.stored_mask import StoredMask
from limelight.report import View
from limelight.report.figures import shade

pytestmark = [pytest.mark.backend_free, pytest.mark.browser, pytest.mark.slow]

WORDS = ["a", "quietly", "moving", "film", ",", "carried", "by", "two", "performances"]
SOURCE = ["ein", "leise", "bewegender", "Film"]
# What stands on the page for tokens that would do harm, or would not be seen.
HOSTILE = {
    "</script><img src=x onerror=alert(1)>": "</script><img src=x onerror=alert(1)>",
    "\u202egnp.exe": "⟨202E⟩gnp.exe",
    "x" * 10_000: "x" * 119 + "…",
    "a\0b": "a⟨0000⟩b",
    "👩‍👩‍👧‍👦🏳️‍🌈": "👩‍👩‍👧‍👦🏳️‍🌈",
    "\ud800lone": "\ufffdlone",
    "&lt;b&gt;": "&lt;b&gt;",
    "": "∅",
    " ": "␣",
}
HEADS, LAYERS, STEPS, EPOCHS = 3, ("encoder/one", "encoder/two"), 11, 3
SVG = "{http://www.w3.org/2000/svg}"
VIRIDIS = ["440154", "482475", "414487", "355f8d", "2a788e", "21918c", "22a884", "44bf70", "7ad151", "bddf26", "fde725"]


def make_weights(random: np.random.Generator, *shape: int) -> np.ndarray:
    """Return weights whose strongest keys are far apart."""
    return np.float32(random.dirichlet(np.full(shape[-1], 0.4), shape[:-1]))


def make_model(seed: int) -> AttentionMaps:
    """Return self-attention on a text and on hostile tokens, cross-attention and a pooling."""
    random = np.random.default_rng(seed)
    texts = [WORDS, list(HOSTILE)]
    count = len(WORDS)
    return AttentionMaps(
        [
            *(
                AttentionMap.from_weights(
                    make_weights(random, 2, HEADS, count, count), path=layer, tokens=texts, query_tokens=texts
                )
                for layer in LAYERS
            ),
            AttentionMap.from_weights(
                make_weights(random, 2, 2, count, len(SOURCE)), path="cross", tokens=[SOURCE] * 2, query_tokens=texts
            ),
            AttentionMap.from_weights(make_weights(random, 2, 1, 1, count), path="pooling", tokens=texts),
        ]
    )


FIRST, SECOND = make_model(1), make_model(2)
SERIES = np.random.default_rng(3).normal(size=(STEPS, 2))
TRAINING = {
    f"epoch {epoch}": AttentionMaps(
        [AttentionMap.from_weights(make_weights(np.random.default_rng(epoch), 1, 2, 1, STEPS), path="pool")]
    )
    for epoch in range(EPOCHS)
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with two models on two examples."""
    view = View({"first": FIRST, "second": SECOND}, labels=["Predicted: 1", "Predicted: 2"])
    return report.write(tmp_path_factory.mktemp("models") / "models.html", view)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with the epochs of a model of a series."""
    view = View(TRAINING, series=[SERIES], epochs=True)
    return report.write(tmp_path_factory.mktemp("training") / "training.html", view)


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with a text that is padded by three tokens on the left, and that attends evenly."""
    zeros, real = np.zeros((1, 1, len(WORDS), 2), np.float32), np.arange(len(WORDS))[None] >= 3
    source = QKSource(zeros, zeros, mask=StoredMask(keys=real, queries=real))
    return report.write(
        tmp_path_factory.mktemp("padded") / "padded.html", AttentionMap("mha", source).with_tokens(WORDS)
    )


def get_weights(maps: AttentionMaps, layer: str, head: int = 0, example: int = 0) -> np.ndarray:
    return maps[layer].weights(heads=[head], examples=[example])[0, 0]


def is_stored(weights: np.ndarray) -> np.ndarray:
    """Return which weights are not rounded to 0 in the page."""
    return weights > weights.max() * (0.5 / 255) ** 2


def parse_percent(text: str) -> float:
    return float(re.search(r"([\d.]+)\u202f%", text)[1]) / 100  # pyright: ignore[reportOptionalSubscript]


def read_ranking(tab, number: int = 0) -> list[tuple[str, float]]:
    """Return the tokens and shares of a list beside the view."""
    rows = tab.all(".attention .side table")[number].find_elements("css selector", "tbody tr")
    cells = [[cell.get_property("textContent") for cell in row.find_elements("css selector", "th, td")] for row in rows]
    return [(name, parse_percent(share) if "<" not in share else 0.0) for name, _, share in cells]


def assert_is_ranking(ranking: list[tuple[str, float]], weights: np.ndarray, names: list[str]) -> None:
    order = np.argsort(-weights, kind="stable")
    assert [name for name, _ in ranking][:3] == [names[index] for index in order[:3]]
    # Two digits of a weight of 8 bits.
    assert [share for _, share in ranking] == pytest.approx(weights[order[: len(ranking)]], abs=0.01)


def read_pixels(tab, count: int) -> np.ndarray:
    """Return the colors at the middle of the cells of a square matrix, (count, count, 3)."""
    values = tab.run(
        """
        const count = arguments[0], canvas = document.querySelector(".matrix canvas"), copy = document.createElement("canvas");
        const wide = canvas.parentElement.clientWidth, left = Math.min(96, wide * 0.26);
        const step = Math.min((wide - left - 2) / count, 30), tall = Math.min(step, 620 / count);
        const middle = (edge, size, cell) => Math.floor(edge + (cell + 0.5) * size);
        [copy.width, copy.height] = [canvas.width, canvas.height];
        const pen = copy.getContext("2d", { willReadFrequently: true });
        pen.drawImage(canvas, 0, 0);
        const colorAt = (x, y) => [...pen.getImageData(x, y, 1, 1).data.slice(0, 3)];
        return Array.from({ length: count * count }, (_, cell) =>
          colorAt(middle(left, step, cell % count), middle(96, tall, Math.floor(cell / count)))).flat();
        """,
        count,
    )
    return np.array(values).reshape(count, count, 3)


def viridis(shares: np.ndarray) -> np.ndarray:
    """Return the colors of viridis, (..., 3)."""
    table = np.array([[int(color[at : at + 2], 16) for at in (0, 2, 4)] for color in VIRIDIS])
    places = np.linspace(0, 1, len(table))
    return np.stack([np.interp(shares, places, channel) for channel in table.T], axis=-1)


def test_every_head_is_shown_as_a_matrix(tab, models):
    tab.open(models, "other=-2&row=8&column=8")
    tab.run("document.querySelector('.matrix').focus()")
    for layer in LAYERS:
        for head in range(HEADS):
            assert tab.text(".stage h3") == f"{layer}, head {head + 1} of {HEADS}"
            weights = get_weights(FIRST, layer, head)
            expected = viridis(np.sqrt(weights / weights.max()))
            assert np.abs(read_pixels(tab, len(WORDS)) - expected).max() <= 3
            assert tab.text("#map-status").startswith(f"“{WORDS[8]}” reads “{WORDS[8]}”: ")
            assert parse_percent(tab.text("#map-status")) == pytest.approx(weights[8, 8], abs=0.01)
            assert_is_ranking(read_ranking(tab), weights[8], WORDS)
            tab.keys("]")
        tab.keys("[", "[", "}")
        assert tab.text(".stage h3").endswith("head 1 of 3") or layer == LAYERS[-1]
    assert tab.text(".stage h3") == "cross, head 1 of 2"
    tab.keys("{", "{", "{")
    assert tab.text(".stage h3") == f"{LAYERS[0]}, head 1 of {HEADS}"


def test_text_is_shaded_by_what_the_token_reads(tab, models):
    tab.open(models, "view=text&map=1&head=2&other=-2")
    tab.run("document.querySelector('.tokens').focus()")
    for row in range(3):
        weights = get_weights(FIRST, LAYERS[1], 2)[row]
        names = [name for (name,) in tab.attributes(".tokens mark", "class")]
        assert tab.texts(".tokens mark") == WORDS
        shades = [int(re.search(r"weight-(\d)", name)[1]) for name in names]  # pyright: ignore[reportOptionalSubscript]
        assert shades == [shade(weight, len(WORDS)) for weight in weights]
        assert names[row].endswith("cursor")
        tab.keys(RIGHT)
    tab.keys(LEFT, ENTER)
    assert tab.state() == {"view": "text", "map": "1", "head": "2", "other": "-2", "row": "2", "held": "1"}
    assert tab.all(".tokens mark.pinned")[0].text == WORDS[2]


def test_text_of_other_queries_than_keys(tab, models):
    tab.open(models, "view=text&map=2&head=1&row=4&other=-2")
    assert tab.texts(".pane .tokens mark") == [*WORDS, *SOURCE]
    weights = get_weights(FIRST, "cross", 1)[4]
    assert_is_ranking(read_ranking(tab), weights, SOURCE)
    tab.all(".pane .tokens")[0].find_elements("css selector", "mark")[6].click()
    assert tab.state() | {"row": "6", "held": "1"} == tab.state()
    assert_is_ranking(read_ranking(tab), get_weights(FIRST, "cross", 1)[6], SOURCE)


def test_arcs_are_as_wide_as_the_weights(tab, models):
    tab.open(models, "view=arcs&map=0&head=1&row=3&other=-2")
    count, weights = len(WORDS), get_weights(FIRST, LAYERS[0], 1)
    accent = tab.run("return getComputedStyle(document.documentElement).getPropertyValue('--accent').trim()")
    drawn = np.zeros((count, count))
    for line, stroke, width in tab.attributes(".pane:not([hidden]) .figure path", "d", "stroke", "stroke-width"):
        start, end = (float(re.search(pattern, line)[1]) for pattern in (r"^M\S+ ([\d.]+)C", r" ([\d.]+)$"))  # pyright: ignore[reportOptionalSubscript]
        row, column = round((start - 30) / 21), round((end - 30) / 21)
        assert (stroke == accent) == (row == 3)
        drawn[row, column] = (float(width) - 0.6) / (5 if row == 3 else 3)
    assert drawn == pytest.approx(weights / weights.max(), abs=0.012)
    tab.run("document.querySelector('.figure').focus()")
    tab.keys(DOWN, DOWN, UP, RIGHT, ENTER)
    assert tab.state() | {"row": "4", "column": "1", "held": "1"} == tab.state()
    assert_is_ranking(read_ranking(tab), weights[4], WORDS)


# Press a tab, and return how often its figure was drawn until the page has been laid out anew.
COUNT_DRAWINGS = """
const [view, done] = arguments, drawn = [];
const seen = new MutationObserver((changes) => drawn.push(...changes.filter(({target}) => target.matches(".figure"))));
seen.observe(document.querySelector(".drawing"), {childList: true, subtree: true});
document.querySelector(`[data-view="${view}"]`).click();
let frames = 5;
(function wait() { frames-- ? requestAnimationFrame(wait) : done(drawn.length); })();
"""


def test_a_figure_is_drawn_once_though_the_page_grows(tab, models):
    tab.open(models, "map=0&head=1&other=-2")
    height = tab.run("return document.querySelector('.stage').clientHeight")
    assert tab.driver.execute_async_script(COUNT_DRAWINGS, "arcs") == 1
    assert tab.run("return document.querySelector('.stage').clientHeight") != height


def test_pooling_is_shown_as_text(tab, models):
    tab.open(models, "map=3&other=-2")
    weights = get_weights(FIRST, "pooling")[0]
    assert tab.one('[data-view="text"]').get_attribute("aria-pressed") == "true"
    assert tab.text(".attention .side caption") == "Strongest tokens"
    assert_is_ranking(read_ranking(tab), weights, WORDS)
    tab.open(models, "map=3&other=-2&view=matrix&column=2")
    assert parse_percent(tab.text("#map-status")) == pytest.approx(weights[2], abs=0.01)


def test_two_models_are_side_by_side(tab, models):
    tab.open(models, "map=1&row=5&column=2&held=1")
    assert [pane.text for pane in tab.all(".pane h4")] == ["first", "second"]
    assert len(tab.shown(".matrix canvas")) == 2
    for number, maps in enumerate((FIRST, SECOND)):
        assert_is_ranking(read_ranking(tab, number), get_weights(maps, LAYERS[1])[5], WORDS)
    told = re.findall(r"(first|second): “carried” reads “moving”: ([\d.]+)", tab.text("#map-status"))
    expected = {name: 100 * get_weights(maps, LAYERS[1])[5, 2] for name, maps in (("first", FIRST), ("second", SECOND))}
    assert {name: float(share) for name, share in told} == pytest.approx(expected, abs=0.6)
    tab.open(models, "set=1&other=-2&map=1&row=5")
    assert_is_ranking(read_ranking(tab), get_weights(SECOND, LAYERS[1])[5], WORDS)
    assert len(tab.shown(".matrix canvas")) == 1


def test_pointer_does_not_move_a_pin(tab, models):
    tab.open(models, "map=0&row=2&held=1&other=-2")
    canvas = tab.wait(lambda: (found := tab.one(".matrix canvas")).size["height"] > 100 and found)
    tab.hover(canvas, 10, 60)
    weights = get_weights(FIRST, LAYERS[0])
    assert tab.text(".attention .side caption") == f"“{WORDS[2]}” reads (pinned)"
    assert_is_ranking(read_ranking(tab), weights[2], WORDS)
    reads, read = re.match("“(.*)” reads “(.*?)”", tab.text("#map-status")).groups()
    assert WORDS.index(reads) != 2
    assert parse_percent(tab.text("#map-status")) == pytest.approx(
        weights[WORDS.index(reads), WORDS.index(read)], abs=0.006
    )
    # A key of the list becomes the current one.
    tab.all(".attention .side .token")[1].click()
    assert tab.state()["column"] == str(np.argsort(-weights[2], kind="stable")[1])
    tab.keys(ENTER)
    assert "held" not in tab.state()


def test_search_finds_tokens(tab, models):
    tab.open(models, "map=0&other=-2")
    tab.run("document.querySelector('.head').focus()")
    tab.keys("/", "m", "o", "v")
    assert tab.state()["row"] == "2"
    tab.keys(*"zz")
    assert tab.one('.attention [type="search"]').get_attribute("aria-invalid") == "true"
    field = tab.one('.attention [type="search"]')
    tab.run("arguments[0].value = 'e'; arguments[0].dispatchEvent(new Event('input'))", field)
    expected = [index for index in range(2, 9) if "e" in WORDS[index]]
    for index in expected:
        assert tab.state()["row"] == str(index)
        tab.keys(ENTER)
    tab.run("document.activeElement.blur(); document.querySelector('.attention [type=search]').value = ''")


def test_grid_tells_the_measures(tab, models):
    tab.open(models, "other=-2")
    measures = {
        "entropy": lambda weights, _: -np.sum(weights * np.log(weights.clip(1e-30)), -1).mean(),
        "distance": lambda weights, places: np.sum(weights * np.abs(places[:, None] - places), -1).mean(),
    }
    for measure, compute in measures.items():
        tab.open(models, f"other=-2&measure={measure}")
        for layer, name in enumerate(LAYERS):
            for head in range(HEADS):
                ((label,),) = tab.attributes(
                    f".heads tbody tr:nth-child({layer + 1}) td:nth-of-type({head + 1}) button", "aria-label"
                )
                value = compute(get_weights(FIRST, name, head), np.arange(len(WORDS)))
                told = float(re.search(r"entropy ([\d.]+)" if measure == "entropy" else r"looks ([\d.]+)", label)[1])
                assert label.startswith(f"{name}, head {head + 1}: ")
                assert told == pytest.approx(value, abs=0.06 if measure == "distance" else 0.006)
    tab.run("document.querySelector('.head').focus()")
    tab.keys(DOWN, RIGHT, RIGHT, UP, LEFT)
    assert tab.driver.switch_to.active_element.get_attribute("aria-label").startswith(f"{LAYERS[0]}, head 2: ")
    assert tab.text(".stage h3") == f"{LAYERS[0]}, head 2 of {HEADS}"


def test_a_slider_moves_between_epochs(tab, training):
    tab.open(training, "other=-2")
    slider = tab.one('input[type="range"]')
    tab.run("arguments[0].focus()", slider)
    for epoch in range(EPOCHS):
        assert tab.text("output") == f"epoch {epoch}"
        weights = get_weights(TRAINING[f"epoch {epoch}"], "pool")[0]
        heights = [float(height) for (height,) in tab.attributes(".pane:not([hidden]) .figure rect", "height")]
        assert heights == pytest.approx(200 * weights[is_stored(weights)] / weights.max(), abs=1.5)
        assert_is_ranking(read_ranking(tab), weights, [f"#{step + 1}" for step in range(STEPS)])
        tab.keys(RIGHT)
    tab.open(training, "set=2&other=0&column=4")
    assert [pane.text for pane in tab.all(".pane h4")] == ["epoch 2", "epoch 0"]


def test_series_is_drawn_above_its_weights(tab, training):
    tab.open(training, "head=1&column=3&other=-2")
    lines = [points for (points,) in tab.attributes(".pane:not([hidden]) .figure polyline", "points")]
    points = np.array([[[float(number) for number in point.split(",")] for point in line.split()] for line in lines])
    assert points.shape == (2, STEPS, 2)
    heights = (points[..., 1].max() - points[..., 1]) / np.ptp(points[..., 1])
    assert pytest.approx((SERIES - SERIES.min()) / np.ptp(SERIES), abs=0.01) == heights.T
    values = [float(value.replace("−", "-")) for value in tab.text("#map-status").split("Value: ")[1].split(", ")]
    assert values == pytest.approx(SERIES[3], rel=0.01)


@pytest.mark.parametrize("view", ["matrix", "text", "arcs"])
def test_padding_changes_no_share_and_no_count(tab, padded, view):
    tab.open(padded, f"row=6&column=5&view={view}")
    assert "In effect a token reads 6.0 tokens." in tab.text(".explained")
    assert tab.text("#map-status").startswith(
        f"“{WORDS[6]}” reads “{WORDS[5]}”: 17\u202f% of the attention, 1.0 times its equal share, 1st of 6"
    )
    if view == "text":
        shades = [name.split()[0] for (name,) in tab.attributes(".tokens mark", "class")]
        assert shades == ["weight-0"] * 3 + ["weight-2"] * 6


@pytest.mark.parametrize("view", ["matrix", "text", "arcs"])
def test_what_is_missing_is_not_drawn_as_zero(tab, tmp_path, view):
    weights = make_weights(np.random.default_rng(5), 1, len(WORDS), len(WORDS))
    weights[0, 4] = np.nan
    path = report.write(tmp_path / "missing.html", AttentionMap.from_weights(weights, path="mha", tokens=WORDS))
    tab.reload(path, f"row=4&column=3&view={view}")
    assert tab.texts(".attention > .note") == ["Weights that are NaN or infinity are missing, and not drawn, in: mha."]
    assert tab.text("#map-status").startswith(f"“{WORDS[4]}” reads: weights that are not finite")
    assert "In effect" not in tab.text(".explained")
    assert "\u202f%" not in tab.text(".side")
    if view == "matrix":
        alpha = tab.run(
            "const canvas = document.querySelector('.matrix canvas'), copy = document.createElement('canvas');"
            "[copy.width, copy.height] = [canvas.width, canvas.height];"
            "const pen = copy.getContext('2d', { willReadFrequently: true }); pen.drawImage(canvas, 0, 0);"
            "return [3.5, 4.5].map((row) => pen.getImageData(96 + 7.5 * 30, 96 + row * 30, 1, 1).data[3])"
        )
        assert alpha == [255, 0]


@pytest.mark.parametrize("view", ["matrix", "text"])
def test_tokens_from_right_to_left_leave_the_sentence_in_order(tab, tmp_path, view):
    words = ["שלום", "עולם", "great", "film", "السلام"]
    weights = make_weights(np.random.default_rng(8), 1, 5, 5)
    path = report.write(tmp_path / "bidi.html", AttentionMap.from_weights(weights, path="mha", tokens=words))
    tab.reload(path, f"row=1&column=0&view={view}")
    status = tab.text("#map-status")
    assert status.startswith("“\u2068עולם\u2069” reads “\u2068שלום\u2069”: ")
    # Where each part is drawn: query, "reads", key and share stand from left to right.
    lefts = tab.run(
        """
        const node = document.querySelector("#map-status").firstChild, text = node.textContent;
        return [1, text.indexOf("reads"), text.indexOf("שלום"), text.indexOf("%")].map((at) => {
          const range = document.createRange();
          range.setStart(node, at);
          range.setEnd(node, at + 2);
          return range.getBoundingClientRect().left;
        });
        """
    )
    assert lefts == sorted(lefts)
    assert {name for name, _ in read_ranking(tab)} <= set(words)


@pytest.mark.parametrize("kind", ["matrix", "text", "arcs", "lines"])
def test_each_view_is_saved(tab, models, training, tmp_path, kind):
    tab.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    tab.reload(training if kind == "lines" else models, f"view={kind}&head=1&row=3&other=-2")
    tab.run("document.querySelector('.matrix, .figure, .tokens').focus()")
    tab.keys("s")
    (path,) = tab.wait(lambda: list(tmp_path.glob("*.svg")))
    assert path.name == ("pool-head-2-of-2.svg" if kind == "lines" else "encoder-one-head-2-of-3.svg")
    figure = ElementTree.fromstring(tab.wait(path.read_text))
    texts = [element.text for element in figure.iter(f"{SVG}text")]
    if kind == "lines":
        assert len(list(figure.iter(f"{SVG}polyline"))) == 2
        return
    assert [text for text in texts if text in WORDS] == WORDS * (1 if kind == "text" else 2)
    weights = get_weights(FIRST, LAYERS[0], 1)
    if kind == "text":
        assert f"What “{WORDS[3]}” reads" in texts
        # The frame, and a box for each token with a shade.
        assert len(list(figure.iter(f"{SVG}rect"))) == 1 + sum(shade(weight, len(WORDS)) > 0 for weight in weights[3])
    if kind == "arcs":
        assert len(list(figure.iter(f"{SVG}path"))) == is_stored(weights).sum()


@pytest.mark.parametrize("state", ["", "view=matrix&map=3", "view=text", "view=text&map=2", "view=arcs", "map=2"])
@pytest.mark.parametrize("width", [1280, 390])
def test_hostile_tokens_are_text_in_every_view(tab, models, width, state):
    tab.size(width)
    tab.open(models, f"text=1&row=2&column=2&held=1&{state}")
    assert tab.all("img, script[src], iframe") == []
    shown = tab.text(".attention")
    if "matrix" not in state:
        for text in HOSTILE.values():
            expected = text if "arcs" not in state else text[:5]
            assert expected in shown or "view" not in state, expected
    listed = [name for name, _ in read_ranking(tab)]
    assert set(listed) <= {*HOSTILE.values(), *SOURCE}
    assert tab.run("return document.documentElement.scrollWidth") <= width
    assert tab.overflowing() == []
    # No direction of writing leaks from a token into the line that names it.
    assert "\u202e" not in shown


def test_nothing_is_requested(tab, models, training):
    tab.reload(models, "text=1&view=text")
    tab.keys("]", "}", "+")
    tab.reload(training)
    assert tab.requests() <= {models.as_uri(), training.as_uri(), "about:blank"}
