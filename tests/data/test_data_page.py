"""The page about data: its example runs, and its tables name what there is."""

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
    found = {}
    exec(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0], found)
    assert "duplicate texts dropped" in capsys.readouterr().out
    assert found["tokenizer"].words[0] in words
    assert found["mask"].any(axis=1).all()
    assert len(found["labels"]) == len(found["indices"]) <= 64


def test_the_page_names_every_data_set_and_every_guessed_column():
    from limelight.data.columns import _LABEL, _TEXT

    for name in (*data.NAMES, *_TEXT, *_LABEL):
        assert name in PAGE
