"""One file from its parts: the template, the style, the scripts and the data, under a policy that lets nothing else in."""

import base64
import hashlib
import importlib.resources
import string
from collections.abc import Mapping, Sequence
from typing import Any

from limelight import __version__
from limelight.report import formatting, overview, provenance, quality, tables, texts
from limelight.report.markup import Markup, element, escape, to_json
from limelight.report.tables import listing, mapping

# Each script may use what stands before it; together they are one function, so that they leave no name behind.
_SCRIPTS = ("decode.js", "common.js", "saving.js", "texts.js", "canvas.js", "viewer.js", "report.js")


def asset(name: str) -> str:
    """The text of a file that ships beside this module."""
    return importlib.resources.files("limelight.report").joinpath("assets", name).read_text(encoding="utf-8")


def script() -> str:
    """The page's whole script."""
    return '(() => {\n"use strict";\n' + "\n".join(map(asset, _SCRIPTS)) + "})();\n"


def policy(script_text: str, style_text: str) -> str:
    """The Content-Security-Policy under which nothing loads, and nothing runs or styles but these two texts."""
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src '{_digest(script_text)}'",
            f"style-src '{_digest(style_text)}'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def build(
    results: Mapping[str, Any], examples: Sequence[Mapping[str, Any]], maps: Sequence[Mapping[str, Any]], title: str
) -> str:
    """The page as text; `examples` and `maps` as `texts.read` and `viewing.read` give them."""
    style, code = asset("report.css"), script()
    parts = {
        "quality": quality.render(results),
        "attention": _attention(examples, maps),
        "making": provenance.render(results),
    }
    names = {"quality": "Quality", "attention": "Attention", "making": "How it was made"}
    links = [element("a", names[part], href=f"#{part}") for part, content in parts.items() if content]
    if parts["attention"]:
        links.append(element("button", "Keys", element("kbd", "?"), id="help-button", class_="plain live", hidden=True))
    return string.Template(asset("template.html")).substitute(
        parts,
        policy=escape(policy(code, style)),
        generator=escape(f"limelight {__version__}"),
        title=escape(title),
        style=style,
        navigation=Markup("".join(links)),
        verdict=_verdict(results, title),
        data=to_json({"texts": examples, "maps": maps}),
        script=code,
    )


def _verdict(results: Mapping[str, Any], title: str) -> Markup:
    """What was found, in words, before anything else."""
    sentences = [str(sentence) for sentence in listing(results.get("verdict"))]
    if not sentences:
        comparisons = map(mapping, listing(results.get("comparisons")))
        sentences = [str(entry["sentence"]) for entry in comparisons if entry.get("sentence")][:3]
    data, models = mapping(results.get("data")), listing(results.get("models"))
    counts = mapping(data.get("counts"))
    seeds = max((len(listing(mapping(model).get("runs"))) for model in models), default=0)
    summary = tables.facts(
        [
            ("Data", data.get("name")),
            *(
                (f"{formatting.title_of(part)} examples", formatting.count(counts[part]))
                for part in ("train", "test")
                if part in counts
            ),
            ("Classes", len(listing(data.get("classes"))) or None),
            ("Models", len(models) or None),
            ("Seeds", seeds or None),
        ],
        class_="summary",
    )
    return element(
        "section",
        element("h1", title, class_=None if sentences else "verdict"),
        element("p", tables.unbroken(sentences[0]), class_="verdict") if sentences else None,
        [element("p", tables.unbroken(sentence), class_="further") for sentence in sentences[1:]],
        summary,
        id="verdict",
        aria_label="Verdict",
    )


def _attention(examples: Sequence[Mapping[str, Any]], maps: Sequence[Mapping[str, Any]]) -> Markup:
    """Places for the script to fill, and tables for those without one."""
    lead = element(
        "p",
        "Attention shows where the model reads. By itself it does not prove why the model decides.",
        class_="lead",
    )
    shown = []
    if examples:
        shown += [
            element("h3", "Examples"),
            element("div", id="texts", class_="live", hidden=True),
            element("noscript", texts.static_table(examples)),
        ]
        drawn = overview.heatmap(examples)
        shown += [element("h3", "All examples at a glance"), drawn] if drawn else []
    if maps:
        several = len(maps) > 1 or any(entry["heads"] > 1 for entry in maps)
        shown += [
            element("h3", "Layers and heads" if several else "Attention map"),
            element("div", id="maps", class_="live", hidden=True),
            element("noscript", _heads(maps)),
        ]
    return tables.section("attention", "Attention", [lead, *shown] if shown else None)


def _heads(maps: Sequence[Mapping[str, Any]]) -> Markup:
    """Each head's mean entropy and distance on every example, where the viewer cannot run."""
    rows = [
        [
            f"{entry['name']}, head {head + 1}",
            index + 1,
            f"{example['rows']} × {example['columns']}",
            f"{example['entropy'][head]:.3g}",
            formatting.MISSING if example["distance"] is None else f"{example['distance'][head]:.3g}",
        ]
        for entry in maps
        for index, example in enumerate(entry["examples"])
        for head in range(entry["heads"])
    ]
    return tables.table(
        ["Head", "Text", "Queries × keys", "Entropy", "NegativeSquaredDistance"], rows, caption="Attention of each head"
    )
