"""What the README and the page of parts show runs as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_the_code_in_the_readme_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert len(blocks) == 2
    weights = next(iter(names["maps"].values())).weights()
    assert weights.shape == (1, 1, 1, 6)
    assert abs(weights.sum() - 1) < 1e-5
    assert capsys.readouterr().out.startswith("[[[[0.")


def test_the_code_in_the_page_of_parts_runs(capsys):
    page = README.parent / "docs" / "parts.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(page), "exec"), names)
    assert len(blocks) >= 4
    assert names["weights"].shape == (None, 8, None, None)
    assert names["read"].shape == (None, None, 64)
    assert int(names["cache"].length[0]) == 3
    assert type(names["better"].layers[-1]) is names["ll"].layers.MultiHeadAttention
    assert "error: lost mask at 'add" in capsys.readouterr().out


def test_every_part_that_the_page_of_parts_names_exists():
    import limelight

    page = (README.parent / "docs" / "parts.md").read_text(encoding="utf-8")
    tables = page.split("## Scores")[1].split("## Layers")[0]
    named = set(re.findall(r"[`, |]([A-Z][A-Za-z]+)[`(]", tables)) - {"True", "False"}
    assert len(named) > 25
    assert [
        name for name in sorted(named) if not hasattr(limelight, name) and name not in limelight.layers.__all__
    ] == []


def test_every_file_that_the_readme_names_exists():
    linked = re.findall(r"\]\(([^)#]+)", README.read_text(encoding="utf-8"))
    ran = re.findall(r"python (examples/\S+)", README.read_text(encoding="utf-8"))
    missing = [name for name in (*linked, *ran) if not (README.parent / name).exists()]
    assert missing == []


def test_nothing_shown_needs_a_backend_that_is_not_installed():
    """Keras by itself takes TensorFlow; limelight, imported first, takes what there is."""
    shown = [
        *re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S),
        *(
            block
            for page in (README.parent / "docs").glob("*.md")
            for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)
        ),
        *(path.read_text(encoding="utf-8") for path in (README.parent / "examples").glob("*.py")),
    ]
    late = [code for code in shown if re.search(r"^(import|from) keras", code, flags=re.M) and "limelight" in code]
    late = [
        code
        for code in late
        if not re.search(r"^(import|from) limelight.*?^(import|from) keras", code, flags=re.M | re.S)
    ]
    assert late == []
    first = shown[0].splitlines()[0]
    program = f"import sys; sys.modules['tensorflow'] = None\n{first}\nprint(keras.backend.backend())"
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.returncode) == ("jax\n", 0), done.stderr
