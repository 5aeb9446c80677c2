"""What every test shares: one backend for the process, fixed seeds, and numpy views of tensors."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("MPLBACKEND", "agg")

import numpy as np
import pytest


@pytest.fixture
def random() -> np.random.Generator:
    """A generator with a fixed seed, fresh for each test."""
    return np.random.default_rng(7)


@pytest.fixture(autouse=True)
def _seeded(request: pytest.FixtureRequest) -> None:
    """Seed Keras for each test that uses a backend."""
    if request.node.get_closest_marker("backend_free") is None:
        import keras

        keras.utils.set_random_seed(7)
