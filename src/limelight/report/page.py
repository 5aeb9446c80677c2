"""The page: templates, style, script and data in one file, with a Content-Security-Policy that allows nothing else."""

import base64
import functools
import hashlib
import importlib.resources
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from limelight import __version__
from limelight._formatting import MISSING, format_count, format_title, format_value, get_metric, to_finite
from limelight.report import explanation, figures, provenance, quality
from limelight.report.examples import describe_spread, highlight
from limelight.report.payload import to_json
from limelight.report.results import as_list, as_mapping

# The modules of the script, each after those that it imports.
_MODULES = (
    *("decode.js", "words.js", "elements.js", "heads.js", "state.js", "saving.js"),
    *("tokens.js", "texts.js", "matrix.js", "arcs.js", "lines.js", "grid.js", "viewer.js", "page.js"),
)

_MODULE_SYNTAX = re.compile(r"^import [^;]*;\n|^export (?=const|function|class|async)", re.MULTILINE)

# Not allowed as text in HTML: control characters except tabs and line ends, and lone surrogates.
_INVALID = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")

# What follows the claim of a sentence on a comparison.
_EVIDENCE = re.compile(r": (?=difference )| (?=\(difference )")

_WHOLE = re.compile(r"(\(?[\d.,]+[\s\u202f]%\S*(?: CI)?|p [=<] [\d.]+|[−+][\d.]+ points|--[a-z][a-z-]*)")


def read_asset(name: str) -> str:
    """Return the text of a file in the folder `assets`."""
    return importlib.resources.files("limelight.report").joinpath("assets", name).read_text(encoding="utf-8")


@functools.cache
def script() -> str:
    """Return the script of the page: its modules in one function scope, without their imports and exports.

    An inline script cannot import other files, and a page of one file has none. So top-level names must differ between modules,
    which a test checks.
    """
    modules = (_MODULE_SYNTAX.sub("", read_asset(name)) for name in _MODULES)
    return '(() => {\n"use strict";\n' + "\n".join(modules) + "})();\n"


@functools.cache
def style() -> str:
    """Return the style sheet of the page."""
    return read_asset("report.css")


@functools.cache
def policy() -> str:
    """Return the Content-Security-Policy: nothing is loaded, and only the page's own script and style are used."""
    return (
        f"default-src 'none'; script-src '{_digest(script())}'; style-src '{_digest(style())}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def keep_whole(sentence: str) -> Markup:
    """Mark the numbers and options of a sentence: no line breaks between a number and its unit or sign, or inside an option."""
    parts = _WHOLE.split(sentence)
    whole = Markup('<span class="whole">{}</span>')
    return Markup("").join(whole.format(part) if index % 2 else part for index, part in enumerate(parts))


def split_evidence(sentence: str) -> tuple[str, str]:
    """Split a sentence into its claim and the numbers that it follows from, which may be empty; a colon parts two sentences.

    Example:
        >>> split_evidence("None could be shown: difference +0.1 points, 3 seeds.")
        ('None could be shown.', 'Difference +0.1 points, 3 seeds.')
    """
    claim, *rest = _EVIDENCE.split(sentence, maxsplit=1)
    evidence = "".join(rest)
    return (f"{claim}.", evidence[0].upper() + evidence[1:]) if evidence.startswith("d") else (claim, evidence)


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("limelight.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "format_value": format_value,
        "bars": figures.bars,
        "highlight": highlight,
        "keep_whole": keep_whole,
        "or_missing": lambda value: MISSING if value is None else value,
        "significant": lambda value: MISSING if value is None else f"{value:.3g}",
        "split_evidence": split_evidence,
    }
    return environment.get_template("page.html")


def build(
    results: Mapping[str, Any],
    examples: Sequence[Mapping[str, Any]],
    views: Mapping[str, Mapping[str, Any]],
    title: str,
    *,
    facts: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Return the page.

    Args:
        results: The results of a study; every part may be missing.
        examples: The result of `read_examples`.
        views: The documents of the attention viewers by the name with which a template places them: `View.to_document`.
        title: The title.
        facts, notes: As for `Report`.
    """
    explained = explanation.build(results)
    page = _template().render(
        title=title,
        generator=f"limelight {__version__}",
        policy=policy(),
        style=Markup(style()),
        script=Markup(script()),
        data=to_json({"texts": examples, "views": views}),
        sentences=[*_verdict(results), *explained["sentences"][:1]],
        summary=_summary(results) if facts is None else [(name, value) for name, value in facts.items() if value],
        notes=notes,
        quality=quality.build(results),
        explanation=explained,
        examples=examples,
        spread=describe_spread(examples),
        heatmap=figures.heatmap(examples),
        views=views,
        provenance=provenance.build(results),
        gists=_gists(results, examples, views),
    )
    return _INVALID.sub("\N{REPLACEMENT CHARACTER}", page).lstrip()


def _verdict(results: Mapping[str, Any]) -> list[str]:
    """Return the sentences of the verdict, or else those of the first three comparisons.

    The first one is that of a comparison if there is one, after a plain word: "Yes:", "No:" or "Cannot tell."
    """
    entries = map(as_mapping, as_list(results.get("comparisons")))
    comparisons = {str(entry["sentence"]): entry for entry in entries if entry.get("sentence")}
    sentences = [str(sentence) for sentence in as_list(results.get("verdict"))] or list(comparisons)[:3]
    headline = next((sentence for sentence in sentences if sentence in comparisons), None)
    if headline is None:
        return sentences
    others = [sentence for sentence in sentences if sentence != headline]
    return [f"{_answer(comparisons[headline])} {headline}", *others]


def _answer(comparison: Mapping[str, Any]) -> str:
    """Return the plain word for a comparison: whether the first model was shown to be better than the second."""
    low, high, p_value = (to_finite(comparison.get(key)) for key in ("low", "high", "p_value"))
    if low is None or high is None or p_value is None or not comparison.get("claim", True):
        return "Cannot tell."
    if not (low > 0 or high < 0) or p_value >= 0.05:
        return "Cannot tell."
    return "Yes:" if (low > 0) == get_metric(comparison.get("metric")).higher_is_better else "No:"


def _gists(
    results: Mapping[str, Any], examples: Sequence[Mapping[str, Any]], views: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """Return for each section what is in it."""
    metrics = {
        name for model in as_list(results.get("models")) for name in as_mapping(as_mapping(model).get("metrics"))
    }
    view = as_mapping(views.get("attention"))
    sets = as_list(view.get("sets"))
    maps = sets[0]["maps"] if sets else []
    heads = sum(each["heads"] for each in maps)
    attention = [
        f"{_count(len(examples), 'example')}" if examples else "",
        f"{_count(len(maps), 'layer')}, {_count(heads, 'head')}" if maps else "",
        f"{len(sets)} {'epochs' if view['epochs'] else 'models'}" if len(sets) > 1 else "",
    ]
    return {
        "quality": f"{_count(len(metrics), 'metric')} with intervals, errors, reliability, training" if metrics else "",
        "forecasts": "single forecasts with their bands and what they attend to, errors of each step",
        "translations": "best translations, their alignments with the source",
        "attention": "; ".join(filter(None, attention)),
        "explanation": "removal of tokens, gradients, other attention, with intervals"
        if results.get("explanation")
        else "",
        "provenance": "command, data, settings, versions" if results.get("command") else "",
    }


def _count(number: int, noun: str) -> str:
    return f"{format_count(number)} {noun}{'' if number == 1 else 's'}"


def _summary(results: Mapping[str, Any]) -> list[tuple[str, Any]]:
    data, models = as_mapping(results.get("data")), as_list(results.get("models"))
    counts = as_mapping(data.get("counts"))
    parts = [part for part in ("train", "test") if part in counts]
    facts = [
        ("Data", data.get("name")),
        *((f"{format_title(part)} examples", format_count(counts[part])) for part in parts),
        ("Classes", len(as_list(data.get("classes")))),
        ("Models", len(models)),
        ("Seeds", max((len(as_list(as_mapping(model).get("runs"))) for model in models), default=0)),
    ]
    return [(name, value) for name, value in facts if value]
