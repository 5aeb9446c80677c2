"""Keras's own tests of MultiHeadAttention and Attention hold for ours, save those that are listed with a reason."""

from collections.abc import Iterator
from typing import Any

import keras
import pytest

from conformance.keras_tests import load
from limelight import layers

# Keras's files are written for settings under which a warning is no error.
pytestmark = [
    pytest.mark.full,
    pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict:UserWarning"),
    pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer:UserWarning"),
]

PRIVATE = "asks for a private method of Keras's layer, in whose place ours has parts"
EXCEPTIONS = {
    "MultiHeadAttentionTest": {
        "test_masking_causal": "counts causal positions from the start where queries are more than keys; ours end with the keys",
        "test_flash_attention_with_errors": "refuses dropout and weights with flash_attention=True; ours gives both",
    },
    "AttentionTest": {
        "test_attention_with_dropout": "wants the weights after dropout; ours are those before it",
        "test_attention_with_mask": "shows weights of a masked query, whose output is 0; ours are 0 too",
        "test_attention_calculate_scores_with_scale": PRIVATE,
        "test_attention_calculate_score_mask_no_causal_no_vmask": PRIVATE,
        "test_attention_calculate_score_mask_with_causal_no_vmask": PRIVATE,
        "test_attention_calculate_score_mask_with_causal_and_vmask": PRIVATE,
    },
}


def with_ours(file: str, name: str) -> Any:
    """The test case of one of Keras's files with our layers in it. An exception that passes, or is gone, is a failure."""
    module = load(
        f"keras.src.layers.attention.{file}",
        Attention=layers.Attention,
        MultiHeadAttention=layers.MultiHeadAttention,
    )
    case = getattr(module, name)
    for test, reason in EXCEPTIONS[name].items():
        error = AttributeError if reason is PRIVATE else AssertionError
        setattr(case, test, pytest.mark.xfail(strict=True, raises=error, reason=reason)(getattr(case, test)))
    return case


@pytest.fixture(autouse=True)
def _tracebacks() -> Iterator[None]:
    """Put back what every test case of Keras's turns off for the process."""
    before = keras.config.is_traceback_filtering_enabled()
    yield
    if before:
        keras.config.enable_traceback_filtering()


MultiHeadAttentionTest = with_ours("multi_head_attention_test", "MultiHeadAttentionTest")
AttentionTest = with_ours("attention_test", "AttentionTest")
