"""Attention as published: each recipe is named after a paper or its model, and composed of limelight's components.

A recipe returns an ordinary layer, and passes other arguments on to it: `dropout`, `num_kv_heads`, `name` ...
"""

from limelight.recipes.recurrent import bahdanau, han, luong
from limelight.recipes.transformers import (
    alibi,
    bigbird,
    gemma,
    gpt_oss,
    mistral,
    roformer,
    shaw,
    t5,
    transformer_xl,
    vaswani,
)

__all__ = [
    "alibi",
    "bahdanau",
    "bigbird",
    "gemma",
    "gpt_oss",
    "han",
    "luong",
    "mistral",
    "roformer",
    "shaw",
    "t5",
    "transformer_xl",
    "vaswani",
]
