"""Check an installation in fresh processes: imports are light, the backend is right, the wheel is complete."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import limelight

pytestmark = [pytest.mark.backend_free, pytest.mark.subprocess]

ROOT = Path(__file__).parents[1]

# Hide some packages, as if they were not installed.
HIDE = """
import importlib.machinery, sys
class FinderOfOthers:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] not in {hidden}:
            return importlib.machinery.PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = FinderOfOthers
"""
SHOW_BACKEND = "import os, sys, limelight; print(os.environ.get('KERAS_BACKEND'), 'keras' in sys.modules)"


def _run_python(
    program: str, tmp_path: Path, *, hidden: tuple[str, ...] = (), python: str = sys.executable, **variables: str
):
    """Run a program in a new Python process in an empty folder. Only `variables` choose a backend."""
    environment = {name: value for name, value in os.environ.items() if name not in ("KERAS_BACKEND", "PYTHONPATH")}
    environment |= {"KERAS_HOME": str(tmp_path / "keras"), **variables}
    command = [python, "-c", HIDE.format(hidden=hidden) + program if hidden else program]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300)


def _get_output(program: str, tmp_path: Path, **settings) -> str:
    process = _run_python(program, tmp_path, **settings)
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def test_importing_limelight_loads_no_heavy_package(tmp_path: Path) -> None:
    program = "import sys, limelight; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = set(_get_output(program, tmp_path).split())
    heavy = {"keras", "numpy", "jax", "torch", "tensorflow", "matplotlib", "sklearn", "scipy", "pyarrow", "rich"}
    assert "limelight" in loaded
    assert loaded & heavy == set()


@pytest.mark.parametrize(
    ("hidden", "chosen"),
    [((), "jax"), (("jax",), "torch"), (("jax", "torch"), "tensorflow"), (("jax", "torch", "tensorflow"), "None")],
)
def test_the_first_installed_backend_is_chosen(hidden: tuple[str, ...], chosen: str, tmp_path: Path) -> None:
    assert _get_output(SHOW_BACKEND, tmp_path, hidden=hidden) == f"{chosen} False"


def test_a_chosen_backend_is_kept(tmp_path: Path) -> None:
    assert _get_output(SHOW_BACKEND, tmp_path, KERAS_BACKEND="tensorflow") == "tensorflow False"


def test_the_configuration_file_of_keras_does_not_choose_the_backend(tmp_path: Path) -> None:
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / "keras.json").write_text('{"backend": "tensorflow"}')
    assert _get_output(SHOW_BACKEND, tmp_path) == "jax False"


def test_an_imported_keras_keeps_its_backend(tmp_path: Path) -> None:
    program = """
import os, keras
del os.environ["KERAS_BACKEND"]
import limelight
print(os.environ.get("KERAS_BACKEND"), limelight._backend.require())
"""
    assert _get_output(program, tmp_path, KERAS_BACKEND="numpy") == "None numpy"


def test_without_a_backend_only_numpy_parts_work(tmp_path: Path) -> None:
    no_backend = {"hidden": ("jax", "torch", "tensorflow")}
    assert (
        _get_output("import limelight; print(limelight.AttentionMap.__name__)", tmp_path, **no_backend)
        == "AttentionMap"
    )
    for name in ("attend", "scores", "layers", "capture"):
        process = _run_python(f"import limelight; limelight.{name}", tmp_path, **no_backend)
        assert process.stderr.strip().endswith(
            "ImportError: limelight needs one of Keras's backends: jax, torch or tensorflow. None is installed. "
            "Run: pip install 'limelight[jax]'"
        )


def test_a_chosen_backend_that_is_missing_is_an_error(tmp_path: Path) -> None:
    process = _run_python("import limelight; limelight.attend", tmp_path, hidden=("torch",), KERAS_BACKEND="torch")
    assert process.stderr.strip().endswith(
        "ImportError: KERAS_BACKEND must name a backend that is installed. Received: torch. "
        "Run: pip install 'limelight[torch]', or unset the variable."
    )


@pytest.fixture(scope="module")
def build_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel from a source distribution, as an installer does, and return the folder of both."""
    folder = tmp_path_factory.mktemp("build")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run([*build, "-t", "sdist"], cwd=ROOT, check=True, capture_output=True, timeout=300)
    (archive,) = folder.glob("limelight-*.tar.gz")
    subprocess.run(["tar", "-xzf", archive.name], cwd=folder, check=True, timeout=300)
    source = folder / archive.name.removesuffix(".tar.gz")
    subprocess.run([*build, "-t", "wheel"], cwd=source, check=True, capture_output=True, timeout=300)
    return folder


def test_the_wheel_holds_every_file_of_the_source(build_folder: Path) -> None:
    (wheel,) = build_folder.glob("*.whl")
    assert wheel.name == f"limelight-{limelight.__version__}-py3-none-any.whl"
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("limelight/")}
    files = (path for path in (ROOT / "src").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert packed == {path.relative_to(ROOT / "src").as_posix() for path in files}
    assert "limelight/py.typed" in packed


def test_the_source_distribution_holds_tests_and_pages(build_folder: Path) -> None:
    (source,) = (path for path in build_folder.iterdir() if path.is_dir())
    for name in (
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "CITATION.cff",
        "mkdocs.yml",
        "docs/index.md",
        "pyproject.toml",
        "tests/conftest.py",
        "src/limelight/py.typed",
    ):
        assert (source / name).is_file()


@pytest.fixture(scope="module")
def bare_python(build_folder: Path) -> str:
    """Return the Python of an environment with the wheel alone, without its dependencies."""
    (wheel,) = build_folder.glob("*.whl")
    venv.create(build_folder / "bare", with_pip=False, symlinks=True)
    (packages,) = (build_folder / "bare").glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(packages)
    return str(build_folder / "bare" / "bin" / "python")


def test_the_wheel_alone_can_be_imported(bare_python: str, tmp_path: Path) -> None:
    program = "import importlib.metadata as m, limelight; print(limelight.__version__, m.version('limelight'))"
    version = limelight.__version__
    assert _get_output(program, tmp_path, python=bare_python) == f"{version} {version}"
    program = "import importlib.metadata as m; print(*m.distribution('limelight').entry_points)"
    assert "limelight.cli:main" in _get_output(program, tmp_path, python=bare_python)
    assert (
        "pip install 'limelight[jax]'"
        in _run_python("import limelight; limelight.attend", tmp_path, python=bare_python).stderr
    )


def test_a_folder_named_like_a_backend_is_not_one(bare_python: str, tmp_path: Path) -> None:
    (tmp_path / "jax").mkdir()
    assert _get_output(SHOW_BACKEND, tmp_path, python=bare_python) == "None False"
