"""The written page: one file that loads nothing, whose strings stay text, and whose numbers are there without a script."""

import base64
import copy
import hashlib
import html
import json
import math
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from limelight import report
from limelight.maps import AttentionMap
from limelight.report import page

pytestmark = pytest.mark.backend_free

# Each has broken a page somewhere: end of element, comment, CDATA, attribute, template, line separators, bidi, NUL.
NASTY = [
    "</script><img src=x onerror=alert(1)>",
    "</noscript><svg onload=alert(1)>",
    "</style></title></textarea><!--<script>",
    "]]> <![CDATA[ --> &lt;b&gt; &amp;",
    '" onmouseover="alert(1)" x=\'',
    "$title ${script} {{data}}",
    "a\u2028b\u2029c\u202ed\x00e\x1bf",
    "lone \ud83d and \udc00 halves, whole \U0001f3ac",
]


class Page(HTMLParser):
    """Elements with their attributes, and the text of each kind of element, as a browser without scripts reads them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open = ""
        self._shown: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag):
        self._open = ""

    def handle_data(self, data):
        self.texts.setdefault(self._open, []).append(data)
        if self._open not in ("script", "style"):
            self._shown.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def data(self):
        start = next(text for text in self.texts["script"] if text.startswith("{"))
        return json.loads(start)

    def text(self) -> str:
        """All text in its order; where one element ends and the next begins there is nothing between."""
        return "".join(self._shown)


def replaced(value, text):
    """The same document with every string in the place of which only text is asked for replaced."""
    if isinstance(value, str):
        return text
    if isinstance(value, dict):
        keep = {"name", "first", "second", "metric"}
        return {key: item if key in keep else replaced(item, text) for key, item in value.items()}
    return [replaced(item, text) for item in value] if isinstance(value, list) else value


def test_says_what_was_found(results, maps):
    read = Page(report.render(maps, results=results))
    text = read.text()
    for expected in [
        *results["verdict"],
        results["title"],
        results["command"],
        "76.4\u202f%",
        "73.8 to 78.9",
        "0.842",
        "1\u202f366\u202f273 parameters",
        "p = .02",
        "+0.3 to +2.7",
        "−0.7",
        "sha256:9b1f4c27d0e2a6",
        "24 duplicates removed",
        "jax 0.10.2",
        "Every run",
        "Confusion matrix, 5 runs together",
        "against TF-IDF linear",
    ]:
        assert expected in text
    assert read.texts["title"][0] == results["title"]
    assert (
        len(read.named("svg")) == 2 + 6 + 3 + 4 + 1
    )  # forests, a row of intervals a metric, reliability, learning curves


def test_loads_nothing_and_runs_only_its_own(results, maps):
    read = Page(report.render(maps, results=results))
    policy = next(meta["content"] for meta in read.named("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    directives = dict(part.split(" ", 1) for part in policy.split("; "))
    assert directives["default-src"] == "'none'"
    for directive, tag, begin in (("script-src", "script", "(() =>"), ("style-src", "style", "/*")):
        (text,) = [text for text in read.texts[tag] if text.startswith(begin)]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert directives[directive] == f"'sha256-{digest}'"
    assert set(directives) == {"default-src", "script-src", "style-src", "base-uri", "form-action"}
    for tag, attributes in read.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base")
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "style", "action")]
        assert attributes.get("href", "#").startswith("#")
    assert not re.search(r"url\(|@import", page.asset("report.css"))


def test_script_is_small():
    assert len(page.script().encode()) < 60_000


@pytest.mark.parametrize("nasty", NASTY)
def test_strings_stay_text(results, nasty):
    tame, wild = (
        Page(report.render(results=replaced(results, "x"))),
        Page(report.render(results=replaced(results, nasty))),
    )
    assert [tag for tag, _ in wild.elements] == [tag for tag, _ in tame.elements]
    assert [set(attributes) for _, attributes in wild.elements] == [set(attributes) for _, attributes in tame.elements]
    shown = re.sub("[\x00\x1b\ud800-\udfff]", "\ufffd", nasty)
    assert wild.text().count(shown) > 100
    # Controls are no danger in JSON and stay; halves of a pair cannot be written as UTF-8.
    assert {example["kind"] for example in wild.data()["texts"]} == {re.sub("[\ud800-\udfff]", "\ufffd", nasty)}


@pytest.mark.parametrize("nasty", NASTY)
def test_names_of_maps_and_tokens_stay_text(nasty):
    weights = np.full((2, 3), 1 / 3)
    attention = AttentionMap.from_weights(weights, tokens=[nasty, "b", "c"], query_tokens=["q", nasty])
    tame = Page(report.render({"a": AttentionMap.from_weights(weights)}))
    wild = Page(report.render({nasty: attention}, title=nasty))
    assert [tag for tag, _ in wild.elements] == [tag for tag, _ in tame.elements]
    (entry,) = wild.data()["maps"]
    expected = re.sub("[\ud800-\udfff]", "\ufffd", nasty)
    assert entry["name"] == expected
    assert entry["examples"][0]["keys"] == [expected, "b", "c"]
    assert entry["examples"][0]["queries"] == ["q", expected]


def test_data_cannot_end_its_script(results):
    text = report.render(results=replaced(results, "<>&\u2028\u2029 é 映"))
    block = text.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    assert not re.search("[<>&\u2028\u2029]", block)
    assert "é 映" in block
    assert json.loads(block)["texts"][0]["truth"] == "<>&\u2028\u2029 é 映"


def test_what_is_no_number_is_shown_as_missing(results):
    results["models"][0]["metrics"]["accuracy"] |= {"value": math.nan, "low": -math.inf, "high": math.inf}
    results["models"][1]["runs"][0]["history"]["val_loss"][1] = math.nan
    results["models"][1]["reliability"][0]["accuracy"] = math.nan
    results["comparisons"][0] |= {"difference": math.nan, "low": math.nan, "high": math.nan, "p_value": math.nan}
    results["examples"][0] |= {"probability": math.nan, "weights": [math.nan] * len(results["examples"][0]["tokens"])}
    text = report.render(results=results)
    assert not re.search(r"\b(nan|NaN|inf|Infinity)\b", re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL))
    (example, *_) = Page(text).data()["texts"]
    assert example["probability"] is None
    assert set(example["weights"]) == {0.0}


def test_numpy_values_are_taken_as_plain_ones(results):
    results["models"][0]["confusion"] = np.array(results["models"][0]["confusion"])
    results["models"][0]["metrics"]["accuracy"]["value"] = np.float32(0.5)
    results["examples"][0]["weights"] = np.array(results["examples"][0]["weights"], np.float32)
    results["settings"]["units"] = np.int64(7919)
    text = Page(report.render(results=results)).text()
    assert "50.0\u202f%" in text
    assert "7919" in text


def paths(value, path=()):
    """Every place in a document, of lists the first."""
    children = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from paths(child, (*path, key))


@pytest.mark.parametrize("missing", ["gone", "none"])
def test_every_part_may_be_missing(results, missing):
    # What belongs to the tokens comes one a token or not at all; its absence as a whole is among the places.
    whole = ("tokens", "offsets", "weights")
    places = [place for place in paths(results) if not set(whole) & set(place[:-1])]
    places = [place for place in places if place not in (("schema_version",), ("examples", 0))]
    for name in ("models", "examples", "comparisons"):
        del results[name][1:]
    assert len(places) > 100
    for *path, last in places:
        less = copy.deepcopy(results)
        parent = less
        for key in path:
            parent = parent[key]
        if missing == "none":
            parent[last] = None
        else:
            del parent[last]
        assert "</html>" in report.render(results=less), (*path, last)


def test_only_maps_only_examples_only_results(results, maps):
    only = Page(report.render(maps))
    assert [entry["name"] for entry in only.data()["maps"]] == list(maps)
    assert not only.data()["texts"]
    assert [attributes.get("id") for attributes in only.named("section")] == ["verdict", "attention"]
    single = Page(report.render(examples=results["examples"][:2], title="Two reviews"))
    assert len(single.data()["texts"]) == 2
    assert single.texts["title"][0] == "Two reviews"
    results.pop("examples")
    sections = [attributes.get("id") for attributes in Page(report.render(results=results)).named("section")]
    assert sections == ["verdict", "quality", "making"]


def test_examples_take_the_place_of_those_of_the_results(results):
    other = [{"tokens": ["only", "this"], "weights": [0.25, 0.75]}]
    (example,) = Page(report.render(results=results, examples=other)).data()["texts"]
    assert example["pieces"] == ["only", "this"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "needs something to show"),
        ({"results": {}, "examples": [], "maps": {}}, ValueError, "needs something to show"),
        ({"results": {"schema_version": 2}}, ValueError, r"schema_version 1\. Received: 2"),
        ({"results": [1]}, TypeError, "`results` must be a mapping. Received: list"),
        ({"examples": {"tokens": []}}, TypeError, "list of mappings"),
        (
            {"examples": [{"id": 7, "tokens": ["a", "b"], "weights": [1.0]}]},
            ValueError,
            "example 7 with 2 tokens and 1 weights",
        ),
        (
            {"examples": [{"text": "a b", "tokens": ["a"], "offsets": [[0, 1], [2, 3]]}]},
            ValueError,
            "1 tokens and 2 offsets",
        ),
        ({"maps": np.eye(2)}, TypeError, r"AttentionMap\.from_weights"),
        ({"maps": {"encoder": np.eye(2)}}, TypeError, "ndarray under 'encoder'"),
    ],
)
def test_says_what_it_needs(arguments, error, message):
    with pytest.raises(error, match=message):
        report.render(**arguments)


def test_a_refused_report_leaves_the_old_one(tmp_path, results):
    path = report.write(tmp_path / "new" / "report.html", results=results)
    assert path == tmp_path / "new" / "report.html"
    before = path.read_bytes()
    assert before.decode() == report.render(results=results)
    with pytest.raises(ValueError, match="as many weights"):
        report.write(
            path, results=results, examples=[{"tokens": ["a"], "weights": []}, {"tokens": ["a"], "weights": [1, 2]}]
        )
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["report.html"]


def test_is_small_and_warns_where_it_is_not(tmp_path, results, maps):
    assert report.write(tmp_path / "small.html", maps, results=results).stat().st_size < 300_000
    with pytest.warns(UserWarning, match=r"The report has 4\d MB"):
        report.write(tmp_path / "large.html", examples=[{"tokens": ["x" * 21_000_000], "weights": [1.0]}])


def test_shows_itself_in_a_notebook(results):
    shown = report.Report(results=results)
    frame = Page(shown._repr_html_())
    ((tag, attributes),) = frame.elements
    assert tag == "iframe"
    assert attributes["srcdoc"] == shown.html
    assert "allow-same-origin" not in attributes["sandbox"]
    assert html.escape(shown.html, quote=True) in shown._repr_html_()


def test_needs_no_backend_and_no_plotting():
    program = "import sys, limelight.report; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "limelight.report" in loaded
    assert not {"keras", "jax", "torch", "tensorflow", "matplotlib", "scipy", "sklearn"} & set(loaded)
