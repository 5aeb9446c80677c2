"""The page: one file that loads nothing, where data stays text, and whose numbers are readable without scripts."""

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

import markupsafe
import numpy as np
import pytest

from limelight import report
from limelight.maps import AttentionMap, AttentionMaps
from limelight.maps.sources import QKSource
from limelight.report.page import read_asset, script

pytestmark = pytest.mark.backend_free

# Known attacks: end of element, comment, CDATA, attribute, template syntax, line separators, bidi controls, NUL.
HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "</noscript><svg onload=alert(1)>",
    "</style></title></textarea><!--<script>",
    "]]> <![CDATA[ --> &lt;b&gt; &amp;",
    '" onmouseover="alert(1)" x=\'',
    "$title ${script} {{ data }} {% raw %} {# %}",
    "a\u2028b\u2029c\u202ed\x00e\x1bf",
    "lone \ud83d and \udc00 halves, whole \U0001f3ac",
]


class Page(HTMLParser):
    """The elements with their attributes, and the text of each kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open = ""
        self._visible: list[str] = []
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
            self._visible.append(data)

    def attributes_of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def data(self):
        return json.loads(next(text for text in self.texts["script"] if text.startswith("{")))

    def text(self) -> str:
        """Return all visible text in order, with nothing between elements."""
        return "".join(self._visible)


def replace_strings(value, text):
    """Return the document with every string replaced that is only shown."""
    if isinstance(value, str):
        return text
    if isinstance(value, dict):
        keep = {"name", "first", "second", "metric"}
        return {key: item if key in keep else replace_strings(item, text) for key, item in value.items()}
    return [replace_strings(item, text) for item in value] if isinstance(value, list) else value


def test_page_shows_the_results(results, maps):
    page = Page(report.render(maps, results=results))
    text = page.text()
    for expected in [
        *results["verdict"],
        results["title"],
        results["command"],
        "76.4\u202f%",
        "73.8 to 78.9",
        "0.842",
        "1,366,273 parameters",
        "p = .02",
        "+0.3 to +2.7",
        "−0.7",
        "sha256:9b1f4c27d0e2a6",
        "duplicates removed: 24",
        "jax 0.10.2",
        "Every run",
        "Confusion matrix, 5 runs together",
        "against TF-IDF linear",
    ]:
        assert expected in text
    assert page.texts["title"][0] == results["title"]
    # Forest plots, the intervals of each metric, reliability, learning curves, heatmap.
    assert len(page.attributes_of("svg")) == 2 + 6 + 3 + 4 + 1


def test_policy_allows_only_the_own_script_and_style(results, maps):
    page = Page(report.render(maps, results=results))
    policy = next(
        meta["content"] for meta in page.attributes_of("meta") if meta.get("http-equiv") == "Content-Security-Policy"
    )
    directives = dict(part.split(" ", 1) for part in policy.split("; "))
    assert directives["default-src"] == "'none'"
    for directive, tag, begin in (("script-src", "script", "(() =>"), ("style-src", "style", "/*")):
        (text,) = [text for text in page.texts[tag] if text.startswith(begin)]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert directives[directive] == f"'sha256-{digest}'"
    assert set(directives) == {"default-src", "script-src", "style-src", "base-uri", "form-action"}
    for tag, attributes in page.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base")
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "style", "action")]
        assert attributes.get("href", "#").startswith("#")
    assert not re.search(r"url\(|@import", read_asset("report.css"))


def test_script_is_small():
    assert len(script().encode()) < 90_000


@pytest.mark.parametrize("hostile", HOSTILE)
def test_strings_of_results_stay_text(results, hostile):
    page = Page(report.render(results=replace_strings(results, hostile)))
    expected = Page(report.render(results=replace_strings(results, "x")))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in expected.elements]
    assert [set(names) for _, names in page.elements] == [set(names) for _, names in expected.elements]
    visible = re.sub("[\x00\x1b\ud800-\udfff]", "\ufffd", hostile)
    assert page.text().count(visible) > 100
    # Control characters are harmless in JSON; lone surrogates cannot be encoded in UTF-8.
    assert {example["kind"] for example in page.data()["texts"]} == {re.sub("[\ud800-\udfff]", "\ufffd", hostile)}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_of_maps_and_tokens_stay_text(hostile):
    weights = np.full((2, 3), 1 / 3)
    attention = AttentionMap.from_weights(weights, tokens=[hostile, "b", "c"], query_tokens=["q", hostile])
    without_tokens = Page(report.render({"a": AttentionMap.from_weights(weights)}))
    page = Page(report.render({hostile: attention}, title=hostile))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in without_tokens.elements]
    view = page.data()["views"]["attention"]
    (entry,) = view["sets"][0]["maps"]
    expected = re.sub("[\ud800-\udfff]", "\ufffd", hostile)
    assert entry["name"] == expected
    assert view["tokens"][entry["examples"][0]["keys"]] == [expected, "b", "c"]
    assert view["tokens"][entry["examples"][0]["queries"]] == ["q", expected]


def test_data_cannot_close_its_script(results):
    text = report.render(results=replace_strings(results, "<>&\u2028\u2029 é 映"))
    block = text.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    assert not re.search("[<>&\u2028\u2029]", block)
    assert "é 映" in block
    assert json.loads(block)["texts"][0]["truth"] == "<>&\u2028\u2029 é 映"


def test_non_finite_numbers_are_shown_as_missing(results):
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


def test_numpy_values_are_accepted(results):
    results["models"][0]["confusion"] = np.array(results["models"][0]["confusion"])
    results["models"][0]["metrics"]["accuracy"]["value"] = np.float32(0.5)
    results["examples"][0]["weights"] = np.array(results["examples"][0]["weights"], np.float32)
    results["settings"]["units"] = np.int64(7919)
    text = Page(report.render(results=results)).text()
    assert "50.0\u202f%" in text
    assert "7919" in text


def paths(value, path=()):
    """Yield the path of every part of a document; of lists only the first item."""
    children = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from paths(child, (*path, key))


@pytest.mark.parametrize("missing", ["gone", "none"])
def test_every_part_may_be_missing(results, missing):
    # Lists with one value per token may be missing as a whole only.
    per_token = {"tokens", "offsets", "weights"}
    all_paths = [path for path in paths(results) if not per_token & set(path[:-1])]
    all_paths = [path for path in all_paths if path not in (("schema_version",), ("examples", 0))]
    for name in ("models", "examples", "comparisons"):
        del results[name][1:]
    assert len(all_paths) > 100
    for *path, last in all_paths:
        partial = copy.deepcopy(results)
        parent = partial
        for key in path:
            parent = parent[key]
        if missing == "none":
            parent[last] = None
        else:
            del parent[last]
        assert "</html>" in report.render(results=partial), (*path, last)


def test_maps_examples_or_results_alone(results, maps):
    page = Page(report.render(maps))
    assert [entry["name"] for entry in page.data()["views"]["attention"]["sets"][0]["maps"]] == list(maps)
    assert not page.data()["texts"]
    assert [attributes.get("id") for attributes in page.attributes_of("section")] == ["verdict", "attention"]
    single = Page(report.render(examples=results["examples"][:2], title="Two reviews"))
    assert len(single.data()["texts"]) == 2
    assert single.texts["title"][0] == "Two reviews"
    results.pop("examples")
    sections = [attributes.get("id") for attributes in Page(report.render(results=results)).attributes_of("section")]
    assert sections == ["verdict", "quality", "provenance"]


def test_examples_override_those_of_the_results(results):
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
def test_invalid_arguments_raise(arguments, error, message):
    with pytest.raises(error, match=message):
        report.render(**arguments)


def test_invalid_report_keeps_the_old_file(tmp_path, results):
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


def test_file_is_small_or_warns(tmp_path, results, maps):
    assert report.write(tmp_path / "small.html", maps, results=results).stat().st_size < 300_000
    with pytest.warns(UserWarning, match=r"The report has 4\d MB"):
        report.write(tmp_path / "large.html", examples=[{"tokens": ["x" * 21_000_000], "weights": [1.0]}])


def test_notebook_frame(results):
    page = report.Report(results=results)
    frame = Page(page._repr_html_())
    ((tag, attributes),) = frame.elements
    assert tag == "iframe"
    assert attributes["srcdoc"] == page.html.replace("<html ", '<html class="framed" ', 1)
    assert "allow-same-origin" not in attributes["sandbox"]
    assert str(markupsafe.escape(page.html.split("<html ")[1])) in page._repr_html_()


def test_maps_show_themselves_in_a_notebook(maps):
    assert maps._repr_html_() == report.Report(maps)._repr_html_()
    assert maps["pooling"]._repr_html_() == report.Report(maps["pooling"])._repr_html_()
    ((tag, attributes),) = Page(maps._repr_html_()).elements
    # What names the page is hidden where it says nothing.
    assert (tag, attributes["srcdoc"].replace(' class="framed untitled"', "", 1)) == ("iframe", report.render(maps))
    assert "class=&#34;framed&#34;" in report.Report(maps, title="mine")._repr_html_()
    assert AttentionMaps()._repr_html_() is None


def test_maps_show_their_text_without_the_packages_of_a_report(maps, monkeypatch):
    monkeypatch.setitem(sys.modules, "limelight.report", None)
    shown = maps._repr_html_()
    assert html.escape(repr(maps)) in shown
    assert "limelight.report" in shown


def test_notebook_is_told_of_a_report_that_is_too_large(monkeypatch):
    # Weights that nothing computes: 12 layers of 12 heads of 2048 tokens.
    query = np.broadcast_to(np.float32(0), (1, 12, 2048, 1))
    maps = AttentionMaps(AttentionMap(f"layer_{index}", QKSource(query, query)) for index in range(12))
    monkeypatch.setattr(AttentionMap, "statistics", lambda *_, **__: pytest.fail("was computed"))
    shown = maps._repr_html_()
    assert re.match(r"<p>This report has about \d+ MB, too much for a notebook", shown)
    assert 'limelight.report.write("report.html", maps)' in shown
    assert len(Page(shown).elements) == 3
    long_text = [{"tokens": ["x" * 6_000_000], "weights": [1.0]}]
    assert "about 1" in report.Report(examples=long_text)._repr_html_()


@pytest.mark.subprocess
def test_import_loads_no_backend_and_no_plotting():
    program = "import sys, limelight.report; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "limelight.report" in loaded
    assert not {"keras", "jax", "torch", "tensorflow", "matplotlib", "scipy", "sklearn"} & set(loaded)


def many_classes(count: int) -> dict:
    """The results of one model of many classes: each is confused with the next, the last ones most."""
    names = [f"a class with a name of more than 35 letters, {index}" for index in range(count)]
    counts = np.diag(np.full(count, 50)) + np.roll(np.diag(np.arange(count)), 1, axis=1)
    rows = [
        {"class": name, "precision": 0.5, "recall": 0.5, "f1": 1 - index / count, "support": 50 + index}
        for index, name in enumerate(names)
    ]
    model = {"name": "one", "confusion": counts.tolist(), "per_class": rows, "runs": []}
    return {"data": {"classes": names}, "models": [model]}


def test_many_classes_show_the_worst_and_the_most_confused():
    page = report.render(results=many_classes(151))
    visible, folded = page.split('<details class="all-classes">')
    assert 'class="confusion"' not in page
    assert visible.count("<tr>") == 2 + 10 + 1 + 10
    pairs = visible.split("Most confused pairs</caption>")[1]
    first = pairs.split("<tbody>")[1].split("</tr>")[0]
    assert first.index("letters, 150") < first.index("letters, 0") < first.index("150</td>")
    assert "Mean of 151 classes" in visible
    assert "All 151 classes" in folded
    assert folded.count("letters, ") >= 151


def test_few_classes_keep_their_confusion_matrix():
    assert 'class="confusion"' in report.render(results=many_classes(20))


@pytest.mark.parametrize(("low", "high", "p_value", "metric", "word"), [
    (0.01, 0.02, 0.01, "accuracy", "Yes:"),
    (-0.02, -0.01, 0.01, "accuracy", "No:"),
    (-0.02, -0.01, 0.01, "log_loss", "Yes:"),
    (-0.02, 0.01, 0.4, "accuracy", "Cannot tell."),
    (0.01, 0.02, 0.06, "accuracy", "Cannot tell."),
    (None, None, None, "accuracy", "Cannot tell."),
])  # fmt: skip
def test_headline_begins_with_a_plain_word(low, high, p_value, metric, word):
    comparison = {"first": "a", "second": "b", "metric": metric, "low": low, "high": high, "p_value": p_value}
    results = {"verdict": ["A caveat.", "A said it."], "comparisons": [comparison | {"sentence": "A said it."}]}
    page = report.render(results=results)
    assert f'<p class="verdict">{word} A said it.</p><p class="further">A caveat.</p>' in page


@pytest.mark.parametrize(("sentence", "claim", "evidence"), [
    ("It raised accuracy (difference 2, p = .01).", "It raised accuracy", "(difference 2, p = .01)."),
    ("None in <b> could be shown: difference 4.", "None in &lt;b&gt; could be shown.", "Difference 4."),
    ("It could not be compared: it is undefined.", "It could not be compared: it is undefined.", ""),
    ("One line\nand another", "One line\nand another", ""),
])  # fmt: skip
def test_numbers_follow_the_claim_in_smaller_type(sentence, claim, evidence):
    page = report.render(results={"verdict": [sentence]})
    found = re.search(r'<p class="verdict">(.*?)</p>', page, re.DOTALL)
    assert found
    shown = re.sub("</?span[^>]*>", "", found[1])
    assert shown == (f"{claim} <small>{evidence}</small>" if evidence else claim)


def test_first_screen_answers_whether_the_attention_explains():
    results = {"verdict": ["A said it."], "explanation": {"verdict": ["These tests <b> contradict.", "It beats none."]}}
    screen = report.render(results=results).partition('<section id="verdict"')[2].partition("</section>")[0]
    assert '<p class="further">These tests &lt;b&gt; contradict.</p>' in screen
    assert "It beats none." not in screen


@pytest.mark.parametrize(("weights", "sentence"), [
    ([0.25] * 4, "spread over 4.0 of 4.0 tokens (nearly equal weights"),
    ([0.5, 0.5, 0, 0], "spread over 2.0 of 4.0 tokens (equal weights would use all"),
])  # fmt: skip
def test_spread_of_the_attention_is_said(weights, sentence):
    page = report.render(examples=[{"tokens": list("abcd"), "weights": weights}])
    assert sentence in page
