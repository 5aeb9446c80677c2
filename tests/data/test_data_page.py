"""docs/data.md: its example runs, and it lists every data set and every usual column name."""

import re
from pathlib import Path

import pytest

from limelight import data

pytestmark = pytest.mark.backend_free

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


def test_the_example_runs(tmp_path, monkeypatch, capsys, random):
    words = ["good", "bad", "film", "plot", "actor"]
    reviews = [" ".join(random.choice(words, size=random.integers(3, 60))) for _ in range(300)]
    rows = "".join(f"{review},{number % 2}\n" for number, review in enumerate([*reviews, *reviews[::2]]))
    (tmp_path / "reviews.csv").write_text("review,sentiment\n" + rows, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    namespace = {}
    exec(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0], namespace)
    assert "duplicate texts dropped" in capsys.readouterr().out
    assert namespace["tokenizer"].words[0] in words
    assert namespace["batch"].mask.any(axis=1).all()
    assert len(namespace["batch"].labels) == len(namespace["batch"].indices) <= 64


def test_the_page_lists_every_data_set_and_every_usual_column_name():
    from limelight.data.readers import LABEL_COLUMNS, TEXT_COLUMNS

    for name in (*data.NAMES, *TEXT_COLUMNS, *LABEL_COLUMNS):
        assert name in PAGE
