"""Run the code of every page, and check that every command, file and name on it exists."""

import contextlib
import csv
import doctest
import functools
import importlib
import io
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
REFERENCE = sorted((ROOT / "docs" / "reference").glob("*.md"))
TEXTS = {path: path.read_text(encoding="utf-8") for path in [*PAGES, *REFERENCE, ROOT / "CONTRIBUTING.md"]}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.S | re.M)
# Classes and constants that a namespace exports for its own use.
UNDOCUMENTED = {
    "masks": {"And", "Not", "Or", "CacheSlots"},
    "evaluate": {"METRICS"},
    "data": {"NAMES"},
}
# Pages whose code needs a data set, a file or a model of the reader's: the code that stands for them.
SETUP = {
    "study.md": """
import pathlib, keras, limelight.layers, limelight.study
monkeypatch.setattr(limelight.study, "run", lambda settings: ({}, "report.html"))
pathlib.Path("reviews.csv").write_text("text,label")
pathlib.Path("limelight-study/movie-reviews").mkdir(parents=True)
settings = {"epochs": 1, "training": {"epoch_steps": 1}, "verbose": False}
model = limelight.models.TextClassifier(encoder=None, **settings).fit(["A dull film.", "A film."] * 10, ["bad", "good"] * 10)
model.save("limelight-study/movie-reviews/model.keras")
import numpy as np
random = np.random.default_rng(0)
series = [random.normal(size=(random.integers(3, 9), 2)).astype("float32") for _ in range(60)]
labels = np.arange(60) % 2
# Ten trainings, of a small encoder that is quick on every backend.
import functools
small = functools.partial(limelight.models.SeriesClassifier, encoder="conv", units=2, verbose=False)
monkeypatch.setattr(limelight.models, "SeriesClassifier", small)
import limelight.models._estimator as estimator
Config = estimator.TrainingConfig
monkeypatch.setattr(estimator, "TrainingConfig", lambda **settings: Config(**settings | {"epochs": 1, "epoch_steps": 1}))
""",
    "quickstart.md": """
import pathlib
import limelight.models._estimator as estimator
Config = estimator.TrainingConfig
monkeypatch.setattr(estimator, "TrainingConfig", lambda **settings: Config(**settings | {"epochs": 1, "epoch_steps": 1}))
rows = "".join(f"film {number} is {word},{word}\\n" for number in range(20) for word in ("good", "bad"))
pathlib.Path("reviews.csv").write_text("review,sentiment\\n" + rows)
rows = "".join(f"{word} fruit {number},{points}\\n" for number in range(20) for word, points in (("ripe", 95), ("sour", 80)))
pathlib.Path("wines.csv").write_text("notes,points\\n" + rows)
rows = "".join(f"north,{2020 + month // 12}-{month % 12 + 1:02},{5 + month % 12}\\n" for month in range(48))
pathlib.Path("sales.csv").write_text("series,month,value\\n" + rows)
rows = "".join(f"{verb} twice\\t{verb.upper()} {verb.upper()}\\n" for verb in ("walk", "run", "jump"))
pathlib.Path("commands.tsv").write_text("source\\ttarget\\n" + rows)
""",
    "models.md": """
import pathlib
import limelight.models._estimator as estimator
Config = estimator.TrainingConfig
monkeypatch.setattr(estimator, "TrainingConfig", lambda **settings: Config(**settings | {"epochs": 1, "epoch_steps": 1}))
rows = "".join(f"film {number} is {word},{word}\\n" for number in range(20) for word in ("good", "bad"))
pathlib.Path("reviews.csv").write_text("review,sentiment\\n" + rows)
rows = "".join(
    f"{place},{2020 + month // 12}-{month % 12 + 1:02},{level + month % 12}\\n"
    for place, level in (("north", 5), ("south", 50)) for month in range(48)
)
pathlib.Path("sales.csv").write_text("series,month,value\\n" + rows)
rows = "".join(f"{verb} {number}\\t{' '.join([verb.upper()] * count)}\\n"
               for verb in ("walk", "run", "jump") for number, count in (("once", 1), ("twice", 2), ("thrice", 3)))
pathlib.Path("commands.tsv").write_text("source\\ttarget\\n" + rows)
""",
    "data.md": """
import numpy as np, pathlib
random = np.random.default_rng(0)
words = ["good", "bad", "film", "plot", "actor"]
reviews = [" ".join(random.choice(words, size=random.integers(3, 60))) for _ in range(300)]
rows = "".join(f"{review},{number % 2}\\n" for number, review in enumerate([*reviews, *reviews[::2]]))
pathlib.Path("reviews.csv").write_text("review,sentiment\\n" + rows, encoding="utf-8")
pathlib.Path("ratings.csv").write_text("text,rating\\ngood,4.5\\nbad,1\\n")
pathlib.Path("phrases.tsv").write_text(
    "en\\tfr\\ngood morning\\tbonjour\\nthank you\\tmerci\\nsee you\\tau revoir\\ngood morning\\tbon matin\\n"
)
pathlib.Path("sales.csv").write_text(
    "series,region,month,value,holiday\\n"
    + "".join(f"north,coast,2025-0{month},{month + 4 + (month > 2)},{month % 2}\\n" for month in (1, 2, 3, 4))
    + "north,coast,2025-06,11,0\\nnorth,coast,2025-07,,1\\n"
    + "".join(f"south,city,2025-{month:02},{month},0\\n" for month in range(1, 6))
)
""",
    "capture.md": """
import limelight as ll, keras, numpy as np
def transformer():
    inputs = keras.Input((12,), dtype="int32")
    memory = keras.layers.Embedding(50, 8)(inputs)
    block = keras.layers.MultiHeadAttention(4, 8, name="cross_attention")
    encoder = keras.layers.MultiHeadAttention(4, 8, name="attention")
    x = keras.Input((12, 8))
    decoder = keras.Model([x], block(x, x), name="decoder")
    y = keras.Input((12, 8))
    encoder = keras.Model([y], encoder(y, y), name="encoder")
    hidden = keras.layers.GlobalAveragePooling1D()(decoder(encoder(memory)))
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(hidden))
model = transformer()
model.save("theirs.keras")
model.save("model.keras")
batch = dataset = np.arange(24).reshape(2, 12)
tokens = [[str(word) for word in row] for row in batch]
labels = np.array([0, 1])
class TheirAttention(keras.layers.Layer):
    pass
class Decoder(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.attention = keras.layers.MultiHeadAttention(2, 4)
    def call(self, x, memory):
        return self.attention(x, memory)
decoder, x, memory = Decoder(), np.ones((2, 5, 8), "float32"), np.ones((2, 7, 8), "float32")
""",
}


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def blocks_of(path, language="python"):
    return [code for kind, code in FENCE.findall(TEXTS[path]) if kind == language]


@pytest.mark.full
@pytest.mark.parametrize("path", [path for path in PAGES if blocks_of(path)], ids=name_of)
def test_the_code_of_a_page_runs(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"monkeypatch": monkeypatch}
    exec(SETUP.get(path.name, ""), names)
    for number, code in enumerate(blocks_of(path)):
        if ">>>" in code:
            test = doctest.DocTestParser().get_doctest(code, names, f"{path.name}, block {number}", str(path), 0)
            done = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, clear_globs=False)
            assert done.failed == 0, capsys.readouterr().out
            assert done.attempted > 0
            names = test.globs
        else:
            exec(compile(code, f"{path.name}, block {number}", "exec"), names)
    # PyTorch alone prints a shape otherwise.
    printed = re.sub(r"torch\.Size\(\[(.*?)\]\)", r"(\1)", capsys.readouterr().out)
    CHECKS.get(path.name, lambda names, printed: None)(names, printed)


def check_readme(names, printed):
    weights = next(iter(names["maps"].values())).weights()
    assert weights.shape == (1, 1, 1, 6)
    assert abs(weights.sum() - 1) < 1e-5
    assert printed.startswith("[[[[0.")


def check_quickstart(names, printed):
    assert printed.splitlines()[0] == "(2, 4, 5, 3) (2, 4, 5, 7)"
    weights = names["maps"]["reader"].weights()
    assert weights.shape == (2, 1, 1, 12)
    np.testing.assert_allclose(weights[..., :9].sum(-1), 1, rtol=1e-6)
    assert not weights[..., 9:].any()
    assert set(names["classifier"].predict(["a dull film"])) <= {"good", "bad"}
    assert 70 < names["regressor"].predict(["ripe fruit"])[0] < 105
    assert names["alignment"].shape[0] == 1
    assert names["forecaster"].predict().shape == (1, 6)
    for picture in ("words", "notes", "alignment", "months"):
        assert Path(f"{picture}.png").read_bytes().startswith(b"\x89PNG")


def check_compose(names, printed):
    assert names["weights"].shape == (None, 8, None, None)
    assert printed.startswith("(1, 2, 6, 4)\n")


def check_layers(names, printed):
    assert printed == "3\n"
    assert names["context"].shape == (None, None, 64)


def check_upgrade(names, printed):
    assert "lost mask at 'add" in printed
    assert printed.endswith("limelight\n")


def check_data(names, printed):
    assert "duplicate texts dropped" in printed
    assert names["batch"].mask.any(axis=1).all()
    assert len(names["batch"].labels) == len(names["batch"].indices) <= 64


CHECKS = {
    "README.md": check_readme,
    "index.md": check_readme,
    "quickstart.md": check_quickstart,
    "compose.md": check_compose,
    "layers.md": check_layers,
    "upgrade.md": check_upgrade,
    "data.md": check_data,
}


@pytest.mark.backend_free
def test_every_link_leads_to_a_file():
    missing = []
    for path, text in TEXTS.items():
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if not target.startswith("http") and not (path.parent / target).exists():
                missing.append(f"{name_of(path)}: {target}")
    assert missing == []


@pytest.mark.backend_free
def test_every_command_exists():
    """Look up make's targets, limelight's subcommands, scripts, and extras in code and in fenced blocks."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.M))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    wrong = []
    for path, text in TEXTS.items():
        code = "\n".join([*re.findall(r"`([^`\n]+)`", FENCE.sub("", text)), *blocks_of(path, "")])
        wrong += [
            f"{name_of(path)}: make {name}"
            for name in re.findall(r"^make ([a-z][a-z-]*)", code, flags=re.M)
            if name not in targets
        ]
        for script in re.findall(r"python ((?:examples|benchmarks|tests|docs)/\S+\.py)", code):
            wrong += [] if (ROOT / script).exists() else [f"{name_of(path)}: {script}"]
        for names in re.findall(r"limelight\[([\w,]+)\]", code):
            wrong += [f"{name_of(path)}: [{name}]" for name in names.split(",") if name not in extras]
        for option in re.findall(r"^limelight study.*?(--[a-z-]+)", code, flags=re.M):
            wrong += [] if option in study_help() else [f"{name_of(path)}: {option}"]
    assert wrong == []


@functools.cache
def study_help():
    """Return what `limelight study --help` prints."""
    from limelight import cli

    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        cli.main(["study", "--help"])
    return printed.getvalue()


@pytest.mark.parametrize("path", REFERENCE, ids=lambda path: path.stem)
def test_a_reference_page_holds_every_public_name(path):
    listed = re.findall(r"^::: (limelight[\w.]*)\.(\w+)$", TEXTS[path], flags=re.M)
    assert listed
    for module, name in listed:
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"
    for module in {module for module, _ in listed} - {"limelight.functional"}:
        exported = {name for name in importlib.import_module(module).__all__ if not is_internal(module, name)}
        documented = {name for page in REFERENCE for name in re.findall(rf"^::: {module}\.(\w+)$", TEXTS[page], re.M)}
        assert exported - documented == UNDOCUMENTED.get(module.split(".")[1], set())


def is_internal(module, name):
    """Return True for helpers of components: functions and constants of namespaces that hold classes."""
    value = getattr(importlib.import_module(module), name)
    components = module.split(".")[1] in ("masks", "normalizers", "positions", "scores")
    return components and not isinstance(value, type)


@pytest.mark.backend_free
def test_every_component_of_the_page_exists():
    import limelight as ll

    page = TEXTS[ROOT / "docs" / "compose.md"]
    named = set(re.findall(r"[`, |]([A-Z][A-Za-z1]+)[`(]", page.split("## Masks")[1])) - {"True", "False"}
    exported = {*ll.scores.__all__, *ll.positions.__all__, *ll.masks.__all__, *ll.normalizers.__all__}
    assert len(named) > 25
    own = set(re.findall(r"^class (\w+)", page, re.MULTILINE))
    assert named - exported - own == set()


@pytest.mark.backend_free
def test_the_code_imports_limelight_before_keras():
    """Keras alone takes TensorFlow, installed or not; limelight, imported first, takes a backend that is installed."""
    examples = [path.read_text(encoding="utf-8") for path in (ROOT / "examples").glob("*.py")]
    shown = [code for path in PAGES for code in blocks_of(path)] + examples
    late = [code for code in shown if re.search(r"^(import|from) keras", code, flags=re.M) and "limelight" in code]
    late = [
        code
        for code in late
        if not re.search(r"^(import|from) limelight.*?^(import|from) keras", code, flags=re.M | re.S)
    ]
    assert late == []


@pytest.mark.backend_free
@pytest.mark.subprocess
def test_the_first_line_of_the_readme_takes_an_installed_backend():
    first = blocks_of(ROOT / "README.md")[0].splitlines()[0]
    program = f"import sys; sys.modules['tensorflow'] = None\n{first}\nprint(keras.backend.backend())"
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.returncode) == ("jax\n", 0), done.stderr


@pytest.mark.backend_free
def test_every_example_has_a_place_in_the_gallery():
    page = TEXTS[ROOT / "docs" / "gallery.md"]
    for path in (ROOT / "examples").glob("*.py"):
        assert f"examples/{path.name}" in page
        assert f"images/gallery/{path.stem}.png" in page


@pytest.mark.backend_free
def test_the_table_of_benchmarks_is_small_and_complete():
    path = ROOT / "benchmarks" / "results" / "summary.csv"
    assert path.stat().st_size < 20_000
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["backend"] for row in rows} == {"jax", "tensorflow", "torch"}
    for row in rows:
        assert float(row["seconds"]) > 0
        if row["faster"]:
            assert float(row["lowest"]) <= float(row["faster"]) <= float(row["highest"])
