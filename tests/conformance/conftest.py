"""What Keras's own test files need in order to be collected here."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker of Keras's that its tests use: they are collected by our settings, which take no unknown one."""
    config.addinivalue_line("markers", "requires_trainable_backend: Keras's own, for tests that train")
