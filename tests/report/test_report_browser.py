"""The page in a real browser: no errors, requests or markup from data; mouse, keyboard and address."""

import html
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from browsing import DOWN, ENTER
from limelight import report
from limelight.maps import AttentionMap
from limelight.report import views
from report.studies import ATTACK, make_maps, make_results

pytestmark = [pytest.mark.backend_free, pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with all sections."""
    return report.write(tmp_path_factory.mktemp("report") / "report.html", make_maps(), results=make_results())


def parse_share(text: str) -> float:
    """Return the fraction of the attention that a line states."""
    found = re.search(r"([\d.]+)\u202f% of the attention", text)
    assert found, text
    return float(found[1]) / 100


def test_opens_without_errors_and_requests(tab, path):
    tab.open(path)
    tab.wait(lambda: tab.one("canvas").size["height"] > 100)
    assert tab.requests() == {path.as_uri()}
    assert tab.console_messages() == []
    assert " ".join(tab.one(".verdict").text.split()) == make_results()["verdict"][0]


def test_markup_in_a_review_is_text(tab, path):
    tab.open(path)
    (review,) = [element for element in tab.all("#texts .reading") if "prints" in element.text]
    assert ATTACK in review.text
    assert tab.all("img") == []
    from selenium.common.exceptions import NoAlertPresentException

    with pytest.raises(NoAlertPresentException):
        _ = tab.driver.switch_to.alert.text


def test_policy_blocks_other_scripts_and_images(tab, path):
    tab.open(path)
    tab.run("const s = document.createElement('script'); s.textContent = 'window.broken = 1'; document.body.append(s);")
    tab.run("const i = document.createElement('img'); i.src = 'https://example.org/x.png'; document.body.append(i);")
    tab.wait(
        lambda: (
            len(messages := tab.console_messages()) >= 2 and all("Content Security Policy" in text for text in messages)
        )
    )
    assert tab.run("return window.broken") is None
    tab.driver.get("about:blank")


def test_texts_are_filtered_by_kind_and_search(tab, path):
    tab.open(path)
    assert len(tab.shown("#texts article")) == 12
    tab.one('[data-kind="least certain"]').click()
    assert len(tab.shown("#texts article")) == 3
    assert tab.text("#found") == "3 of 12 examples"
    assert tab.one('[data-kind="least certain"]').get_attribute("aria-pressed") == "true"
    tab.one('[data-kind=""]').click()
    tab.keys("/", "DULL")
    assert [element.text for element in tab.shown("#texts .reading")] == [
        text for text in (example["text"] for example in make_results()["examples"]) if "dull" in text
    ]
    assert tab.state() == {"find": "DULL"}
    tab.keys("zzz")
    assert tab.shown("#texts article") == []
    assert tab.text("#found").startswith("No example fits")


def test_hovering_describes_and_pinning_stays(tab, path):
    tab.open(path)
    example = make_results()["examples"][2]
    card = tab.all("#texts article")[2]
    marks = card.find_elements("css selector", ".reading mark")
    status = card.find_element("css selector", ".status")
    tab.hover(marks[6])
    assert status.text.startswith("“pacing”: ")
    assert parse_share(status.text) == pytest.approx(example["weights"][6], abs=6e-4)
    stale = example["tokens"].index("stale")
    marks[stale].click()
    assert "“stale”" in status.text
    assert status.text.endswith("(pinned)")
    tab.hover(marks[6])
    assert "“stale”" in status.text
    assert tab.state() == {"example": "2", "token": str(stale), "pinned": "1"}
    marks[stale].click()
    tab.hover(marks[6])
    assert status.text.startswith("“pacing”: ")


def test_series_is_shown_as_bars(tab, tmp_path):
    weights = [0.1, 0.2, 0.4, 0.3]
    series = {
        "id": 5,
        "tokens": ["1", "2", "3", "4"],
        "weights": weights,
        "text": None,
        "offsets": [],
        "kind": "least certain",
    }
    tab.open(report.write(tmp_path / "series.html", examples=[series]))
    assert "null" not in tab.one("#texts").text
    marks = tab.all("#texts .bars mark")
    heights = [mark.rect["height"] for mark in marks]
    assert [height / max(heights) for height in heights] == pytest.approx(
        [weight / 0.4 for weight in weights], abs=0.02
    )
    tab.hover(marks[2])
    assert tab.text("#texts .status") == "“step 3”: 40\u202f% of the attention, 1.6 times its equal share, 1st of 4"


def test_keys_move_and_pin_the_token(tab, path):
    tab.open(path)
    card = tab.all("#texts article")[1]
    tab.run("arguments[0].focus()", card.find_element("css selector", ".reading"))
    right, left, enter = "\ue014", "\ue012", "\ue007"
    tab.keys(right, right, right, left)
    assert tab.state() == {"example": "1", "token": "1"}
    assert card.find_element("css selector", "mark.cursor").text == ","
    tab.keys(right, enter)
    assert tab.state() == {"example": "1", "token": "2", "pinned": "1"}
    assert card.find_element("css selector", "mark.pinned").text == "tender"
    tab.keys(enter)
    assert tab.state() == {"example": "1", "token": "2"}


def test_address_restores_the_state(tab, path):
    tab.open(
        path, "kind=least+certain&example=6&token=4&pinned=1&map=1&head=2&text=1&row=5&column=3&held=1&measure=distance"
    )
    assert len(tab.shown("#texts article")) == 3
    assert tab.one("#texts mark.pinned").text == "charm"
    assert tab.text(".stage h3") == "encoder/block_2, head 3 of 4"
    assert tab.text(".attention .side caption") == "“dull” reads (pinned)"
    assert tab.one("#measure").get_property("value") == "distance"
    tab.open(path, "map=99&head=-3&text=abc&example=77&token=1&pinned=1&row=1e9&measure=%00")
    assert tab.text(".stage h3") == "pooling"
    assert tab.all("mark.pinned") == []


def test_links_within_the_page_keep_the_state(tab, path):
    tab.reload(path, "find=film")
    tab.one('nav a[href="#provenance"]').click()
    tab.wait(lambda: abs(tab.one("#provenance").location["y"] - tab.run("return scrollY")) < 900)
    assert tab.state() == {"find": "film"}


def test_matrix_by_mouse(tab, path):
    from selenium.webdriver import ActionChains

    attention_map = make_maps()["encoder/block_2"]
    tokens = list(attention_map.tokens[0])
    assert len(set(tokens)) == len(tokens)
    tab.open(path, "map=1")
    canvas = tab.wait(lambda: (found := tab.one("canvas")).size["height"] > 100 and found)
    tab.hover(canvas, -20, 30)
    reads, read = re.match("“(.*)” reads “(.*?)”", tab.text("#map-status")).groups()
    expected = attention_map.weights(examples=[0])[0, 0, tokens.index(reads), tokens.index(read)]
    assert parse_share(tab.text("#map-status")) == pytest.approx(expected, abs=6e-3)
    assert tab.text(".attention .side caption") == f"“{reads}” reads"
    ActionChains(tab.driver).click().perform()
    assert tab.text(".attention .side caption") == f"“{reads}” reads (pinned)"
    tab.hover(canvas, 40, 120)
    assert not tab.text("#map-status").startswith(f"“{reads}”")
    assert tab.text(".attention .side caption") == f"“{reads}” reads (pinned)"
    row, column = tokens.index(reads), tokens.index(read)
    assert tab.state() == {"map": "1", "row": str(row), "column": str(column), "held": "1"}


def test_matrix_by_keyboard(tab, path):
    maps = make_maps()
    tab.open(path)
    tab.run("document.querySelector('.matrix').focus()")
    down, right, enter = "\ue015", "\ue014", "\ue007"
    tab.keys("]", "]", "}", down, down, down, right, enter)
    assert tab.text(".stage h3") == "encoder/block_2, head 3 of 4"
    tokens = list(maps["encoder/block_2"].tokens[0])
    weights = maps["encoder/block_2"].weights(heads=[2], examples=[0])[0, 0, 3, : len(tokens)]
    assert tab.text("#map-status").startswith(f"“{tokens[3]}” reads “{tokens[1]}”")
    assert tab.text(".attention .side caption") == f"“{tokens[3]}” reads (pinned)"
    listed = [element.get_property("textContent") for element in tab.all(".attention .side .token")]
    assert listed[:5] == [tokens[index] for index in np.argsort(-weights, kind="stable")[:5]]
    assert tab.state() == {"map": "1", "head": "2", "row": "3", "column": "1", "held": "1"}
    tab.keys("[", "{")
    assert tab.text(".stage h3") == "encoder/block_1, head 2 of 4"


def test_grid_of_heads_by_keyboard(tab, path):
    tab.open(path)
    assert [button.get_attribute("tabindex") for button in tab.all(".head")].count("0") == 1
    assert tab.one(".head").get_attribute("aria-label").startswith("encoder/block_1, head 1: reads ")
    tab.run("document.querySelector('.head').focus()")
    tab.keys("\ue014", "\ue015", "\ue015")
    focused = tab.driver.switch_to.active_element
    assert focused.get_attribute("aria-label").startswith("encoder/block_3, head 2: ")
    assert focused.get_attribute("aria-pressed") == "true"
    assert tab.text(".stage h3") == "encoder/block_3, head 2 of 4"
    tab.run("const m = document.querySelector('#measure'); m.value = 'distance'; m.dispatchEvent(new Event('change'));")
    assert "tokens away on average" in tab.one(".head").get_attribute("aria-label")


def test_help_opens_and_closes(tab, path):
    tab.open(path)
    tab.keys("?")
    assert tab.one("#help").is_displayed()
    tab.keys("?")
    assert not tab.one("#help").is_displayed()
    tab.one("#help-button").click()
    assert tab.one("#help").is_displayed()
    tab.keys("\ue00c")
    assert not tab.one("#help").is_displayed()


def test_views_are_saved_as_svg(tab, path, tmp_path):
    tab.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    tab.reload(path, "map=0&head=1")
    tab.run("document.querySelector('.matrix').focus()")
    tab.keys("s")
    (drawn,) = tab.wait(lambda: list(tmp_path.glob("*.svg")))
    assert drawn.name == "encoder-block_1-head-2-of-4.svg"
    tree = ElementTree.fromstring(tab.wait(drawn.read_text))
    names = [element.text for element in tree.iter("{http://www.w3.org/2000/svg}text")]
    tokens = list(make_maps()["encoder/block_1"].tokens[0])
    assert [name for name in names if name in tokens] == tokens * 2
    drawn.unlink()
    tab.reload(path, "example=0&token=0")
    tab.keys("s")
    (drawn,) = tab.wait(lambda: list(tmp_path.glob("*.svg")))
    tree = ElementTree.fromstring(tab.wait(drawn.read_text))
    assert len(tree.findall("{http://www.w3.org/2000/svg}rect")) == 1 + len(make_results()["examples"][0]["tokens"])


@pytest.mark.parametrize("width", [390, 1280])
def test_page_does_not_scroll_sideways(tab, path, width):
    tab.size(width)
    tab.open(path)
    tab.wait(lambda: tab.one("canvas").size["height"] > 100)
    for summary in tab.all("details:not([open]) > summary"):
        tab.run("arguments[0].click()", summary)
    assert tab.run("return document.documentElement.scrollWidth") <= width
    assert tab.overflowing() == []


def luminance(color: str) -> float:
    """Return the relative luminance of a computed color (WCAG 2)."""
    channels = [float(number) for number in re.findall(r"[\d.]+(?:e-?\d+)?", color.removeprefix("color(srgb"))][:3]
    if not color.startswith("color("):
        channels = [channel / 255 for channel in channels]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_shade_has_enough_contrast(tab, path, scheme):
    tab.size(1280, scheme=scheme)
    tab.open(path)
    found = tab.run(
        """
        const look = (node, name) => [name, getComputedStyle(node).color, getComputedStyle(node).backgroundColor];
        const shades = [1, 2, 3, 4, 5, 6, 7, 8].map((level) => `weight-${level}`)
          .concat([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map((level) => `shade-${level}`)).map((name) => {
            const node = document.createElement("mark");
            node.className = name;
            document.body.append(node);
            return look(node, name);
          });
        const [, ink, paper] = look(document.documentElement, "page");
        return [...shades, ["page", ink, paper], ["note", getComputedStyle(document.querySelector(".note")).color, paper]];
        """
    )
    dark_page = luminance(next(background for name, _, background in found if name == "page")) < 0.1
    assert dark_page == (scheme == "dark")
    backgrounds = []
    for name, ink, background in found:
        low, high = sorted([luminance(ink), luminance(background)])
        assert (high + 0.05) / (low + 0.05) >= 4.5, (name, ink, background)
        if name.startswith("weight"):
            backgrounds.append(luminance(background))
    # More attention always differs more from the page.
    steps = np.diff(backgrounds)
    assert (steps > 0).all() if scheme == "dark" else (steps < 0).all()


def test_numbers_and_texts_without_scripts(tab, path):
    tab.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        tab.reload(path)
        document = tab.driver.execute_cdp_cmd("DOM.getDocument", {})["root"]["nodeId"]
        folds = {"nodeId": document, "selector": "details.fold"}
        for node in tab.driver.execute_cdp_cmd("DOM.querySelectorAll", folds)["nodeIds"]:
            tab.driver.execute_cdp_cmd("DOM.setAttributeValue", {"nodeId": node, "name": "open", "value": ""})
        nodes = tab.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    finally:
        tab.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
        tab.driver.get("about:blank")
    read = " ".join(node["name"]["value"] for node in nodes if node.get("role", {}).get("value") == "StaticText")
    for expected in [
        "Attention raised accuracy from",
        "76.4\u202f%",
        "73.8 to 78.9",
        "encoder/block_3, head 4",
        "most confident, wrong",
    ]:
        assert expected in read
    assert ATTACK.split()[0] in read
    assert "Search" not in read


def test_long_maps(tab, tmp_path, random, monkeypatch):
    monkeypatch.setattr(views, "MAX_CELLS", 2 * 1_440_000)
    monkeypatch.setattr(views, "_CELLS_PER_KEY", 1)
    queries, keys = 521, 2111
    held = random.exponential(1, (2, queries, keys))
    held /= held.sum(axis=-1, keepdims=True)
    held[1, 300] = 0
    held[1, 300, [5, 600, 1030]] = 0.5, 0.3, 0.2
    attention_map = AttentionMap.from_weights(held, path="long", tokens=[f"k{index}" for index in range(keys)])
    tab.open(report.write(tmp_path / "long.html", attention_map), "head=1&row=300&column=600&held=1")
    listed = [element.get_property("textContent") for element in tab.all(".attention .side tbody tr")]
    assert listed[:3] == ["k550\u202f%", "k60030\u202f%", "k103020\u202f%"]
    assert tab.text("#map-status") == "“#301” reads “k600”: 30\u202f% of the attention"
    tab.open(tmp_path / "long.html", "head=1&row=300&column=602&held=1")
    assert tab.text("#map-status").startswith("“#301” reads “k601” to “k603” (#602 to #604): ")
    tab.open(tmp_path / "long.html", "head=1&row=300&column=600&held=1")
    assert "Too long to show every weight" in tab.text(".explained")
    tab.run("document.querySelector('.matrix').focus()")
    tab.keys("\ue013")
    top = np.sort(held[1, 299])[::-1][:16].sum()
    left = float(re.search(r"Not shown: ([\d.]+)", tab.text(".attention .side .note"))[1]) / 100
    assert left == pytest.approx(1 - top, abs=0.02)


# What surrounds the output of a cell: nothing in JupyterLab, the policy of its notebooks in VS Code, another sandbox in Colab.
NOTEBOOKS = {
    "jupyterlab": "{}",
    "vscode": "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; script-src 'unsafe-inline' "
    "'unsafe-eval'; style-src 'unsafe-inline'; img-src https: http: data:; connect-src https:; child-src https: data:\">{}",
    "colab": '<iframe sandbox="allow-downloads allow-scripts" width="1000" height="800" srcdoc="{}"></iframe>',
}


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_maps_show_themselves_in_a_notebook(tab, tmp_path, notebook):
    maps, output = make_maps(), make_maps()._repr_html_()
    path = tmp_path / "notebook.html"
    content = NOTEBOOKS[notebook].format(html.escape(output) if notebook == "colab" else output)
    path.write_text(f"<!doctype html><meta charset='utf-8'><title>n</title>{content}", encoding="utf-8")
    tab.requests()
    tab.open(path)
    for _ in range(2 if notebook == "colab" else 1):
        tab.driver.switch_to.frame(0)
    tab.wait(lambda: tab.one("canvas").size["height"] > 100)
    tab.run("document.querySelector('.matrix').focus()")
    tab.keys("]", DOWN, ENTER)
    tokens = list(maps["encoder/block_1"].tokens[0])
    assert tab.text(".attention .side caption") == f"“{tokens[1]}” reads (pinned)"
    weights = maps["encoder/block_1"].weights(heads=[1], examples=[0])[0, 0, 1, : len(tokens)]
    listed = [element.get_property("textContent") for element in tab.all(".attention .side .token")]
    assert listed[:5] == [tokens[index] for index in np.argsort(-weights, kind="stable")[:5]]
    tab.driver.switch_to.default_content()
    assert {address for address in tab.requests() if not address.startswith("about:")} == {f"{path.as_uri()}"}


def test_report_shows_itself_in_a_notebook(tab, tmp_path):
    page = report.Report(make_maps(), results=make_results())
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<!doctype html><title>n</title>{page._repr_html_()}", encoding="utf-8")
    tab.open(notebook)
    tab.driver.switch_to.frame(0)
    tab.one("#attention summary").click()
    tab.wait(lambda: tab.one("canvas").size["height"] > 100)
    tab.one('[data-kind="least certain"]').click()
    assert len(tab.shown("#texts article")) == 3
    tab.driver.switch_to.default_content()


def test_reports_with_one_part_only(tab, tmp_path):
    results = make_results()
    for name, arguments in {
        "maps": {"maps": make_maps()},
        "examples": {"examples": results["examples"]},
        "bare": {"results": {"title": "Bare", "models": [{}], "data": {}}},
    }.items():
        tab.open(report.write(tmp_path / f"{name}.html", **arguments))
        tab.keys("]", "s" if name == "bare" else "[", "\ue014", "\ue007")
        assert tab.one("h1").is_displayed()
