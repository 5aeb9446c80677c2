"""Set up the backend, seeds and the selection of tests."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("MPLBACKEND", "agg")
# The tests' matrices are small, and `make test` runs several processes: threads that wait for each other cost PyTorch most of
# the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# JAX spends most of the tests' time on compiling; it reuses what an earlier run has compiled.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

if os.environ["KERAS_BACKEND"] == "jax":
    # Half the compile time of XLA on a CPU goes into fast kernels, which `fast_compilation(False)` restores. The programs are
    # small, and splitting them among threads costs an eighth more.
    flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ.setdefault("XLA_FLAGS", flags)
if os.environ["KERAS_BACKEND"] != "tensorflow":
    # Users of JAX or PyTorch seldom have TensorFlow. Keras imports it wherever it is installed, which takes seconds.
    sys.modules["tensorflow"] = None  # type: ignore[assignment]

import numpy as np
import pytest

from selection import is_full, runs_everything

# Backends keep what they have compiled; collecting garbage as often as Python does by default takes a tenth of the time.
gc.set_threshold(50_000, 20, 100)


def asks_for_backend_free(config: pytest.Config) -> bool:
    """Return True if only tests marked `backend_free` are asked for, by -m "backend_free ..."."""
    return config.option.markexpr.split(" and ")[0] == "backend_free"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no file without a test marked `backend_free` if only such tests are asked for."""
    is_test = collection_path.suffix == ".py" and collection_path.name.startswith("test_")
    if is_test and asks_for_backend_free(config):
        return "backend_free" not in collection_path.read_text(encoding="utf-8") or None
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what runs on one backend only: tests without a backend, trainings, and tests marked `full`."""
    if asks_for_backend_free(config):
        return
    markers = set() if is_full() else {"full"}
    if os.environ["KERAS_BACKEND"] != "jax":
        markers |= {"backend_free"} if runs_everything() else {"backend_free", "trains"}
    deselected = [item for item in items if any(item.get_closest_marker(marker) for marker in markers)]
    if deselected:
        items[:] = [item for item in items if item not in set(deselected)]
        config.hook.pytest_deselected(items=deselected)


@pytest.fixture
def random() -> np.random.Generator:
    """A generator with a fixed seed, fresh for each test."""
    return np.random.default_rng(7)


@pytest.fixture(autouse=True, scope="session")
def _fast_compilation(pytestconfig: pytest.Config) -> Iterator[None]:
    """Compile fast; `fast_compilation(False)` is for tests of optimized code."""
    if asks_for_backend_free(pytestconfig):
        yield
        return
    from compiling import fast_compilation

    with fast_compilation():
        yield


@pytest.fixture(autouse=True)
def _seeded(request: pytest.FixtureRequest) -> None:
    """Seed Keras for each test that uses a backend."""
    if request.node.get_closest_marker("backend_free") is None:
        import keras

        keras.utils.set_random_seed(7)
