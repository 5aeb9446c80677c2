"""What an installation promises, each tried in a fresh process: light to import, the right backend, a whole wheel."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import limelight

pytestmark = pytest.mark.backend_free

ROOT = Path(__file__).parents[1]

# Makes the process one in which some packages were never installed: they are on disk, but nothing finds them.
HIDE = """
import importlib.machinery, sys
class OnlyTheRest:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] not in {hidden}:
            return importlib.machinery.PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = OnlyTheRest
"""
SHOW = "import os, sys, limelight; print(os.environ.get('KERAS_BACKEND'), 'keras' in sys.modules)"


def _run(program: str, tmp_path: Path, *, hidden: tuple[str, ...] = (), python: str = sys.executable, **variables: str):
    """Run a program in a fresh Python, in an empty folder, with no choice of a backend but the one in `variables`."""
    environment = {name: value for name, value in os.environ.items() if name not in ("KERAS_BACKEND", "PYTHONPATH")}
    environment |= {"KERAS_HOME": str(tmp_path / "keras"), **variables}
    command = [python, "-c", HIDE.format(hidden=hidden) + program if hidden else program]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300)


def _printed(program: str, tmp_path: Path, **settings) -> str:
    done = _run(program, tmp_path, **settings)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_limelight_loads_nothing_heavy(tmp_path: Path) -> None:
    program = "import sys, limelight; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = set(_printed(program, tmp_path).split())
    heavy = {"keras", "numpy", "jax", "torch", "tensorflow", "matplotlib", "sklearn", "scipy", "pyarrow", "rich"}
    assert "limelight" in loaded
    assert loaded & heavy == set()


@pytest.mark.parametrize(
    ("hidden", "chosen"),
    [((), "jax"), (("jax",), "torch"), (("jax", "torch"), "tensorflow"), (("jax", "torch", "tensorflow"), "None")],
)
def test_the_first_installed_backend_is_chosen(hidden: tuple[str, ...], chosen: str, tmp_path: Path) -> None:
    assert _printed(SHOW, tmp_path, hidden=hidden) == f"{chosen} False"


def test_a_backend_that_is_named_stays(tmp_path: Path) -> None:
    assert _printed(SHOW, tmp_path, KERAS_BACKEND="tensorflow") == "tensorflow False"


def test_the_file_that_keras_writes_is_no_choice(tmp_path: Path) -> None:
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / "keras.json").write_text('{"backend": "tensorflow"}')
    assert _printed(SHOW, tmp_path) == "jax False"


def test_a_keras_that_is_imported_keeps_its_backend(tmp_path: Path) -> None:
    program = """
import os, keras
del os.environ["KERAS_BACKEND"]
import limelight
print(os.environ.get("KERAS_BACKEND"), limelight._backend.require())
"""
    assert _printed(program, tmp_path, KERAS_BACKEND="numpy") == "None numpy"


def test_no_backend_is_an_error_where_one_is_needed(tmp_path: Path) -> None:
    nothing = {"hidden": ("jax", "torch", "tensorflow")}
    assert _printed("import limelight; print(limelight.AttentionMap.__name__)", tmp_path, **nothing) == "AttentionMap"
    for name in ("attend", "Dot", "layers", "capture"):
        done = _run(f"import limelight; limelight.{name}", tmp_path, **nothing)
        assert done.stderr.strip().endswith(
            "ImportError: limelight needs one of Keras's backends: jax, torch or tensorflow. None is installed. "
            "Run: pip install 'limelight[jax]'"
        )


def test_a_named_backend_that_is_missing_is_an_error(tmp_path: Path) -> None:
    done = _run("import limelight; limelight.attend", tmp_path, hidden=("torch",), KERAS_BACKEND="torch")
    assert done.stderr.strip().endswith(
        "ImportError: KERAS_BACKEND must name a backend that is installed. Received: torch. "
        "Run: pip install 'limelight[torch]', or unset the variable."
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel that was built from the source distribution, as an installer would."""
    place = tmp_path_factory.mktemp("built")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(place)]
    subprocess.run([*build, "-t", "sdist"], cwd=ROOT, check=True, capture_output=True, timeout=300)
    (archive,) = place.glob("limelight-*.tar.gz")
    subprocess.run(["tar", "-xzf", archive.name], cwd=place, check=True, timeout=300)
    source = place / archive.name.removesuffix(".tar.gz")
    subprocess.run([*build, "-t", "wheel"], cwd=source, check=True, capture_output=True, timeout=300)
    return place


def test_the_wheel_holds_all_that_the_source_does(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert wheel.name == f"limelight-{limelight.__version__}-py3-none-any.whl"
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("limelight/")}
    files = (path for path in (ROOT / "src").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert inside == {path.relative_to(ROOT / "src").as_posix() for path in files}
    assert "limelight/py.typed" in inside


def test_the_source_distribution_can_be_tested(built: Path) -> None:
    (source,) = (path for path in built.iterdir() if path.is_dir())
    for name in (
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "pyproject.toml",
        "tests/conftest.py",
        "src/limelight/py.typed",
    ):
        assert (source / name).is_file()


@pytest.fixture(scope="module")
def clean(built: Path) -> str:
    """The Python of an environment that holds the wheel and nothing else, not even what it depends on."""
    (wheel,) = built.glob("*.whl")
    venv.create(built / "clean", with_pip=False, symlinks=True)
    (packages,) = (built / "clean").glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(packages)
    return str(built / "clean" / "bin" / "python")


def test_the_wheel_alone_can_be_imported(clean: str, tmp_path: Path) -> None:
    program = "import importlib.metadata as m, limelight; print(limelight.__version__, m.version('limelight'))"
    version = limelight.__version__
    assert _printed(program, tmp_path, python=clean) == f"{version} {version}"
    program = "import importlib.metadata as m; print(*m.distribution('limelight').entry_points)"
    assert "limelight.cli:main" in _printed(program, tmp_path, python=clean)
    assert "pip install 'limelight[jax]'" in _run("import limelight; limelight.attend", tmp_path, python=clean).stderr


def test_a_folder_is_no_backend(clean: str, tmp_path: Path) -> None:
    (tmp_path / "jax").mkdir()
    assert _printed(SHOW, tmp_path, python=clean) == "None False"
